//! The GTID algebra and text form against a real server's own functions.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use common::gtid::GtidSet;
use common::mysql::{Credentials, Endpoint, Password, Session};
use common::sql::quote_str;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use testkit::{Mysqld, Options};

const WITHIN: Duration = Duration::from_secs(20);

const UUIDS: [&str; 3] = [
    "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
    "AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAB",
    "0f0e0d0c-0b0a-0908-0706-050403020100",
];

async fn session(mysqld: &Mysqld) -> Session {
    let credentials = Credentials::new("root", Password::default());
    Session::connect(&Endpoint::Socket(mysqld.socket()), &credentials, WITHIN).await.unwrap()
}

/// The server's answer, newlines taken out.
async fn ask(session: &mut Session, expression: &str) -> Result<String, u16> {
    let answer = session.first::<(String,)>(&format!("SELECT {expression}"), WITHIN).await;
    match answer {
        Ok(row) => Ok(row.unwrap().0.replace('\n', "")),
        Err(error) => Err(error.code().unwrap_or_else(|| panic!("{error}"))),
    }
}

/// Text of sets that meet often: few UUIDs and tags, small and huge numbers.
fn set_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![9 => 1..40_i64, 1 => Just(i64::MAX - 1), 1 => (i64::MAX - 30)..(i64::MAX - 1)];
    let interval = (number, 0..12_i64)
        .prop_map(|(first, length)| format!("{first}-{}", first.saturating_add(length).min(i64::MAX - 1)));
    let tag = prop_oneof![3 => Just(""), 1 => Just("a:"), 1 => Just("B_9:"), 1 => Just("_:"), 1 => Just("zz:")];
    let piece = (0..UUIDS.len(), prop::collection::vec((tag, interval), 1..6)).prop_map(|(uuid, items)| {
        let items: Vec<String> = items.iter().map(|(tag, interval)| format!(":{tag}{interval}")).collect();
        format!("{}{}", UUIDS.get(uuid).unwrap(), items.concat())
    });
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.join(","))
}

/// Text that is nearly a set.
fn doubtful_text() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => Just(UUIDS[0].to_owned()),
        1 => Just("{aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa}".to_owned()),
        1 => Just("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned()),
        1 => Just("aaaaaaaa-aaaa-aaaa-aaaaaaaa-aaaaaaaa".to_owned()),
        8 => Just(":".to_owned()),
        3 => Just(",".to_owned()),
        3 => Just("-".to_owned()),
        1 => Just("[ \t\u{b}\u{c}\r\n]".to_owned()).prop_flat_map(|set| prop::string::string_regex(&set).unwrap()),
        4 => "(0|1|2|7|15|007)".prop_map(|text| text),
        1 => "(9223372036854775806|9223372036854775807|99999999999999999999)".prop_map(|text| text),
        2 => "[a-zA-Z_][a-zA-Z0-9_]{0,3}".prop_map(|text| text),
        1 => "[a-z]{31,33}".prop_map(|text| text),
        1 => "[+;.{}'\"\\\\*a-f0-9]".prop_map(|text| text),
    ];
    (any::<bool>(), prop::collection::vec(token, 0..10)).prop_map(|(start, tokens)| {
        let start = if start { format!("{}:1", UUIDS[0]) } else { String::new() };
        format!("{start}{}", tokens.concat())
    })
}

fn samples<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test]
async fn algebra_agrees_with_the_server() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let mut subsets = 0;
    for (x, y) in samples(&(set_text(), set_text()), 600) {
        let (a, b): (GtidSet, GtidSet) = (x.parse().unwrap(), y.parse().unwrap());
        let (p, q) = (quote_str(&x, false), quote_str(&y, false));
        let (ours, theirs) = (quote_str(&a.to_string(), false), quote_str(&b.to_string(), false));

        assert_eq!(ask(&mut session, &format!("GTID_SUBTRACT({p},'')")).await.unwrap(), a.to_string(), "{x}");
        let less = ask(&mut session, &format!("GTID_SUBTRACT({p},{q})")).await.unwrap();
        assert_eq!(less, a.subtract(&b).to_string(), "{x} less {y}");
        let both = ask(&mut session, &format!("GTID_SUBTRACT({p},GTID_SUBTRACT({p},{q}))")).await.unwrap();
        assert_eq!(both, a.intersect(&b).to_string(), "{x} and {y}");
        let either = ask(&mut session, &format!("GTID_SUBTRACT(CONCAT({p},',',{q}),'')")).await.unwrap();
        assert_eq!(either, a.union(&b).to_string(), "{x} or {y}");

        let part = quote_str(&a.intersect(&b).to_string(), false);
        for (left, right, expected) in [
            (&p, &q, a.is_subset(&b)),
            (&q, &p, b.is_subset(&a)),
            (&part, &p, a.intersect(&b).is_subset(&a)),
            (&ours, &theirs, a.is_subset(&b)),
        ] {
            let said = ask(&mut session, &format!("GTID_SUBSET({left},{right})")).await.unwrap();
            assert_eq!(said == "1", expected, "{left} in {right}");
            subsets += usize::from(expected);
        }
    }
    assert!(subsets > 600, "the samples prove little about subsets: {subsets}");
}

#[tokio::test]
async fn parser_takes_and_refuses_what_the_server_does() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let (mut taken, mut refused) = (0, 0);
    for text in samples(&doubtful_text(), 3000) {
        let said = ask(&mut session, &format!("GTID_SUBTRACT({},'')", quote_str(&text, false))).await;
        match (said, text.parse::<GtidSet>()) {
            (Ok(theirs), Ok(ours)) => {
                assert_eq!(theirs, ours.to_string(), "{text:?}");
                taken += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (theirs, ours) => panic!("{text:?}: the server says {theirs:?}, we say {ours:?}"),
        }
    }
    assert!(taken > 200 && refused > 200, "the samples prove little: {taken} taken, {refused} refused");
}

#[tokio::test]
async fn executed_and_purged_print_alike() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    for text in samples(&set_text(), 40) {
        let set: GtidSet = text.parse().unwrap();
        session.exec("RESET BINARY LOGS AND GTIDS", WITHIN).await.unwrap();
        session.exec(&format!("SET GLOBAL gtid_purged={}", quote_str(&set.to_string(), false)), WITHIN).await.unwrap();
        for variable in ["@@gtid_purged", "@@gtid_executed"] {
            assert_eq!(ask(&mut session, variable).await.unwrap(), set.to_string());
        }
    }
    session.exec("RESET BINARY LOGS AND GTIDS", WITHIN).await.unwrap();
    session.exec("SET SESSION gtid_next='AUTOMATIC:Mine'", WITHIN).await.unwrap();
    session.exec("CREATE DATABASE d", WITHIN).await.unwrap();
    let uuid = ask(&mut session, "@@server_uuid").await.unwrap();
    let executed: GtidSet = ask(&mut session, "@@gtid_executed").await.unwrap().parse().unwrap();
    assert_eq!(executed.to_string(), format!("{uuid}:mine:1"));
}
