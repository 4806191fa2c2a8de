//! The kubectl plugin of Pelorus: what people do with a cluster by hand.
//!
//! ```text
//! args -> kubernetes (client, namespace) -> a command -> what came of it on stdout, how far it is on stderr, an exit code
//! ```
//!
//! A command asks by writing objects; daemons do what is asked. So a command that is interrupted leaves the object, and can look
//! at it again. What is decided here is pure, in modules of their own: [`moment`] (times), [`restore::plan`], [`restore::follow`],
//! [`show`] (what people see).
//!
//! A library, so that a test can have the very same program as a binary of its own package.

mod args;
mod backup;
mod dump;
mod dumps;
mod error;
mod kubernetes;
mod moment;
mod progress;
mod restore;
mod show;
mod tunnel;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::error::Error;
use crate::kubernetes::Kubernetes;

/// Runs the command that the arguments of the process name.
pub fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    let Cli { target, command } = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told(&Error::Failed(format!("start: {error}"))),
    };
    let done = runtime.block_on(async {
        let kubernetes = Kubernetes::connect(&target).await?;
        match command {
            Command::Backup(wanted) => backup::run(&kubernetes, &wanted).await,
            Command::Dumps(wanted) => dumps::run(&kubernetes, &wanted).await,
            Command::Restore(wanted) => Box::pin(restore::run(&kubernetes, &wanted)).await,
            Command::Dump(wanted) => Box::pin(dump::run(&kubernetes, &wanted)).await,
        }
    });
    // What still waits for a terminal or a server is not waited for.
    runtime.shutdown_background();
    done.map_or_else(|error| told(&error), |()| ExitCode::SUCCESS)
}

fn told(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(error.code())
}
