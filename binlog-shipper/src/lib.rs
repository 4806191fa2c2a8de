//! Ships binlogs to object storage as they are written.

pub mod cut;
pub mod purge;
pub mod queue;
pub mod retire;
pub mod ship;
pub mod source;
pub mod spool;
