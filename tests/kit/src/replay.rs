//! Replays relay logs that somebody else has written, as a restore does.

use std::fs::{self, File};
use std::io;

use crate::mysqld::{Mysqld, Options};

impl Options {
    /// For a server that replays. `server_id` has to be in no event: an applier passes over those of its own server.
    #[must_use]
    pub fn replays(self, server_id: u32) -> Self {
        self.arg(format!("--server-id={server_id}"))
            .arg("--relay-log=relay")
            .arg("--relay-log-recovery=OFF")
            .arg("--replica-parallel-workers=4")
            .arg("--replica-preserve-commit-order=ON")
    }
}

fn name(number: usize) -> String {
    format!("relay.{:06}", number + 1)
}

impl Mysqld {
    /// Makes the relay log with this number, from 0.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn relay_log(&self, number: usize) -> io::Result<File> {
        File::create(self.datadir().join(name(number)))
    }

    /// Replays so many relay logs until all of these transactions are there.
    pub fn replay(&self, count: usize, gtids: &str) {
        let index: Vec<String> = (0..count).map(|number| format!("./{}\n", name(number))).collect();
        fs::write(self.datadir().join("relay.index"), index.concat())
            .expect("the index of the relay logs can be written");
        let replayed = self.sql(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='nobody', RELAY_LOG_FILE='{}', RELAY_LOG_POS=4; \
             START REPLICA SQL_THREAD UNTIL SQL_AFTER_GTIDS='{gtids}'; SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', 60)",
            name(0)
        ));
        if replayed.as_ref().map(|text| text.trim()) != Ok("0") {
            let state = self.sql("SHOW PROCESSLIST; SHOW REPLICA STATUS; SELECT @@gtid_executed");
            panic!("{replayed:?}: {state:?}\n{}", self.error_log());
        }
        self.sql("STOP REPLICA; RESET REPLICA ALL").expect("the applier can be stopped");
    }
}
