//! Rows that break what all clusters share: nextest runs them one at a time.

mod archive;
mod clocks;
mod control_plane;
mod daemons;
mod many;
mod nats;
mod nodes;
mod steps;
