//! Passwords on a real server: recognised, rotated without a gap, and nowhere in clear.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use accounts::held::{self, Held};
use accounts::password::{Hash, Known};
use accounts::rotate::{Policy, Recorded, Step, next};
use accounts::statement::Change;
use accounts::{Statement, apply};
use common::mysql::{Password, Session};
use common::sql::Account as Name;
use jiff::Timestamp;
use serde_json::json;
use support::{PASSWORD, WITHIN, login, session, settled, start, want};
use testkit::{Mysqld, Options};

const OVERLAP: Duration = Duration::from_secs(3600);

async fn accounts_of(session: &mut Session) -> BTreeMap<Name, Held> {
    held::read(session, &["app".to_owned()].into()).await.unwrap().accounts
}

async fn change(session: &mut Session, changes: &BTreeMap<Name, Change>) {
    let mut failures = Vec::new();
    apply::execute(session, &[Statement::passwords(changes)], &mut failures, WITHIN).await;
    assert!(failures.is_empty(), "{failures:?}");
}

async fn is_accepted(mysqld: &Mysqld, password: &str) -> bool {
    login(mysqld, "app", password).await.is_ok()
}

#[tokio::test]
async fn hashes_of_ours_and_of_the_server_are_the_same() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    for text in [PASSWORD, "x", "caf\u{e9}\u{1f42c}", &"long ".repeat(51)] {
        // Made by the server, recognised here.
        let literal = common::sql::quote_str(text, false);
        for sql in [
            "DROP USER IF EXISTS app".to_owned(),
            format!("CREATE USER app IDENTIFIED BY {literal}"),
            format!("ALTER USER app IDENTIFIED BY {literal} RETAIN CURRENT PASSWORD"),
        ] {
            session.exec(&sql, WITHIN).await.unwrap();
        }
        for held in accounts_of(&mut session).await.values() {
            let (password, other) = (Password::new(text), Password::new("other"));
            assert!(held.credential.primary.is_of(&password) && !held.credential.primary.is_of(&other));
            assert!(held.credential.secondary.as_ref().unwrap().is_of(&password));
        }
        // Made here, accepted by the server.
        let hash = Hash::make(&Password::new(text), &mut rand::rng());
        change(&mut session, &[(Name::anywhere("app").unwrap(), Change::Replace(hash.clone()))].into()).await;
        let held = accounts_of(&mut session).await;
        assert!(held.values().all(|held| held.credential.primary == hash));
        assert!(is_accepted(&mysqld, text).await && !is_accepted(&mysqld, "other").await);
    }
}

#[tokio::test]
async fn a_rotation_has_no_gap() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    settled(&mut session, &want("app", &json!({"hosts": ["%", "localhost"]}))).await;
    assert!(is_accepted(&mysqld, PASSWORD).await);
    let policy = Policy { generated: true, every: Some(24 * OVERLAP), overlap: OVERLAP };
    let password = |text: &str| Some(Password::new(text));
    let mut known = Known::default();
    let mut decide = |recorded: &Recorded, held: &BTreeMap<Name, Held>, now| {
        next(recorded, &policy, Some(held), now, &mut known, &mut rand::rng())
    };
    let now = held::read(&mut session, &[].into()).await.unwrap().at;
    let mut recorded = Recorded { desired: None, published: password(PASSWORD), published_at: Some(now) };
    let held = accounts_of(&mut session).await;
    assert!(matches!(decide(&recorded, &held, now), Step::Wait(Some(_))));
    assert_eq!(decide(&recorded, &held, now + 25 * OVERLAP), Step::Generate);
    recorded.desired = password("the new one");
    // Killed before, or after: it comes out once.
    let Step::Server(changes) = decide(&recorded, &held, now) else { panic!("nothing is changed") };
    assert!(changes.len() == 2 && changes.values().all(|change| matches!(change, Change::Retain(_))));
    change(&mut session, &changes).await;
    for text in [PASSWORD, "the new one"] {
        assert!(is_accepted(&mysqld, text).await, "{text}");
    }
    let held = accounts_of(&mut session).await;
    assert_eq!(decide(&recorded, &held, now), Step::Publish);
    recorded = Recorded { desired: None, published: password("the new one"), published_at: Some(now) };
    assert!(matches!(decide(&recorded, &held, now), Step::Wait(Some(until)) if until >= now + OVERLAP));
    let later: Timestamp = now + 2 * OVERLAP;
    let Step::Server(changes) = decide(&recorded, &held, later) else { panic!("nothing is changed") };
    assert!(changes.values().all(|change| *change == Change::Discard));
    // Twice is no harm.
    change(&mut session, &changes).await;
    change(&mut session, &changes).await;
    assert!(is_accepted(&mysqld, "the new one").await && !is_accepted(&mysqld, PASSWORD).await);
    // Set by hand: put back, and the other one is not kept.
    session.exec("ALTER USER app, app@localhost IDENTIFIED BY 'by hand'", WITHIN).await.unwrap();
    let held = accounts_of(&mut session).await;
    let Step::Server(changes) = decide(&recorded, &held, now) else { panic!("nothing is changed") };
    change(&mut session, &changes).await;
    assert!(is_accepted(&mysqld, "the new one").await && !is_accepted(&mysqld, "by hand").await);
}

#[tokio::test]
async fn no_password_is_anywhere_in_clear() {
    let mysqld = start(
        Options::default()
            .arg("--general-log=ON")
            .arg("--log-raw=OFF")
            .arg("--slow-query-log=ON")
            .arg("--long-query-time=0"),
    );
    let mut session = session(&mysqld).await;
    settled(&mut session, &want("app", &json!({"hosts": ["%", "localhost"]}))).await;
    let name = Name::anywhere("app").unwrap();
    let hash = Hash::make(&Password::new("canary-second"), &mut rand::rng());
    let changes = BTreeMap::from([(name, Change::Retain(hash))]);
    change(&mut session, &changes).await;
    let shown = format!("{} {:?} {changes:?}", Statement::passwords(&changes), Statement::passwords(&changes));
    assert!(!shown.contains("2441") && !shown.contains("canary"), "{shown}");
    // As the performance schema shows the statements of this session.
    let history: Vec<(String,)> = session
        .rows(
            "SELECT SQL_TEXT FROM performance_schema.events_statements_history WHERE SQL_TEXT LIKE '%IDENTIFIED%'",
            WITHIN,
        )
        .await
        .unwrap();
    assert!(!history.is_empty());
    mysqld.sql("FLUSH LOGS").unwrap();
    let (mut files, mut seen) = (0, 0);
    for entry in fs::read_dir(mysqld.datadir()).unwrap().filter_map(Result::ok).filter(|entry| entry.path().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        files += 1;
        seen += usize::from(find(&bytes, b"IDENTIFIED WITH"));
        for canary in [&b"canary-second"[..], b"-first"] {
            assert!(!find(&bytes, canary), "{}", entry.path().display());
        }
    }
    assert!(files > 5 && seen >= 2, "the binlog and the general log hold the statements: {seen} of {files}");
    for (text,) in history {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// What the server itself does with passwords in clear, which is why none is sent.
#[tokio::test]
async fn the_server_shows_a_password_in_clear_when_it_cannot_parse_the_statement() {
    let mysqld = start(Options::default().arg("--general-log=ON"));
    let mut session = session(&mysqld).await;
    session.exec("CREATE USER app IDENTIFIED BY 'canary-parsed'", WITHIN).await.unwrap();
    session.exec("ALTER USER app IDENTIFIED BY 'canary-broken' RETAIN CURRENT PASSWD", WITHIN).await.unwrap_err();
    let history: Vec<(String,)> =
        session.rows("SELECT SQL_TEXT FROM performance_schema.events_statements_history", WITHIN).await.unwrap();
    let shows = |canary: &str| history.iter().any(|(text,)| text.contains(canary));
    assert!(shows("canary-broken") && !shows("canary-parsed"));
    assert!(history.iter().any(|(text,)| text == "CREATE USER 'app'@'%' IDENTIFIED BY <secret>"), "{history:?}");
    mysqld.sql("FLUSH LOGS").unwrap();
    for entry in fs::read_dir(mysqld.datadir()).unwrap().filter_map(Result::ok).filter(|entry| entry.path().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        assert!(!find(&bytes, b"canary-parsed") && !find(&bytes, b"canary-broken"), "{}", entry.path().display());
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
