//! Where MySQL is, and how its programs run on a host with other libraries.
//!
//! ```text
//! $PELORUS_MYSQL_ROOT, or the newest ${PELORUS_CACHE:-$HOME/.cache/pelorus}/mysql-*/root
//! <cache>/testkit/<digest of root>/bin/mysqld      wrapper: exec <root's loader> --library-path .. <root>/usr/sbin/mysqld
//! <cache>/testkit/<digest of root>/data            initialised data directory, copied for each server
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// Part of the digest: to be changed with what is made below it.
const LAYOUT: &str = "1";

fn cache() -> PathBuf {
    match std::env::var_os("PELORUS_CACHE") {
        Some(cache) => cache.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache/pelorus"),
    }
}

/// A file of the newest cache entry that has it, among those whose names begin alike.
pub(crate) fn newest(prefix: &str, file: &str) -> Option<PathBuf> {
    fs::read_dir(cache())
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(file))
        .filter(|path| path.is_file())
        .max_by_key(|path| path.ancestors().nth(file.split('/').count())?.metadata().and_then(|m| m.modified()).ok())
}

/// The unpacked MySQL: a directory with `usr/sbin/mysqld`, its libraries and its loader.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let named = std::env::var_os("PELORUS_MYSQL_ROOT").map(PathBuf::from);
        let found = named.or_else(|| {
            let mysqld = newest("mysql-", "root/usr/sbin/mysqld")?;
            mysqld.ancestors().nth(3).map(Path::to_owned)
        });
        match found {
            Some(root) if root.join("usr/sbin/mysqld").is_file() => {
                root.canonicalize().expect("the MySQL root cannot be resolved")
            }
            Some(root) => panic!("there is no usr/sbin/mysqld below {}: run `make deps`", root.display()),
            None => panic!("there is no MySQL to test with: run `make deps`, or set PELORUS_MYSQL_ROOT"),
        }
    })
}

/// A directory that belongs to this MySQL root and lives as long as the cache.
fn workshop() -> PathBuf {
    let mysqld = root().join("usr/sbin/mysqld");
    let file = fs::metadata(&mysqld).expect("mysqld cannot be looked at");
    let seed = format!("{LAYOUT} {} {} {}", mysqld.display(), file.size(), file.mtime_nsec());
    let digest = Sha256::digest(seed);
    let start = digest.first_chunk::<8>().expect("a digest has 32 bytes");
    cache().join("testkit").join(format!("{:016x}", u64::from_be_bytes(*start)))
}

/// Makes something below the workshop once, however many processes want it at the same time.
fn make_once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let target = workshop().join(name);
    if !target.exists() {
        let parent = target.parent().expect("a path below the workshop has a parent");
        fs::create_dir_all(parent).expect("the test cache cannot be made");
        let draft = tempfile::tempdir_in(parent).expect("the test cache takes no directory");
        let made = draft.path().join("made");
        make(&made);
        // Whoever comes second fails to rename, and finds the target in place.
        if fs::rename(&made, &target).is_err() {
            assert!(target.exists(), "{} cannot be put in place", target.display());
        }
    }
    target
}

/// A program of the MySQL root (`mysqld`, `mysql`, `mysqlbinlog`, ...) as an executable file for this host.
///
/// A shell script that becomes the program (the process id stays): the root's own loader and libraries, and for mysqld
/// the paths that are compiled in as `/usr/...`, after all other arguments; and `--user=root` when the tests run as root.
pub fn program(name: &str) -> PathBuf {
    make_once(&format!("bin/{name}"), |path| {
        fs::write(path, script(name)).expect("the wrapper cannot be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the wrapper cannot be made executable");
    })
}

fn script(name: &str) -> String {
    let root = root();
    let binary = ["usr/sbin", "usr/bin"].map(|dir| root.join(dir).join(name)).into_iter().find(|path| path.is_file());
    let binary = binary.unwrap_or_else(|| panic!("MySQL has no program {name}"));
    let libraries = fs::read_dir(root.join("usr/lib"))
        .expect("the MySQL root has no usr/lib")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .expect("the MySQL root has no libraries");
    let loader = fs::read_dir(&libraries)
        .expect("the libraries cannot be listed")
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux-"))
        .expect("the MySQL root has no loader")
        .path();
    let mut extra = String::new();
    if name == "mysqld" {
        let usr = root.join("usr");
        let usr = usr.display();
        extra = format!(
            " '--basedir={usr}' '--lc-messages-dir={usr}/share/mysql' '--plugin-dir={usr}/lib/mysql/plugin' \
             '--character-sets-dir={usr}/share/mysql/charsets'"
        );
    }
    let user = if name == "mysqld" { "[ \"$(id -u)\" = 0 ] && set -- \"$@\" --user=root\n" } else { "" };
    let (loader, libraries, binary) = (loader.display(), libraries.display(), binary.display());
    format!(
        "#!/bin/sh\n{user}exec '{loader}' --library-path '{libraries}' --argv0 '{binary}' '{binary}' \"$@\"{extra}\n"
    )
}

/// An initialised data directory to be copied, never to be used: `root`@`localhost` without a password, no GTIDs.
pub(crate) fn template() -> PathBuf {
    make_once("data", |path| {
        let output = Command::new(program("mysqld"))
            .args(["--no-defaults", "--initialize-insecure", "--skip-log-bin", "--innodb-redo-log-capacity=16M"])
            .arg(format!("--datadir={}", path.display()))
            .output()
            .expect("mysqld cannot be run");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the data directory cannot be initialised:\n{log}");
        // Each copy gets its own server_uuid.
        fs::remove_file(path.join("auto.cnf")).expect("there is no auto.cnf");
    })
}
