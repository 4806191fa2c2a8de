//! Cleans up after a test process that cannot any more: killed, or ended with servers in statics.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that waits for its standard input to end. Without a word before that, it kills a process and removes a directory.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    pub(crate) fn watch(pid: u32, directory: &Path) -> Self {
        let shell = Command::new("sh")
            .args(["-c", "read -r _ && exit; kill -9 \"$1\"; rm -rf \"$2\"", "sh", &pid.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(shell.expect("sh cannot be run"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(stdin) = &mut self.0.stdin {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.0.wait();
    }
}
