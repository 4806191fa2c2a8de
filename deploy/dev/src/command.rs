//! Running other programs, with the end of their output in the error when they fail.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::error::{Error, Result};

/// How much of a failed program's output goes into the error.
const TAIL: usize = 1500;

fn render(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

fn spawn_error(command: &Command, source: std::io::Error) -> Error {
    Error::Spawn { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn failed(command: &Command, output: &Output) -> Error {
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut text);
    }
    let start = text.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
    Error::Command {
        command: render(command),
        status: output.status.to_string(),
        output: text.get(start..).unwrap_or_default().to_owned(),
    }
}

/// Builds a command without running it.
pub(crate) fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a prepared command; its standard output is the result.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let output = command.output().map_err(|source| spawn_error(&command, source))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(&command, &output))
    }
}

/// Runs a program; its standard output is the result.
pub(crate) fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<String> {
    output(command(program, args))
}

/// Runs a program given as one line of words that hold no spaces.
pub(crate) fn line(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    run(words.next().unwrap_or("false"), words)
}

/// Runs a program given as one line; tells only whether it succeeded.
pub(crate) fn succeeds(text: &str) -> bool {
    line(text).is_ok()
}

/// Runs a program with `input` on its standard input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| spawn_error(&command, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why by itself; the broken pipe adds nothing.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|source| spawn_error(&command, source))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(&command, &output))
    }
}

/// Creates a folder and those above it.
pub(crate) fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::file("create folder", path))
}

/// Writes a file whole or not at all: beside it, synced, then renamed over it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, content).map_err(Error::file("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::file("rename to", path))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::file("read", path))
}
