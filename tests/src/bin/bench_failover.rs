//! From a fault to the first acknowledged write on another primary, through the primary Service from inside the cluster:
//! `make bench-failover RUNS=20`.
//!
//! | variable | meaning |
//! |---|---|
//! | `RUNS` | runs of each fault (20) |
//! | `FAULTS` | which: `kill,place,pod,stop,cut,off,switch` (all) |
//! | `CPU` | CPU request of each instance, which is its weight where there is none left (10m) |
//! | `WRITERS`, `REST_MS` | writers, one connection each (8), and their rest between two rows (5) |
//!
//! All runs are on one cluster of three, each of them from a settled state. Writers live in the network namespace of a
//! node that the fault does not hit, as pods of that node would. Every run ends with the check of its ledger. `place` is what
//! one has without failover, on the same cluster: mysqld is started again in place.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tests::bench::{Row, report};
use tests::faults::MYSQLD;
use tests::ledger::{Ledger, Options, SCHEMA};
use tests::pace::{Look, until_often};
use tests::steps::{self, Steps};
use tests::trial::{away_from, wait_whole};
use tests::{Cluster, Faults, Scene, run, spec};

/// Longest wait for a failover.
const FAILED_OVER: Duration = Duration::from_secs(60);
/// Longest wait until the old primary serves as a replica, and until the cluster is whole.
const BACK: Duration = Duration::from_secs(240);
/// Writers are at work so long before the fault.
const WARM: Duration = Duration::from_secs(2);
/// The gap of a switchover is looked for within this.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    Place,
    Pod,
    Stop,
    Cut,
    Off,
    Switch,
}

impl Kind {
    const ALL: [(&str, Self); 7] = [
        ("kill", Self::Kill),
        ("place", Self::Place),
        ("pod", Self::Pod),
        ("stop", Self::Stop),
        ("cut", Self::Cut),
        ("off", Self::Off),
        ("switch", Self::Switch),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of mysqld",
            Self::Place => "kill -9 without failover: restart in place",
            Self::Pod => "pod deleted, grace period 0",
            Self::Stop => "SIGSTOP of mysqld",
            Self::Cut => "node unplugged",
            Self::Off => "node powered off",
            Self::Switch => "switchover, longest gap",
        }
    }

    fn goal(self) -> &'static str {
        match self {
            Self::Kill | Self::Pod => "goal p50 200, p99 800",
            Self::Place => "to compare with",
            Self::Stop | Self::Cut | Self::Off => "goal p50 2000, p99 3000",
            Self::Switch => "goal p50 100, p99 300",
        }
    }
}

/// What one run measured.
struct Run {
    milliseconds: f64,
    /// The longest time without an acknowledgement to anybody.
    gap: f64,
    back_seconds: f64,
    cloned: bool,
    lost: usize,
    /// One write to the API server before the fault.
    api_write: f64,
    /// Share of this machine's CPUs that was in use before it.
    busy: f64,
    steps: Steps,
}

/// What the machine was like before the faults.
#[derive(Default)]
struct Before {
    api_writes: Vec<f64>,
    busy: Vec<f64>,
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn kinds() -> Result<Vec<Kind>> {
    let wanted = std::env::var("FAULTS").ok().filter(|text| !text.is_empty());
    let Some(wanted) = wanted else { return Ok(Kind::ALL.map(|(_, kind)| kind).to_vec()) };
    wanted
        .split(',')
        .map(|name| {
            let found = Kind::ALL.iter().find(|(known, _)| *known == name.trim());
            found.map(|(_, kind)| *kind).with_context(|| format!("FAULTS: there is no {name:?}"))
        })
        .collect()
}

fn options() -> Options {
    Options {
        writers: u32::try_from(setting("WRITERS", 8)).unwrap_or(8),
        rest: Duration::from_millis(setting("REST_MS", 5)),
        answer: Duration::from_millis(300),
        login: Duration::from_millis(100),
        spread: Duration::from_millis(15),
        // As impatient as a pool may be: eight of these leave two cores something to fail over with.
        again: Duration::from_millis(20),
        ..Options::impatient()
    }
}

/// Makes the fault; the result is its moment.
async fn inject(kind: Kind, cluster: &Cluster, faults: &mut Faults, primary: &str) -> Result<Instant> {
    match kind {
        Kind::Kill | Kind::Place => faults.kill(primary, MYSQLD).await,
        Kind::Pod => faults.delete_at_once(primary).await,
        Kind::Stop => faults.freeze(primary, MYSQLD).await,
        Kind::Cut => faults.unplug(faults.node_of(primary).await?).await,
        Kind::Off => faults.power_off(faults.node_of(primary).await?).await,
        Kind::Switch => {
            let next = cluster.replicas().await?.into_iter().next().context("no replica")?;
            let moment = Instant::now();
            cluster.patch(json!({"primary": next})).await?;
            Ok(moment)
        }
    }
}

async fn wait_back(cluster: &Cluster, old: &str) -> Result<()> {
    let what = format!("{old} to serve as a replica");
    until_often(&what, BACK, Duration::from_millis(50), async || {
        let serves = cluster.serves_as_replica(old).await?;
        Ok(if serves { Look::Done(()) } else { Look::Not("not yet".to_owned()) })
    })
    .await
}

/// CPU time of this machine so far, in ticks: spent, and in all.
fn cpu_time() -> Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    let all: f64 = ticks.iter().sum();
    Ok((all - idle, all))
}

/// How long one small write to the API server takes beside the writers: a failover cannot do without two of them, or one.
async fn api_write(cluster: &Cluster) -> Result<f64> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.harness.client.clone(), &cluster.namespace);
    let begun = Instant::now();
    let data = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench"}, "data": {"at": jiff::Timestamp::now().to_string()}});
    api.patch("bench", &PatchParams::apply("bench").force(), &Patch::Apply(data))
        .await
        .context("write to the API server")?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

async fn once(kind: Kind, cluster: &Cluster, faults: &mut Faults) -> Result<Run> {
    cluster.patch(json!({"failover": {"enabled": kind != Kind::Place}})).await?;
    wait_whole(cluster, 3, BACK).await?;
    let old = cluster.primary().await?;
    let data = cluster.data_id(&old).await?;
    let node = away_from(faults.node_of(&old).await?)?;
    let ledger = Ledger::start(cluster, Options { node: Some(node), ..options() }).await?;
    let (spent, all) = cpu_time()?;
    tokio::time::sleep(WARM).await;
    let (spent_since, all_since) = cpu_time()?;
    let busy = (spent_since - spent) / (all_since - all).max(1.0) * 100.0;
    let api_write = api_write(cluster).await?;
    let server = ledger.tally().server();
    let moment = inject(kind, cluster, faults, &old).await?;
    let wall = jiff::Timestamp::now().checked_sub(moment.elapsed()).context("no clock")?;
    let at = ledger.at(moment);
    if kind == Kind::Place {
        ledger.wait_for(50, FAILED_OVER).await?;
    } else {
        ledger.wait_elsewhere(at, server, FAILED_OVER).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.heal().await?;
    // The host of a killed process was never away.
    let host_back = if matches!(kind, Kind::Stop | Kind::Cut | Kind::Off) { Instant::now() } else { moment };
    if kind != Kind::Place {
        wait_back(cluster, &old).await?;
    }
    let back_seconds = host_back.elapsed().as_secs_f64();
    tokio::time::sleep((at + WINDOW).saturating_sub(ledger.now())).await;
    wait_whole(cluster, 3, BACK).await?;
    let log = ledger.finish().await?;
    let milliseconds = match kind {
        Kind::Place => log.longest_gap_between(at, log.ended),
        Kind::Switch => log.longest_gap_between(at, at + WINDOW),
        Kind::Kill | Kind::Pod | Kind::Stop | Kind::Cut | Kind::Off => {
            log.first_elsewhere(at, server).context("nobody took over")?.saturating_sub(at)
        }
    };
    let verdict = log.check(cluster).await?;
    ensure!(verdict.phantom.is_empty() && verdict.differing.is_empty() && verdict.errant.is_empty(), "{verdict:#?}");
    let steps = steps::since(cluster, wall).await?;
    cluster.write(&[&format!("TRUNCATE TABLE {SCHEMA}.entries")]).await?;
    Ok(Run {
        milliseconds: milliseconds.as_secs_f64() * 1000.0,
        gap: log.longest_gap_between(at, at + WINDOW).as_secs_f64() * 1000.0,
        back_seconds,
        cloned: cluster.data_id(&old).await? != data,
        lost: verdict.lost.len(),
        api_write,
        busy,
        steps,
    })
}

async fn measure(scene: &Scene, kind: Kind, cluster: &Cluster, rows: &mut Vec<Row>, before: &mut Before) -> Result<()> {
    let mut faults = Faults::new(cluster);
    let mut runs: Vec<Run> = Vec::new();
    let mut result = Ok(());
    for number in 1..=setting("RUNS", 20) {
        match once(kind, cluster, &mut faults).await {
            Ok(run) => {
                let Run { milliseconds, back_seconds, cloned, lost, .. } = &run;
                let how = if *cloned { ", cloned" } else { "" };
                scene.step(&format!(
                    "{} {number}: {milliseconds:.0} ms, back after {back_seconds:.1} s{how}, lost {lost}",
                    kind.title()
                ));
                runs.push(run);
            }
            Err(error) => {
                faults.heal().await?;
                result = Err(error.context(format!("{} {number}", kind.title())));
                break;
            }
        }
    }
    if kind == Kind::Switch {
        cluster.patch(json!({"primary": null})).await?;
    }
    let lost = runs.iter().map(|run| run.lost).sum();
    let cloned = runs.iter().filter(|run| run.cloned).count();
    let milliseconds = runs.iter().map(|run| run.milliseconds).collect();
    let back = runs.iter().map(|run| run.back_seconds).collect();
    rows.push(Row::new(kind.title(), "ms", milliseconds).lost(lost).note(kind.goal()));
    if kind == Kind::Pod {
        // The API server and the kubelet take their time to end it, and until then it serves.
        let gaps = runs.iter().map(|run| run.gap).collect();
        rows.push(Row::new(format!("{}: longest gap", kind.title()), "ms", gaps).note("to compare with"));
    }
    let name = format!("{}: old primary is a replica", kind.title());
    if kind != Kind::Place {
        rows.push(Row::new(name, "s", back).note(format!("goal 10; {cloned} cloned")));
    }
    before.api_writes.extend(runs.iter().map(|run| run.api_write));
    before.busy.extend(runs.iter().map(|run| run.busy));
    let steps: Vec<Steps> = runs.into_iter().map(|run| run.steps).collect();
    println!("\n{}: mean milliseconds from the fault, by failover-d's log", kind.title());
    for (name, mean, count) in steps::means(&steps) {
        println!("  {mean:9.1}  {name} ({count})");
    }
    result
}

#[tokio::main]
async fn main() -> Result<()> {
    let kinds = kinds()?;
    let mut rows = Vec::new();
    let mut before = Before::default();
    let mut sync = "unknown".to_owned();
    let result = run("bench-failover", async |scene| {
        let dev = scene.harness.dev.as_ref().context("this needs the development cluster: unset KUBECONFIG")?;
        let found = std::fs::read_to_string(dev.paths().state.join("kube-proxy-sync"));
        sync = found.map_or_else(|_| "50ms".to_owned(), |text| text.trim().to_owned());
        let mut wanted = spec::small(3);
        // As many as there are runs; the window is what keeps real clusters from flapping.
        wanted.failover.max_changes = 100;
        wanted.failover.window = Duration::from_secs(60).into();
        if let Ok(cpu) = std::env::var("CPU")
            && let Some(requests) = wanted.resources.as_mut().and_then(|resources| resources.requests.as_mut())
        {
            requests.insert("cpu".to_owned(), Quantity(cpu));
        }
        let cluster = scene.create("shop", wanted).await?;
        let mut failed = Vec::new();
        for kind in kinds {
            if let Err(error) = measure(scene, kind, &cluster, &mut rows, &mut before).await {
                scene.step(&format!("FAILED: {error:#}"));
                failed.push(format!("{error:#}"));
            }
        }
        if !failed.is_empty() {
            bail!("{}", failed.join("\n"));
        }
        Ok(())
    })
    .await;
    if !before.busy.is_empty() {
        rows.push(
            Row::new("one write to the API server, beside the writers", "ms", before.api_writes)
                .note("to compare with"),
        );
        rows.push(Row::new("CPUs in use before the fault", "%", before.busy).note("to compare with"));
    }
    println!("\nkube-proxy syncs every {sync} at most");
    report(&format!("failover-{sync}"), &rows)?;
    result?;
    ensure!(rows.iter().all(|row| row.lost.unwrap_or(0) == 0), "acknowledged writes were lost");
    Ok(())
}
