//! What a row begins with.

use common::crd::MySQLClusterSpec;

use crate::ledger::Options;
use crate::spec;

/// What a row begins with.
pub struct Setup {
    /// The cluster.
    pub spec: MySQLClusterSpec,
    /// The writers.
    pub options: Options,
}

impl Default for Setup {
    fn default() -> Self {
        Self::of(3)
    }
}

impl Setup {
    /// A cluster of so many instances.
    pub fn of(instances: u32) -> Self {
        let mut spec = spec::small(instances);
        // Rows change the primary as often as they like.
        spec.failover.max_changes = 100;
        Self { spec, options: Options::impatient() }
    }

    /// Other writers.
    #[must_use]
    pub fn writing(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Writers that wait for their answer: what fails then was refused.
    #[must_use]
    pub fn patient(self) -> Self {
        self.writing(Options::default())
    }

    /// Volumes that can be filled, stalled and broken.
    #[must_use]
    pub fn sized(mut self) -> Self {
        let class = std::env::var("PELORUS_TEST_SIZED_CLASS").unwrap_or_else(|_| "sized".to_owned());
        self.spec.storage.storage_class_name = Some(class);
        self
    }
}
