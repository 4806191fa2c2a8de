//! MySQL accounts and databases: what is declared, what a server holds, and the statements between them.
//!
//! ```text
//! MySQLUserSpec -- wanted --> Account \
//!                                      plan --> statements, findings -- apply --> server
//!         server -- held ---> Account /
//! Secrets, held passwords --- rotate -> one step of a change of password
//! ```
//!
//! Only [`held`], [`apply`] and [`database::read`] touch a server; everything else is a function of data. The account that executes the
//! statements is `pelorus_users` (instance-d makes it): what it may not do is never planned, but named. The caller sees
//! to it that enough replicas acknowledge and that one plan at a time is executed per cluster: account statements that
//! wait for an ACK block every login (docs/failover-protocol.md).
//!
//! No password is ever in a statement: see [`password`].

pub mod apply;
pub mod database;
pub mod error;
pub mod held;
pub mod host;
pub mod mark;
pub mod model;
pub mod password;
pub mod plan;
pub mod privilege;
pub mod rotate;
pub mod statement;
pub mod wanted;

pub use self::apply::{Applied, Failure};
pub use self::error::{Error, Result};
pub use self::held::{Held, Snapshot};
pub use self::mark::{Claim, Mark};
pub use self::model::Account;
pub use self::plan::{Finding, Plan};
pub use self::statement::Statement;
pub use self::wanted::{Invalid, Wanted, wanted};
