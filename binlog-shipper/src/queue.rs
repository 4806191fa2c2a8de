//! What was received and is not in the archive yet: when a segment is due, and which bytes it takes.
//!
//! Pure. Segments are cut between transactions only. One is due when the oldest transaction in it has waited for `flush_every`,
//! when it is large, or when its file was closed; an idle cluster has no transaction that waits, so it costs no put.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use archive::segment::earlier;
use archive::{BinlogFile, SegmentKey};
use common::binlog::Begin;
use common::gtid::GtidSet;

/// A segment that is this large is put at once.
pub const LARGE: u64 = 8 << 20;

/// Bytes between two boundaries, and their transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which bytes of which file.
    pub key: SegmentKey,
    /// What the server had executed before.
    pub basis: GtidSet,
    /// Transactions in them.
    pub gtid: GtidSet,
    /// How many.
    pub transactions: u64,
    /// Earliest commit time, microseconds since 1970; 0 without any.
    pub first_commit: u64,
    /// Latest one.
    pub last_commit: u64,
    /// When the first of them was received.
    pub since: Option<Instant>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Put these bytes, then tell with [`Queue::shipped`].
    Put(Box<Cut>),
    /// All of this file is in the archive: say so there, then tell with [`Queue::completed`].
    Complete(BinlogFile),
    /// Nothing before this moment, or before more is received.
    Wait(Option<Instant>),
}

#[derive(Clone, Debug)]
struct File {
    name: BinlogFile,
    /// Complete segments.
    cuts: VecDeque<Cut>,
    /// The one that grows: from here to the last boundary.
    first: u64,
    last: u64,
    growing: Growing,
    /// The archive has its front.
    has_front: bool,
    closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Growing {
    gtid: GtidSet,
    transactions: u64,
    first_commit: u64,
    last_commit: u64,
    since: Option<Instant>,
}

/// Files in the order in which they were received.
#[derive(Debug, Default)]
pub struct Queue {
    /// What the server had executed before all that is here.
    basis: GtidSet,
    files: VecDeque<File>,
}

impl Queue {
    /// Nothing yet, from a server that has executed these, of what the archive has.
    pub fn new(basis: GtidSet) -> Self {
        Self { basis, files: VecDeque::new() }
    }

    /// A file begins; the one before is closed, whether it said so or not.
    pub fn open(&mut self, name: BinlogFile, has_front: bool) {
        self.close();
        self.files.push_back(File::new(name, has_front));
    }

    /// All transactions of a file are in the archive: a later one of the same server has begun. Its last event, a rotation or a
    /// stop, may have been lost with the stream before.
    pub fn ended(&mut self, name: BinlogFile) {
        self.files.push_back(File { closed: true, ..File::new(name, true) });
    }

    /// Everything up to here may be cut off: the front of the file is complete.
    pub fn front(&mut self, end: u64) {
        if let Some(file) = self.files.back_mut() {
            file.last = end;
            if file.has_front {
                file.first = end;
            }
        }
    }

    /// The next transaction begins at `start`. What lies between it and the last boundary is not there.
    pub fn begins(&mut self, start: u64) {
        if let Some(file) = self.files.back_mut()
            && file.last != start
        {
            file.cut(&mut self.basis);
            (file.first, file.last) = (start, start);
        }
    }

    /// A transaction that ends at `end` was received.
    pub fn whole(&mut self, end: u64, begin: &Begin, now: Instant) {
        let Some(file) = self.files.back_mut() else { return };
        let growing = &mut file.growing;
        growing.gtid.insert(&begin.gtid);
        growing.transactions += 1;
        growing.first_commit = earlier(growing.first_commit, begin.committed_at);
        growing.last_commit = growing.last_commit.max(begin.committed_at);
        growing.since.get_or_insert(now);
        file.last = end;
        if file.last - file.first >= LARGE {
            file.cut(&mut self.basis);
        }
    }

    /// The last file ended at `end`.
    pub fn closed(&mut self, end: u64) {
        if let Some(file) = self.files.back_mut() {
            file.last = end;
        }
        self.close();
    }

    fn close(&mut self) {
        if let Some(file) = self.files.back_mut() {
            file.cut(&mut self.basis);
            file.closed = true;
        }
    }

    /// What is due.
    pub fn next(&mut self, now: Instant, flush_every: Duration) -> Next {
        let Some(file) = self.files.front_mut() else { return Next::Wait(None) };
        if file.cuts.is_empty() {
            if file.closed {
                return Next::Complete(file.name.clone());
            }
            match file.growing.since.map(|since| since + flush_every) {
                // What grows is in the last file: nothing after it was cut yet.
                Some(due) if due <= now => file.cut(&mut self.basis),
                wait @ (Some(_) | None) => return Next::Wait(wait),
            }
        }
        file.cuts.front().map_or(Next::Wait(None), |cut| Next::Put(Box::new(cut.clone())))
    }

    /// The segment that was to be put is in the archive.
    pub fn shipped(&mut self) {
        if let Some(file) = self.files.front_mut() {
            file.cuts.pop_front();
        }
    }

    /// The archive says that the file is complete.
    pub fn completed(&mut self) {
        if self.files.front().is_some_and(|file| file.closed && file.cuts.is_empty()) {
            self.files.pop_front();
        }
    }

    /// When the oldest transaction that is not in the archive was received.
    pub fn oldest(&self) -> Option<Instant> {
        let of = |file: &File| file.cuts.iter().find_map(|cut| cut.since).or(file.growing.since);
        self.files.iter().find_map(of)
    }

    /// Bytes that are not in the archive.
    pub fn bytes(&self) -> u64 {
        let of = |file: &File| file.cuts.iter().map(|cut| cut.key.length()).sum::<u64>() + file.last - file.first;
        self.files.iter().map(of).sum()
    }
}

impl File {
    fn new(name: BinlogFile, has_front: bool) -> Self {
        let (cuts, growing) = (VecDeque::new(), Growing::default());
        Self { name, cuts, first: 0, last: 0, growing, has_front, closed: false }
    }

    fn cut(&mut self, basis: &mut GtidSet) {
        if let Some(key) = SegmentKey::new(self.name.clone(), self.first, self.last) {
            let Growing { gtid, transactions, first_commit, last_commit, since } = std::mem::take(&mut self.growing);
            let cut = Cut { key, basis: basis.clone(), gtid, transactions, first_commit, last_commit, since };
            basis.extend_with(&cut.gtid);
            self.cuts.push_back(cut);
            self.first = self.last;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";
    const FLUSH: Duration = Duration::from_secs(1);

    fn name(number: u32) -> BinlogFile {
        BinlogFile { epoch: 3, server: UUID.parse().unwrap(), name: format!("binlog.{number:06}").parse().unwrap() }
    }

    fn begin(number: u32) -> Begin {
        let gtid = format!("{UUID}:{number}").parse().unwrap();
        Begin { gtid, committed_at: 1000 + u64::from(number), length: 1 }
    }

    fn put(next: Next) -> Cut {
        match next {
            Next::Put(cut) => *cut,
            other => panic!("{other:?} instead of a put"),
        }
    }

    #[test]
    fn an_idle_cluster_costs_no_put() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.next(now, FLUSH), Next::Wait(None));
        queue.open(name(1), false);
        queue.front(157);
        assert_eq!(queue.next(now + 1000 * FLUSH, FLUSH), Next::Wait(None));
        assert_eq!((queue.oldest(), queue.bytes()), (None, 157));
    }

    #[test]
    fn transactions_wait_for_each_other_and_no_longer_than_asked() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.open(name(1), false);
        queue.front(157);
        queue.begins(157);
        queue.whole(200, &begin(1), now);
        queue.whole(300, &begin(2), now + FLUSH / 2);
        assert_eq!(queue.next(now + FLUSH / 2, FLUSH), Next::Wait(Some(now + FLUSH)));
        let cut = put(queue.next(now + FLUSH, FLUSH));
        assert_eq!((cut.key.first, cut.key.last, cut.transactions), (0, 300, 2));
        assert_eq!((cut.first_commit, cut.last_commit), (1001, 1002));
        assert_eq!((cut.basis.to_string(), cut.gtid.to_string()), (String::new(), format!("{UUID}:1-2")));
        // What comes while it is put is for the next; the put is asked for until it is told.
        queue.whole(400, &begin(3), now + FLUSH);
        assert_eq!(put(queue.next(now + FLUSH, FLUSH)), cut);
        assert_eq!(queue.oldest(), Some(now));
        queue.shipped();
        assert_eq!(queue.next(now + FLUSH, FLUSH), Next::Wait(Some(now + 2 * FLUSH)));
        assert_eq!((queue.oldest(), queue.bytes()), (Some(now + FLUSH), 100));
        let next = put(queue.next(now + 2 * FLUSH, FLUSH));
        assert_eq!((next.basis, next.gtid.to_string()), (cut.gtid, format!("{UUID}:3")));
    }

    #[test]
    fn large_ones_are_due_at_once_and_what_is_behind_a_hole_is_another_segment() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.open(name(1), false);
        queue.front(157);
        queue.begins(5000);
        queue.whole(5000 + LARGE, &begin(1), now);
        let front = put(queue.next(now, FLUSH));
        assert_eq!((front.key.first, front.key.last, front.transactions, front.since), (0, 157, 0, None));
        queue.shipped();
        let cut = put(queue.next(now, FLUSH));
        assert_eq!((cut.key.first, cut.key.last), (5000, 5000 + LARGE));
    }

    #[test]
    fn a_file_whose_last_words_were_lost_is_completed_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ended(name(1));
        queue.open(name(2), false);
        queue.front(157);
        assert_eq!(queue.next(now, FLUSH), Next::Complete(name(1)));
        queue.completed();
        assert_eq!(queue.next(now, FLUSH), Next::Wait(None));
    }

    #[test]
    fn a_front_that_the_archive_has_is_left_out() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.open(name(1), true);
        queue.front(157);
        queue.begins(157);
        queue.whole(200, &begin(1), now);
        assert_eq!(put(queue.next(now + FLUSH, FLUSH)).key.first, 157);
    }

    #[test]
    fn a_closed_file_is_put_to_its_end_and_completed_before_the_next() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.open(name(1), false);
        queue.front(157);
        queue.whole(200, &begin(1), now);
        queue.closed(244);
        queue.open(name(2), false);
        queue.front(197);
        queue.whole(300, &begin(2), now);
        assert_eq!(put(queue.next(now, FLUSH)).key.last, 244);
        queue.completed();
        assert_eq!(put(queue.next(now, FLUSH)).key.last, 244, "not complete before it is shipped");
        queue.shipped();
        assert_eq!(queue.next(now, FLUSH), Next::Complete(name(1)));
        queue.completed();
        assert_eq!(queue.next(now, FLUSH), Next::Wait(Some(now + FLUSH)));
        // One that ended without a word is closed by the next.
        queue.open(name(3), false);
        assert_eq!(put(queue.next(now, FLUSH)).key.last, 300);
    }

    proptest! {
        /// Whatever comes in whatever pieces: every byte between boundaries and every transaction is put once, in order.
        #[test]
        fn everything_is_put_once(lengths in proptest::collection::vec((1_u64..LARGE * 2, 0_u64..3, any::<bool>()), 1..40)) {
            let (mut queue, mut now) = (Queue::default(), Instant::now());
            let (mut wanted, mut got, mut bytes) = (GtidSet::default(), GtidSet::default(), Vec::new());
            let mut drain = |queue: &mut Queue, now| {
                loop {
                    match queue.next(now, FLUSH) {
                        Next::Put(cut) => {
                            assert!(got.intersect(&cut.gtid).is_empty());
                            got.extend_with(&cut.gtid);
                            bytes.push((cut.key.file.name.number(), cut.key.first, cut.key.last));
                            queue.shipped();
                        }
                        Next::Complete(_) => queue.completed(),
                        Next::Wait(_) => break,
                    }
                }
            };
            let (mut file, mut end, mut expected) = (1_u32, 100, 100);
            queue.open(name(1), false);
            queue.front(100);
            for (number, (length, hole, closes)) in (1..).zip(lengths) {
                queue.begins(end + hole);
                end += hole + length;
                expected += length;
                queue.whole(end, &begin(number), now);
                wanted.insert(&begin(number).gtid);
                if closes {
                    queue.closed(end + 40);
                    expected += 40 + 100;
                    file += 1;
                    queue.open(name(file), false);
                    queue.front(100);
                    end = 100;
                }
                if length % 3 == 0 {
                    now += FLUSH;
                    drain(&mut queue, now);
                }
            }
            queue.closed(end + 40);
            expected += 40;
            drain(&mut queue, now);
            prop_assert!(queue.files.is_empty());
            prop_assert_eq!(got, wanted);
            prop_assert!(bytes.is_sorted());
            prop_assert_eq!(bytes.iter().map(|(_, first, last)| last - first).sum::<u64>(), expected);
        }
    }
}
