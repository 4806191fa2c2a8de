//! What the daemons of Pelorus share: names, types that cross a wall, and thin clients.

pub mod access;
pub mod binlog;
pub mod client;
pub mod clock;
pub mod clusters;
pub mod conditions;
pub mod config;
pub mod crd;
pub mod daemon;
pub mod events;
pub mod failpoint;
pub mod gtid;
pub mod guarded;
pub mod http;
pub mod instance;
pub mod lease;
pub mod location;
pub mod mysql;
pub mod names;
pub mod read;
pub mod source;
pub mod sql;
pub mod telemetry;
pub mod tls;
