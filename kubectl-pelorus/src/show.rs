//! Results as people read them. Pure, but for [`print`].

use std::io::{self, Write};

use common::crd::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use crate::args::Form;
use crate::error::Result;

/// What stands where nothing is known.
pub const NOTHING: &str = "-";

/// Rows below a head, columns as wide as they need to be.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|text| text.chars().count());
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let padded: Vec<String> = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
        padded.join("   ").trim_end().to_owned() + "\n"
    };
    std::iter::once(&head.map(str::to_owned)).chain(rows).map(line).collect()
}

/// A name and a value a line; what has no value is left out.
pub fn facts(facts: &[(&str, Option<String>)]) -> String {
    let known = || facts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let width = known().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = known().map(|(name, value)| format!("{name:width$}   {value}\n")).collect();
    lines.concat()
}

/// A number of bytes, with a unit in which it has at most four digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10).clamp(1, 6);
    #[allow(clippy::cast_precision_loss)]
    let number = count as f64 / f64::from(1_u32 << 10).powi(i32::try_from(power).unwrap_or(1));
    let unit = usize::try_from(power - 1).ok().and_then(|at| UNITS.get(at)).copied().unwrap_or_default();
    format!("{number:.1} {unit}")
}

/// A size of Kubernetes the same way; as it is, where it cannot be read.
pub fn size(quantity: &Quantity) -> String {
    quantity::bytes(quantity).map_or_else(|_| quantity.0.clone(), bytes)
}

/// A number with a space between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let thousands = rest.as_bytes().chunks(3).map(String::from_utf8_lossy);
    std::iter::once(head.into())
        .filter(|head: &std::borrow::Cow<'_, str>| !head.is_empty())
        .chain(thousands)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Writes a result in the form that is asked for.
///
/// # Errors
/// Nobody reads.
pub fn print(form: Form, table: impl FnOnce() -> String, json: &impl Serialize) -> Result<()> {
    let text = match form {
        Form::Table => table(),
        Form::Json => serde_json::to_string_pretty(json).map_err(io::Error::other)? + "\n",
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let row = |one: &str, two: &str, three: &str| [one.to_owned(), two.to_owned(), three.to_owned()];
        assert_eq!(
            table(["NAME", "PHASE", "SIZE"], &[row("größer-als", "Failed", "-"), row("b", "", "")]),
            "NAME         PHASE    SIZE\ngrößer-als   Failed   -\nb\n"
        );
        assert_eq!(table(["A"], &[]), "A\n");
    }

    #[test]
    fn facts_that_are_not_known_are_left_out() {
        assert_eq!(
            facts(&[("a", Some("1".to_owned())), ("longest", None), ("bcd", Some("2".to_owned()))]),
            "a     1\nbcd   2\n"
        );
        assert_eq!(facts(&[]), "");
    }

    #[test]
    fn numbers_are_short() {
        for (number, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (5_368_709_120, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), wanted);
        }
        assert_eq!(size(&Quantity("2Gi".to_owned())), "2.0 GiB");
        assert_eq!(size(&Quantity("huge".to_owned())), "huge");
        for (number, wanted) in [(0, "0"), (999, "999"), (1000, "1 000"), (12_345_678, "12 345 678")] {
            assert_eq!(count(number), wanted);
        }
    }
}
