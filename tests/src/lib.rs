//! What the end-to-end tests stand on: a scene (a namespace of its own on a real Kubernetes), clusters in it, MySQL
//! sessions as a client would have them, the write ledger, and helpers for protocols and benchmarks.
//!
//! ```text
//! scene::run("name", async |scene| {
//!     let shop = scene.create("shop", spec::small(3)).await?;      apply, wait until 3/3
//!     let ledger = Ledger::start(&shop, Options::default()).await?; writers through the primary Service
//!     ...                                                           whatever the test is about
//!     ledger.finish().await?.expect_lossless(&shop).await?;         FAULTS.md: I1, I5
//!     Ok(())
//! })
//! ```
//!
//! The development cluster is used, or the one that `KUBECONFIG` names. Faults need the former.

pub mod bench;
pub mod bucket;
pub mod chaos;
pub mod cluster;
pub mod daemons;
mod diagnose;
pub mod dns;
pub mod door;
pub mod evidence;
pub mod faults;
pub mod follow;
pub mod harness;
pub mod https;
pub mod kubectl;
pub mod ledger;
pub mod nats;
pub mod node;
pub mod pace;
pub mod plaintext;
pub mod probe;
pub mod scene;
pub mod sessions;
pub mod shared;
pub mod spec;
pub mod steps;
pub mod timeline;
pub mod trial;
pub mod wire;
pub mod xprotocol;

pub use self::cluster::Cluster;
pub use self::faults::Faults;
pub use self::harness::Harness;
pub use self::ledger::Ledger;
pub use self::scene::{Scene, run};
