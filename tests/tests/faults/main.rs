//! The fault suite: one test a row of the project's fault list, named after it. Each has a cluster of its own, writers
//! through the primary Service, and ends with the verdict of `tests::trial`.
//!
//! Rows in `alone` break what all clusters share (nodes, the API server, daemons, NATS, DNS): nextest runs them one at a
//! time. Waits that the list gives in minutes are constants at the top of each file, shorter than there.

mod alone;
mod changes;
mod control;
mod crash;
mod cut;
mod hang;
mod refuse;
mod sessions;
mod volumes;
