//! Tables of differences, and a property: what is planned from nothing names everything.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::needless_pass_by_value)]

use common::crd::MySQLUserSpec;
use serde_json::{Value, json};

use super::*;
use crate::held::Credential;
use crate::model::Object;
use crate::privilege::Privilege;
use crate::wanted::wanted;

fn spec(json: Value) -> MySQLUserSpec {
    let mut all = json!({"clusterRef": {"name": "shop"}});
    all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn mark() -> Mark {
    Mark { cluster: "c".to_owned(), uid: "u".to_owned(), object: "ns/app".to_owned() }
}

fn want(json: Value) -> Wanted {
    wanted("app", &spec(json)).unwrap()
}

/// What a server would hold after all of it was executed.
fn held_as(wanted: &Wanted, mark: Option<Mark>) -> BTreeMap<Name, Held> {
    let password = Password::new("x");
    let held = |account: &Account| Held {
        account: account.clone(),
        mark: mark.clone(),
        credential: Credential {
            plugin: "caching_sha2_password".to_owned(),
            expired: false,
            primary: Hash::make(&password, &mut rand::rng()),
            secondary: None,
            changed_at: None,
        },
    };
    wanted.accounts.iter().map(|account| (account.name.clone(), held(account))).collect()
}

fn planned(wanted: &Wanted, held: &BTreeMap<Name, Held>) -> Plan {
    let (mark, password) = (mark(), Password::new("the-password"));
    let context = Context { mark: &mark, lives: &|_| false, password: Some(&password) };
    plan(wanted, held, &context, &mut rand::rng())
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.statements.iter().map(ToString::to_string).collect()
}

const TLS: &str = "REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 \
                   MAX_USER_CONNECTIONS 0 PASSWORD EXPIRE NEVER FAILED_LOGIN_ATTEMPTS 0 PASSWORD_LOCK_TIME 0 ACCOUNT";
const MARK: &str = r#"ATTRIBUTE '{"pelorus":{"cluster":"c","object":"ns/app","uid":"u"}}'"#;

#[test]
fn hosts_share_statements_and_nothing_shows_a_hash() {
    let wanted = want(json!({"hosts": ["%", "localhost"], "roles": ["reader"], "grants": [
        {"on": "shop.*", "privileges": ["SELECT", "INSERT"]},
        {"on": "shop.orders", "privileges": ["UPDATE"], "columns": ["total", "id"]},
        {"on": "shop.orders", "privileges": ["DELETE"]},
        {"on": "shop.pay", "privileges": ["EXECUTE"], "routine": "Procedure"},
    ]}));
    let plan = planned(&wanted, &BTreeMap::new());
    let both = "`app`@`%`, `app`@`localhost`";
    let identified = "IDENTIFIED WITH caching_sha2_password AS 0x[hash]";
    assert_eq!(
        shown(&plan),
        [
            format!("CREATE USER `app`@`%` {identified}, `app`@`localhost` {identified} {TLS} UNLOCK {MARK}"),
            format!("GRANT INSERT, SELECT ON `shop`.* TO {both}"),
            format!("GRANT DELETE, UPDATE (`id`, `total`) ON `shop`.`orders` TO {both}"),
            format!("GRANT EXECUTE ON PROCEDURE `shop`.`pay` TO {both}"),
            format!("GRANT `reader`@`%` TO {both}"),
            format!("SET DEFAULT ROLE `reader`@`%` TO {both}"),
        ]
    );
    assert!(format!("{plan:?}").contains("0x[hash]") && !format!("{plan:?}").contains("244124"));
    assert!(plan.statements[0].sql().contains("AS 0x244124303041"));
}

#[test]
fn nothing_differs_and_nothing_is_planned() {
    let wanted = want(json!({"hosts": ["%", "10.0.0.0/8"], "roles": ["a", "b"], "defaultRoles": ["a"], "grants": [
        {"on": "*.*", "privileges": ["SELECT", "INSERT", "FLUSH_TABLES"]},
        {"on": "shop.*", "privileges": ["ALL"]},
    ], "revokes": [{"on": "audit.*", "privileges": ["INSERT"]}]}));
    assert!(planned(&wanted, &held_as(&wanted, Some(mark()))).is_empty());
}

#[test]
fn drift_of_each_kind_is_named_and_repaired() {
    let base = json!({"roles": ["a"], "limits": {"maxUserConnections": 5}, "grants": [
        {"on": "shop.*", "privileges": ["SELECT"]},
        {"on": "shop.orders", "privileges": ["UPDATE"], "columns": ["id"]},
    ]});
    let with = |change: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    };
    let (us, wanted) = ("`app`@`%`", want(base.clone()));
    for (there, findings, statements) in [
        (
            with(json!({"grants": [{"on": "shop.*", "privileges": ["SELECT", "DELETE"]}]})),
            &["app@%: extra: DELETE on shop.*", "app@%: missing: UPDATE on shop.orders.id"][..],
            vec![
                format!("GRANT UPDATE (`id`) ON `shop`.`orders` TO {us}"),
                format!("REVOKE IF EXISTS DELETE ON `shop`.* FROM {us}"),
            ],
        ),
        // Revoked for the table, it is gone for its columns too: they come after.
        (
            with(json!({"grants": [
                {"on": "shop.*", "privileges": ["SELECT"]}, {"on": "shop.orders", "privileges": ["UPDATE"]}]})),
            &["app@%: extra: UPDATE on shop.orders", "app@%: missing: UPDATE on shop.orders.id"],
            vec![
                format!("REVOKE IF EXISTS UPDATE ON `shop`.`orders` FROM {us}"),
                format!("GRANT UPDATE (`id`) ON `shop`.`orders` TO {us}"),
            ],
        ),
        (
            with(json!({"roles": ["b"]})),
            &["app@%: extra: the role b@%", "app@%: missing: the default role a@%", "app@%: missing: the role a@%"],
            vec![
                format!("GRANT `a`@`%` TO {us}"),
                format!("REVOKE IF EXISTS `b`@`%` FROM {us}"),
                format!("SET DEFAULT ROLE `a`@`%` TO {us}"),
            ],
        ),
        (
            with(json!({"defaultRoles": []})),
            &["app@%: missing: the default role a@%"],
            vec![format!("SET DEFAULT ROLE `a`@`%` TO {us}")],
        ),
        (
            with(json!({"locked": true, "require": "X509", "limits": {}})),
            &["app@%: changed: the transport that is required, the limits, the lock"],
            vec![format!("ALTER USER {us} {} UNLOCK", TLS.replace("MAX_USER_CONNECTIONS 0", "MAX_USER_CONNECTIONS 5"))],
        ),
        (
            with(json!({"hosts": ["%", "localhost"]})),
            &["app@localhost: extra: the account: its host is not declared any more"],
            vec!["DROP USER IF EXISTS `app`@`localhost`".to_owned()],
        ),
        // SELECT on *.* without the restriction that comes with it.
        (
            with(json!({"grants": [
                {"on": "*.*", "privileges": ["SELECT"]},
                {"on": "shop.orders", "privileges": ["UPDATE"], "columns": ["id"]}]})),
            &["app@%: extra: SELECT on *.*", "app@%: missing: SELECT on shop.*"],
            vec![format!("GRANT SELECT ON `shop`.* TO {us}"), format!("REVOKE IF EXISTS SELECT ON *.* FROM {us}")],
        ),
        // The restriction would swallow the grant.
        (
            with(json!({"grants": [
                {"on": "*.*", "privileges": ["SELECT"]},
                {"on": "shop.orders", "privileges": ["UPDATE"], "columns": ["id"]}],
                "revokes": [{"on": "shop.*", "privileges": ["SELECT"]}]})),
            &["app@%: extra: SELECT on *.*", "app@%: missing: SELECT on shop.*"],
            vec![format!("REVOKE IF EXISTS SELECT ON *.* FROM {us}"), format!("GRANT SELECT ON `shop`.* TO {us}")],
        ),
    ] {
        let plan = planned(&wanted, &held_as(&want(there.clone()), Some(mark())));
        let mut found: Vec<String> = plan.findings.iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, findings, "{there}");
        assert_eq!(shown(&plan), statements, "{there}");
    }
}

#[test]
fn partial_revokes_come_and_go() {
    let grants = json!([{"on": "*.*", "privileges": ["SELECT"]}]);
    let revokes = json!([{"on": "audit.*", "privileges": ["SELECT"]}]);
    let (open, closed) = (want(json!({"grants": grants})), want(json!({"grants": grants, "revokes": revokes})));
    let us = "`app`@`%`";
    let plan = planned(&closed, &held_as(&open, Some(mark())));
    assert_eq!(shown(&plan), [format!("REVOKE IF EXISTS SELECT ON `audit`.* FROM {us}")]);
    let plan = planned(&open, &held_as(&closed, Some(mark())));
    assert_eq!(shown(&plan), [format!("GRANT SELECT ON `audit`.* TO {us}")]);
}

#[test]
fn what_pelorus_may_not_take_away_is_named_and_left() {
    let wanted = want(json!({}));
    let mut held = held_as(&wanted, Some(mark()));
    let account = &mut held.values_mut().next().unwrap().account;
    let global: Vec<Privilege> =
        ["SUPER", "INSERT", "BACKUP_ADMIN"].iter().map(|name| Privilege::new(name).unwrap()).collect();
    account.privileges.insert(Object::Global, global.into_iter().collect());
    account.strange.insert("PROXY for x@%".to_owned());
    let plan = planned(&wanted, &held);
    assert!(plan.statements.is_empty(), "{:?}", plan.statements);
    assert_eq!(plan.findings.len(), 4, "{:?}", plan.findings);
    assert!(plan.findings.iter().all(|finding| finding.kind == Kind::Stays));
}

#[test]
fn accounts_of_others_are_in_no_statement() {
    let wanted = want(json!({"grants": [{"on": "shop.*", "privileges": ["SELECT"]}]}));
    let mut other = mark();
    other.uid = "v".to_owned();
    for mark in [None, Some(other)] {
        let held = held_as(&want(json!({"hosts": ["%", "localhost"]})), mark);
        let plan = planned(&wanted, &held);
        // Recreated under the same name: taken over.
        let conflicts = plan.conflicts().count();
        assert!(
            conflicts == 1 && plan.statements.is_empty()
                || plan.claims.values().any(|claim| matches!(claim, Claim::Adopt(_)))
        );
    }
    let plan = farewell(&held_as(&wanted, None), &mark(), OnDelete::Drop);
    assert!(plan.is_empty());
    let ours = held_as(&wanted, Some(mark()));
    assert_eq!(shown(&farewell(&ours, &mark(), OnDelete::Drop)), ["DROP USER IF EXISTS `app`@`%`"]);
    let kept = r#"ALTER USER `app`@`%` ATTRIBUTE '{"pelorus":null}'"#;
    assert_eq!(shown(&farewell(&ours, &mark(), OnDelete::Keep)), [kept]);
}

#[test]
fn an_account_without_a_password_is_not_made() {
    let mark = mark();
    let context = Context { mark: &mark, lives: &|_| false, password: None };
    let plan = plan(&want(json!({})), &BTreeMap::new(), &context, &mut rand::rng());
    assert!(plan.statements.is_empty() && plan.findings.len() == 1);
    let role = super::plan(&want(json!({"login": false})), &BTreeMap::new(), &context, &mut rand::rng());
    assert!(shown(&role)[0].contains("ACCOUNT LOCK"), "{role:?}");
}
