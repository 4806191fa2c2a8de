//! The shipped [`decide`](super::decide), explored in a small world: all states within small bounds (exhaustive.rs, with
//! stateright), random walks with seeds beyond (walks.rs), and from both, what becomes of it when the disturbances stop
//! (calm.rs). Invariants 1 to 6 of docs/architecture.md are looked at in every state and step (rules.rs). Decisions and
//! instances that are broken on purpose have to be caught (sabotaged.rs). What was found stands in found.rs and below it.
//!
//! ```text
//! what controllers know (heard.rs) -> Observed -> decide, as it ships (mind.rs) -> a record, by compare-and-swap (steps.rs)
//!         ^                                                                     \-> orders (orders.rs), obeyed in steps (carry.rs)
//!         +---- instances: volume, instance-d, mysqld (server.rs), replication and commits (world.rs) <-- faults.rs
//! ```
//!
//! # What the world has
//!
//! - **Instances**: on the volume the promise with its role, the name of the data, `auto.cnf`, the engine, the relay log, the
//!   binlog's tail (transactions that wait, or were left by a crash), account locks, the replication channel; in memory
//!   what mysqld forgets. Which orders are obeyed is instance-d's own [`accept`](instance_decide::accept); what an order
//!   does is told again here, step by step, as `instance-d/src/orders` does it, and so is the promise. Steps are atomic
//!   where the bounds say so, otherwise everything else happens between them.
//! - **Replication** one transaction at a time: received, flushed, acknowledged where that is switched on and the account
//!   is not locked; applied; committed when enough have acknowledged.
//! - **A network that comes apart**: the fewer instances on one side reach each other, and no prompt controller. Each
//!   controller may also be deaf to an instance by itself.
//! - **Restarts**: mysqld dies, pods vanish and come back, leave cleanly or not. Recovery commits a tail when an order starts
//!   mysqld, unless a follow order has cut it off, which takes a new server UUID. A transaction is its GTID: a number that is
//!   handed out again shows.
//! - **Lost volumes**: the promise is gone, too. Orders on their way to the old pod are lost with its address. topology-ctl
//!   clones over what is empty, or failed and saved, once it is neither primary nor recorded.
//! - **Two kinds of controllers**. A prompt one sees what is there, but for instances that it is deaf to, and acts at once. A
//!   slow one has a record, a wish and states that it read at some time, each on its own, and takes them for recent: it was
//!   paused, or its connections are slow. Orders may also be on their way for as long as they like, and arrive twice.
//!   Nobody but the compare-and-swap, the promises and `decide` keeps them apart.
//! - **Time** is what a controller takes it for: nothing has lasted (`Prompt`), an operation some seconds (`Patient`),
//!   everything an hour (`Late`). A primary that lives is taken for hung (`Wary`).
//! - **People**: another primary, fewer and more instances, fences by hand, `durability: Available`.
//!
//! # What it leaves out, and why that is safe
//!
//! - *Lag*: an acker is always close enough (`decide` allows 2000 transactions). The world allows more than what ships.
//! - *Clocks*: every order of events within a mood is possible, however unlikely in time. More than what ships, again.
//! - *Accepted losses*: a person gives up invariant 1. Tables in tests.rs.
//! - *Anti-flap window, hibernation*: they only take decisions away.
//! - *Partly received transactions, torn files, fsync*: real mysqld processes in instance-d/tests; what is received is what
//!   MySQL says of whole transactions.
//! - *Errors of the applier, writes past Pelorus*: tables in tests.rs, and instance-d/tests.
//! - *A mysqld that hangs and comes back to life*: it is one that others do not hear (`Isolate`), or that is taken for hung.
//! - *topology-ctl's own delays*: it acts on what is recorded now. What it checks (`dataId`) would refuse a late order.
//!
//! `PELORUS_EXPLORE=long` goes deeper and walks more; `PELORUS_SEED` takes one walk again. Every run prints its counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod bounds;
mod calm;
mod carry;
mod command;
mod exhaustive;
mod facts;
mod faults;
mod found;
mod heard;
/// Which orders an instance obeys: the shipped rules, not a copy.
#[path = "../../../../instance-d/src/decide.rs"]
#[allow(dead_code)]
mod instance_decide;
mod mind;
mod model;
mod orders;
mod possible;
mod rules;
mod sabotage;
mod sabotaged;
mod scenes;
mod server;
mod sets;
mod steps;
mod walks;
mod world;

/// Whether there is time for more.
fn long() -> bool {
    std::env::var("PELORUS_EXPLORE").is_ok_and(|value| value == "long")
}
