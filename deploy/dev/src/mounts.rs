//! Mounts of this host, and unmounting whatever lies below a folder of ours.

use std::path::{Path, PathBuf};

use crate::{
    command,
    error::{Error, Result},
};

/// One line of mountinfo, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub target: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// Device or name of what is mounted.
    pub source: String,
}

/// All mounts, in the order in which they were made.
pub(crate) fn all() -> Result<Vec<Mount>> {
    let path = Path::new("/proc/self/mountinfo");
    Ok(command::read(path)?.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    // 36 35 98:0 /root /target options [optional fields] - type source superoptions (proc(5))
    let (left, right) = line.split_once(" - ")?;
    let target = unescape(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    Some(Mount { target: target.into(), kind: right.next()?.into(), source: unescape(right.next()?) })
}

/// Spaces and their like are written as `\040`.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (head, tail) = rest.split_at(at);
        result.push_str(head);
        if let Some(code) = tail.get(1..4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            result.push(char::from(code));
            rest = tail.get(4..).unwrap_or_default();
        } else {
            result.push('\\');
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    result.push_str(rest);
    result
}

/// The mount exactly at `target`.
pub(crate) fn at(target: &Path) -> Result<Option<Mount>> {
    Ok(all()?.into_iter().rev().find(|mount| mount.target == target))
}

/// Targets at or below `top`, latest first.
pub(crate) fn below(top: &Path) -> Result<Vec<PathBuf>> {
    Ok(all()?.into_iter().rev().map(|mount| mount.target).filter(|target| target.starts_with(top)).collect())
}

/// Unmounts everything at and below `top`; what is busy is detached, to go when its last user goes.
pub(crate) fn unmount_below(top: &Path) -> Result<()> {
    // Mounts may be stacked on one target, so look again until nothing is left.
    for _ in 0..20 {
        let targets = below(top)?;
        if targets.is_empty() {
            return Ok(());
        }
        for target in targets {
            if command::run("umount", [&target]).is_err() {
                let _ = command::run("umount", [Path::new("-l"), &target]);
            }
        }
    }
    Err(Error::Invalid(format!("something below {} is still mounted after trying 20 times", top.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mountinfo_is_read_with_optional_fields_and_escapes() {
        let mount = parse(r"36 35 98:0 /mnt1 /mnt/a\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw").unwrap();
        assert_eq!(mount, Mount { target: "/mnt/a b".into(), kind: "ext3".into(), source: "/dev/root".into() });
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn unescape_keeps_what_is_no_code() {
        assert_eq!(unescape(r"a\134b\x"), r"a\b\x");
    }
}
