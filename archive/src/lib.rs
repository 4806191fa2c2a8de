//! The archive: what lies in a bucket, under which key, and how it gets there and back.
//!
//! What is in the bucket is enough to rebuild a cluster when nothing else is left: no Kubernetes object is needed to read it,
//! and `zstd` with `mysqlbinlog` are enough to read its binlogs. Nothing is ever overwritten: every key says who wrote it, and
//! an object that is there already is compared instead.

pub mod catalogue;
pub mod fetch;
pub mod layout;
pub mod plan;
pub mod replay;
pub mod retain;
pub mod segment;
pub mod store;

pub use self::layout::{BinlogFile, FileName, Root, SegmentKey};
pub use self::segment::Segment;
pub use self::store::Store;
