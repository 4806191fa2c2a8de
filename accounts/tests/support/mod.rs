//! A server with `pelorus_users` on it, as instance-d makes that, and what every test asks of it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use accounts::apply::{Applied, apply};
use accounts::held::{self, Held};
use accounts::mark::Mark;
use accounts::plan::{Context, Plan, plan};
use accounts::{Wanted, wanted};
use common::crd::MySQLUserSpec;
use common::mysql::{Credentials, Endpoint, Error, Password, Session};
use common::sql::Account as Name;
use serde_json::{Value, json};
use testkit::{Mysqld, Options};

pub const WITHIN: Duration = Duration::from_secs(30);
pub const PASSWORD: &str = "canary-'\\\"-first";

/// Rights of `pelorus_users`, from where they are written.
fn rights(name: &str) -> String {
    let source = include_str!("../../../instance-d/src/accounts.rs");
    let (_, rest) = source.split_once(&format!("const {name}: &str = \"")).expect("instance-d names the rights");
    let (text, _) = rest.split_once("\";").expect("a constant ends");
    text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn start(options: Options) -> Mysqld {
    let mysqld = Mysqld::start(options.arg("--partial-revokes=ON"));
    let sql = format!(
        "CREATE USER pelorus_users IDENTIFIED BY 'pw'; GRANT {}, SYSTEM_USER ON *.* TO pelorus_users WITH GRANT OPTION; \
         REVOKE {} ON mysql.* FROM pelorus_users; \
         CREATE DATABASE shop; CREATE TABLE shop.orders(id INT, total INT, note TEXT); CREATE DATABASE audit; \
         CREATE PROCEDURE shop.Pay() SELECT 1; CREATE FUNCTION shop.tax() RETURNS INT DETERMINISTIC RETURN 1",
        rights("OWNER"),
        rights("NOT_ON_SYSTEM_SCHEMA")
    );
    mysqld.sql(&sql).unwrap();
    mysqld
}

pub async fn login(mysqld: &Mysqld, user: &str, password: &str) -> Result<Session, Error> {
    let credentials = Credentials::new(user, Password::new(password));
    Session::connect(&Endpoint::Socket(mysqld.socket()), &credentials, WITHIN).await
}

pub async fn session(mysqld: &Mysqld) -> Session {
    login(mysqld, "pelorus_users", "pw").await.unwrap()
}

pub fn spec(json: &Value) -> MySQLUserSpec {
    let mut all = json!({"clusterRef": {"name": "shop"}, "require": "None"});
    all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub fn want(user: &str, json: &Value) -> Wanted {
    wanted(user, &spec(json)).unwrap_or_else(|refused| panic!("{user} {json}: {refused:?}"))
}

pub fn mark(user: &str) -> Mark {
    Mark { cluster: "c".to_owned(), uid: format!("uid of {user}"), object: format!("ns/{user}") }
}

pub async fn applied(session: &mut Session, wanted: &Wanted) -> Applied {
    let (mark, password) = (mark(&wanted.user), Password::new(PASSWORD));
    let context = Context { mark: &mark, lives: &|_| true, password: Some(&password) };
    apply(session, wanted, &context, &mut rand::rng(), WITHIN).await.unwrap()
}

/// Applies, and sees that what is declared is what the server holds, and that nothing is left to do.
pub async fn settled(session: &mut Session, wanted: &Wanted) -> Applied {
    let applied = applied(session, wanted).await;
    assert!(applied.is_complete(), "{}: {applied:#?}", wanted.user);
    same(wanted, &applied.held);
    assert!(planned(session, wanted).await.is_empty());
    applied
}

pub fn same(wanted: &Wanted, held: &BTreeMap<Name, Held>) {
    let held: Vec<_> = held.values().map(|held| &held.account).collect();
    let mut all: Vec<_> = wanted.accounts.iter().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(held, all);
}

pub async fn planned(session: &mut Session, wanted: &Wanted) -> Plan {
    let held = held::read(session, &[wanted.user.clone()].into()).await.unwrap().accounts;
    let (mark, password) = (mark(&wanted.user), Password::new(PASSWORD));
    let context = Context { mark: &mark, lives: &|_| true, password: Some(&password) };
    plan(wanted, &held, &context, &mut rand::rng())
}

pub fn found(applied: &Applied) -> Vec<String> {
    let mut found: Vec<String> = applied.plan.findings.iter().map(ToString::to_string).collect();
    found.sort();
    found
}
