//! Servers that are filled from an archive, and what they hold.

use std::io::BufWriter;
use std::sync::atomic::{AtomicU32, Ordering};

use archive::fetch;
use archive::plan::{Target, plan};
use common::gtid::GtidSet;
use testkit::{Mysqld, Options};

use super::{Scene, executed};

/// A server that starts with nothing, and is filled from the archive.
pub fn empty(scene: &Scene) -> Mysqld {
    static LAST: AtomicU32 = AtomicU32::new(100);
    scene.another(Options::default().replays(LAST.fetch_add(1, Ordering::Relaxed)))
}

/// Replays everything that the plan says; what the server then holds.
pub async fn restore(scene: &Scene, target: &Target, mysqld: &Mysqld) -> GtidSet {
    let (held, base) = (scene.held().await, executed(mysqld));
    let plan = plan(&base, &held, target).unwrap();
    let mut count = 0;
    let written = fetch::relay_logs(&scene.store, &scene.root, &held, &plan, |number| {
        count = number + 1;
        mysqld.relay_log(number).map(BufWriter::new)
    });
    let written = written.await.unwrap();
    assert!(written.is_subset(&plan.reaches));
    if count > 0 {
        mysqld.replay(count, &written.to_string());
    }
    assert_eq!(executed(mysqld), base.union(&written), "exactly what was written, and nothing of its own");
    executed(mysqld)
}

/// Ids of all rows, in order.
pub fn rows(mysqld: &Mysqld) -> Vec<u64> {
    let rows = mysqld
        .sql("SET SESSION group_concat_max_len=1000000; SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.t")
        .unwrap();
    rows.trim().split(',').filter(|id| *id != "NULL" && !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}

/// One row a transaction, in several files.
pub fn write(mysqld: &Mysqld, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        let rotate = if id % 37 == 0 { "; FLUSH BINARY LOGS" } else { "" };
        mysqld
            .sql(&format!("INSERT INTO shop.t (id, v) VALUES ({id}, REPEAT('v', {})){rotate}", id * 7 % 500))
            .unwrap();
    }
}
