//! What the daemons of Pelorus share: names, types that cross a wall, and thin clients.

pub mod crd;
pub mod gtid;
pub mod instance;
pub mod names;
pub mod client;
pub mod events;
pub mod tls;
pub mod mysql;
pub mod sql;
pub mod guarded;
pub mod telemetry;
pub mod config;
pub mod http;
pub mod lease;
