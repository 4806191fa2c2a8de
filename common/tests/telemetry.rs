//! What a daemon's log looks like. Logging is set up once a process, so each case is a process of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

use serde_json::Value;

/// Runs [`daemon`] with these variables.
fn run(variables: &[(&str, &str)]) -> (bool, String) {
    let Output { status, stderr, .. } = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon", "--nocapture"])
        .env_remove("PELORUS_LOG")
        .env_remove("PELORUS_LOG_FORMAT")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (status.success(), String::from_utf8(stderr).unwrap())
}

#[test]
#[ignore = "run by the others"]
fn daemon() {
    common::telemetry::init("test-d").unwrap();
    assert!(common::telemetry::init("test-d").is_err(), "logging is set up once");
    let span = tracing::info_span!("operation", epoch = 7);
    let _in = span.enter();
    tracing::info!(step = "fence", "something happened");
    tracing::debug!("a detail");
    let _ = std::thread::spawn(|| panic!("an accident")).join();
}

#[test]
fn json_is_the_default() {
    let (ok, log) = run(&[]);
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(ok && lines.len() == 3, "{log}");
    assert_eq!((&lines[0]["message"], &lines[0]["daemon"]), (&"started".into(), &"test-d".into()));
    assert!(lines[0]["version"].is_string() && lines[0]["commit"].is_string());
    assert_eq!((&lines[1]["step"], &lines[1]["span"]["epoch"]), (&"fence".into(), &7.into()));
    assert_eq!(lines[2]["level"], "ERROR");
    assert!(lines[2]["panic"].as_str().unwrap().contains("an accident"), "{log}");
}

#[test]
fn format_and_filter_are_chosen_by_variables() {
    let (ok, log) = run(&[("PELORUS_LOG_FORMAT", "text"), ("PELORUS_LOG", "debug")]);
    assert!(ok && log.contains("a detail") && log.contains("step=\"fence\"") && !log.starts_with('{'), "{log}");
    let (ok, log) = run(&[("PELORUS_LOG", "off")]);
    assert!(ok && !log.contains("something happened"), "{log}");
}

#[test]
fn nonsense_is_refused() {
    assert!(run(&[("PELORUS_LOG_FORMAT", "xml")]).1.contains("xml"));
    assert!(!run(&[("PELORUS_LOG", "info,kube=loud")]).0);
}
