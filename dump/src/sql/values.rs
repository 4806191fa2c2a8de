//! Rows as SQL has them between parentheses. Pure.
//!
//! Numbers as they are, text between quotes, bytes in hexadecimal. Text of a character set that does not come back from Unicode as
//! it was stays in that, in hexadecimal. Nothing in a literal is a newline, a carriage return or a NUL: clients change those.

use common::mysql::wire::Values;

/// How the values of a column are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it came.
    Number,
    /// Between quotes, in UTF-8.
    Text {
        /// The server has to make that of it.
        converted: bool,
    },
    /// In hexadecimal.
    Bytes,
    /// In hexadecimal, of this character set.
    Foreign(String),
}

impl Form {
    /// Of a column of this `DATA_TYPE` and character set.
    pub fn of(kind: &str, charset: Option<&str>) -> Self {
        match (charset, kind) {
            (Some("utf8mb4" | "utf8mb3" | "ascii"), _)
            | (None, "json" | "date" | "datetime" | "timestamp" | "time") => Self::Text { converted: false },
            // Each of their characters is one of Unicode, and back.
            (Some("latin1" | "utf16" | "utf16le" | "utf32" | "ucs2"), _) => Self::Text { converted: true },
            (Some(other), _) => Self::Foreign(other.to_owned()),
            (
                None,
                "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "float" | "double" | "year",
            ) => Self::Number,
            (None, _) => Self::Bytes,
        }
    }

    /// What is asked for, of a column that is asked for as `name`.
    pub fn asked(&self, name: String) -> String {
        match self {
            Self::Text { converted: true } => format!("CONVERT({name} USING utf8mb4)"),
            Self::Number | Self::Text { converted: false } | Self::Bytes | Self::Foreign(_) => name,
        }
    }
}

/// Appends a row; false when its bytes are not as many values as there are forms.
pub fn append(mut row: Values<'_>, forms: &[Form], out: &mut Vec<u8>) -> bool {
    out.push(b'(');
    for (at, form) in forms.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match (row.value(), form) {
            (None, _) => return false,
            (Some(None), _) => out.extend_from_slice(b"NULL"),
            // As a number of integers it would lose its sign.
            (Some(Some(b"-0")), Form::Number) => out.extend_from_slice(b"-0e0"),
            (Some(Some(value)), Form::Number) => out.extend_from_slice(value),
            (Some(Some(value)), Form::Text { .. }) => text(value, out),
            (Some(Some(value)), Form::Bytes) => hexadecimal(value, out),
            (Some(Some(value)), Form::Foreign(charset)) => {
                out.push(b'_');
                out.extend_from_slice(charset.as_bytes());
                out.push(b' ');
                hexadecimal(value, out);
            }
        }
    }
    out.push(b')');
    row.is_empty()
}

fn hexadecimal(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        out.extend_from_slice(b"''");
    } else {
        out.extend_from_slice(b"0x");
        out.extend_from_slice(hex::encode_upper(value).as_bytes());
    }
}

/// A literal for a session in which backslashes escape, and whose character set is utf8mb4.
fn text(mut value: &[u8], out: &mut Vec<u8>) {
    // What is no UTF-8 would be refused between quotes.
    if std::str::from_utf8(value).is_err() {
        return hexadecimal(value, out);
    }
    out.push(b'\'');
    while let Some(at) = value.iter().position(|byte| escaped(*byte).is_some()) {
        let (plain, rest) = value.split_at(at);
        out.extend_from_slice(plain);
        if let Some((first, rest)) = rest.split_first() {
            out.extend([Some(b'\\'), escaped(*first)].into_iter().flatten());
            value = rest;
        }
    }
    out.extend_from_slice(value);
    out.push(b'\'');
}

/// What stands behind the backslash.
const fn escaped(byte: u8) -> Option<u8> {
    match byte {
        0 => Some(b'0'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        0x1a => Some(b'Z'),
        b'\\' | b'\'' => Some(byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = Vec::new();
        for value in values {
            match value {
                None => row.push(0xfb),
                Some(value) => {
                    row.push(u8::try_from(value.len()).unwrap());
                    row.extend_from_slice(value);
                }
            }
        }
        row
    }

    #[test]
    fn each_type_has_its_form() {
        let plain = Form::Text { converted: false };
        for (kind, charset, form) in [
            ("int", None, Form::Number),
            ("double", None, Form::Number),
            ("timestamp", None, plain.clone()),
            ("json", None, plain.clone()),
            ("varchar", Some("utf8mb4"), plain.clone()),
            ("enum", Some("utf8mb3"), plain),
            ("text", Some("latin1"), Form::Text { converted: true }),
            ("char", Some("sjis"), Form::Foreign("sjis".to_owned())),
            ("bit", None, Form::Bytes),
            ("longblob", None, Form::Bytes),
            ("vector", None, Form::Bytes),
            ("polygon", None, Form::Bytes),
        ] {
            assert_eq!(Form::of(kind, charset), form, "{kind} {charset:?}");
        }
        assert_eq!(Form::Text { converted: true }.asked("`a`".to_owned()), "CONVERT(`a` USING utf8mb4)");
    }

    #[test]
    fn a_row_is_between_parentheses() {
        let forms = [
            Form::Number,
            Form::Number,
            Form::Text { converted: false },
            Form::Bytes,
            Form::Foreign("sjis".to_owned()),
        ];
        let values: [Option<&[u8]>; 5] =
            [Some(b"-12.5"), Some(b"-0"), Some(b"it's\0\\\r\n"), Some(b"\x00\xff"), Some(b"\x95\x5c")];
        let mut out = Vec::new();
        assert!(append(Values(&row(&values)), &forms, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), r"(-12.5,-0e0,'it\'s\0\\\r\n',0x00FF,_sjis 0x955C)");
        let mut out = Vec::new();
        assert!(append(Values(&row(&[None, Some(b"7"), None, Some(b""), Some(b"")])), &forms, &mut out));
        assert_eq!(out, b"(NULL,7,NULL,'',_sjis '')");
        assert!(!append(Values(&row(&values)), &forms[..4], &mut Vec::new()));
        assert!(!append(Values(&row(&values[..4])), &forms, &mut Vec::new()));
    }

    /// As MySQL reads a literal; nothing when it does not end exactly at the end.
    fn read(literal: &[u8]) -> Option<Vec<u8>> {
        if let Some(digits) = literal.strip_prefix(b"0x") {
            return hex::decode(digits).ok();
        }
        let mut bytes = literal.strip_prefix(b"'")?.iter();
        let mut out = Vec::new();
        loop {
            match bytes.next()? {
                b'\\' => out.push(match bytes.next()? {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b'Z' => 0x1a,
                    other => *other,
                }),
                b'\'' => return bytes.next().is_none().then_some(out),
                other => out.push(*other),
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(value in proptest::collection::vec(any::<u8>(), 0..40), like in r"([\\'\x00\r\n\x1a]|.){0,20}") {
            for value in [value.as_slice(), like.as_bytes()] {
                for form in [text, hexadecimal] {
                    let mut out = Vec::new();
                    form(value, &mut out);
                    prop_assert_eq!(read(&out), Some(value.to_vec()));
                    prop_assert!(!out.iter().any(|byte| b"\0\r\n".contains(byte)));
                }
            }
        }
    }
}
