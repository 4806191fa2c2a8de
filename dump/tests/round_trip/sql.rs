//! The same as one stream of SQL, read by MySQL's own client.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use dump::make::Progress;
use dump::schema::Selection;
use dump::sql;
use testkit::{Mysqld, Options};

use super::{assert_same, executed, filled, lines, picture, root};

async fn written(mysqld: &Mysqld, selection: Selection) -> dump::Result<(sql::Written, String, PathBuf)> {
    let (endpoint, credentials) = root(mysqld);
    let order = sql::Order { endpoint: &endpoint, credentials: &credentials, selection: &selection };
    let (mut text, progress) = (Vec::new(), Progress::default());
    let written = sql::write(&order, &mut text, &progress).await?;
    assert_eq!(progress.rows.load(Ordering::Relaxed), written.rows);
    let file = mysqld.home().join("dump.sql");
    std::fs::write(&file, &text).unwrap();
    Ok((written, String::from_utf8(text).unwrap(), file))
}

fn empty() -> Mysqld {
    Mysqld::start(Options::default().arg("--log-bin-trust-function-creators=ON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_key_and_object_comes_back() {
    let source = filled();
    // What a client could take for commands of its own, or for the end of a statement. More of it is in the tables.
    let code = "CREATE PROCEDURE shop.q() COMMENT ';;' BEGIN SELECT ';;;\n\\! echo caught'; /* ;; */ SELECT `id` FROM shop.`zero`; END";
    source.sql(&format!("DELIMITER $$\n{code}")).unwrap();
    let (dumped, text, file) = written(&source, Selection::default()).await.unwrap();
    assert_eq!(dumped.gtid, executed(&source));
    assert!(text.contains(&format!("/* SET @@GLOBAL.GTID_PURGED='+{}'; */", dumped.gtid)));
    assert!(text.ends_with(&format!("-- Complete: {} tables, {} rows\n", dumped.tables, dumped.rows)));
    let copy = empty();
    assert_eq!(copy.read(&file).unwrap(), "", "it says nothing, and nothing of it is a command of the client");
    assert_same(&picture(&copy), &picture(&source));
    // And again from the copy: what was lost on the way would be seen now.
    let (_, again, _) = written(&copy, Selection::default()).await.unwrap();
    let body = |text: &str| -> Vec<String> { text.lines().skip(3).map(str::to_owned).collect() };
    assert_same(&body(&again), &body(&text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_rows_and_many_come_in_statements_of_bounded_size() {
    let source = empty();
    source
        .sql(
            "CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000), b LONGBLOB); \
             SET SESSION cte_max_recursion_depth=100000; \
             INSERT INTO d.a (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT REPEAT(CHAR(64 + i % 26), 1000) FROM n; \
             INSERT INTO d.a (b) VALUES (REPEAT(X'00FF', 3000000))",
        )
        .unwrap();
    let (dumped, text, file) = written(&source, Selection::default()).await.unwrap();
    assert_eq!(dumped.rows, 5001);
    let longest = text.split(";\n").filter(|statement| !statement.contains("0x")).map(str::len).max().unwrap();
    assert!((1 << 20..(1 << 20) + 4096).contains(&longest), "{longest}");
    let copy = empty();
    copy.read(&file).unwrap();
    let sum = "CHECKSUM TABLE d.a; SELECT COUNT(*) FROM d.a";
    assert_eq!(lines(&copy, sum), lines(&source, sum));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_byte_of_latin1_and_what_unicode_does_not_give_back_stays() {
    let source = empty();
    let bytes: String = (0..=255).map(|byte| format!("({byte}, X'{byte:02X}')")).collect::<Vec<_>>().join(",");
    source
        .sql(&format!(
            "CREATE DATABASE d; CREATE TABLE d.latin (id INT PRIMARY KEY, v VARCHAR(5) CHARACTER SET latin1); INSERT INTO d.latin VALUES {bytes}; \
             CREATE TABLE d.kanji (id INT PRIMARY KEY, v VARCHAR(5) CHARACTER SET cp932); \
             INSERT INTO d.kanji VALUES (1, _cp932 X'8790'), (2, _cp932 X'81E0'), (3, _cp932 X'ED40'), (4, _cp932 X'FA5C')"
        ))
        .unwrap();
    let (_, _, file) = written(&source, Selection::default()).await.unwrap();
    let copy = empty();
    copy.read(&file).unwrap();
    for table in ["latin", "kanji"] {
        let all = format!("SELECT id, HEX(v) FROM d.{table} ORDER BY id");
        assert_eq!(lines(&copy, &all), lines(&source, &all));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_out_is_not_there_and_other_engines_are_refused() {
    let source = empty();
    source
        .sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY); CREATE TABLE d.b (id INT PRIMARY KEY); CREATE DATABASE e; CREATE TABLE e.c (id INT)")
        .unwrap();
    let some = Selection { schemas: vec!["d".to_owned()], without: vec![("d".to_owned(), "a".to_owned())] };
    let (dumped, text, _) = written(&source, some).await.unwrap();
    assert_eq!((dumped.tables, dumped.rows), (1, 0));
    assert!(text.contains("CREATE TABLE `b`") && !text.contains("`a`") && !text.contains("`c`"), "{text}");
    for name in ["nosuch", "mysql"] {
        let wrong = Selection { schemas: vec!["d".to_owned(), name.to_owned()], ..Selection::default() };
        let error = written(&source, wrong).await.unwrap_err();
        assert!(error.to_string().contains(&format!("there is no schema {name}")), "{error}");
    }
    source.sql("CREATE TABLE e.m (id INT) ENGINE=MyISAM").unwrap();
    let error = written(&source, Selection::default()).await.unwrap_err();
    assert!(error.to_string().contains("e.m is MyISAM"), "{error}");
}
