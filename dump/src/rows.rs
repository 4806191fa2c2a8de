//! Rows as `LOAD DATA` takes them: values between tabs, a newline behind each row, backslashes before what would mean something
//! else, `\N` for NULL. Pure; bytes stay what they are, whatever character set they are in.

use common::mysql::wire::Values;

/// What has to be escaped: NUL, tab, newline, backslash.
#[allow(clippy::indexing_slicing, reason = "of a constant, by constants")]
const fn special() -> [u8; 256] {
    let mut table = [0; 256];
    table[0] = b'0';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[b'\\' as usize] = b'\\';
    table
}
const SPECIAL: [u8; 256] = special();

fn escaped(byte: u8) -> u8 {
    SPECIAL.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Appends a row; false when its bytes are not this many values.
pub fn append(mut row: Values<'_>, columns: usize, out: &mut Vec<u8>) -> bool {
    for column in 0..columns {
        if column > 0 {
            out.push(b'\t');
        }
        match row.value() {
            Some(Some(value)) => append_value(value, out),
            Some(None) => out.extend_from_slice(b"\\N"),
            None => return false,
        }
    }
    out.push(b'\n');
    row.is_empty()
}

fn append_value(mut value: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = value.iter().position(|byte| escaped(*byte) != 0) {
        let (plain, rest) = value.split_at(at);
        out.extend_from_slice(plain);
        if let Some((first, rest)) = rest.split_first() {
            out.extend_from_slice(&[b'\\', escaped(*first)]);
            value = rest;
        }
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut row = Vec::new();
        for value in values {
            match value {
                None => row.push(0xfb),
                Some(value) => {
                    row.push(0xfd);
                    row.extend(&u32::try_from(value.len()).unwrap_or_default().to_le_bytes()[..3]);
                    row.extend(value);
                }
            }
        }
        row
    }

    /// As the manual says that `LOAD DATA` reads a line.
    fn read(text: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
        let (mut rows, mut row, mut value, mut null) = (Vec::new(), Vec::new(), Vec::new(), false);
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => match bytes.next() {
                    Some(b'N') => null = true,
                    Some(b'0') => value.push(0),
                    Some(b't') => value.push(b'\t'),
                    Some(b'n') => value.push(b'\n'),
                    Some(other) => value.push(*other),
                    None => {}
                },
                b'\t' | b'\n' => {
                    let whole = std::mem::take(&mut value);
                    row.push((!std::mem::take(&mut null)).then_some(whole));
                    if *byte == b'\n' {
                        rows.push(std::mem::take(&mut row));
                    }
                }
                other => value.push(*other),
            }
        }
        rows
    }

    #[test]
    fn a_row_is_a_line() {
        let mut out = Vec::new();
        let values = [Some(b"a\tb\\c\n\0d'\"\r".to_vec()), None, Some(Vec::new()), Some(b"N".to_vec())];
        assert!(append(Values(&row(&values)), 4, &mut out));
        assert_eq!(out, b"a\\tb\\\\c\\n\\0d'\"\r\t\\N\t\tN\n");
        assert!(!append(Values(&row(&values)), 5, &mut Vec::new()));
        assert!(!append(Values(&row(&values)), 3, &mut Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(values in proptest::collection::vec(
            proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 3), 0..20)
        ) {
            let mut out = Vec::new();
            for value in &values {
                prop_assert!(append(Values(&row(value)), 3, &mut out));
            }
            prop_assert_eq!(read(&out), values);
        }
    }
}
