//! Building what the cluster runs: Kubernetes, etcd, CoreDNS, Helm and NATS from pinned Go modules (go.sum holds their checksums), MySQL from
//! Debian's packages, and the pause program.
//!
//! The sources are part of this binary, so a build needs no path into the clone.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use tracing::info;

use crate::{
    cache::{self, Inputs},
    command,
    error::{Error, Result},
    paths::Paths,
};

/// Version of Kubernetes in `go/kube/go.mod`. The API server refuses to run without knowing its own version.
const KUBERNETES: &str = "1.35.4";
/// Debian packages that the cluster needs on the host.
const PACKAGES: [&str; 13] = [
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "ethtool",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "mmdebstrap",
    "runc",
    "socat",
    "xfsprogs",
];
/// Go packages of `go/tools` and the programs they become.
const TOOLS: [(&str, &str); 4] = [
    ("go.etcd.io/etcd/server/v3", "etcd"),
    ("github.com/nats-io/nats-server/v2", "nats-server"),
    ("github.com/coredns/coredns", "coredns"),
    ("helm.sh/helm/v3/cmd/helm", "helm"),
];
/// The S3 server of `go/s3`. A module of its own: its many dependencies are none of the others' business.
const S3: (&str, &str) = ("github.com/versity/versitygw/cmd/versitygw", "versitygw");
/// Debian packages in the MySQL image.
const MYSQL_PACKAGES: &str =
    "base-files,base-passwd,bash,coreutils,dash,grep,sed,libc-bin,mysql-server-core,mysql-client-core";
/// Where they come from: the only suite with an innovation release of MySQL.
const MYSQL_SUITE: &str = "sid";
/// Folders of the MySQL root that nobody reads in a container.
const MYSQL_STRIPPED: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg/info",
];

/// What was built, and where it lies.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// Folder with `devkube` and `kubectl`.
    pub kube: PathBuf,
    /// Folder with `etcd`, `nats-server`, `coredns` and `helm`.
    pub tools: PathBuf,
    /// Folder with `versitygw`, an S3 server.
    pub s3: PathBuf,
    /// Root file system with MySQL.
    pub mysql_root: PathBuf,
    /// The pause program.
    pub pause: PathBuf,
}

impl Artifacts {
    /// The binary that holds Kubernetes.
    pub fn devkube(&self) -> PathBuf {
        self.kube.join("devkube")
    }

    /// kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.kube.join("kubectl")
    }
}

fn kube_inputs() -> Inputs {
    Inputs::default()
        .with("version", KUBERNETES)
        .with("main.go", include_str!("../go/kube/main.go"))
        .with("go.mod", include_str!("../go/kube/go.mod"))
        .with("go.sum", include_str!("../go/kube/go.sum"))
}

/// Files of a Go module, by name.
type Module = [(&'static str, &'static str); 3];

const TOOLS_MODULE: Module = [
    ("tools.go", include_str!("../go/tools/tools.go")),
    ("go.mod", include_str!("../go/tools/go.mod")),
    ("go.sum", include_str!("../go/tools/go.sum")),
];
const S3_MODULE: Module = [
    ("tools.go", include_str!("../go/s3/tools.go")),
    ("go.mod", include_str!("../go/s3/go.mod")),
    ("go.sum", include_str!("../go/s3/go.sum")),
];

fn module_inputs(module: &Module) -> Inputs {
    module.iter().fold(Inputs::default(), |inputs, (name, content)| inputs.with(name, content))
}

/// The MySQL image's `/etc/nsswitch.conf`.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

fn mysql_inputs() -> Inputs {
    MYSQL_STRIPPED.iter().fold(
        Inputs::default().with("packages", MYSQL_PACKAGES).with("suite", MYSQL_SUITE).with("nsswitch", NSSWITCH),
        |inputs, path| inputs.with("stripped", path),
    )
}

/// Builds whatever the cache lacks.
pub fn ensure(paths: &Paths) -> Result<Artifacts> {
    packages()?;
    // Downloading and unpacking Debian packages leaves the cores to Go's compiler.
    let (mysql, programs) = thread::scope(|scope| {
        let mysql = scope.spawn(|| mysql(&paths.cache));
        let programs = (|| {
            let pause = pause(&paths.cache)?;
            let kube = kube(&paths.cache)?;
            let tools = go_programs(&paths.cache, "tools", &TOOLS_MODULE, &TOOLS)?;
            Ok((pause, kube, tools, go_programs(&paths.cache, "s3", &S3_MODULE, &[S3])?))
        })();
        let mysql = mysql.join().unwrap_or_else(|_| Err(Error::Invalid("the build of the MySQL root panicked".into())));
        (mysql, programs)
    });
    let (pause, kube, tools, s3) = programs?;
    Ok(Artifacts {
        kube: kube.join("bin"),
        tools: tools.join("bin"),
        s3: s3.join("bin"),
        mysql_root: mysql?.join("root"),
        pause: pause.join("pause"),
    })
}

/// Installs the Debian packages that are missing.
fn packages() -> Result<()> {
    let installed = |package: &str| {
        command::run("dpkg-query", ["-W", "-f", "${Status}", package]).is_ok_and(|text| text == "install ok installed")
    };
    let missing: Vec<_> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    info!("installing {}", missing.join(" "));
    let install = || {
        let args = ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends"];
        let mut apt = command::command("apt-get", args.into_iter().chain(missing.iter().copied()));
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        command::output(apt)
    };
    if install().is_err() {
        command::run("apt-get", ["-o", "DPkg::Lock::Timeout=300", "update", "-q"])?;
        install()?;
    }
    info!("installed packages in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn go_build(folder: &Path, package: &str, ldflags: &str, output: &Path) -> Result<()> {
    let mut go = command::command("go", ["build", "-trimpath", "-ldflags", ldflags, "-o"]);
    go.arg(output).arg(package).current_dir(folder);
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false").env("GOWORK", "off");
    command::output(go).map(drop)
}

fn sources(folder: &Path, files: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let temporary = tempfile::tempdir_in(folder).map_err(Error::file("create a folder in", folder))?;
    for (name, content) in files {
        command::write(&temporary.path().join(name), content)?;
    }
    Ok(temporary)
}

fn kube(cache: &Path) -> Result<PathBuf> {
    cache::entry(cache, "kube", &kube_inputs().key(), |folder| {
        let source = sources(
            folder,
            &[
                ("main.go", include_str!("../go/kube/main.go")),
                ("go.mod", include_str!("../go/kube/go.mod")),
                ("go.sum", include_str!("../go/kube/go.sum")),
            ],
        )?;
        let package = "k8s.io/component-base/version";
        let mut numbers = KUBERNETES.split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let ldflags = format!(
            "-s -w -X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean -X {package}.gitCommit=unknown -X {package}.buildDate=2026-01-01T00:00:00Z"
        );
        let bin = folder.join("bin");
        command::folder(&bin)?;
        go_build(source.path(), ".", &ldflags, &bin.join("devkube"))?;
        std::os::unix::fs::symlink("devkube", bin.join("kubectl")).map_err(Error::file("link", bin.join("kubectl")))
    })
}

/// Builds programs of one Go module into the folder `bin` of a cache entry.
fn go_programs(cache: &Path, kind: &str, module: &Module, programs: &[(&str, &str)]) -> Result<PathBuf> {
    cache::entry(cache, kind, &module_inputs(module).key(), |folder| {
        let source = sources(folder, module)?;
        let bin = folder.join("bin");
        command::folder(&bin)?;
        for (package, program) in programs {
            let started = Instant::now();
            go_build(source.path(), package, "-s -w", &bin.join(program))?;
            info!("built {program} in {:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(())
    })
}

fn pause(cache: &Path) -> Result<PathBuf> {
    let source = include_str!("../pause.c");
    cache::entry(cache, "pause", &Inputs::default().with("pause.c", source).key(), |folder| {
        let mut gcc = command::command("gcc", ["-O2", "-static", "-s", "-x", "c", "-", "-o"]);
        gcc.arg(folder.join("pause"));
        command::feed(gcc, source.as_bytes()).map(drop)
    })
}

fn mysql(cache: &Path) -> Result<PathBuf> {
    cache::entry(cache, "mysql", &mysql_inputs().key(), |folder| {
        let root = folder.join("root");
        let mut mmdebstrap = command::command("mmdebstrap", ["--quiet", "--variant=extract"]);
        // The Release file of this suite may be past its date in a mirror.
        mmdebstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        mmdebstrap.arg(format!("--include={MYSQL_PACKAGES}")).arg(MYSQL_SUITE).arg(&root);
        command::output(mmdebstrap)?;
        for path in MYSQL_STRIPPED {
            let path = root.join(path);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
            }
        }
        // Nothing was configured, so base-passwd did not copy its masters; user 999 is the one MySQL images use.
        for (name, entry) in
            [("passwd", "mysql:x:999:999::/nonexistent:/usr/sbin/nologin\n"), ("group", "mysql:x:999:\n")]
        {
            let master = command::read(&root.join(format!("usr/share/base-passwd/{name}.master")))?;
            command::write(&root.join("etc").join(name), format!("{master}{entry}"))?;
        }
        // As in every MySQL image: a host is looked for in /etc/hosts first.
        command::write(&root.join("etc/nsswitch.conf"), NSSWITCH)?;
        Ok(())
    })
}

/// Keys of what goes into images, so that an image is made again exactly when its content is another.
pub(crate) fn image_inputs(what: &str) -> Inputs {
    let inputs = match what {
        "mysql" => mysql_inputs(),
        "pause" => Inputs::default().with("pause.c", include_str!("../pause.c")),
        "s3" => module_inputs(&S3_MODULE),
        _ => module_inputs(&TOOLS_MODULE),
    };
    inputs.with("image", what)
}
