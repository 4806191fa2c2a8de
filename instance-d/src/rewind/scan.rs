//! What the binlog holds that it should not, and whether cutting it off would provably undo it.
//!
//! Strict: the foreign transactions are a pure tail of the last file, and the storage engine still has each of them
//! prepared or can go back to before it (EXPERIMENTS, 4 and 5): it ends in an Xid event or the end of an XA phase, or it
//! is DDL with the number of an engine transaction. Whatever else is found is refused, with the reason.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use common::binlog::{Content, Ending, Events, Group, Next, Piece, Step};
use common::gtid::{Gtid, GtidSet};

use crate::error::{Error, Result};

/// Events between two looks whether to go on.
const LOOK: usize = 1024;
/// One read of the disk.
const READ: usize = 256 * 1024;

/// Which transactions are looked for.
#[derive(Clone, Debug)]
pub enum Foreign {
    /// All but those that the source has.
    NotIn(GtidSet),
    /// These.
    In(GtidSet),
}

impl Foreign {
    fn has(&self, gtid: &Gtid) -> bool {
        match self {
            Self::NotIn(theirs) => !theirs.contains(gtid),
            Self::In(these) => these.contains(gtid),
        }
    }

    /// Those of a set that are foreign.
    fn of(&self, set: &GtidSet) -> GtidSet {
        match self {
            Self::NotIn(theirs) => set.subtract(theirs),
            Self::In(these) => set.intersect(these),
        }
    }
}

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Which file.
    pub path: PathBuf,
    /// Its length when it was opened.
    pub length: u64,
    /// Foreign transactions in the files before it.
    pub before: GtidSet,
    /// Foreign transactions in it, whole ones.
    pub foreign: GtidSet,
    /// Where the first of them begins.
    pub first: Option<u64>,
    /// Nothing that the source has comes after foreign transactions, here or in the files before.
    pub pure: bool,
    /// It was not read to its end.
    pub unreadable: bool,
    /// Why cutting would not provably undo the foreign transactions: the first reason found.
    pub refusal: Option<String>,
}

/// What to do about the last file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is foreign: mysqld cuts a torn transaction off by itself.
    Start,
    /// Cut off everything from here on.
    Cut(u64),
    /// Not provably rewindable, and why.
    Refuse(String),
}

impl Held {
    /// The rule.
    pub fn verdict(&self) -> Verdict {
        if !self.before.is_empty() {
            return Verdict::Refuse(format!("{} is not the first file with foreign transactions", self.name()));
        }
        match (&self.refusal, self.first) {
            (Some(reason), _) => Verdict::Refuse(format!("{}: {reason}", self.name())),
            (None, Some(position)) => Verdict::Cut(position),
            (None, None) => Verdict::Start,
        }
    }

    /// The file's name, for people.
    pub fn name(&self) -> String {
        name(&self.path)
    }

    fn refuse(&mut self, reason: impl Into<String>) {
        if self.refusal.is_none() {
            self.refusal = Some(reason.into());
        }
    }
}

/// Name of a file, without its folder.
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Goes through the events of one file.
#[derive(Debug)]
struct Walk<'a> {
    foreign: &'a Foreign,
    held: Held,
    open: Option<Group>,
}

impl Walk<'_> {
    fn take(&mut self, content: Content, position: u64) {
        match content {
            Content::Format => {}
            Content::Previous(set) => self.held.before = self.foreign.of(&set),
            Content::Gtid(begin) => self.begin(Some(begin.gtid), position),
            Content::Anonymous => {
                self.held.refuse(format!("a transaction without a GTID at {position}"));
                self.begin(None, position);
            }
            Content::Pieces(pieces) => {
                for piece in pieces {
                    self.piece(piece, position);
                }
            }
            Content::Rotate | Content::Stop => {
                if self.open.take().is_some() {
                    self.held.refuse(format!("the file was closed within a transaction at {position}"));
                }
                if self.held.first.is_some() {
                    // A server closes its binlog when the storage engines have committed everything in it.
                    self.held.refuse("the file was closed: its transactions are committed");
                }
            }
        }
    }

    fn begin(&mut self, gtid: Option<Gtid>, position: u64) {
        if self.open.replace(Group::new(gtid, position)).is_some() {
            self.held.refuse(format!("a transaction without an end before {position}"));
        }
    }

    fn piece(&mut self, piece: Piece, position: u64) {
        let Some(group) = &mut self.open else {
            self.held.refuse(format!("an event outside of a transaction at {position}"));
            return;
        };
        if let Step::Ends = group.take(piece)
            && let Some(Group { gtid: Some(gtid), position, lasting, .. }) = self.open.take()
        {
            self.whole(&gtid, position, lasting);
        }
    }

    fn whole(&mut self, gtid: &Gtid, position: u64, lasting: Option<String>) {
        if !self.foreign.has(gtid) {
            if self.held.first.is_some() || !self.held.before.is_empty() {
                self.held.pure = false;
                self.held.refuse(format!("{gtid} comes after foreign transactions, and the source has it"));
            }
            return;
        }
        self.held.first.get_or_insert(position);
        self.held.foreign.insert(gtid);
        if let Some(reason) = lasting {
            self.held.refuse(format!("{gtid} cannot be undone: {reason}"));
        }
    }
}

/// Goes through a file. `stop` is asked now and then.
///
/// # Errors
/// Those of reading, or [`Error::Overtaken`].
pub fn scan(path: &Path, foreign: &Foreign, stop: &dyn Fn() -> bool) -> Result<Held> {
    let (reader, length) = open(path)?;
    walk(reader, length, path, foreign, stop)
}

fn walk(reader: impl Read, length: u64, path: &Path, foreign: &Foreign, stop: &dyn Fn() -> bool) -> Result<Held> {
    let held = Held { path: path.to_owned(), length, pure: true, ..Held::default() };
    let mut walk = Walk { foreign, held, open: None };
    let mut events = Events::new(reader, length);
    let mut begun = false;
    for count in 1_usize.. {
        if count.is_multiple_of(LOOK) && stop() {
            return Err(Error::Overtaken);
        }
        match events.event().map_err(Error::file("read", path))? {
            Next::Event(event) => {
                begun |= matches!(event.content, Content::Previous(_));
                walk.take(event.content, event.position);
            }
            Next::End(position, ending) => {
                match ending {
                    // A list of earlier transactions is in every file before it is in the index.
                    Ending::Whole | Ending::Torn if begun => {}
                    Ending::Whole | Ending::Torn => {
                        walk.held.unreadable = true;
                        walk.held
                            .refuse(format!("the file ends at {position} before its list of earlier transactions"));
                    }
                    Ending::Damaged(what) => {
                        walk.held.unreadable = true;
                        walk.held.refuse(format!("the file is damaged at {position}: {what}"));
                    }
                    Ending::Encrypted => {
                        walk.held.unreadable = true;
                        walk.held.refuse("the file is encrypted, and encrypted binlogs are not rewound");
                    }
                }
                break;
            }
        }
    }
    Ok(walk.held)
}

fn open(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let length = file.metadata().map_err(Error::file("look at", path))?.len();
    Ok((BufReader::with_capacity(READ, file), length))
}

/// All files with foreign transactions, from the first of them to the last of the index. A file that tells nothing ends
/// the search backwards.
///
/// # Errors
/// As [`scan`].
pub fn range(files: &[PathBuf], foreign: &Foreign, stop: &dyn Fn() -> bool) -> Result<Vec<Held>> {
    let mut start = files.len().saturating_sub(1);
    while start > 0 {
        let Some(path) = files.get(start) else { break };
        match before(path, foreign)? {
            Some(set) if !set.is_empty() => start -= 1,
            Some(_) | None => break,
        }
    }
    files.iter().skip(start).map(|path| scan(path, foreign, stop)).collect()
}

/// Foreign transactions in the files before this one, when it tells.
fn before(path: &Path, foreign: &Foreign) -> Result<Option<GtidSet>> {
    let (reader, length) = match open(path) {
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut events = Events::new(reader, length);
    loop {
        match events.event().map_err(Error::file("read", path))? {
            Next::Event(event) => match event.content {
                Content::Previous(set) => return Ok(Some(foreign.of(&set))),
                Content::Format => {}
                _ => return Ok(None),
            },
            Next::End(..) => return Ok(None),
        }
    }
}

/// Files of a log in the data directory, in the order of its index. While mysqld replaces the index, the copy counts.
///
/// # Errors
/// No index, or a name in it that is none of the data directory.
pub fn files(data: &Path, base: &str) -> Result<Vec<PathBuf>> {
    let path = data.join(format!("{base}.index"));
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::read_to_string(data.join(format!("{base}.index_crash_safe")))
        }
        read => read,
    };
    text.map_err(Error::file("read", &path))?
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let name = line.strip_prefix("./").unwrap_or(line);
            let plain = name.strip_prefix(base).is_some_and(|rest| rest.starts_with('.')) && !name.contains('/');
            if plain {
                Ok(data.join(name))
            } else {
                let error = io::Error::new(ErrorKind::InvalidData, format!("{line:?} is none of its files"));
                Err(Error::file("understand", &path)(error))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::binlog::{Begin, Query};

    use super::*;

    const UUID: &str = "11111111-1111-1111-1111-111111111111";

    fn gtid(number: u32) -> Gtid {
        format!("{UUID}:{number}").parse().unwrap()
    }

    fn begin(number: u32) -> Content {
        Content::Gtid(Begin { gtid: gtid(number), committed_at: 0, length: 0 })
    }

    fn set(numbers: &str) -> GtidSet {
        if numbers.is_empty() { GtidSet::default() } else { format!("{UUID}:{numbers}").parse().unwrap() }
    }

    /// Transactions 1 and 2 are known.
    fn held(contents: Vec<Content>) -> Held {
        let foreign = Foreign::NotIn(set("1-2"));
        let mut walk = Walk { foreign: &foreign, held: Held { pure: true, ..Held::default() }, open: None };
        for (position, content) in (0..).zip(contents) {
            walk.take(content, position * 100);
        }
        walk.held
    }

    fn transaction(number: u32, pieces: &[Piece]) -> Vec<Content> {
        vec![begin(number), Content::Pieces(pieces.to_vec())]
    }

    const WHOLE: [Piece; 3] = [Piece::Query(Query::Begin), Piece::Change, Piece::Xid];

    #[test]
    fn a_pure_tail_is_cut_at_its_first_transaction() {
        let held = held([transaction(2, &WHOLE), transaction(3, &WHOLE), transaction(4, &WHOLE)].concat());
        assert_eq!(held.verdict(), Verdict::Cut(200));
        assert_eq!(held.foreign, set("3-4"));
    }

    #[test]
    fn nothing_foreign_is_started() {
        assert_eq!(held(transaction(2, &WHOLE)).verdict(), Verdict::Start);
        let unfinished = transaction(3, &[Piece::Query(Query::Begin), Piece::Change]);
        assert_eq!(held([transaction(1, &WHOLE), unfinished.clone()].concat()).verdict(), Verdict::Start);
        let tail = [transaction(4, &WHOLE), unfinished].concat();
        let cut = held(tail);
        assert_eq!((cut.verdict(), cut.foreign), (Verdict::Cut(0), set("4")));
        let lasting = [Piece::Query(Query::Other)];
        assert_eq!(held(transaction(1, &lasting)).verdict(), Verdict::Start, "the source has it");
    }

    #[test]
    fn endings_that_engines_undo_and_those_that_they_do_not() {
        let begin = Piece::Query(Query::Begin);
        let xa_end = Piece::Query(Query::XaEnd);
        for pieces in [
            &[begin, Piece::Change, Piece::XaPrepare][..],
            &[begin, Piece::Query(Query::Other), Piece::Xid],
            &[Piece::Query(Query::AtomicDdl)],
            &[xa_end],
        ] {
            assert_eq!(held(transaction(3, pieces)).verdict(), Verdict::Cut(0), "{pieces:?}");
        }
        for pieces in [
            &[begin, Piece::Change, Piece::Query(Query::Commit)][..],
            &[begin, Piece::Change, Piece::Query(Query::Rollback)],
            &[begin, Piece::Unknown(99), Piece::Xid],
            &[begin, Piece::Query(Query::AtomicDdl), Piece::Xid],
            &[Piece::Query(Query::Other)],
            &[Piece::Xid],
        ] {
            assert!(matches!(held(transaction(3, pieces)).verdict(), Verdict::Refuse(_)), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_no_pure_tail_is_refused() {
        let impure = held([transaction(3, &WHOLE), transaction(2, &WHOLE)].concat());
        assert!(matches!(impure.verdict(), Verdict::Refuse(_)) && !impure.pure);
        for after in [Content::Stop, Content::Rotate] {
            let closed = held([transaction(3, &WHOLE), vec![after]].concat());
            assert!(matches!(closed.verdict(), Verdict::Refuse(_)) && closed.pure);
        }
        let earlier = held([vec![Content::Previous(set("1-3"))], transaction(4, &WHOLE)].concat());
        assert!(matches!(earlier.verdict(), Verdict::Refuse(_)));
        assert_eq!(earlier.before, set("3"));
        let anonymous = held(vec![Content::Anonymous, Content::Pieces(WHOLE.to_vec())]);
        assert!(matches!(anonymous.verdict(), Verdict::Refuse(_)));
        let endless = held([vec![begin(3)], transaction(4, &WHOLE)].concat());
        assert!(matches!(endless.verdict(), Verdict::Refuse(_)));
    }

    #[test]
    fn closing_a_file_with_nothing_foreign_is_nothing() {
        assert_eq!(held([transaction(2, &WHOLE), vec![Content::Stop]].concat()).verdict(), Verdict::Start);
    }

    #[test]
    fn files_that_tell_nothing_are_refused_and_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("binlog.000001");
        for bytes in [&b"\xfdbin secret"[..], b"\xfebin", b"", b"something else"] {
            fs::write(&path, bytes).unwrap();
            let held = scan(&path, &Foreign::NotIn(set("1")), &|| false).unwrap();
            assert!(matches!(held.verdict(), Verdict::Refuse(_)) && held.unreadable, "{bytes:?}");
            assert_eq!(range(std::slice::from_ref(&path), &Foreign::NotIn(set("1")), &|| false).unwrap(), [held]);
        }
    }

    #[test]
    fn the_index_names_files_of_the_data_directory_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("binlog.index"), "./binlog.000001\nbinlog.000002\n").unwrap();
        let files = files(dir.path(), "binlog").unwrap();
        assert_eq!(files, [dir.path().join("binlog.000001"), dir.path().join("binlog.000002")]);
        for line in ["../promise.json", "/etc/passwd", "./relay.000001", "binlog.1/../../x"] {
            fs::write(dir.path().join("binlog.index"), line).unwrap();
            assert!(super::files(dir.path(), "binlog").is_err(), "{line}");
        }
        fs::rename(dir.path().join("binlog.index"), dir.path().join("binlog.index_crash_safe")).unwrap();
        assert!(super::files(dir.path(), "binlog").is_err());
        fs::write(dir.path().join("binlog.index_crash_safe"), "./binlog.000007\n").unwrap();
        assert_eq!(super::files(dir.path(), "binlog").unwrap().len(), 1);
    }
}
