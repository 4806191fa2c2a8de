//! The grammar of a transaction in the binlog, and whether storage engines can undo it.

use super::body::Query;
use super::content::Piece;
use crate::gtid::Gtid;

/// A transaction that has begun.
#[derive(Debug)]
pub struct Group {
    /// Its GTID, if it has one.
    pub gtid: Option<Gtid>,
    /// Where it begins.
    pub position: u64,
    /// `BEGIN` was seen.
    begun: bool,
    /// Why the storage engines could not undo it.
    pub lasting: Option<String>,
}

/// How a piece leaves its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More is to come.
    GoesOn,
    /// It is whole.
    Ends,
}

impl Group {
    /// Just begun.
    pub fn new(gtid: Option<Gtid>, position: u64) -> Self {
        Self { gtid, position, begun: false, lasting: None }
    }

    /// The next piece.
    pub fn take(&mut self, piece: Piece) -> Step {
        match (piece, self.begun) {
            (Piece::Query(Query::Begin), false) => {
                self.begun = true;
                Step::GoesOn
            }
            (Piece::Change, _) | (Piece::Query(Query::Other), true) => Step::GoesOn,
            (Piece::Xid | Piece::XaPrepare, true) | (Piece::Query(Query::AtomicDdl | Query::XaEnd), false) => {
                Step::Ends
            }
            (Piece::Query(Query::Commit | Query::Rollback), _) => {
                self.lasts("it has no transaction of a storage engine (COMMIT without Xid)");
                Step::Ends
            }
            (Piece::Query(Query::Other), false) => {
                self.lasts("its statement has no transaction of a storage engine");
                Step::Ends
            }
            (Piece::Query(Query::Begin | Query::AtomicDdl | Query::XaEnd), true) => {
                self.lasts("a statement stands within it that should not");
                Step::GoesOn
            }
            (Piece::Xid | Piece::XaPrepare, false) => {
                self.lasts("it ends without having begun");
                Step::Ends
            }
            (Piece::Unknown(kind), _) => {
                self.lasts(format!("it has an event of the unknown type {kind}"));
                Step::GoesOn
            }
        }
    }

    fn lasts(&mut self, reason: impl Into<String>) {
        self.lasting.get_or_insert_with(|| reason.into());
    }
}
