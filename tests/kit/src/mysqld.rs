//! One mysqld process with its own data directory, gone when dropped.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::root::{program, template};
use crate::watchdog::Watchdog;

/// Longest wait for a server to answer or to stop; generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small, quick to start, with GTIDs and a binlog. What a test adds comes after these.
const SETTINGS: [&str; 17] = [
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--server-id=1",
    "--log-bin=binlog",
    "--skip-replica-start",
    "--mysqlx=OFF",
    "--secure-file-priv=NULL",
    "--auto-generate-certs=OFF",
    "--caching-sha2-password-auto-generate-rsa-keys=OFF",
    "--innodb-buffer-pool-size=24M",
    "--innodb-redo-log-capacity=16M",
    "--max-connections=60",
    "--table-open-cache=200",
    "--performance-schema-max-table-instances=200",
    "--performance-schema-max-digest-length=0",
    "--performance-schema-digests-size=0",
    "--host-cache-size=0",
];

/// How to run a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    arguments: Vec<String>,
    tcp: bool,
}

impl Options {
    /// Adds an argument of mysqld, which overrides the kit's own.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Listens on a free port of 127.0.0.1 too, not on the socket alone.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }
}

/// A running (or killed) server. `root` has no password and may come over the socket.
#[derive(Debug)]
pub struct Mysqld {
    // Dropped in this order: the process is gone before the watchdog is told, and the directory goes last.
    process: Option<(Running, Watchdog)>,
    options: Options,
    port: Option<u16>,
    home: TempDir,
}

impl Mysqld {
    /// Starts a server on a fresh data directory and waits until it answers.
    pub fn start(options: Options) -> Self {
        let home = tempfile::Builder::new().prefix("pk-").tempdir().expect("no temporary directory can be made");
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(template())
            .arg(home.path().join("data"))
            .status()
            .expect("cp cannot be run");
        assert!(copied.success(), "the data directory cannot be copied");
        let port = options.tcp.then(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("there is no free port");
            listener.local_addr().expect("a listener has an address").port()
        });
        let mut mysqld = Self { process: None, options, port, home };
        mysqld.run();
        mysqld
    }

    /// Starts the server again after [`Mysqld::kill`] or [`Mysqld::stop`], and waits until it answers.
    pub fn run(&mut self) {
        assert!(self.process.is_none(), "mysqld runs already");
        let home = self.home.path();
        let log = fs::File::create(self.error_log_path()).expect("the error log cannot be made");
        let mut command = Command::new(program("mysqld"));
        command.arg("--no-defaults").args(SETTINGS);
        command.arg(format!("--datadir={}", self.datadir().display()));
        command.arg(format!("--socket={}", self.socket().display()));
        command.arg(format!("--pid-file={}", home.join("pid").display()));
        match self.port {
            Some(port) => command.arg("--bind-address=127.0.0.1").arg(format!("--port={port}")),
            None => command.arg("--skip-networking"),
        };
        command.args(&self.options.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("mysqld cannot be run");
        let watchdog = Watchdog::watch(child.id(), home);
        self.process = Some((Running(child), watchdog));
        self.wait_for_answer();
    }

    fn wait_for_answer(&mut self) {
        let (start, socket) = (Instant::now(), self.socket());
        while !answers(&socket) {
            let ended = self.process.as_mut().and_then(|(running, _)| running.0.try_wait().ok().flatten());
            let waits = ended.is_none() && start.elapsed() < PATIENCE;
            assert!(waits, "mysqld does not answer ({ended:?}):\n{}", self.error_log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("sock")
    }

    /// Port on 127.0.0.1, when [`Options::tcp`] was asked for.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Data directory.
    pub fn datadir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A directory for the test's own files, removed with the server. Short enough for sockets.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn error_log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// What mysqld has said since its last start.
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.error_log_path()).unwrap_or_default()
    }

    /// Process id while there is a process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|(running, _)| running.0.id())
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops the process in order (SIGTERM) and waits for its end.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let start = Instant::now();
        while let Some((running, _)) = &mut self.process {
            match running.0.try_wait() {
                Ok(Some(_)) => self.process = None,
                _ if start.elapsed() > PATIENCE => panic!("mysqld does not stop:\n{}", self.error_log()),
                _ => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Freezes the process (SIGSTOP): connections stay, answers do not come.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("mysqld does not run");
        let pid = Pid::from_raw(pid.try_into().expect("a process id fits"));
        kill(pid, signal).expect("mysqld cannot be signalled");
    }

    /// Runs statements as `root` with MySQL's own client: rows as lines, columns parted by tabs, no header.
    /// The error is what the client said.
    pub fn sql(&self, statements: &str) -> Result<String, String> {
        let mut client = self.client();
        client.args(["--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        said(&client.arg(format!("--execute={statements}")).output().expect("the mysql client cannot be run"))
    }

    /// Lets MySQL's own client read a file of statements, as a person would: `mysql < file`. The error is what it said.
    pub fn read(&self, script: &Path) -> Result<String, String> {
        let script = fs::File::open(script).expect("the statements cannot be read");
        said(&self.client().stdin(script).output().expect("the mysql client cannot be run"))
    }

    fn client(&self) -> Command {
        let mut client = Command::new(program("mysql"));
        client.args(["--no-defaults", "--user=root"]).arg(format!("--socket={}", self.socket().display()));
        client.stdin(Stdio::null());
        client
    }
}

fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Whether the server greets: it listens a little before it does.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let limited = stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok();
    limited && stream.read_exact(&mut [0]).is_ok()
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
