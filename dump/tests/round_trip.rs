//! What is dumped comes back, on real servers and a real bucket.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "round_trip/sql.rs"]
mod sql;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use archive::{Root, Store};
use common::gtid::GtidSet;
use common::mysql::{Credentials, Endpoint, Password};
use dump::make::Progress;
use dump::manifest::Manifest;
use dump::schema::Selection;
use dump::{load, make};
use testkit::{Mysqld, Options, S3};

struct Bucket {
    s3: S3,
    store: Store,
    root: Root,
}

impl Bucket {
    fn new() -> Self {
        let s3 = S3::start();
        let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
        Self { s3, store, root: Root::new("prod", "team-a", "shop", "uid") }
    }

    async fn dump(&self, mysqld: &Mysqld, selection: Selection) -> dump::Result<Manifest> {
        self.dump_as(&make::new_id(), mysqld, selection).await
    }

    async fn dump_as(&self, id: &str, mysqld: &Mysqld, selection: Selection) -> dump::Result<Manifest> {
        let (endpoint, credentials) = root(mysqld);
        let order = make::Order {
            endpoint: &endpoint,
            credentials: &credentials,
            connections: 4,
            selection,
            store: &self.store,
            root: &self.root,
        };
        Ok(make::make(&order, id, &Progress::default()).await?.manifest)
    }

    async fn load(&self, mysqld: &Mysqld, manifest: &Manifest) -> dump::Result<()> {
        let (endpoint, credentials) = root(mysqld);
        let done = AtomicU64::new(0);
        let order = load::Order {
            endpoint: &endpoint,
            credentials: &credentials,
            connections: 3,
            store: &self.store,
            done: &done,
        };
        load::load(&order, manifest).await
    }
}

fn root(mysqld: &Mysqld) -> (Endpoint, Credentials) {
    (Endpoint::Socket(mysqld.socket()), Credentials::new("root", Password::default()))
}

fn lines(mysqld: &Mysqld, sql: &str) -> Vec<String> {
    mysqld.sql(sql).unwrap().lines().map(str::to_owned).collect()
}

/// What two servers are compared by: checksums of all tables, and all definitions.
fn picture(mysqld: &Mysqld) -> Vec<String> {
    let user = "NOT IN ('mysql','sys','performance_schema','information_schema')";
    let mut picture = lines(
        mysqld,
        &format!(
            "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME {user} ORDER BY 1"
        ),
    );
    let tables = lines(
        mysqld,
        &format!(
            "SELECT CONCAT('`', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`', REPLACE(TABLE_NAME, '`', '``'), '`') FROM information_schema.TABLES WHERE TABLE_SCHEMA {user} AND TABLE_TYPE='BASE TABLE' ORDER BY 1"
        ),
    );
    // The client writes what it prints with backslashes.
    let plain = |name: &String| name.replace("\\\\", "\0").replace("\\n", "\n").replace('\0', "\\");
    for table in tables.iter().map(plain) {
        picture.extend(lines(
            mysqld,
            &format!("CHECKSUM TABLE {table}; SHOW CREATE TABLE {table}; SELECT COUNT(*) FROM {table}"),
        ));
    }
    for (kind, source, column) in
        [("VIEW", "VIEWS", "TABLE"), ("TRIGGER", "TRIGGERS", "TRIGGER"), ("EVENT", "EVENTS", "EVENT")]
    {
        let names = lines(
            mysqld,
            &format!(
                "SELECT CONCAT('`', {column}_SCHEMA, '`.`', {column}_NAME, '`') FROM information_schema.{source} WHERE {column}_SCHEMA {user} ORDER BY 1"
            ),
        );
        for name in names {
            let shown = lines(mysqld, &format!("SHOW CREATE {kind} {name}"));
            // When a trigger was made is no part of it.
            picture.extend(shown.iter().map(|line| {
                line.rsplit_once('\t')
                    .filter(|_| kind == "TRIGGER")
                    .map_or(line.as_str(), |(front, _)| front)
                    .to_owned()
            }));
        }
    }
    picture.extend(lines(mysqld, &format!("SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, ROUTINE_DEFINITION, SQL_MODE, DEFINER, IS_DETERMINISTIC, DTD_IDENTIFIER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA {user} ORDER BY 1, 2")));
    picture
}

fn accounts(mysqld: &Mysqld) -> Vec<String> {
    let mut picture = lines(
        mysqld,
        "SELECT User, Host, plugin, HEX(authentication_string), account_locked FROM mysql.user WHERE User NOT LIKE 'mysql.%' ORDER BY 1, 2",
    );
    for account in lines(
        mysqld,
        "SELECT CONCAT('''', REPLACE(User, '''', ''''''), '''@''', Host, '''') FROM mysql.user WHERE User NOT LIKE 'mysql.%' AND User <> 'root' ORDER BY 1",
    ) {
        picture.extend(lines(mysqld, &format!("SHOW GRANTS FOR {account}")));
    }
    picture.extend(lines(
        mysqld,
        "SELECT * FROM mysql.role_edges ORDER BY 1, 2, 3, 4; SELECT * FROM mysql.default_roles ORDER BY 1, 2, 3, 4",
    ));
    picture
}

fn assert_same(one: &[String], other: &[String]) {
    // A character set that was said is shown, one that was meant is not: a definition that was read says it.
    let alike = |line: &String| line.replace("CHARACTER SET utf8mb4 COLLATE", "COLLATE");
    for (one, other) in one.iter().zip(other) {
        assert_eq!(alike(one), alike(other));
    }
    assert_eq!(one.len(), other.len());
}

fn executed(mysqld: &Mysqld) -> GtidSet {
    mysqld.sql("SELECT @@GLOBAL.gtid_executed").unwrap().replace("\\n", "").trim().parse().unwrap()
}

const EVERYTHING: &str = r#"
SET SESSION sql_mode='', time_zone='+00:00';
CREATE DATABASE shop COLLATE utf8mb4_bin; CREATE DATABASE `we``ird DB-1`; CREATE DATABASE old CHARACTER SET latin1;
USE shop;
CREATE TABLE types (
  id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT,
  t TINYINT, s SMALLINT UNSIGNED, m MEDIUMINT, i INT ZEROFILL, f FLOAT, d DOUBLE, n DECIMAL(65,30), b BIT(64), b1 BIT(3),
  dt DATE, dtt DATETIME(6), ts TIMESTAMP(6) NULL, tm TIME(3), y YEAR,
  c CHAR(20), v VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_ja_0900_as_cs, vl VARCHAR(50) CHARACTER SET latin1, vs VARCHAR(50) CHARACTER SET sjis,
  vu VARCHAR(50) CHARACTER SET utf16, bi BINARY(16), vb VARBINARY(300), tb TINYBLOB, bl LONGBLOB, tx LONGTEXT,
  e ENUM('a','b''c','ü'), st SET('x','y','z'), j JSON, g GEOMETRY, p POINT SRID 4326, vec VECTOR(3),
  gv INT GENERATED ALWAYS AS (t * 2) VIRTUAL, gs VARCHAR(100) GENERATED ALWAYS AS (CONCAT(v, '!')) STORED,
  hidden INT DEFAULT 7 INVISIBLE, de VARCHAR(40) DEFAULT (UUID()), `tab	and``tick` INT COMMENT 'a ''comment'', KEY x ('
);
INSERT INTO types (t,s,m,i,f,d,n,b,b1,dt,dtt,ts,tm,y,c,v,vl,vs,vu,bi,vb,tb,bl,tx,e,st,j,g,p,vec,hidden,de,`tab	and``tick`) VALUES
 (-128,65535,-8388608,42,1.1,1.7976931348623157e308,'-12345678901234567890123456789012345.123456789012345678901234567890',b'1010',b'101','1000-01-01','9999-12-31 23:59:59.999999','2038-01-19 03:14:07.999999','-838:59:59.000',2155,
  'trailing','日本語 \t\n\\ \0 ''"','caf\u00e9','表ソ','Ω😀',X'00FF0A095C','\0\t\n\\N',X'0A',X'5C4E09',REPEAT('x\t\n',1000),'ü','x,z','{"a":[1,2.5,"\\n\\u0000"],"b":null}',ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))'),ST_SRID(POINT(1,2),4326),TO_VECTOR('[1.5,-2,3e-7]'),9,'fixed',1),
 (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL),
 (0,0,0,0,3.4e38,-0.0,0,0,0,'0000-00-00','0000-00-00 00:00:00','1970-01-01 00:00:01','00:00:00',0,'','','','','','','','','','',NULL,'','[]',ST_GeomFromText('POINT(0 0)'),ST_SRID(POINT(0,0),4326),TO_VECTOR('[0,0,0]'),NULL,'',0);
INSERT INTO types (f, d, j) VALUES (0.1, 0.1, '"text"'), (16777216, 1e-320, '12345678901234567890'), (1.17549e-38, 2.2250738585072014e-308, 'true');
CREATE TABLE parent (a INT, b VARCHAR(20), PRIMARY KEY (a, b)) ;
CREATE TABLE child (id INT PRIMARY KEY, a INT, b VARCHAR(20), x INT UNIQUE, KEY other (x, b), KEY expr ((x + 1)), FULLTEXT KEY words (b),
  CONSTRAINT to_parent FOREIGN KEY (a, b) REFERENCES parent (a, b) ON DELETE CASCADE, CONSTRAINT positive CHECK (x > 0));
INSERT INTO parent VALUES (1,'one'),(2,'two'); INSERT INTO child VALUES (1,1,'one',5),(2,2,'two',6),(3,NULL,NULL,NULL);
CREATE TABLE no_key (v VARCHAR(10), w INT); INSERT INTO no_key VALUES ('a',1),('a',1),(NULL,NULL);
CREATE TABLE only_unique (id INT NOT NULL, UNIQUE KEY u (id)); INSERT INTO only_unique VALUES (3),(1);
CREATE TABLE counts_second (a INT, id INT AUTO_INCREMENT, PRIMARY KEY (a, id), KEY (id)); INSERT INTO counts_second (a) VALUES (1),(1),(2);
CREATE TABLE zero (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT=1000; SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO'; INSERT INTO zero VALUES (0,1),(-5,2); SET SESSION sql_mode='';
CREATE TABLE parts (id INT, d DATE, PRIMARY KEY (id, d), KEY (d)) PARTITION BY RANGE (YEAR(d)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (1,'1999-01-01'),(2,'2026-01-01');
CREATE TABLE shapes (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL KEY (g)); INSERT INTO shapes VALUES (1, ST_GeomFromText('LINESTRING(0 0, 1 1)'));
CREATE TABLE empty_one (id INT PRIMARY KEY, v VARCHAR(10) DEFAULT 'x', KEY (v));
CREATE TABLE bin_key (id VARBINARY(16) PRIMARY KEY, v INT); INSERT INTO bin_key VALUES (X'00',1),(X'0A09',2);
CREATE TABLE `we``ird DB-1`.`ta``ble.with 😕` (`sel"ect` INT PRIMARY KEY) ENGINE=InnoDB COMMENT='it''s; ok';
INSERT INTO `we``ird DB-1`.`ta``ble.with 😕` VALUES (1);
CREATE TABLE `we``ird DB-1`.`two
\! echo caught; DELIMITER x
  KEY ``x` (`c;,
\! echo caught` INT PRIMARY KEY COMMENT '\r\n;', `)
,` INT, KEY `k
,` (`)
,`)) COMMENT='*/ -- ;\n\\! echo caught';
INSERT INTO `we``ird DB-1`.`two
\! echo caught; DELIMITER x
  KEY ``x` VALUES (1, 2);
CREATE TABLE old.l (v VARCHAR(20)); INSERT INTO old.l VALUES ('é');
CREATE ROLE reader, `writer`@`%`; CREATE USER app@'10.%' IDENTIFIED BY 'secret' DEFAULT ROLE reader; CREATE USER 'o''brien' IDENTIFIED WITH caching_sha2_password BY 'x' REQUIRE SSL PASSWORD EXPIRE INTERVAL 90 DAY ACCOUNT LOCK COMMENT 'a person';
GRANT SELECT ON shop.* TO reader; GRANT INSERT, UPDATE (v) ON shop.zero TO app@'10.%' WITH GRANT OPTION; GRANT reader TO app@'10.%'; GRANT EXECUTE ON FUNCTION shop.twice TO 'o''brien';
"#;

const CODE: &str = r"
CREATE FUNCTION shop.twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2;
CREATE VIEW shop.z_base AS SELECT id, shop.twice(w) AS w FROM (SELECT 1 AS id, 2 AS w) AS q;
CREATE VIEW shop.a_top AS SELECT z.id, c.b FROM shop.z_base z JOIN shop.child c ON c.id = z.id;
CREATE DEFINER=nobody@'%' SQL SECURITY DEFINER VIEW shop.of_nobody AS SELECT 'ü' AS u;
CREATE PROCEDURE shop.p(IN a INT, OUT b VARCHAR(10) CHARACTER SET latin1) COMMENT 'it''s' SELECT CONCAT('x', a, '\\') INTO b;
CREATE EVENT shop.nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' COMMENT 'c' DO DELETE FROM shop.no_key WHERE v = 'never';
CREATE EVENT shop.off ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 00:00:00' DISABLE DO SELECT 1;
CREATE TRIGGER shop.second_one BEFORE INSERT ON shop.no_key FOR EACH ROW SET NEW.w = NEW.w + 1;
CREATE TRIGGER shop.first_one BEFORE INSERT ON shop.no_key FOR EACH ROW PRECEDES second_one SET NEW.w = 7
";

fn filled() -> Mysqld {
    let mysqld = Mysqld::start(Options::default().arg("--log-bin-trust-function-creators=ON"));
    let (tables, accounts) = EVERYTHING.split_once("CREATE ROLE").unwrap();
    mysqld.sql(tables).unwrap();
    mysqld.sql(&format!("SET SESSION sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'; {CODE}")).unwrap();
    mysqld.sql(&format!("CREATE ROLE{accounts}")).unwrap();
    mysqld
}

/// Who was paused in the middle of a dump wakes when another has taken its pieces away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_was_given_up_is_never_there() {
    let (source, bucket) = (filled(), Bucket::new());
    let (Bucket { store, root, .. }, id) = (&bucket, make::new_id());
    assert_eq!(make::give_up(store, root, &id).await.unwrap(), None);
    let error = bucket.dump_as(&id, &source, Selection::default()).await.unwrap_err();
    assert!(matches!(&error, dump::Error::GivenUp(which) if *which == id), "{error}");
    assert_eq!(load::manifest(store, root, &id).await.unwrap(), None);
    assert_eq!(make::give_up(store, root, &id).await.unwrap(), None, "again");
    let whole = bucket.dump(&source, Selection::default()).await.unwrap();
    let found = make::give_up(store, root, &whole.id).await.unwrap();
    assert_eq!(found.map(|found| found.manifest), Some(whole), "too late: it is one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_key_and_object_comes_back() {
    let (source, bucket) = (filled(), Bucket::new());
    let manifest = bucket.dump(&source, Selection::default()).await.unwrap();
    assert_eq!(manifest.gtid, executed(&source));
    let found = load::manifest(&bucket.store, &bucket.root, &manifest.id).await.unwrap().unwrap();
    assert_eq!(found.manifest, manifest);
    let copy = Mysqld::start(Options::default());
    copy.sql("RESET BINARY LOGS AND GTIDS").unwrap();
    bucket.load(&copy, &manifest).await.unwrap();
    assert_same(&picture(&copy), &picture(&source));
    assert_same(&accounts(&copy), &accounts(&source));
    assert!(executed(&copy).is_empty(), "nothing of it is in the binlog");
    // And again from the copy: what was lost on the way would be seen now.
    let again = bucket.dump(&copy, Selection::default()).await.unwrap();
    let content = |manifest: &Manifest| -> Vec<String> {
        let pieces = |table: &dump::manifest::Table| -> Vec<String> {
            let pieces = table.pieces.iter();
            pieces.map(|piece| format!("{} {} {}", table.name, piece.rows, piece.bytes)).collect()
        };
        manifest.tables.iter().flat_map(pieces).collect()
    };
    assert_eq!(content(&again), content(&manifest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_under_a_writer_is_of_one_moment_and_its_gtid_set_says_which() {
    let (source, bucket) = (Mysqld::start(Options::default()), Bucket::new());
    source.sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY); CREATE TABLE d.b (id INT PRIMARY KEY, v CHAR(200))").unwrap();
    let before = executed(&source).count();
    let stop = AtomicBool::new(false);
    let (manifest, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut id = 0;
            while !stop.load(Ordering::Relaxed) {
                let some: Vec<String> = (id..id + 20)
                    .map(|id| {
                        format!("BEGIN; INSERT INTO d.a VALUES ({id}); INSERT INTO d.b VALUES ({id}, 'x'); COMMIT")
                    })
                    .collect();
                source.sql(&some.join(";")).unwrap();
                id += 20;
            }
            id
        });
        while executed(&source).count() < before + 200 {}
        let runtime = tokio::runtime::Handle::current();
        let manifest = std::thread::scope(|inner| {
            inner.spawn(|| runtime.block_on(bucket.dump(&source, Selection::default()))).join().unwrap()
        });
        stop.store(true, Ordering::Relaxed);
        (manifest.unwrap(), writer.join().unwrap())
    });
    let rows = manifest.gtid.count() - before;
    assert!(rows >= 200 && rows < u64::try_from(written).unwrap(), "in the middle: {rows} of {written}");
    for table in &manifest.tables {
        assert_eq!(table.rows, rows, "{}", table.name);
    }
    let copy = Mysqld::start(Options::default());
    bucket.load(&copy, &manifest).await.unwrap();
    assert_eq!(lines(&copy, "SELECT MAX(id), COUNT(*) FROM d.a"), [format!("{}\t{rows}", rows - 1)]);
    assert_eq!(lines(&copy, "SELECT COUNT(*) FROM d.a JOIN d.b USING (id)"), [rows.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_altered_or_is_missing_is_refused_by_name() {
    let (source, bucket) = (Mysqld::start(Options::default()), Bucket::new());
    source.sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY); INSERT INTO d.a VALUES (1),(2),(3)").unwrap();
    let manifest = bucket.dump(&source, Selection::default()).await.unwrap();
    let key = manifest.tables[0].pieces[0].blob.key.clone();
    let path = bucket.s3.folder().join(&key);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let load = async |what: &str| {
        let copy = Mysqld::start(Options::default());
        let error = bucket.load(&copy, &manifest).await.unwrap_err().to_string();
        assert!(error.contains(&key), "{what}: {error}");
    };
    fs::write(&path, &flipped).unwrap();
    load("flipped").await;
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    load("cut").await;
    fs::remove_file(&path).unwrap();
    load("missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_altered_meanwhile_makes_the_dump_fail_with_its_name() {
    let (source, bucket) = (Mysqld::start(Options::default()), Bucket::new());
    source.sql("CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, v INT)").unwrap();
    let (endpoint, credentials) = root(&source);
    let mut snapshot = dump::snapshot::Snapshot::take(&endpoint, &credentials, 1).await.unwrap();
    // The backup lock keeps definitions as they are.
    let refused = source.sql("SET SESSION lock_wait_timeout=1; ALTER TABLE d.a ADD COLUMN w INT");
    assert!(refused.unwrap_err().contains("Lock wait timeout"));
    snapshot.release().await.unwrap();
    source.sql("ALTER TABLE d.a ADD COLUMN w INT, ALGORITHM=COPY").unwrap();
    let connection = &mut snapshot.connections[0];
    let error = async {
        connection.query("SELECT id FROM d.a").await?;
        connection.row().await.map(|row| row.is_some())
    };
    let error = error.await.unwrap_err();
    assert_eq!(error.code(), Some(1412), "{error}");
    drop(snapshot);
    // What is left out is not there.
    source.sql("CREATE TABLE d.b (id INT PRIMARY KEY); CREATE DATABASE e; CREATE TABLE e.c (id INT)").unwrap();
    let some = Selection { schemas: vec!["d".to_owned()], without: vec![("d".to_owned(), "a".to_owned())] };
    let manifest = bucket.dump(&source, some).await.unwrap();
    let names: Vec<&str> = manifest.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["b"]);
}
