//! Real instance-d's with real mysqld's on this host, each on a loopback address of its own, driven through their API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code, missing_docs)]

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use common::client::{Error, InstanceClient};
use common::instance::{
    CloneOrder, FollowOrder, InitialiseOrder, InstanceConfig, InstanceState, Phase, PromoteOrder, ReceiverState,
    RefusalCode,
};
use common::mysql::{Ca, Credentials, Endpoint, Password, Session, Tls};
use common::names::{self, account, daemon};
use common::tls::{Authority, LeafRequest, Material, client_config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub const CALL: Duration = Duration::from_secs(30);
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SQL: Duration = Duration::from_secs(20);
pub const PORT: u16 = 13306;
const PORT_X: u16 = 13360;
const PORT_API: u16 = 13780;
const MEMORY: u64 = 512 << 20;

/// A cluster on this host.
pub struct Scene {
    home: TempDir,
    authority: Authority,
    network: [u8; 3],
    instances: Vec<Option<Child>>,
}

impl Scene {
    /// Directories, certificates and passwords for `count` instances; nothing runs yet.
    pub fn new(count: u32) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        rustls::crypto::ring::default_provider().install_default().ok();
        let home = tempfile::Builder::new().prefix("pi-").tempdir().unwrap();
        let pid = std::process::id();
        // 127.0.0.0/8 is large enough for every test process and scene to have addresses of its own.
        let [.., high, low] = pid.to_be_bytes();
        let network = [high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed) % 16];
        let authority = Authority::generate("test", Duration::from_secs(86400)).unwrap();
        let mut scene = Self { home, authority, network, instances: Vec::new() };
        fs::create_dir(scene.path("accounts")).unwrap();
        let mut names = vec![
            account::LOCAL.to_owned(),
            account::CLONE.to_owned(),
            account::BACKUP.to_owned(),
            account::SHIPPER.to_owned(),
            account::USERS.to_owned(),
            account::MONITOR.to_owned(),
            account::ADMIN.to_owned(),
        ];
        names.extend((0..names::INSTANCES_MAX).map(account::replication));
        for name in names {
            fs::write(scene.path("accounts").join(&name), scene.password(&name)).unwrap();
        }
        fs::create_dir(scene.path("config")).unwrap();
        scene.configure(&[]);
        for daemon in [daemon::FAILOVER_D, daemon::TOPOLOGY_CTL] {
            let request = LeafRequest {
                common_name: daemon.to_owned(),
                dns_names: vec![daemon::dns_name(daemon)],
                addresses: vec![],
                lifetime: Duration::from_secs(86400),
            };
            scene.issue(&scene.path(daemon), &request);
        }
        for ordinal in 0..count {
            let instance = scene.path(&scene.name(ordinal));
            fs::create_dir(&instance).unwrap();
            fs::create_dir(instance.join("volume")).unwrap();
            scene.certify(ordinal);
            scene.instances.push(None);
        }
        scene
    }

    /// An instance's certificate, made anew.
    pub fn certify(&self, ordinal: u32) {
        let request = LeafRequest {
            common_name: self.name(ordinal),
            dns_names: vec![self.host(ordinal), "localhost".to_owned()],
            addresses: vec![self.address(ordinal)],
            lifetime: Duration::from_secs(86400),
        };
        self.issue(&self.path(&self.name(ordinal)).join("tls"), &request);
    }

    fn issue(&self, dir: &Path, request: &LeafRequest) {
        let issued = self.authority.issue(request).unwrap();
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("tls.crt"), issued.certificate).unwrap();
        fs::write(dir.join("tls.key"), issued.key).unwrap();
        fs::write(dir.join("ca.crt"), self.authority.certificate()).unwrap();
    }

    /// `instance.json` with these user settings.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        self.write_config(settings, false);
    }

    /// `instance.json` of a cluster with an archive.
    pub fn archive(&self) {
        self.write_config(&[], true);
    }

    fn write_config(&self, settings: &[(&str, &str)], archived: bool) {
        let config = InstanceConfig {
            namespace: "test".into(),
            cluster: "db".into(),
            cluster_uid: "uid".into(),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            memory_limit_bytes: MEMORY,
            hang_after_ms: 1500,
            isolated_after_ms: 5000,
            archived,
        };
        fs::write(self.path("config").join("instance.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn volume(&self, ordinal: u32) -> PathBuf {
        self.path(&self.name(ordinal)).join("volume")
    }

    #[allow(clippy::unused_self)]
    pub fn password(&self, account: &str) -> String {
        format!("it's \\ {account}")
    }

    #[allow(clippy::unused_self)]
    pub fn name(&self, ordinal: u32) -> String {
        names::instance("db", ordinal)
    }

    fn host(&self, ordinal: u32) -> String {
        names::instance_host("test", "db", &self.name(ordinal))
    }

    pub fn address(&self, ordinal: u32) -> IpAddr {
        let [a, b, c] = self.network;
        IpAddr::V4(Ipv4Addr::new(127, a, b, c * 16 + u8::try_from(ordinal).unwrap()))
    }

    /// Starts instance-d.
    pub fn start(&mut self, ordinal: u32) {
        self.start_with(ordinal, &[]);
    }

    /// Starts instance-d with more in its environment.
    pub fn start_with(&mut self, ordinal: u32, environment: &[(&str, &str)]) {
        let dir = self.path(&self.name(ordinal));
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_instance-d"))
            .arg("run")
            .env("POD_NAME", self.name(ordinal))
            .env("POD_NAMESPACE", "test")
            .env("POD_IP", self.address(ordinal).to_string())
            .env("PELORUS_DIR_VOLUME", dir.join("volume"))
            .env("PELORUS_DIR_RUN", dir.join("run"))
            .env("PELORUS_DIR_TLS", dir.join("tls"))
            .env("PELORUS_DIR_CONFIG", self.path("config"))
            .env("PELORUS_DIR_ACCOUNTS", self.path("accounts"))
            .env("PELORUS_BIND", self.address(ordinal).to_string())
            .env("PELORUS_PORT_MYSQL", PORT.to_string())
            .env("PELORUS_PORT_MYSQLX", PORT_X.to_string())
            .env("PELORUS_PORT_API", PORT_API.to_string())
            .env("PELORUS_MYSQLD", testkit::program("mysqld"))
            .env("PELORUS_HAND_OVER_SECONDS", "5")
            .env("PELORUS_LOG_FORMAT", "text")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.instances[ordinal as usize] = Some(child);
    }

    /// SIGKILL to instance-d and its mysqld at once: the container is gone.
    pub fn power_off(&mut self, ordinal: u32) {
        let child = self.instances[ordinal as usize].take();
        let child = child.map(|mut child| {
            let _ = child.kill();
            child
        });
        // Also of one that died by itself.
        self.kill_leftovers(&self.path(&self.name(ordinal)));
        if let Some(mut child) = child {
            let _ = child.wait();
        }
    }

    /// SIGTERM to instance-d.
    pub fn terminate(&self, ordinal: u32) {
        let child = self.instances[ordinal as usize].as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Waits until instance-d has ended by itself, and says how long that took.
    pub async fn ended(&mut self, ordinal: u32) -> Duration {
        let begun = Instant::now();
        let mut child = self.instances[ordinal as usize].take().unwrap();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "instance-d did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    /// Process id of an instance's mysqld.
    pub fn mysqld_pid(&self, ordinal: u32) -> Pid {
        let text = fs::read_to_string(self.path(&self.name(ordinal)).join("run/mysqld.pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap())
    }

    /// Sends a signal to an instance's mysqld.
    pub fn signal_mysqld(&self, ordinal: u32, signal: Signal) {
        kill(self.mysqld_pid(ordinal), signal).unwrap();
    }

    /// Kills what was started for this directory: a killed instance-d leaves its mysqld behind.
    #[allow(clippy::unused_self)]
    fn kill_leftovers(&self, dir: &Path) {
        let dir = dir.display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&format!("{dir}/")) && pid != std::process::id().cast_signed()
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                while entry.path().join("exe").exists() && fs::read_link(entry.path().join("exe")).is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    pub fn client_as(&self, ordinal: u32, daemon: &str) -> InstanceClient {
        let material = Material::from_dir(&self.path(daemon)).unwrap();
        let tls = Arc::new(client_config(&material).unwrap());
        InstanceClient::new(SocketAddr::new(self.address(ordinal), PORT_API), &self.host(ordinal), tls).unwrap()
    }

    /// failover-d's view of an instance.
    pub fn failover(&self, ordinal: u32) -> InstanceClient {
        self.client_as(ordinal, daemon::FAILOVER_D)
    }

    /// topology-ctl's view of an instance.
    pub fn topology(&self, ordinal: u32) -> InstanceClient {
        self.client_as(ordinal, daemon::TOPOLOGY_CTL)
    }

    /// Waits until the state is as wanted.
    pub async fn until(&self, ordinal: u32, what: &str, wanted: impl Fn(&InstanceState) -> bool) -> InstanceState {
        let begun = Instant::now();
        let client = self.failover(ordinal);
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            if let Ok(state) = client.state(Duration::from_secs(2)).await {
                if wanted(&state) {
                    return state;
                }
                last = Some(state);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("{} is not {what}: {last:#?}\n{}", self.name(ordinal), self.log(ordinal));
    }

    pub fn log(&self, ordinal: u32) -> String {
        fs::read_to_string(self.path(&self.name(ordinal)).join("log")).unwrap_or_default()
    }

    /// Starts and initialises these instances side by side.
    pub async fn initialise(&mut self, ordinals: &[u32]) {
        for ordinal in ordinals {
            self.start(*ordinal);
        }
        for ordinal in ordinals {
            self.until(*ordinal, "up and empty", |state| state.phase == Phase::Empty).await;
            self.topology(*ordinal).initialise(&InitialiseOrder {}, CALL).await.unwrap();
        }
        for ordinal in ordinals {
            self.until(*ordinal, "initialised", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
        }
    }

    /// A cluster of `count`: instance 0 is the primary in epoch 1, all others acknowledge.
    pub async fn cluster(count: u32, acks_needed: u32) -> Self {
        let mut scene = Self::new(count.max(3));
        let all: Vec<u32> = (0..count).collect();
        scene.initialise(&all).await;
        scene.promote(0, 1, acks_needed, &all[1..]).await.unwrap();
        for ordinal in &all[1..] {
            scene.follow(*ordinal, 1, 0, true).await.unwrap();
        }
        for ordinal in &all[1..] {
            scene.until_connected(*ordinal).await;
        }
        scene
    }

    pub async fn until_connected(&self, ordinal: u32) -> InstanceState {
        self.until(ordinal, "connected", |state| {
            let channel = state.mysqld.as_ref().and_then(|mysqld| mysqld.replication.as_ref());
            state.in_force
                && channel.is_some_and(|channel| {
                    let acknowledges = matches!(state.role, common::instance::Role::Replica { acknowledges: true, .. });
                    channel.receiver == ReceiverState::Yes
                        && channel.applier_running
                        && channel.acknowledges == acknowledges
                })
        })
        .await
    }

    pub async fn promote(
        &self,
        ordinal: u32,
        epoch: u64,
        acks_needed: u32,
        ackers: &[u32],
    ) -> Result<InstanceState, Error> {
        self.failover(ordinal).promote(&promotion(epoch, acks_needed, ackers), CALL).await
    }

    pub async fn follow(
        &self,
        ordinal: u32,
        epoch: u64,
        source: u32,
        acknowledges: bool,
    ) -> Result<InstanceState, Error> {
        let order = FollowOrder {
            epoch,
            source: self.name(source),
            source_host: self.address(source).to_string(),
            source_address: None,
            acknowledges,
            ahead: false,
            source_holds: None,
            expendable: false,
        };
        self.failover(ordinal).follow(&order, CALL).await
    }

    pub async fn clone_from(&self, ordinal: u32, donor: u32, condemns: Option<String>) -> Result<InstanceState, Error> {
        let donor_host = self.address(donor).to_string();
        let order = CloneOrder { donor: self.name(donor), donor_host, condemns, saves: None };
        self.topology(ordinal).clone_from(&order, CALL).await
    }

    /// Where its MySQL answers over TLS.
    pub fn endpoint(&self, ordinal: u32) -> Endpoint {
        Endpoint::Tcp {
            host: self.address(ordinal).to_string(),
            port: PORT,
            tls: Tls { ca: Ca::File(self.path("db-0/tls/ca.crt")), server_name: self.address(ordinal).to_string() },
        }
    }

    /// A session over TLS, as a user has it.
    pub async fn sql(&self, ordinal: u32, user: &str) -> Result<Session, common::mysql::Error> {
        let credentials = Credentials::new(user, Password::new(self.password(user)));
        Session::connect(&self.endpoint(ordinal), &credentials, Duration::from_secs(5)).await
    }

    /// A session of the owner of the data.
    pub async fn admin(&self, ordinal: u32) -> Session {
        self.sql(ordinal, account::ADMIN).await.unwrap()
    }

    /// Over the socket, with instance-d's own rights.
    pub async fn local(&self, ordinal: u32) -> Session {
        let endpoint = Endpoint::Socket(self.path(&self.name(ordinal)).join("run/mysqld.sock"));
        let credentials = Credentials::new(account::LOCAL, Password::new(self.password(account::LOCAL)));
        Session::connect(&endpoint, &credentials, Duration::from_secs(5)).await.unwrap()
    }

    /// One value.
    pub async fn value(&self, ordinal: u32, sql: &str) -> String {
        let row: Option<(Option<String>,)> = self.local(ordinal).await.first(sql, SQL).await.unwrap();
        row.and_then(|row| row.0).unwrap_or_default()
    }

    /// Makes `t.rows` on the primary.
    pub async fn make_table(&self, primary: u32) -> Session {
        let mut admin = self.admin(primary).await;
        admin.exec("CREATE DATABASE t", SQL).await.unwrap();
        admin.exec("CREATE TABLE t.`rows` (id INT PRIMARY KEY)", SQL).await.unwrap();
        admin
    }

    /// Instance 0, the primary, dies with a write that nobody acknowledged, for its only acker (1) is gone. It is there again, down.
    pub async fn dies_with_a_tail(&mut self) {
        let mut admin = self.make_table(0).await;
        self.power_off(1);
        let insert = async move { admin.exec("INSERT INTO t.`rows` VALUES (1)", Duration::from_secs(60)).await };
        let waiter = tokio::spawn(insert);
        self.until(0, "waiting", |state| state.mysqld.as_ref().is_some_and(|it| it.source.waiters > 0)).await;
        self.power_off(0);
        assert!(waiter.await.unwrap().is_err());
        self.start(0);
        self.until(0, "crashed", |state| state.phase == Phase::Crashed).await;
    }

    /// Somebody writes to a replica, past everything that keeps people from it.
    pub async fn write_to_replica(&self, ordinal: u32, insert: &str) {
        let mut local = self.local(ordinal).await;
        local.exec("SET GLOBAL super_read_only=OFF", SQL).await.unwrap();
        local.exec("SET GLOBAL read_only=OFF", SQL).await.unwrap();
        self.admin(ordinal).await.exec(insert, SQL).await.unwrap();
        local.exec("SET GLOBAL super_read_only=ON", SQL).await.unwrap();
    }

    pub async fn until_value(&self, ordinal: u32, sql: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let value = self.value(ordinal, sql).await;
            if value == wanted {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{sql} on {ordinal} is {value:?}, not {wanted:?}\n{}",
                self.log(ordinal)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for ordinal in 0..self.instances.len() {
                let log = self.log(u32::try_from(ordinal).unwrap());
                let tail: Vec<&str> = log.lines().rev().take(25).collect();
                eprintln!("--- {}", self.name(u32::try_from(ordinal).unwrap()));
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        for ordinal in 0..u32::try_from(self.instances.len()).unwrap() {
            self.power_off(ordinal);
        }
        self.kill_leftovers(self.home.path());
    }
}

/// The code of a refusal.
/// An order to promote whose tail is proven, and that has to wait for nothing.
pub fn promotion(epoch: u64, acks_needed: u32, ackers: &[u32]) -> PromoteOrder {
    PromoteOrder {
        epoch,
        acks_needed,
        ackers: ackers.to_vec(),
        apply_timeout_ms: 10_000,
        tail_unproven: false,
        proven: None,
        must_hold: None,
    }
}

pub fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (RefusalCode, String) {
    match answer {
        Err(Error::Refused(refusal)) => (refusal.code, refusal.message),
        other => panic!("not refused: {other:?}"),
    }
}
