//! Random schemas and rows: what is dumped comes back, checksum by checksum. `PELORUS_DUMP_SEED` repeats one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use archive::{Root, Store};
use common::mysql::{Credentials, Endpoint, Password};
use dump::make::Progress;
use dump::schema::Selection;
use dump::{load, make, sql};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use testkit::{Mysqld, Options, S3};

/// Schemas that are tried.
const SEEDS: u64 = 25;

/// A column's type, and values of it as SQL has them.
struct Kind {
    sql: String,
    /// Can be the first of a key as it is.
    sorts: bool,
    value: fn(&mut StdRng) -> String,
}

fn hex(random: &mut StdRng, most: usize) -> String {
    let count = random.random_range(0..=most);
    // What means something in a text is frequent.
    let byte = |random: &mut StdRng| match random.random_range(0..3) {
        0 => *b"\0\t\n\\'\"N".choose(random).unwrap(),
        _ => random.random(),
    };
    (0..count).fold(String::new(), |mut text, _| {
        let _ = write!(text, "{:02X}", byte(random));
        text
    })
}

fn text(random: &mut StdRng) -> String {
    let parts = ["a", "Z", "0", " ", "\\t", "\\n", "\\\\", "\\'", "\\0", "é", "日", "😀", "N", "%", "\\r", "\\Z", "ß"];
    let count = random.random_range(0..12);
    let text: String = (0..count).map(|_| *parts.choose(random).unwrap()).collect();
    format!("'{text}x'")
}

fn latin(random: &mut StdRng) -> String {
    format!("_latin1 X'{}'", hex(random, 18))
}

fn plain(random: &mut StdRng) -> String {
    let letters = b"abcXYZ019 _-";
    let count = random.random_range(0..10);
    let text: String = (0..count).map(|_| char::from(*letters.choose(random).unwrap())).collect();
    format!("'{text}x'")
}

fn kinds(random: &mut StdRng) -> Vec<Kind> {
    let kind = |sql: &str, sorts: bool, value: fn(&mut StdRng) -> String| Kind { sql: sql.to_owned(), sorts, value };
    let charset = *["latin1", "sjis", "gbk", "utf16", "utf32", "ucs2", "cp1251", "ascii"].choose(random).unwrap();
    vec![
        kind("TINYINT", true, |random| random.random::<i8>().to_string()),
        kind("SMALLINT UNSIGNED", true, |random| random.random::<u16>().to_string()),
        kind("MEDIUMINT", true, |random| random.random_range(-8_388_608..8_388_607).to_string()),
        kind("INT ZEROFILL", true, |random| random.random::<u32>().to_string()),
        kind("BIGINT", true, |random| random.random::<i64>().to_string()),
        kind("BIGINT UNSIGNED", true, |random| random.random::<u64>().to_string()),
        kind("DECIMAL(38,12)", true, |random| {
            format!("{}.{}", random.random::<i64>(), random.random_range(0..999_999))
        }),
        kind("FLOAT", false, |random| format!("{:e}", f32::from_bits(random.random_range(0x0080_0000..0x7f7f_ffff)))),
        kind("DOUBLE", false, |random| {
            let bits = random.random_range(0x0010_0000_0000_0000..0x7fef_ffff_ffff_ffff_u64);
            format!("{:e}", f64::from_bits(bits))
        }),
        kind("BIT(17)", true, |random| random.random_range(0..1 << 17).to_string()),
        kind("DATE", true, |random| {
            format!(
                "'{:04}-{:02}-{:02}'",
                random.random_range(1000..9999),
                random.random_range(1..13),
                random.random_range(1..29)
            )
        }),
        kind("DATETIME(6)", true, |random| {
            format!(
                "'2026-11-{:02} 23:59:{:02}.{:06}'",
                random.random_range(1..30),
                random.random_range(0..60),
                random.random_range(0..1_000_000)
            )
        }),
        kind("TIMESTAMP(3) NULL", true, |random| format!("FROM_UNIXTIME({})", random.random_range(1..2_147_483_647))),
        kind("TIME(2)", true, |random| {
            format!(
                "'{}:{:02}:{:02}.5'",
                random.random_range(-838..838),
                random.random_range(0..60),
                random.random_range(0..59)
            )
        }),
        kind("YEAR", true, |random| random.random_range(1901..2155).to_string()),
        kind("VARCHAR(60) COLLATE utf8mb4_bin", true, text),
        kind("CHAR(30) COLLATE utf8mb4_general_ci", true, text),
        kind("VARCHAR(40) CHARACTER SET latin1", true, latin),
        Kind { sql: format!("VARCHAR(30) CHARACTER SET {charset}"), sorts: true, value: plain },
        kind("BINARY(8)", true, |random| format!("X'{}'", hex(random, 8))),
        kind("VARBINARY(40)", true, |random| format!("X'{}'", hex(random, 40))),
        kind("TINYBLOB", false, |random| format!("X'{}'", hex(random, 200))),
        kind("MEDIUMTEXT COLLATE utf8mb4_0900_ai_ci", false, text),
        kind("LONGBLOB", false, |random| format!("REPEAT(X'{}', {})", hex(random, 50), random.random_range(0..5000))),
        kind("ENUM('a','b c','ü','''')", true, |random| random.random_range(1..5).to_string()),
        kind("SET('x','y','z','ü')", true, |random| random.random_range(0..16).to_string()),
        kind("JSON", false, |random| {
            format!(
                "JSON_OBJECT('k', {}, 'n', {}, 'a', JSON_ARRAY(1, NULL, TRUE))",
                text(random),
                random.random::<i32>()
            )
        }),
        kind("GEOMETRY", false, |random| {
            format!("ST_GeomFromText('POINT({} {})')", random.random_range(-180..180), random.random_range(-90..90))
        }),
        kind("VECTOR(2)", false, |random| {
            format!("TO_VECTOR('[{},{}]')", random.random_range(-9.0..9.0_f32), random.random::<i16>())
        }),
    ]
}

/// A table and its rows.
fn table(random: &mut StdRng, name: &str) -> String {
    let mut columns: Vec<Kind> = Vec::new();
    for _ in 0..random.random_range(1..9) {
        let mut all = kinds(random);
        columns.push(all.swap_remove(random.random_range(0..all.len())));
    }
    let mut lines: Vec<String> =
        columns.iter().enumerate().map(|(at, kind)| format!("`c {at}` {}", kind.sql)).collect();
    let sorting: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].sorts).collect();
    let counts = random.random_bool(0.4);
    if counts {
        lines.insert(0, "id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY".to_owned());
    } else if random.random_bool(0.6) && !sorting.is_empty() {
        let some: Vec<&usize> = sorting.sample(random, 2).collect();
        for at in &some {
            let is_null = lines[**at].contains(" NULL");
            lines[**at] =
                if is_null { lines[**at].replace(" NULL", " NOT NULL") } else { format!("{} NOT NULL", lines[**at]) };
        }
        let names: Vec<String> = some.iter().map(|at| format!("`c {at}`")).collect();
        lines.push(format!("PRIMARY KEY ({})", names.join(",")));
    }
    for (number, at) in sorting.sample(random, 3).enumerate() {
        let order = ["", " DESC"].choose(random).unwrap();
        lines.push(format!("KEY `k{number}` (`c {at}`{order})"));
    }
    if let Some(at) = (0..columns.len()).find(|at| columns[*at].sql.contains("TEXT")) {
        lines.push(format!("FULLTEXT KEY words (`c {at}`)"));
    }
    if let Some(at) = (0..columns.len()).find(|at| columns[*at].sql.ends_with("INT")) {
        lines.push(format!(
            "g BIGINT GENERATED ALWAYS AS (`c {at}` + 1) {}",
            ["VIRTUAL", "STORED"].choose(random).unwrap()
        ));
        lines.push(format!("CHECK (`c {at}` IS NULL OR `c {at}` < 9223372036854775807)"));
    }
    // What MySQL cannot make is no test.
    let mut sql = format!("CREATE TABLE `{name}` ({});", lines.join(", "));
    let names: Vec<String> = (0..columns.len()).map(|at| format!("`c {at}`")).collect();
    for _ in 0..random.random_range(0..40) {
        let values: Vec<String> = columns
            .iter()
            .map(|kind| if random.random_bool(0.15) { "NULL".to_owned() } else { (kind.value)(random) })
            .collect();
        let _ = write!(sql, "INSERT IGNORE INTO `{name}` ({}) VALUES ({});", names.join(","), values.join(","));
    }
    sql
}

fn picture(mysqld: &Mysqld, tables: usize) -> String {
    let one =
        |at: usize| format!("CHECKSUM TABLE r.`t {at}`; SELECT COUNT(*) FROM r.`t {at}`; SHOW CREATE TABLE r.`t {at}`");
    let all: Vec<String> = (0..tables).map(one).collect();
    mysqld.sql(&all.join(";")).unwrap().replace("CHARACTER SET utf8mb4 COLLATE", "COLLATE")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_schemas_come_back() {
    let (source, copy) = (Mysqld::start(Options::default()), Mysqld::start(Options::default()));
    let script = source.home().join("dump.sql");
    let s3 = S3::start();
    let store = Store::new(&serde_json::from_str(&s3.location("")).unwrap()).unwrap();
    let root = Root::new("", "n", "c", "u");
    let credentials = Credentials::new("root", Password::default());
    let seeds: Vec<u64> = match std::env::var("PELORUS_DUMP_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let random = &mut StdRng::seed_from_u64(seed);
        let tables = random.random_range(1..5);
        source.sql("DROP DATABASE IF EXISTS r; CREATE DATABASE r").unwrap();
        for at in 0..tables {
            let sql = table(random, &format!("t {at}"));
            let made = source.sql(&format!("SET SESSION sql_mode='', time_zone='+00:00'; USE r; {sql}"));
            assert!(made.is_ok(), "seed {seed}: {made:?}: {sql}");
        }
        let order = make::Order {
            endpoint: &Endpoint::Socket(source.socket()),
            credentials: &credentials,
            connections: 2,
            selection: Selection { schemas: vec!["r".to_owned()], ..Selection::default() },
            store: &store,
            root: &root,
        };
        let made = make::make(&order, &make::new_id(), &Progress::default()).await;
        let made = made.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        copy.sql("DROP DATABASE IF EXISTS r").unwrap();
        let done = AtomicU64::new(0);
        let order = load::Order {
            endpoint: &Endpoint::Socket(copy.socket()),
            credentials: &credentials,
            connections: 2,
            store: &store,
            done: &done,
        };
        let loaded = load::load(&order, &made.manifest).await;
        loaded.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(picture(&copy, tables), picture(&source, tables), "seed {seed}");

        let selection = Selection { schemas: vec!["r".to_owned()], ..Selection::default() };
        let endpoint = Endpoint::Socket(source.socket());
        let order = sql::Order { endpoint: &endpoint, credentials: &credentials, selection: &selection };
        let mut text = Vec::new();
        let written = sql::write(&order, &mut text, &Progress::default()).await;
        written.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        std::fs::write(&script, text).unwrap();
        copy.sql("DROP DATABASE r").unwrap();
        copy.read(&script).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(picture(&copy, tables), picture(&source, tables), "seed {seed}, as SQL");
    }
}
