//! Versions in image references.

use std::fmt;

/// A mysqld version: major, minor, patch. A part that a tag leaves out is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: Option<u32>,
}

impl Version {
    /// Whether going from `from` to `self` goes back. A part that one side leaves out is not compared.
    pub fn is_older_than(self, from: Self) -> bool {
        match (self.major, self.minor).cmp(&(from.major, from.minor)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => matches!((self.patch, from.patch), (Some(new), Some(old)) if new < old),
        }
    }

    /// Whether Pelorus can run it: 8.4 or newer.
    pub fn is_supported(self) -> bool {
        (self.major, self.minor) >= (8, 4)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(formatter, ".{patch}"))
    }
}

/// The version in an image's tag (`mysql:9.7`, `percona/percona-server:8.4.3-3`), when there is one.
pub fn version_of_image(image: &str) -> Option<Version> {
    let name = image.split('@').next()?;
    let (_, tag) = name.rsplit_once(':')?;
    if tag.contains('/') { None } else { version(tag) }
}

/// The version at the start of a tag or of what a server says of itself (`9.7.4-debug`).
pub fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    if !(rest.is_empty() || rest.starts_with(['-', '_', '+'])) {
        return None;
    }
    let mut parts = numbers.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let patch = match parts.next() {
        Some(part) => Some(part.parse().ok()?),
        None => None,
    };
    Some(Version { major, minor, patch })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tags_are_parsed_where_they_hold_a_version() {
        for (image, expected) in [
            ("mysql:9.7", Some("9.7")),
            ("localhost/mysql:9.7.4", Some("9.7.4")),
            ("registry:5000/team/mysql:8.4.3-3", Some("8.4.3")),
            ("mysql:9.7.4@sha256:00", Some("9.7.4")),
            ("mysql:latest", None),
            ("mysql:9", None),
            ("mysql", None),
            ("registry:5000/mysql", None),
            ("mysql:9.7rc", None),
        ] {
            assert_eq!(version_of_image(image).map(|version| version.to_string()).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn older_is_judged_only_by_the_parts_that_both_sides_name() {
        for (new, old, older) in [
            ("9.7.3", "9.7.4", true),
            ("9.6", "9.7.4", true),
            ("8.4.9", "9.0.0", true),
            ("9.7", "9.7.4", false),
            ("9.7.4", "9.7.4", false),
            ("10.0", "9.7.4", false),
        ] {
            assert_eq!(version(new).unwrap().is_older_than(version(old).unwrap()), older, "{new} {old}");
        }
        assert!(version("8.4.0").unwrap().is_supported());
        assert!(!version("8.0.40").unwrap().is_supported());
    }
}
