//! Real mysqld processes and S3 servers for tests, on the host.
//!
//! [`root`] finds an unpacked MySQL (`make deps` makes one), [`program`] gives its programs as files that can be executed
//! although the host has neither their libraries nor their loader, [`Mysqld`] runs a server on a fresh copy of an
//! initialised data directory, [`S3`] one with an empty bucket.
//!
//! This is a crate for tests: what goes wrong panics, with the reason.

#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod mysqld;
mod replay;
mod root;
mod s3;
mod watchdog;

pub use self::mysqld::{Mysqld, Options};
pub use self::root::{program, root};
pub use self::s3::S3;
