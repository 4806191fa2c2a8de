//! What a dump holds, as it is written beside it. Readers refuse what they do not know.
//!
//! ```text
//! <root>dumps/<id>/schema.jsonl.zst            a `Statement` a line, in the order of their execution
//! <root>dumps/<id>/accounts.jsonl.zst          the same of accounts
//! <root>dumps/<id>/data/<table>/<piece>.tsv.zst
//! <root>dumps/<id>/files/<file>/<offset>.zst   of a physical one, in the place of all of these
//! <root>dumps/<id>/manifest.json               last: a dump without one does not exist
//! ```
//!
//! In the place of a manifest stands [`GIVEN_UP`] once somebody else has given a dump up: who was paused in the middle of it, and wakes,
//! cannot finish it any more, since puts are conditional.

use common::gtid::GtidSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::DataFile;

/// Version of the format.
pub const VERSION: u32 = 1;
/// Version of the format of a physical dump.
pub const PHYSICAL: u32 = 2;

/// What stands in the place of the manifest of a dump that will never be one.
pub const GIVEN_UP: &[u8] = b"{\"givenUp\": true}\n";

/// A dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`VERSION`] or [`PHYSICAL`].
    pub version: u32,
    /// Name of the dump in its archive.
    pub id: String,
    /// `server_uuid` of the server that was read.
    pub server: String,
    /// Its version.
    pub server_version: String,
    /// What the dump holds, exactly; of some schemas or without some tables: the moment that it is of.
    pub gtid: GtidSet,
    /// Everything is in it: a restore can begin with it.
    pub whole: bool,
    /// When the snapshot was taken, microseconds since 1970 by the server's clock.
    pub taken_at: u64,
    /// Definitions of schemas, tables, views, routines, triggers and events.
    #[serde(default, skip_serializing_if = "Blob::is_none")]
    pub schema: Blob,
    /// Accounts, roles and grants.
    #[serde(default, skip_serializing_if = "Blob::is_none")]
    pub accounts: Blob,
    /// Tables with their rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// Of a physical dump: the files of the data directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<DataFile>,
}

impl Manifest {
    /// Whether it is one of files.
    pub fn is_physical(&self) -> bool {
        self.version == PHYSICAL
    }

    /// Rows; of files nobody has counted them.
    pub fn rows(&self) -> Option<u64> {
        (!self.is_physical()).then(|| self.pieces().map(|piece| piece.rows).sum())
    }

    /// Bytes before compression.
    pub fn bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.bytes).sum::<u64>() + self.files.iter().map(|file| file.bytes).sum::<u64>()
    }

    /// Bytes of the objects.
    pub fn stored(&self) -> u64 {
        let files = self.files.iter().flat_map(|file| &file.pieces).map(|piece| piece.blob.stored);
        self.pieces().map(|piece| piece.blob.stored).sum::<u64>() + files.sum::<u64>()
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.tables.iter().flat_map(|table| &table.pieces)
    }
}

/// A manifest that is in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub manifest: Manifest,
    /// The object that it is.
    pub blob: Blob,
}

/// An object of the dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// Its key.
    pub key: String,
    /// Bytes of the object.
    pub stored: u64,
    /// SHA-256 of the object, hexadecimal.
    pub sha256: String,
}

impl Blob {
    /// There is no such object.
    pub fn is_none(&self) -> bool {
        self.key.is_empty()
    }

    /// Of an object with this content.
    pub fn of(key: impl Into<String>, body: &[u8]) -> Self {
        Self { key: key.into(), stored: body.len() as u64, sha256: hex::encode(Sha256::digest(body)) }
    }
}

/// A table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns that are in the pieces, in order: generated ones are not.
    pub columns: Vec<Column>,
    /// How many rows.
    pub rows: u64,
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `DATA_TYPE` of the information schema, in lower case.
    pub kind: String,
}

/// A part of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// The object.
    #[serde(flatten)]
    pub blob: Blob,
    /// Rows in it.
    pub rows: u64,
    /// Bytes before compression.
    pub bytes: u64,
}

/// What a statement makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A schema.
    Schema,
    /// A table, without what is added when its rows are there.
    Table,
    /// Indexes of a table, when its rows are there.
    Index,
    /// Foreign keys of a table, when all tables have their indexes.
    ForeignKey,
    /// A function or procedure.
    Routine,
    /// A view.
    View,
    /// A trigger.
    Trigger,
    /// An event.
    Event,
    /// A role or user.
    Account,
    /// What a role or user may do.
    Grant,
}

/// A statement, and what has to be so when it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// What it makes.
    pub kind: Kind,
    /// The schema that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of what it makes, for people.
    pub name: String,
    /// `sql_mode`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_mode: Option<String>,
    /// `time_zone`; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// `collation_connection`; absent: the server's for utf8mb4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// The text.
    pub text: String,
}

impl Statement {
    /// One that depends on nothing.
    pub fn new(kind: Kind, name: impl Into<String>, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        Self { kind, schema: None, name, sql_mode: None, time_zone: None, collation: None, text }
    }
}
