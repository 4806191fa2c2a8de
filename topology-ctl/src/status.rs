//! The conditions of this daemon.

pub use common::conditions::Finding;
pub use common::crd::RESTORED;

/// The spec makes sense.
pub const SPEC_ACCEPTED: &str = "SpecAccepted";
/// Settings are in force on every instance.
pub const CONFIG_APPLIED: &str = "ConfigApplied";
/// Every pod has the wanted template.
pub const ROLLED_OUT: &str = "RolledOut";
/// Every instance has data.
pub const PROVISIONED: &str = "Provisioned";

/// All of them.
pub const OURS: [&str; 5] = [SPEC_ACCEPTED, CONFIG_APPLIED, ROLLED_OUT, PROVISIONED, RESTORED];
