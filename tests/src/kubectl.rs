//! kubectl, for what it does best: running something inside a container.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::Harness;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs kubectl; its standard output is the result.
///
/// # Errors
/// When it fails, with its own words.
pub async fn kubectl(harness: &Harness, args: &[&str]) -> Result<String> {
    let program = match &harness.dev {
        Some(dev) => {
            let paths = dev.paths().clone();
            tokio::task::spawn_blocking(move || pelorus_dev::build::ensure(&paths)).await??.kubectl()
        }
        None => "kubectl".into(),
    };
    let mut command = Command::new(program);
    command.args(args).env("KUBECONFIG", &harness.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await.context("kubectl takes too long")??;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.first().unwrap_or(&""), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command inside the MySQL container of a pod.
///
/// # Errors
/// When it fails, with its own words.
pub async fn exec(harness: &Harness, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let mut args = vec!["exec", "-n", namespace, pod, "-c", common::names::CONTAINER_MYSQL, "--"];
    args.extend(command);
    kubectl(harness, &args).await
}
