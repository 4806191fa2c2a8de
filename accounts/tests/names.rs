//! Names full of what could end a literal or match too much, and schemas, on a real server.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use accounts::database;
use common::sql::{Account, Identifier};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use support::{WITHIN, session, settled, spec, start, want};
use testkit::Options;

fn samples<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn backticked(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[tokio::test]
async fn hostile_names_read_back_as_declared() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    let name = r#"([\\'"`%_;.*\n\t@-]|--|/\*|[a-zA-Z\u{e9}\u{4e2d}\u{130}]){1,10}"#;
    let mut tried = 0;
    for (user, schema, table, column) in samples(&(name, name, name, name), 120) {
        let is_valid = [&schema, &table, &column].iter().all(|name| Identifier::new(name.as_str()).is_ok());
        if !is_valid || Account::anywhere(user.as_str()).is_err() || database::wanted(&schema, &of_schema()).is_err() {
            continue;
        }
        let made = format!(
            "CREATE TABLE {}.{} ({} INT)",
            Identifier::new(schema.as_str()).unwrap().quoted(),
            Identifier::new(table.as_str()).unwrap().quoted(),
            Identifier::new(column.as_str()).unwrap().quoted()
        );
        let schema_is_new =
            database::apply(&mut session, &database::wanted(&schema, &of_schema()).unwrap(), WITHIN).await;
        assert!(schema_is_new.unwrap());
        session.exec(&made, WITHIN).await.unwrap();
        let on = format!("{}.{}", backticked(&schema), backticked(&table));
        let wanted = want(
            &user,
            &json!({"grants": [
                {"on": format!("{}.*", backticked(&schema)), "privileges": ["INSERT"]},
                {"on": on, "privileges": ["DELETE"]},
                {"on": on, "privileges": ["SELECT"], "columns": [column]}]}),
        );
        settled(&mut session, &wanted).await;
        // And back to nothing, so that REVOKE is tried too.
        settled(&mut session, &want(&user, &json!({}))).await;
        session.exec(&format!("DROP USER {}", Account::anywhere(user).unwrap().quoted()), WITHIN).await.unwrap();
        session.exec(&format!("DROP DATABASE {}", Identifier::new(schema).unwrap().quoted()), WITHIN).await.unwrap();
        tried += 1;
    }
    assert!(tried > 60, "{tried}");
}

fn of_schema() -> common::crd::MySQLDatabaseSpec {
    serde_json::from_value(json!({"clusterRef": {"name": "shop"}})).unwrap()
}

#[tokio::test]
async fn names_of_schemas_are_no_patterns() {
    let mysqld = start(Options::default());
    mysqld
        .sql("CREATE DATABASE `a_b`; CREATE DATABASE `axb`; CREATE TABLE a_b.t(i INT); CREATE TABLE axb.t(i INT)")
        .unwrap();
    let mut session = session(&mysqld).await;
    settled(&mut session, &want("app", &json!({"grants": [{"on": "a_b.*", "privileges": ["SELECT"]}]}))).await;
    let mut app = support::login(&mysqld, "app", support::PASSWORD).await.unwrap();
    app.exec("SELECT * FROM a_b.t", WITHIN).await.unwrap();
    assert!(app.exec("SELECT * FROM axb.t", WITHIN).await.is_err());
    // Where they would be, nothing is read, let alone granted.
    mysqld.sql("SET GLOBAL partial_revokes=OFF").unwrap_err();
    mysqld.sql("DROP USER pelorus_users; SET GLOBAL partial_revokes=OFF").unwrap();
    let mut root = support::login(&mysqld, "root", "").await.unwrap();
    let refused = accounts::held::read(&mut root, &[].into()).await;
    assert!(matches!(refused, Err(accounts::Error::Patterns)), "{refused:?}");
}

#[test]
fn names_that_would_mean_something_else_are_refused() {
    for (user, json) in [
        (&"x".repeat(33)[..], json!({})),
        ("a\0b", json!({})),
        ("", json!({})),
        (" a", json!({})),
        ("a ", json!({})),
        ("\u{1f42c}", json!({})),
        ("root", json!({})),
        ("admin", json!({})),
        ("pelorus_x", json!({})),
        ("mysql.sys", json!({})),
        ("app", json!({"hosts": ["10.0.0.1/8"]})),
        ("app", json!({"hosts": ["%", "%"]})),
        ("app", json!({"hosts": ["LOCALHOST", "localhost"]})),
        ("app", json!({"roles": ["pelorus_users"]})),
        ("app", json!({"roles": ["app"]})),
        ("app", json!({"roles": ["a"], "defaultRoles": ["b"]})),
        ("app", json!({"login": false, "hosts": ["localhost"]})),
        ("app", grant("mysql.*", "SELECT")),
        ("app", grant("MySQL.user", "SELECT")),
        ("app", grant("`mysql`.*", "SELECT")),
        ("app", grant("pelorus.*", "SELECT")),
        ("app", grant("*.*", "ALL")),
        ("app", grant("*.*", "SUPER")),
        ("app", grant("*.*", "SYSTEM_USER")),
        ("app", grant("*.*", "PROXY")),
        ("app", grant("shop.*", "PROCESS")),
        ("app", grant("*.orders", "SELECT")),
        ("app", grant("shop", "SELECT")),
        ("app", grant("shop.orders.id", "SELECT")),
        ("app", grant("`shop.*", "SELECT")),
        ("app", grant("shop.orders ", "SELECT")),
        ("app", grant("shop.*x", "SELECT")),
        ("app", grant(&format!("{}.*", "s".repeat(65)), "SELECT")),
        ("app", json!({"grants": [{"on": "shop.orders", "privileges": ["DELETE"], "columns": ["id"]}]})),
        ("app", json!({"grants": [{"on": "shop.orders", "privileges": ["ALL"], "columns": ["id"]}]})),
        ("app", json!({"grants": [{"on": "shop.*", "privileges": ["SELECT"], "columns": ["id"]}]})),
        ("app", json!({"grants": [{"on": "shop.*", "privileges": ["EXECUTE"], "routine": "Procedure"}]})),
        ("app", json!({"revokes": [{"on": "shop.*", "privileges": ["SELECT"]}]})),
        (
            "app",
            json!({"grants": [{"on": "*.*", "privileges": ["SELECT"]}], "revokes": [{"on": "*.*", "privileges": ["SELECT"]}]}),
        ),
    ] {
        let refused = accounts::wanted(user, &spec(&json)).unwrap_err();
        assert!(refused.iter().all(|invalid| invalid.field.starts_with("spec.")), "{refused:?}");
        assert_eq!(refused.len(), 1, "{user:?} {json}: {refused:?}");
    }
    // All at once, each with its place.
    let refused = accounts::wanted(
        "app",
        &spec(&json!({"roles": ["root"], "grants": [
        {"on": "shop.*", "privileges": ["SELECT"]}, {"on": "mysql.*", "privileges": ["SELECT"]},
        {"on": "shop.*", "privileges": ["SELEKT", "SUPER"]}]})),
    )
    .unwrap_err();
    let fields: Vec<&str> = refused.iter().map(|invalid| invalid.field.as_str()).collect();
    assert_eq!(
        fields,
        ["spec.roles[0]", "spec.grants[1].on", "spec.grants[2].privileges", "spec.grants[2].privileges"]
    );
}

fn grant(on: &str, privilege: &str) -> Value {
    json!({"grants": [{"on": on, "privileges": [privilege]}]})
}

#[tokio::test]
async fn schemas_are_made_and_changed_as_declared() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    let of = |json: Value| {
        let mut all = json!({"clusterRef": {"name": "shop"}});
        all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        database::wanted("data%`\\", &serde_json::from_value(all).unwrap()).unwrap()
    };
    for json in [
        json!({}),
        json!({"characterSet": "latin1"}),
        json!({"collation": "utf8mb4_bin"}),
        json!({"collation": "utf8mb4_0900_ai_ci"}),
        json!({"collation": "utf8mb4_bin"}),
        json!({"onDelete": "Drop"}),
    ] {
        let wanted = of(json);
        assert!(database::apply(&mut session, &wanted, WITHIN).await.unwrap(), "{wanted:?}");
        let held = database::read(&mut session, &wanted.name).await.unwrap();
        assert_eq!(database::plan(&wanted, held.as_ref()), None);
    }
    let last = of(json!({"onDelete": "Drop"}));
    session.exec(&database::farewell(&last).unwrap(), WITHIN).await.unwrap();
    assert_eq!(database::read(&mut session, &last.name).await.unwrap(), None);
    let unknown = of(json!({"characterSet": "nosuch"}));
    assert!(database::apply(&mut session, &unknown, WITHIN).await.is_err());
}
