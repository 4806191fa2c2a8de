//! A real S3 server (versitygw) with TLS on a folder of its own, gone when dropped.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::mysqld::Running;
use crate::root::newest;
use crate::watchdog::Watchdog;

/// Longest wait for the server to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running (or killed) server with one bucket.
#[derive(Debug)]
pub struct S3 {
    // Dropped in this order, as with mysqld.
    process: Option<(Running, Watchdog)>,
    authority: String,
    address: SocketAddr,
    home: TempDir,
}

impl S3 {
    /// Its bucket.
    pub const BUCKET: &'static str = "backups";
    /// Whom it lets in.
    pub const KEY_ID: &'static str = "tester";
    /// With which secret.
    pub const SECRET: &'static str = "secret-of-the-tester";

    /// Starts a server on this host's loopback with an empty bucket, and waits until it answers.
    pub fn start() -> Self {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// The same on another address of this host.
    pub fn start_on(address: IpAddr) -> Self {
        let home = tempfile::Builder::new().prefix("pk-s3-").tempdir().expect("no temporary directory can be made");
        let issued = rcgen::generate_simple_self_signed(vec![address.to_string()]).expect("a certificate can be made");
        let authority = issued.cert.pem();
        fs::write(home.path().join("tls.crt"), &authority).expect("the certificate can be written");
        fs::write(home.path().join("tls.key"), issued.signing_key.serialize_pem()).expect("the key can be written");
        let listener = TcpListener::bind((address, 0)).expect("there is no free port");
        let address = listener.local_addr().expect("a listener has an address");
        drop(listener);
        let mut server = Self { process: None, authority, address, home };
        fs::create_dir_all(server.folder()).expect("the bucket can be made");
        server.run();
        server
    }

    /// Starts it again after [`S3::kill`].
    pub fn run(&mut self) {
        assert!(self.process.is_none(), "the S3 server runs already");
        let home = self.home.path();
        let log = fs::File::create(home.join("log")).expect("the log cannot be made");
        let program = newest("s3-", "bin/versitygw").expect("there is no S3 server to test with: run `make deps`");
        let child = Command::new(program)
            .args(["--quiet", "--port", &self.address.to_string()])
            .arg("--cert")
            .arg(home.join("tls.crt"))
            .arg("--key")
            .arg(home.join("tls.key"))
            // Metadata beside the objects: a temporary folder need not take extended attributes.
            .args(["posix", "--sidecar"])
            .arg(self.sidecar())
            .arg(home.join("buckets"))
            .env("ROOT_ACCESS_KEY_ID", Self::KEY_ID)
            .env("ROOT_SECRET_ACCESS_KEY", Self::SECRET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file has more than one handle"))
            .stderr(log)
            .spawn()
            .expect("the S3 server cannot be run");
        let watchdog = Watchdog::watch(child.id(), home);
        self.process = Some((Running(child), watchdog));
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.as_mut().and_then(|(running, _)| running.0.try_wait().ok().flatten());
            let log = || fs::read_to_string(home.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the S3 server ended: {}", log());
            assert!(start.elapsed() < PATIENCE, "the S3 server does not answer: {}", log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once, as a power failure would; objects stay.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// URL.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// PEM of the certificate that it has to be believed by.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The bucket and the way in, as the body of an order has them (`common::location::Location`, JSON).
    pub fn location(&self, prefix: &str) -> String {
        let authority = self.authority.replace('\n', "\\n");
        format!(
            r#"{{"bucket":"{}","prefix":"{prefix}","region":"us-east-1","endpoint":"{}","forcePathStyle":true,
            "key":{{"id":"{}","secret":"{}","token":null}},"authority":"{authority}"}}"#,
            Self::BUCKET,
            self.endpoint(),
            Self::KEY_ID,
            Self::SECRET
        )
    }

    /// Where objects of the bucket lie: a file each, named as the key.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("buckets").join(Self::BUCKET)
    }

    fn sidecar(&self) -> PathBuf {
        let path = self.home.path().join("sidecar");
        fs::create_dir_all(&path).expect("the folder of metadata can be made");
        path
    }
}
