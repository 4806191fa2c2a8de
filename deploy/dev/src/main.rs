//! `devcluster`: builds, starts, breaks, heals and removes the development cluster.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, Subcommand};
use pelorus_dev::{
    Cluster, Node, NodeOptions, Paths, build,
    fault::{self, Direction, Party, Signal},
    images, lifecycle, provisioner,
};

/// The development Kubernetes of this host.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds what the cluster runs into the cache
    Build,
    /// Brings the cluster up, or back to how it should be; with a KUBECONFIG of another cluster only checks that one
    Up {
        /// kube-proxy's --iptables-min-sync-period (its own default is 1s)
        #[arg(long, env = "DEVCLUSTER_KUBE_PROXY_SYNC", default_value = "50ms")]
        kube_proxy_sync: String,
    },
    /// Takes the cluster down; the cache stays
    Down,
    /// Says what runs; fails when something does not
    Status,
    /// Prints `export KUBECONFIG=… PATH=…` for a shell
    Env,
    /// Builds all images and imports them into the nodes; prints their names as JSON
    Images {
        /// Cargo profile of the daemons
        #[arg(long, default_value = "dev")]
        profile: String,
        /// Only MySQL and NATS, not the daemons of this clone
        #[arg(long)]
        servers_only: bool,
    },
    /// Serves claims of volumes; `up` starts this by itself
    #[command(hide = true)]
    Provisioner,
    /// Breaks or heals a node
    Node {
        #[command(subcommand)]
        action: NodeAction,
    },
    /// Drops packets between two of pod:NS/NAME, deploy:NS/NAME, node:NAME, apiserver, host
    Drop {
        from: Party,
        to: Party,
        /// Only packets from the first to the second
        #[arg(long)]
        one_way: bool,
        /// How many of a hundred packets, by chance
        #[arg(long, default_value_t = 100)]
        percent: u8,
    },
    /// Lets packets pass again
    Undrop { from: Party, to: Party },
    /// Stops (SIGSTOP) a program in a pod's container
    Freeze(InPod),
    /// Lets it go on
    Thaw(InPod),
    /// Sends a signal to a program in a pod's container
    Kill {
        #[command(flatten)]
        target: InPod,
        #[arg(long, default_value = "SIGKILL")]
        signal: Signal,
    },
    /// Fills the volume of a claim
    Fill {
        namespace: String,
        claim: String,
        /// Bytes to leave free
        #[arg(long, default_value_t = 0)]
        leave: u64,
    },
    /// Frees it again
    Unfill { namespace: String, claim: String },
    /// Lets every write to the volume of a claim wait
    FreezeVolume { namespace: String, claim: String },
    /// Lets them go on
    ThawVolume { namespace: String, claim: String },
    /// Lets everything on the volume of a claim fail, for good
    BreakVolume { namespace: String, claim: String },
    /// Stops or starts the API server
    Apiserver {
        #[command(subcommand)]
        action: ApiServerAction,
    },
    /// Lists the faults in force
    Faults,
    /// Undoes all faults
    Heal,
}

#[derive(Subcommand)]
enum NodeAction {
    /// Unplugs the cable
    Cut { node: String },
    /// Plugs it in
    Heal { node: String },
    /// Kills everything on the node at once
    Off { node: String },
    /// Boots it again
    On { node: String },
}

#[derive(Subcommand)]
enum ApiServerAction {
    /// Kills it
    Stop,
    /// Starts it and waits until it is ready
    Start,
}

#[derive(clap::Args)]
struct InPod {
    namespace: String,
    pod: String,
    container: String,
    program: String,
}

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time().with_ansi(false).init();
    let command = Cli::parse().command;
    let result = match (other_kubeconfig(), &command) {
        (Some(other), Command::Up { .. }) => check(&other),
        (Some(_), Command::Images { profile, servers_only }) => explain_push((!servers_only).then_some(profile)),
        _ => run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The texts of this crate name their sources themselves.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build => build::ensure(&Paths::from_env()).map(drop)?,
        Command::Up { kube_proxy_sync } => lifecycle::up(&Cluster::new()?, &NodeOptions { kube_proxy_sync })?,
        Command::Down => lifecycle::down(&Cluster::new()?)?,
        Command::Status => {
            let (lines, whole) = lifecycle::status(&Cluster::new()?);
            for line in lines {
                println!("{line}");
            }
            if !whole {
                bail!("not everything runs; `devcluster up` starts what is missing");
            }
        }
        Command::Env => {
            let cluster = Cluster::new()?;
            println!("{}", lifecycle::environment(&cluster, &build::ensure(cluster.paths())?));
        }
        Command::Images { profile, servers_only } => {
            let profile = (!servers_only).then_some(profile.as_str());
            println!("{}", images::to_json(&images::ensure_all(&Cluster::open()?, profile)?));
        }
        Command::Provisioner => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(provisioner::run(Paths::from_env()))?;
        }
        Command::Node { action } => node(&Cluster::open()?, &action)?,
        Command::Drop { from, to, one_way, percent } => {
            let direction = if one_way { Direction::OneWay } else { Direction::Both };
            fault::lose_between(&Cluster::open()?, &from, &to, direction, percent)?;
        }
        Command::Undrop { from, to } => fault::undrop(&Cluster::open()?, &from, &to)?,
        Command::Freeze(InPod { namespace, pod, container, program }) => {
            fault::freeze(&Cluster::open()?, &namespace, &pod, &container, &program)?;
        }
        Command::Thaw(InPod { namespace, pod, container, program }) => {
            fault::thaw(&Cluster::open()?, &namespace, &pod, &container, &program)?;
        }
        Command::Kill { target: InPod { namespace, pod, container, program }, signal } => {
            fault::kill_in_pod(&Cluster::open()?, &namespace, &pod, &container, &program, signal)?;
        }
        Command::Fill { namespace, claim, leave } => fault::fill_volume(&Cluster::open()?, &namespace, &claim, leave)?,
        Command::Unfill { namespace, claim } => fault::unfill_volume(&Cluster::open()?, &namespace, &claim)?,
        Command::FreezeVolume { namespace, claim } => fault::freeze_volume(&Cluster::open()?, &namespace, &claim)?,
        Command::ThawVolume { namespace, claim } => fault::thaw_volume(&Cluster::open()?, &namespace, &claim)?,
        Command::BreakVolume { namespace, claim } => fault::break_volume(&Cluster::open()?, &namespace, &claim)?,
        Command::Apiserver { action: ApiServerAction::Stop } => fault::stop_api_server(&Cluster::open()?)?,
        Command::Apiserver { action: ApiServerAction::Start } => fault::start_api_server(&Cluster::open()?)?,
        Command::Faults => fault::active(&Cluster::open()?).iter().for_each(|fault| println!("{fault}")),
        Command::Heal => fault::heal(&Cluster::open()?)?,
    }
    Ok(())
}

fn node(cluster: &Cluster, action: &NodeAction) -> Result<()> {
    let (NodeAction::Cut { node } | NodeAction::Heal { node } | NodeAction::Off { node } | NodeAction::On { node }) =
        action;
    let node = Node::parse(node).with_context(|| format!("there is no node {node}"))?;
    match action {
        NodeAction::Cut { .. } => fault::cut_node(cluster, node)?,
        NodeAction::Heal { .. } => fault::heal_node(cluster, node)?,
        NodeAction::Off { .. } => fault::power_off(cluster, node)?,
        NodeAction::On { .. } => fault::power_on(cluster, node)?,
    }
    Ok(())
}

/// The user's KUBECONFIG, when it is not that of the development cluster.
fn other_kubeconfig() -> Option<String> {
    let value = std::env::var("KUBECONFIG").ok().filter(|value| !value.is_empty())?;
    (Path::new(&value) != Paths::from_env().kubeconfig()).then_some(value)
}

/// Asks the user's own cluster for its version.
fn check(kubeconfig: &str) -> Result<()> {
    let output = std::process::Command::new("kubectl")
        .args(["version", "--request-timeout=10s", "-o", "yaml"])
        .output()
        .map_err(|error| anyhow!("start kubectl, which has to be in PATH to use a cluster of your own: {error}"))?;
    if !output.status.success() {
        bail!(
            "the cluster of KUBECONFIG={kubeconfig} does not answer: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    eprintln!("KUBECONFIG={kubeconfig} is set and its cluster answers; the development cluster is left alone");
    Ok(())
}

/// Images cannot be imported into a cluster that is not ours.
fn explain_push(profile: Option<&String>) -> Result<()> {
    let Ok(registry) = std::env::var("PELORUS_REGISTRY") else {
        bail!(
            "KUBECONFIG names a cluster of your own, which images cannot be imported into; set PELORUS_REGISTRY to a registry that it can pull from"
        );
    };
    let mut archives = images::make_all(&Paths::from_env(), profile.map(String::as_str))?;
    eprintln!("KUBECONFIG names a cluster of your own; push these images where it can pull them:");
    for archive in &mut archives {
        let target = archive.reference.replacen("localhost/", &format!("{registry}/"), 1);
        eprintln!("  skopeo copy docker-archive:{}:{} docker://{target}", archive.path.display(), archive.reference);
        archive.reference = target;
    }
    println!("{}", images::to_json(&archives));
    Ok(())
}
