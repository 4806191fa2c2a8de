//! The cut itself: planned on disk first, so that a crash between any two steps is carried on and never half done.
//!
//! ```text
//! copy saved -> rewind.json (planned) -> truncate, sync -> marked as open -> auto.cnf removed, sync -> rewind.json (cut)
//!            -> mysqld starts with a new server UUID, rolls back -> nothing foreign: rewind.json removed
//! ```
//!
//! The UUID goes because a server that kept it would hand out the cut GTIDs again, with other content, to replicas that
//! may hold the first ones (EXPERIMENTS, "GTID reuse").

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::binlog::{IN_USE, IN_USE_AT};
use common::gtid::GtidSet;
use common::instance::Epoch;
use serde::{Deserialize, Serialize};

use super::{scan, step};
use crate::data::{Volume, remove, sync_dir};
use crate::error::{Error, Result};

/// A cut that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// Epoch of the order.
    pub epoch: Epoch,
    /// Who does not have them.
    pub source: String,
    /// Name of the binlog's last file.
    pub file: String,
    /// What is cut off begins here.
    pub position: u64,
    /// What is cut off.
    pub gtids: GtidSet,
    /// The copy of it.
    pub saved: String,
    /// Bytes of the copy.
    pub saved_bytes: u64,
    /// The UUID that goes, for people.
    pub server_uuid: String,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a cut has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Nothing may be cut yet, or all of it.
    Planned,
    /// Cut, and the UUID is gone. mysqld may start; what it says has not been checked.
    Cut,
}

impl Intent {
    /// Whether its file is as long as before the cut.
    pub fn is_uncut(&self, data: &Path) -> bool {
        let longer = fs::metadata(data.join(&self.file)).is_ok_and(|file| file.len() > self.position);
        self.stage == Stage::Planned && longer
    }
}

/// Carries a planned cut out, if there is one that was not. mysqld must not run.
///
/// # Errors
/// Files. mysqld must not be started then.
pub fn carry_on(volume: &Volume, data: &Path) -> Result<()> {
    let Some(intent) = volume.intent()?.filter(|intent| intent.stage == Stage::Planned) else { return Ok(()) };
    // mysqld begins a new file with each start: this one is the last as long as there was none.
    let path = data.join(&intent.file);
    if scan::files(data, "binlog")?.last() == Some(&path) {
        truncate(&path, intent.position)?;
    }
    step("rewind.after.cut")?;
    remove(&data.join("auto.cnf"))?;
    sync_dir(data)?;
    step("rewind.after.uuid")?;
    volume.save_intent(&Intent { stage: Stage::Cut, ..intent })?;
    step("rewind.after.recorded-cut")?;
    Ok(())
}

fn truncate(path: &Path, position: u64) -> Result<()> {
    let failed = || Error::file("cut", path);
    let file = File::options().read(true).write(true).open(path).map_err(failed())?;
    if file.metadata().map_err(failed())?.len() > position {
        file.set_len(position).map_err(failed())?;
    }
    // mysqld looks for what it has to roll back in a file that was not closed.
    let mut flags = [0];
    file.read_exact_at(&mut flags, IN_USE_AT).map_err(failed())?;
    file.write_all_at(&flags.map(|flags| flags | IN_USE), IN_USE_AT).map_err(failed())?;
    file.sync_all().map_err(failed())
}

/// The server UUID as it stands in `auto.cnf`; empty when there is none.
pub fn server_uuid(data: &Path) -> Result<String> {
    let path = data.join("auto.cnf");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        read => read.map_err(Error::file("read", path))?,
    };
    let uuid = text.lines().find_map(|line| line.trim().strip_prefix("server-uuid=")).unwrap_or_default();
    Ok(uuid.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn intent(stage: Stage) -> Intent {
        Intent {
            epoch: 3,
            source: "db-1".into(),
            file: "binlog.000002".into(),
            position: 30,
            gtids: GtidSet::default(),
            saved: "3-1".into(),
            saved_bytes: 10,
            server_uuid: "u".into(),
            stage,
        }
    }

    fn length(data: &Path) -> u64 {
        fs::metadata(data.join("binlog.000002")).unwrap().len()
    }

    #[test]
    fn a_planned_cut_is_carried_out_once() {
        let home = tempfile::tempdir().unwrap();
        let volume = Volume::new(home.path().to_owned());
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("binlog.index"), "./binlog.000001\n./binlog.000002\n").unwrap();
        fs::write(data.join("binlog.000002"), [0; 40]).unwrap();
        fs::write(data.join("auto.cnf"), "[auto]\nserver-uuid=abc\n").unwrap();
        assert_eq!(server_uuid(&data).unwrap(), "abc");
        carry_on(&volume, &data).unwrap();
        assert_eq!(length(&data), 40, "nothing is planned");
        volume.save_intent(&intent(Stage::Planned)).unwrap();
        assert!(intent(Stage::Planned).is_uncut(&data));
        carry_on(&volume, &data).unwrap();
        assert_eq!(length(&data), 30);
        assert_eq!(fs::read(data.join("binlog.000002")).unwrap().get(21), Some(&IN_USE));
        assert_eq!(server_uuid(&data).unwrap(), "");
        assert_eq!(volume.intent().unwrap(), Some(intent(Stage::Cut)));
        // The server that started meanwhile has its own UUID and its own file.
        fs::write(data.join("auto.cnf"), "[auto]\nserver-uuid=new\n").unwrap();
        carry_on(&volume, &data).unwrap();
        assert_eq!(server_uuid(&data).unwrap(), "new");
        volume.save_intent(&intent(Stage::Planned)).unwrap();
        fs::write(data.join("binlog.000002"), [0; 40]).unwrap();
        fs::write(data.join("binlog.index"), "./binlog.000002\n./binlog.000003\n").unwrap();
        carry_on(&volume, &data).unwrap();
        assert_eq!(length(&data), 40, "not the last file any more");
    }
}
