//! Logical dumps: straight from MySQL into the bucket, in parallel, consistent, with an exact GTID set; and back. The files of a server
//! that does not run ([`files`]) are a dump, too.
//!
//! ```text
//! make: snapshot (N connections, one GTID set) -> schema -> chunks, biggest first -> rows -> zstd -> bucket ... -> manifest, last
//! load: manifest -> tables -> chunks (LOAD DATA LOCAL) -> indexes, keys -> views, routines, triggers, events, accounts -> counts
//! sql:  snapshot (one connection) -> schema -> one stream of statements
//! ```
//!
//! A dump without a manifest does not exist. Rows are text as `LOAD DATA` takes it, so that a person needs `zstd` and a client.

pub mod chunk;
pub mod error;
pub mod files;
pub mod load;
pub mod make;
pub mod manifest;
pub mod rows;
pub mod schema;
pub mod snapshot;
mod split;
pub mod sql;

pub use self::error::{Error, Result};
pub use self::manifest::Manifest;
