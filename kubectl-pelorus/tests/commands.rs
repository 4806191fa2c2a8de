//! The program itself, against an API server that does what a test says: what it asks for, what it writes, and its exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

#[path = "commands/api.rs"]
mod api;
#[path = "commands/sql.rs"]
mod sql;

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use self::api::Api;

/// The program, and whom it asks.
struct Scene {
    api: Api,
    home: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let scene = Self { api: Api::start().await, home: tempfile::tempdir().unwrap() };
        std::fs::write(scene.kubeconfig(), scene.api.kubeconfig()).unwrap();
        let restorable = json!({"from": "2026-11-20T10:00:00Z", "to": "2026-11-20T12:00:00Z"});
        let archive = json!({"locationRef": {"name": "here"}});
        let spec = json!({"instances": 3, "primary": "shop-1", "image": "mysql:9.7", "archive": archive});
        scene.api.put("MySQLCluster", "shop", json!({"spec": spec, "status": {"restorable": restorable}}));
        scene.api.put("MySQLCluster", "bare", json!({"spec": {}}));
        scene
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("config")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-pelorus"));
        command.args(line.split(' ')).args(["-n", "team-a", "--kubeconfig"]).arg(self.kubeconfig());
        command
            .env("TZ", "Asia/Seoul")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Said {
        Said::of(&self.command(line).output().await.unwrap())
    }

    /// Runs it, and says what becomes of the object that it makes.
    async fn run_with(&self, line: &str, kind: &str, states: &[Value]) -> (Said, String) {
        let making = async {
            let name = self.api.made(kind).await;
            for state in states {
                tokio::time::sleep(Duration::from_millis(200)).await;
                self.api.put(kind, &name, json!({"status": state}));
            }
            name
        };
        tokio::join!(self.run(line), making)
    }
}

/// What it said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn is(&self, code: i32, words: &str) {
        assert!(self.code == code && self.err.contains(words), "not {code}, {words:?}: {self:?}");
    }
}

fn running() -> Value {
    json!({"phase": "Running", "source": "shop-2", "progress": {"rows": 5, "bytes": 99, "percent": 41}})
}

fn made() -> Value {
    json!({"phase": "Succeeded", "source": "shop-2", "gtid": "u:1-5", "size": "2Mi",
        "manifest": {"key": "p/team-a/shop/uid-of-shop/dumps/7/manifest.json", "sha256": ""}})
}

#[tokio::test]
async fn a_backup_is_asked_for_and_followed() {
    let scene = Scene::new().await;
    let line = "backup shop --name first --exclude-tables a.b";
    let (said, name) = scene.run_with(line, "MySQLDump", &[json!({"phase": "Pending"}), running(), made()]).await;
    said.is(0, "Running from shop-2: 5 rows, 99 B, 41 %\n");
    assert!(said.out.contains("manifest   p/team-a/shop/uid-of-shop/dumps/7/manifest.json\n"), "{said:?}");
    let asked = scene.api.get("MySQLDump", &name).unwrap();
    assert_eq!((name.as_str(), &asked["spec"]["locationRef"]["name"]), ("first", &json!("here")));
    assert_eq!(asked["spec"]["excludeTables"], json!(["a.b"]));
    let (said, name) = scene.run_with("backup bare --location there -o json", "MySQLDump", &[made()]).await;
    said.is(0, "");
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&shown["metadata"]["name"], &shown["status"]["gtid"]), (&json!(name), &json!("u:1-5")));
    assert!(name.starts_with("bare-20"), "{name}");
    scene.run("backup shop --name second --no-wait").await.is(0, "");
}

#[tokio::test]
async fn a_backup_that_cannot_be_says_why() {
    let scene = Scene::new().await;
    scene.run("backup nobody").await.is(3, "there is no MySQLCluster nobody");
    scene.run("backup bare").await.is(2, "--location");
    scene.run("backup").await.is(2, "Usage: kubectl pelorus backup");
    scene.run("backup shop --context elsewhere").await.is(1, "Connection refused");
    scene.run("backup shop --context none").await.is(2, "read the kubeconfig");
    let failed = json!({"phase": "Failed", "problem": "d.m is MyISAM"});
    let (said, _) = scene.run_with("backup shop --name first", "MySQLDump", &[failed]).await;
    said.is(1, "error: MySQLDump first: d.m is MyISAM\n");
    scene.run("backup shop --name first").await.is(4, "make MySQLDump first: the server says AlreadyExists");
    let (said, _) = scene.run_with("backup shop --timeout 3s", "MySQLDump", &[running()]).await;
    said.is(
        5,
        "gave up waiting (Running from shop-2: 5 rows, 99 B, 41 %); look again with `kubectl pelorus dumps shop`",
    );
}

#[tokio::test]
async fn who_interrupts_a_backup_leaves_it() {
    let scene = Scene::new().await;
    let child = scene.command("backup shop --name first").spawn().unwrap();
    scene.api.made("MySQLDump").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
    let said = Said::of(&child.wait_with_output().await.unwrap());
    said.is(130, "look again with `kubectl pelorus dumps shop`");
    assert!(scene.api.get("MySQLDump", "first").is_some());
}

#[tokio::test]
async fn dumps_are_listed_with_what_can_be_restored() {
    let scene = Scene::new().await;
    let spec = |of: &str| json!({"clusterRef": {"name": of}, "locationRef": {"name": "here"}});
    scene.api.put("MySQLDump", "first", json!({"spec": spec("shop"), "status": made()}));
    scene.api.put("MySQLDump", "other", json!({"spec": spec("gone"), "status": made()}));
    let said = scene.run("dumps shop").await;
    said.is(0, "");
    assert!(said.out.contains("\nfirst   Succeeded") && !said.out.contains("other"), "{said:?}");
    assert!(
        said.out.contains("\nRestorable from 2026-11-20T19:00:00+09:00 to 2026-11-20T21:00:00+09:00\n"),
        "{said:?}"
    );
    let shown: Value = serde_json::from_str(&scene.run("dumps shop -o json").await.out).unwrap();
    assert_eq!(shown["dumps"][0]["metadata"]["name"], json!("first"));
    assert_eq!(shown["restorable"]["to"], json!("2026-11-20T12:00:00Z"));
    assert!(scene.run("dumps gone").await.out.contains("The cluster is gone"));
    scene.run("dumps nobody").await.is(3, "no dump of one");
}

#[tokio::test]
async fn a_restore_is_refused_before_anything_is_made_or_is_followed() {
    let scene = Scene::new().await;
    let before = scene.api.count("MySQLCluster");
    for (line, code, words) in [
        ("restore nobody --as copy", 3, "there is no MySQLCluster nobody"),
        ("restore shop --as copy --at yesterday", 2, "'yesterday' is no time"),
        ("restore shop --as copy --gtid nonsense", 2, "--gtid is no GTID set"),
        ("restore shop --as copy --from-dump none", 3, "there is no MySQLDump none"),
        ("restore bare --as copy", 4, "has no archive"),
        (
            "restore shop --as copy --at 2026-11-20T18:59:59",
            4,
            "restorable from 2026-11-20T19:00:00+09:00 to 2026-11-20T21:00:00+09:00",
        ),
        ("restore shop --as copy --at 2199-01-01T00:00:00Z", 4, "is in the future"),
    ] {
        scene.run(line).await.is(code, words);
    }
    assert_eq!(scene.api.count("MySQLCluster"), before, "nothing was made");

    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2026-11-20T10:00:00Z"})
    };
    let restoring =
        json!({"conditions": [condition("Restored", "False", "Restoring", "copy-0: replaying, 3 of 12 bytes")]});
    let restored = condition("Restored", "True", "Restored", "u:1-5 of p/team-a/shop in 1.0 s");
    let ready = json!({"ready": "2/2", "primary": "copy-0", "conditions": [restored, condition("Ready", "True", "Serving", "")]});
    let line = "restore shop --as copy --at 2026-11-20T20:00:00.25 --instances 2";
    let (said, _) = scene.run_with(line, "MySQLCluster", &[restoring, ready]).await;
    said.is(0, "MySQLCluster copy is asked for, without spec.primary\n");
    said.is(0, "Restoring copy-0: replaying: 3 of 12 bytes, 25 %\n");
    assert!(said.out.contains("restored   u:1-5 of p/team-a/shop in 1.0 s\n"), "{said:?}");
    let asked = scene.api.get("MySQLCluster", "copy").unwrap();
    let place = json!({"locationRef": {"name": "here"}, "cluster": "shop", "uid": "uid-of-shop"});
    let wanted = json!({"fromLocation": place, "pointInTime": "2026-11-20T11:00:00.250000Z"});
    assert_eq!((&asked["spec"]["restore"], &asked["spec"]["instances"]), (&wanted, &json!(2)));
    assert_eq!((&asked["spec"]["image"], asked["spec"].get("primary")), (&json!("mysql:9.7"), None));

    let failed = condition("Restored", "False", "RestoreFailed", "the archive reaches to x");
    let (said, _) = scene.run_with("restore shop --as other", "MySQLCluster", &[json!({"conditions": [failed]})]).await;
    said.is(4, "error: MySQLCluster other: RestoreFailed: the archive reaches to x\n");
    scene.run("restore shop --as other").await.is(4, "make MySQLCluster other: the server says AlreadyExists");
}
