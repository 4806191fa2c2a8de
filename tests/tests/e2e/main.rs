//! The end-to-end suite: each test is a behaviour, on a real Kubernetes with real MySQL.
//!
//! `shared` tests look at one cluster that they share; the others have a namespace of their own. Those in
//! `disturbances` break what all others need, or measure what a busy machine would spoil: nextest runs them alone.

mod api;
mod archive;
mod canaries;
mod changes;
mod cli;
mod disturbances;
mod lifecycle;
mod physical;
mod refusals;
mod repair;
mod shared;
mod verification;
