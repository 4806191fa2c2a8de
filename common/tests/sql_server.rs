//! Quoting against a real server, in both worlds of backslashes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use common::mysql::{Credentials, Endpoint, Password, Session};
use common::sql::{Account, Identifier, quote_hex, quote_str, quote_str_any_mode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use testkit::{Mysqld, Options};

const WITHIN: Duration = Duration::from_secs(20);

fn samples<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

async fn session(mysqld: &Mysqld) -> Session {
    let credentials = Credentials::new("root", Password::default());
    Session::connect(&Endpoint::Socket(mysqld.socket()), &credentials, WITHIN).await.unwrap()
}

async fn value(session: &mut Session, expression: &str) -> String {
    session.first::<(String,)>(&format!("SELECT {expression}"), WITHIN).await.unwrap().unwrap().0
}

/// Text full of what could end a literal early.
fn nasty() -> impl Strategy<Value = String> {
    r#"([\\'"`%_;\n\r\t\x00\x1a-]|''|\\'|--|/\*|.|[a-z]){0,24}"#
}

#[tokio::test]
async fn literals_give_the_value_back_in_every_mode() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    for (mode, no_backslash_escapes) in
        [("", false), ("NO_BACKSLASH_ESCAPES", true), ("ANSI_QUOTES", false), ("ANSI,NO_BACKSLASH_ESCAPES", true)]
    {
        session.exec(&format!("SET SESSION sql_mode='{mode}'"), WITHIN).await.unwrap();
        for text in samples(&nasty(), 400) {
            let literal = quote_str(&text, no_backslash_escapes);
            assert_eq!(value(&mut session, &literal).await, text, "{mode}");
            assert_eq!(value(&mut session, &quote_hex(&text)).await, text, "{mode}");
            if let Ok(literal) = quote_str_any_mode(&text) {
                assert_eq!(value(&mut session, &literal).await, text, "{mode}");
            }
        }
    }
}

#[tokio::test]
async fn identifiers_name_what_they_say_in_every_mode() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let names = r#"([\\'"`%_;.\n/ -]|[a-zA-Z\u{e9}\u{4e2d}]){1,20}"#;
    for mode in ["", "NO_BACKSLASH_ESCAPES", "ANSI"] {
        session.exec(&format!("SET SESSION sql_mode='{mode}'"), WITHIN).await.unwrap();
        for text in samples(&names, 60) {
            let Ok(identifier) = Identifier::new(text.clone()) else { continue };
            session.exec(&format!("CREATE DATABASE {}", identifier.quoted()), WITHIN).await.unwrap();
            let databases: Vec<(String,)> = session.rows("SHOW DATABASES", WITHIN).await.unwrap();
            assert!(databases.iter().any(|(name,)| *name == text), "{text:?} in {databases:?}");
            session.exec(&format!("DROP DATABASE {}", identifier.quoted()), WITHIN).await.unwrap();
        }
    }
}

#[tokio::test]
async fn names_that_are_refused_are_refused_by_the_server() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    for text in ["", "ends ", &"x".repeat(65)] {
        assert!(Identifier::new(text).is_err());
        let sql = format!("CREATE DATABASE `{text}`");
        assert!(session.exec(&sql, WITHIN).await.is_err(), "{text:?}");
    }
    // Worse than refused: the server takes another name.
    assert!(Identifier::new("\u{1f42c}").is_err());
    session.exec("CREATE DATABASE `\u{1f42c}`", WITHIN).await.unwrap();
    session.exec("DROP DATABASE `?`", WITHIN).await.unwrap();
    let longest = Identifier::new("\u{e9}".repeat(64)).unwrap();
    session.exec(&format!("CREATE DATABASE {}", longest.quoted()), WITHIN).await.unwrap();
}

#[tokio::test]
async fn accounts_and_passwords_survive_quoting_in_every_mode() {
    let mysqld = Mysqld::start(Options::default());
    for (mode, no_backslash_escapes) in [("", false), ("NO_BACKSLASH_ESCAPES", true), ("ANSI", false)] {
        let mut root = session(&mysqld).await;
        root.exec(&format!("SET SESSION sql_mode='{mode}'"), WITHIN).await.unwrap();
        for text in samples(&r#"([\\'"`%_;./ -]|[a-zA-Z\u{e9}]){1,12}"#, 40) {
            let Ok(account) = Account::new(text.clone(), "localhost") else { continue };
            let password = format!("{text}'\\\"`");
            let literal = quote_str(&password, no_backslash_escapes);
            root.exec(&format!("CREATE USER {} IDENTIFIED BY {literal}", account.quoted()), WITHIN).await.unwrap();
            root.exec(&format!("GRANT SELECT ON *.* TO {}", account.quoted()), WITHIN).await.unwrap();
            let credentials = Credentials::new(text, Password::new(password));
            let own = Session::connect(&Endpoint::Socket(mysqld.socket()), &credentials, WITHIN).await;
            let mut own = own.unwrap_or_else(|error| panic!("{account:?}: {error}"));
            assert_eq!(value(&mut own, "CURRENT_USER()").await, format!("{}@localhost", account.user()));
            root.exec(&format!("DROP USER {}", account.quoted()), WITHIN).await.unwrap();
        }
        for host in ["%", "10.0.0.0/255.0.0.0", "::1", "10.244.0.0/16", "_x.example.org"] {
            let account = Account::new("u", host).unwrap();
            root.exec(&format!("CREATE USER {}", account.quoted()), WITHIN).await.unwrap();
            let sql = format!("SELECT user FROM mysql.user WHERE host={}", quote_hex(host));
            assert_eq!(root.first::<(String,)>(&sql, WITHIN).await.unwrap(), Some(("u".to_owned(),)), "{host}");
            root.exec(&format!("DROP USER {}", account.quoted()), WITHIN).await.unwrap();
        }
        let long = Account::new("u", format!("{}.org", "h".repeat(200))).unwrap();
        root.exec(&format!("CREATE USER {}", long.quoted()), WITHIN).await.unwrap();
        root.exec(&format!("DROP USER {}", long.quoted()), WITHIN).await.unwrap();
    }
}
