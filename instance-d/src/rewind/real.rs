//! The scanner over binlogs that a real mysqld wrote.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use common::gtid::GtidSet;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use testkit::{Mysqld, Options};

use super::scan::{Foreign, Held, Verdict, files, range, scan};

fn never() -> bool {
    false
}

fn executed(mysqld: &Mysqld) -> GtidSet {
    mysqld.sql("SELECT @@gtid_executed").unwrap().replace("\\n", "").parse().unwrap()
}

/// What the statements made, and what the scanner says when just that is foreign.
fn verdict(mysqld: &Mysqld, statements: &str) -> (Verdict, GtidSet) {
    let before = executed(mysqld);
    mysqld.sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
    let made = executed(mysqld).subtract(&before);
    let files = files(&mysqld.datadir(), "binlog").unwrap();
    let held = scan(files.last().unwrap(), &Foreign::In(made.clone()), &never).unwrap();
    assert_eq!(held.foreign, made, "{statements}");
    (held.verdict(), made)
}

/// Statements, and whether their tail can be cut off.
const STATEMENTS: &[(&str, bool)] = &[
    ("CREATE DATABASE t", true),
    ("CREATE TABLE t.a (id INT PRIMARY KEY, x LONGTEXT)", true),
    ("INSERT INTO t.a VALUES (1, 'x')", true),
    (
        "BEGIN; INSERT INTO t.a VALUES (2, REPEAT('y', 300000)); UPDATE t.a SET x='z'; SAVEPOINT s; DELETE FROM t.a WHERE id=1; COMMIT",
        true,
    ),
    ("SET SESSION binlog_transaction_compression=ON; INSERT INTO t.a VALUES (3, REPEAT('y', 300000))", true),
    ("SET SESSION gtid_next='AUTOMATIC:a_tag'; INSERT INTO t.a VALUES (4, '')", true),
    ("SET SESSION gtid_next='AUTOMATIC:a_tag'; CREATE TABLE t.b LIKE t.a", true),
    ("SET SESSION binlog_row_image=MINIMAL, binlog_rows_query_log_events=ON; UPDATE t.a SET x='m'", true),
    ("CREATE TABLE t.c AS SELECT * FROM t.a", true),
    ("ALTER TABLE t.c ADD COLUMN y INT; ALTER TABLE t.c ENGINE=InnoDB; RENAME TABLE t.c TO t.d; TRUNCATE t.d", true),
    ("DROP TABLE t.d", true),
    ("CREATE USER u; GRANT SELECT ON t.* TO u; SET PASSWORD FOR u='p'; DROP USER u", true),
    ("CREATE PROCEDURE t.p() SELECT 1", true),
    ("XA START 'x'; INSERT INTO t.a VALUES (5, ''); XA END 'x'; XA PREPARE 'x'", true),
    ("XA COMMIT 'x'", true),
    ("XA START 'y','b',7; INSERT INTO t.a VALUES (6, ''); XA END 'y','b',7; XA COMMIT 'y','b',7 ONE PHASE", true),
    ("XA START 'z'; INSERT INTO t.a VALUES (7, ''); XA END 'z'; XA PREPARE 'z'; XA ROLLBACK 'z'", true),
    (
        "SET SESSION gtid_next='AUTOMATIC:t2', binlog_transaction_compression=ON; INSERT INTO t.a VALUES (8, REPEAT('c', 9000))",
        true,
    ),
    ("CREATE TABLE t.m (id INT) ENGINE=MyISAM", false),
    ("INSERT INTO t.m VALUES (1)", false),
    ("TRUNCATE t.m", false),
    ("SET SESSION binlog_transaction_compression=ON; INSERT INTO t.m VALUES (2)", false),
    ("DROP TABLE t.m", false),
    ("ANALYZE TABLE t.a", false),
    ("FLUSH TABLES", false),
];

fn everything(options: Options) -> Mysqld {
    let mysqld = Mysqld::start(options);
    for (statements, expected) in STATEMENTS {
        let (verdict, _) = verdict(&mysqld, statements);
        assert_eq!(matches!(verdict, Verdict::Cut(_)), *expected, "{statements}: {verdict:?}");
    }
    mysqld
}

fn whole(data: &Path, foreign: &Foreign) -> Vec<Held> {
    range(&files(data, "binlog").unwrap(), foreign, &never).unwrap()
}

#[test]
fn every_kind_of_transaction_is_classified() {
    let mut mysqld = everything(Options::default());
    let all = executed(&mysqld);
    let everything = Foreign::NotIn(GtidSet::default());
    let held = whole(&mysqld.datadir(), &everything);
    assert_eq!(held.iter().fold(GtidSet::default(), |all, held| all.union(&held.foreign)), all);

    // A tail over several files: never cut, found from its first file on.
    let (_, first) = verdict(&mysqld, "INSERT INTO t.a VALUES (20, '')");
    mysqld.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS").unwrap();
    let (in_last, second) = verdict(&mysqld, "SET SESSION gtid_next='AUTOMATIC:late'; INSERT INTO t.a VALUES (21, '')");
    assert!(matches!(in_last, Verdict::Cut(_)));
    let tail = Foreign::NotIn(all.clone());
    let held = whole(&mysqld.datadir(), &tail);
    assert_eq!(held.len(), 3);
    assert_eq!((&held[0].foreign, &held[2].foreign, &held[2].before), (&first, &second, &first));
    assert!(matches!(held[2].verdict(), Verdict::Refuse(_)) && held.iter().all(|held| held.pure));
    // Not a tail: the source has the second.
    let held = whole(&mysqld.datadir(), &Foreign::NotIn(all.union(&second)));
    assert!(!held[2].pure);

    // Killed: the file was not closed. Stopped: it was, and what it holds is committed.
    let all = executed(&mysqld);
    let (_, last) = verdict(&mysqld, "INSERT INTO t.a VALUES (22, '')");
    mysqld.kill();
    let killed = whole(&mysqld.datadir(), &Foreign::NotIn(all.clone())).pop().unwrap();
    assert!(matches!(killed.verdict(), Verdict::Cut(_)));
    mysqld.run();
    mysqld.sql("INSERT INTO t.a VALUES (23, '')").unwrap();
    let all = all.union(&last);
    mysqld.stop();
    let stopped = whole(&mysqld.datadir(), &Foreign::NotIn(all)).pop().unwrap();
    assert!(matches!(stopped.verdict(), Verdict::Refuse(reason) if reason.contains("closed")));
}

#[test]
fn files_without_checksums_and_torn_ones() {
    let options = Options::default().arg("--binlog-checksum=NONE").arg("--max-binlog-size=1G");
    let mut mysqld = everything(options);
    mysqld.kill();
    let path = files(&mysqld.datadir(), "binlog").unwrap().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let held = scan(&path, &Foreign::NotIn(GtidSet::default()), &never).unwrap();
    let all = held.foreign.clone();
    let start = usize::try_from(held.first.unwrap()).unwrap();
    // Wherever the file ends, what is whole before is found, and what is cut begins at the same place.
    let mut runner = TestRunner::deterministic();
    let torn = mysqld.home().join("torn.000001");
    runner
        .run(&(start..bytes.len()), |end| {
            fs::write(&torn, &bytes[..end]).unwrap();
            let held = scan(&torn, &Foreign::NotIn(GtidSet::default()), &never).unwrap();
            prop_assert!(held.foreign.is_subset(&all) && !held.unreadable, "{end}: {held:?}");
            prop_assert!(held.first.is_none_or(|first| first == start as u64));
            Ok(())
        })
        .unwrap();
    // Whatever bytes change, it says something.
    let changes = prop::collection::vec((0..bytes.len(), any::<u8>()), 1..20);
    runner
        .run(&changes, |changes| {
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            fs::write(&torn, &bytes).unwrap();
            let _ = scan(&torn, &Foreign::NotIn(all.clone()), &never);
            Ok(())
        })
        .unwrap();
}
