//! What is declared is what a real server reports, for every level; what drifts is named and put back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use common::sql::Account as Name;
use serde_json::json;
use support::{applied, found, planned, same, session, settled, start, want};
use testkit::Options;

#[tokio::test]
async fn every_level_reads_back_as_declared() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    for role in ["reader", "writer"] {
        let role = want(role, &json!({"login": false, "grants": [{"on": "shop.*", "privileges": ["SELECT"]}]}));
        settled(&mut session, &role).await;
    }
    for (user, spec) in [
        ("plain", json!({})),
        (
            "global",
            json!({"grants": [{"on": "*.*", "privileges": ["SELECT", "INSERT", "EVENT", "PROCESS", "FLUSH_TABLES"]}]}),
        ),
        ("everything", json!({"allowAdministration": true, "grants": [{"on": "*.*", "privileges": ["ALL"]}]})),
        (
            "passing",
            json!({"allowAdministration": true, "grants": [
                {"on": "*.*", "privileges": ["SELECT", "GRANT OPTION", "FLUSH_STATUS", "SYSTEM_USER"]},
                {"on": "*.*", "privileges": ["FLUSH_TABLES"]}]}),
        ),
        (
            "schema",
            json!({"grants": [{"on": "shop.*", "privileges": ["ALL", "GRANT OPTION"]}, {"on": "not_there.*", "privileges": ["SELECT"]}]}),
        ),
        (
            "both",
            json!({"grants": [{"on": "*.*", "privileges": ["SELECT"]}, {"on": "shop.*", "privileges": ["SELECT", "DELETE"]}]}),
        ),
        ("table", json!({"grants": [{"on": "shop.orders", "privileges": ["ALL"]}]})),
        (
            "column",
            json!({"grants": [
                {"on": "shop.orders", "privileges": ["SELECT", "UPDATE"], "columns": ["id", "total"]},
                {"on": "shop.orders", "privileges": ["DELETE", "UPDATE"]}]}),
        ),
        (
            "routine",
            json!({"grants": [
                {"on": "shop.PAY", "routine": "Procedure", "privileges": ["EXECUTE", "GRANT OPTION"]},
                {"on": "shop.tax", "routine": "Function", "privileges": ["ALL"]}]}),
        ),
        (
            "partial",
            json!({"grants": [{"on": "*.*", "privileges": ["SELECT", "UPDATE", "SHOW DATABASES"]}],
                "revokes": [{"on": "audit.*", "privileges": ["SELECT", "UPDATE"]}, {"on": "a_b%.*", "privileges": ["ALL"]}]}),
        ),
        ("member", json!({"roles": ["reader", "writer"], "defaultRoles": ["writer"]})),
        ("all_roles", json!({"roles": ["reader", "writer"]})),
        ("tls", json!({"require": "TLS", "hosts": ["%", "10.0.0.0/8", "LOCALHOST", "2001:db8::%"]})),
        ("x509", json!({"require": "X509", "locked": true})),
        (
            "limits",
            json!({"limits": {"maxUserConnections": 1, "maxQueriesPerHour": 2, "maxUpdatesPerHour": 3, "maxConnectionsPerHour": 4}}),
        ),
    ] {
        let wanted = want(user, &spec);
        let applied = settled(&mut session, &wanted).await;
        assert_eq!(applied.executed, applied.plan.statements.len(), "{user}: one round is enough");
    }
    // From each to each: whatever there was, what is declared comes out.
    let specs = [
        json!({"grants": [{"on": "*.*", "privileges": ["SELECT", "INSERT", "FLUSH_TABLES"]}]}),
        json!({"grants": [{"on": "*.*", "privileges": ["SELECT", "INSERT"]}], "revokes": [{"on": "shop.*", "privileges": ["SELECT"]}]}),
        json!({"grants": [{"on": "shop.*", "privileges": ["SELECT", "DELETE"]}]}),
        json!({"grants": [{"on": "shop.orders", "privileges": ["SELECT", "UPDATE"]}]}),
        json!({"grants": [{"on": "shop.orders", "privileges": ["SELECT", "UPDATE"], "columns": ["id"]}]}),
        json!({"grants": [{"on": "shop.orders", "privileges": ["SELECT"], "columns": ["ID", "total"]}]}),
        json!({"allowAdministration": true, "roles": ["reader"], "grants": [{"on": "*.*", "privileges": ["FLUSH_TABLES", "SELECT", "GRANT OPTION"]}]}),
        json!({"roles": ["writer"], "defaultRoles": [], "grants": [{"on": "shop.pay", "routine": "Procedure", "privileges": ["EXECUTE"]}]}),
        json!({}),
    ];
    let mut rounds = 0;
    for from in &specs {
        for to in &specs {
            settled(&mut session, &want("moving", from)).await;
            let applied = settled(&mut session, &want("moving", to)).await;
            rounds += usize::from(applied.executed > applied.plan.statements.len());
            // What the server goes by is what its tables say.
            let shown = || mysqld.sql("SHOW GRANTS FOR moving").unwrap();
            let before = shown();
            mysqld.sql("FLUSH PRIVILEGES").unwrap();
            assert_eq!(before, shown(), "{from} {to}");
        }
    }
    println!("{rounds} of {} moves took a second round", specs.len() * specs.len());
}

#[tokio::test]
async fn drift_is_named_and_put_back() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    settled(&mut session, &want("reader", &json!({"login": false}))).await;
    let wanted = want(
        "app",
        &json!({"hosts": ["%", "localhost"], "roles": ["reader"], "require": "TLS", "limits": {"maxUserConnections": 7},
            "grants": [
                {"on": "*.*", "privileges": ["SHOW DATABASES", "FLUSH_TABLES"]},
                {"on": "shop.*", "privileges": ["SELECT"]},
                {"on": "shop.orders", "privileges": ["UPDATE"], "columns": ["id"]},
                {"on": "shop.pay", "routine": "Procedure", "privileges": ["EXECUTE"]}]}),
    );
    let applied = settled(&mut session, &wanted).await;
    assert!(applied.executed <= 9, "two hosts cost no more than one: {:?}", applied.plan.statements);
    for (drift, names) in [
        ("REVOKE SELECT ON shop.* FROM app", "app@%: missing: SELECT on shop.*"),
        ("GRANT DELETE ON shop.* TO app", "app@%: extra: DELETE on shop.*"),
        ("GRANT DELETE ON shop.orders TO app", "app@%: extra: DELETE on shop.orders"),
        ("GRANT UPDATE ON shop.orders TO app", "app@%: extra: UPDATE on shop.orders"),
        ("GRANT UPDATE (total) ON shop.orders TO app", "app@%: extra: UPDATE on shop.orders.total"),
        ("REVOKE UPDATE (id) ON shop.orders FROM app", "app@%: missing: UPDATE on shop.orders.id"),
        ("GRANT ALTER ROUTINE ON PROCEDURE shop.pay TO app", "app@%: extra: ALTER ROUTINE on procedure shop.pay"),
        ("REVOKE EXECUTE ON PROCEDURE shop.PAY FROM app", "app@%: missing: EXECUTE on procedure shop.pay"),
        ("GRANT EXECUTE ON FUNCTION shop.tax TO app", "app@%: extra: EXECUTE on function shop.tax"),
        ("GRANT PROCESS ON *.* TO app", "app@%: extra: PROCESS on *.*"),
        ("GRANT SYSTEM_USER ON *.* TO app", "app@%: extra: SYSTEM_USER on *.*"),
        ("GRANT FLUSH_TABLES ON *.* TO app WITH GRANT OPTION", "app@%: extra: GRANT OPTION for FLUSH_TABLES on *.*"),
        ("GRANT SELECT ON shop.* TO app WITH GRANT OPTION", "app@%: extra: GRANT OPTION on shop.*"),
        ("REVOKE CREATE ROLE, FLUSH_TABLES ON *.* FROM app", "app@%: missing: FLUSH_TABLES on *.*"),
        ("REVOKE reader FROM app", "app@%: missing: the role reader@%"),
        ("GRANT reader TO app WITH ADMIN OPTION", "app@%: extra: ADMIN OPTION for the role reader@%"),
        ("SET DEFAULT ROLE NONE TO app", "app@%: missing: the default role reader@%"),
        ("ALTER USER app ACCOUNT LOCK", "app@%: changed: the lock"),
        ("ALTER USER app REQUIRE NONE", "app@%: changed: the transport that is required"),
        ("ALTER USER app REQUIRE SUBJECT '/CN=x'", "app@%: changed: the transport that is required"),
        ("ALTER USER app WITH MAX_USER_CONNECTIONS 0", "app@%: changed: the limits"),
        ("ALTER USER app PASSWORD EXPIRE INTERVAL 9 DAY", "app@%: changed: when the password expires"),
        (
            "ALTER USER app FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME UNBOUNDED",
            "app@%: changed: how many failed logins lock it",
        ),
        ("DROP USER app@localhost", "app@localhost: missing: the account"),
    ] {
        // By people who have the rights of `admin`, which are those of `pelorus_users`.
        session.exec(drift, support::WITHIN).await.unwrap_or_else(|error| panic!("{drift}: {error}"));
        let applied = settled(&mut session, &wanted).await;
        assert!(found(&applied).iter().any(|what| what == names), "{drift}: {:?}", found(&applied));
    }
    // The extra host, with the mark.
    let fewer = want("app", &json!({}));
    let applied = settled(&mut session, &fewer).await;
    assert!(
        found(&applied).contains(&"app@localhost: extra: the account: its host is not declared any more".to_owned())
    );
}

#[tokio::test]
async fn what_pelorus_may_not_touch_is_left_and_named() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    let wanted = want("app", &json!({}));
    settled(&mut session, &wanted).await;
    mysqld
        .sql("CREATE USER other; GRANT SUPER, INSERT ON *.* TO app; GRANT BACKUP_ADMIN ON *.* TO app; GRANT PROXY ON other TO app")
        .unwrap();
    let applied = applied(&mut session, &wanted).await;
    assert_eq!(applied.executed, 0);
    assert_eq!(
        found(&applied),
        [
            "app@%: cannot be changed by Pelorus: BACKUP_ADMIN on *.*",
            "app@%: cannot be changed by Pelorus: INSERT on *.*",
            "app@%: cannot be changed by Pelorus: PROXY for other@%",
            "app@%: cannot be changed by Pelorus: SUPER on *.*",
        ]
    );
    // And why: the server would refuse.
    for sql in [
        "REVOKE SUPER ON *.* FROM app",
        "REVOKE INSERT ON *.* FROM app",
        "REVOKE BACKUP_ADMIN ON *.* FROM app",
        "REVOKE PROXY ON other FROM app",
        "REVOKE ALL PRIVILEGES, GRANT OPTION FROM app",
        "GRANT SUPER ON *.* TO app",
        "GRANT ALL ON *.* TO app",
        "GRANT SELECT, INSERT ON mysql.* TO app",
    ] {
        assert!(session.exec(sql, support::WITHIN).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn accounts_of_others_are_left_alone_until_they_are_adopted() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    session.exec("CREATE USER app ATTRIBUTE '{\"mine\": \"x\"}'", support::WITHIN).await.unwrap();
    session.exec("GRANT DELETE ON shop.* TO app", support::WITHIN).await.unwrap();
    let spec = json!({"grants": [{"on": "shop.*", "privileges": ["SELECT"]}]});
    let before = mysqld.sql("SHOW GRANTS FOR app; SHOW CREATE USER app").unwrap();
    let refused = applied(&mut session, &want("app", &spec)).await;
    assert_eq!((refused.executed, refused.plan.conflicts().count(), refused.is_complete()), (0, 1, false));
    assert_eq!(mysqld.sql("SHOW GRANTS FOR app; SHOW CREATE USER app").unwrap(), before);
    let mut adopting = spec.clone();
    adopting["adopt"] = json!(true);
    settled(&mut session, &want("app", &adopting)).await;
    let marked = accounts::held::marked(&mut session, "c", None).await.unwrap();
    assert_eq!(marked, [(Name::anywhere("app").unwrap(), support::mark("app"))]);
    assert!(accounts::held::marked(&mut session, "c", Some(&Name::anywhere("app").unwrap())).await.unwrap().is_empty());
    assert!(accounts::held::marked(&mut session, "other", None).await.unwrap().is_empty());
    // The attribute of others is still there, after the mark is gone too.
    let held = accounts::held::read(&mut session, &["app".to_owned()].into()).await.unwrap().accounts;
    let leaving = accounts::plan::farewell(&held, &support::mark("app"), common::crd::OnDelete::Keep);
    accounts::apply::execute(&mut session, &leaving.statements, &mut Vec::new(), support::WITHIN).await;
    let attributes = mysqld.sql("SELECT User_attributes->'$.metadata' FROM mysql.user WHERE User='app'").unwrap();
    assert_eq!(attributes.trim(), r#"{"mine": "x"}"#);
}

#[tokio::test]
async fn one_grant_that_cannot_be_does_not_hold_up_the_others() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    let wanted = want(
        "app",
        &json!({"grants": [
            {"on": "shop.later", "privileges": ["SELECT"]},
            {"on": "shop.orders", "privileges": ["SELECT"]}]}),
    );
    let applied = applied(&mut session, &wanted).await;
    assert_eq!(applied.failures.len(), 1);
    assert!(applied.failures.iter().all(accounts::Failure::is_missing_object), "{:?}", applied.failures);
    assert_eq!(
        applied.left.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["app@%: missing: SELECT on shop.later"]
    );
    mysqld.sql("CREATE TABLE shop.later(a INT)").unwrap();
    settled(&mut session, &wanted).await;
    // A table that went keeps its grants, in the server too.
    mysqld.sql("DROP TABLE shop.later").unwrap();
    assert!(planned(&mut session, &wanted).await.is_empty());
    let fewer = want("app", &json!({"grants": [{"on": "shop.orders", "privileges": ["SELECT"]}]}));
    settled(&mut session, &fewer).await;
}

#[tokio::test]
async fn many_accounts_take_one_question() {
    let mysqld = start(Options::default());
    let mut session = session(&mysqld).await;
    let users: Vec<String> = (0..200).map(|number| format!("user{number}")).collect();
    let names: Vec<String> = users.iter().map(|user| format!("`{user}`")).collect();
    session.exec(&format!("CREATE USER {}", names.join(",")), support::WITHIN).await.unwrap();
    session.exec(&format!("GRANT SELECT ON shop.* TO {}", names.join(",")), support::WITHIN).await.unwrap();
    let questions = "SELECT VARIABLE_VALUE FROM performance_schema.session_status WHERE VARIABLE_NAME='Questions'";
    let before: Option<(String,)> = session.first(questions, support::WITHIN).await.unwrap();
    let snapshot = accounts::held::read(&mut session, &users.into_iter().collect()).await.unwrap();
    let after: Option<(String,)> = session.first(questions, support::WITHIN).await.unwrap();
    assert_eq!(snapshot.accounts.len(), 200);
    assert!(snapshot.accounts.values().all(|held| held.account.privileges.len() == 1));
    let number = |row: Option<(String,)>| row.unwrap().0.parse::<u64>().unwrap();
    assert_eq!(number(after) - number(before), 2, "one for all accounts, one to ask this");
    assert!(accounts::held::read(&mut session, &[].into()).await.unwrap().accounts.is_empty());
    same(&want("user7", &json!({"grants": [{"on": "shop.*", "privileges": ["SELECT"]}]})), &{
        let mut one = snapshot.accounts;
        one.retain(|name, held| {
            held.account.login.lifetime = Some(0);
            name.user() == "user7"
        });
        one
    });
}
