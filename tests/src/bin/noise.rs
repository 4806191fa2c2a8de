//! Noise without a real fault, during which the primary has to stay: `make noise MINUTES=60`.
//!
//! All the time every hundredth packet between instances, and between them and failover-d, is lost, and a thread takes a
//! core, ahead of all others, for 1.5 of every 5 s. Over and over, every five minutes: a failover-d is killed, NATS is away
//! for a minute, the API server is for 15 s, the other failover-d is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use kube::ResourceExt;
use pelorus_dev::fault::{Direction, Party};
use tests::bench::setting;
use tests::faults::Undo;
use tests::harness::OPERATOR_NAMESPACE;
use tests::nats::NATS;
use tests::trial::{Expect, Setup, Trial, row_with};

/// Of a hundred packets so many are lost.
const LOST: u8 = 1;
/// A core is taken for so long, out of so long: 30 %.
const BURST: Duration = Duration::from_millis(1500);
const CYCLE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Noise {
    Nothing,
    KillFailoverD(usize),
    NatsDown,
    ApiServerDown,
    Over,
}

/// What happens after how many seconds of every round.
const ROUND: [(u64, Noise); 7] = [
    (30, Noise::KillFailoverD(0)),
    (90, Noise::NatsDown),
    (150, Noise::Over),
    (180, Noise::ApiServerDown),
    (195, Noise::Over),
    (255, Noise::KillFailoverD(1)),
    (300, Noise::Nothing),
];

/// Takes a core in bursts until it is dropped.
struct Thief(Arc<AtomicBool>);

impl Thief {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        std::thread::spawn(move || {
            // Ahead of everything, whatever weight the cluster has.
            if let Err(error) = rustix::process::setpriority_process(None, -20) {
                eprintln!("the thief may be weaker than it should be: {error}");
            }
            while !seen.load(Ordering::Relaxed) {
                let begun = Instant::now();
                while begun.elapsed() < BURST {
                    std::hint::spin_loop();
                }
                std::thread::sleep(CYCLE.saturating_sub(BURST));
            }
        });
        Self(over)
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does it; the way back, when there is one.
async fn make(trial: &mut Trial, noise: Noise) -> Result<Option<Undo>> {
    let before = trial.faults.undone_by().len();
    match noise {
        Noise::KillFailoverD(which) => {
            let all = trial.faults.programs_of(daemon::FAILOVER_D).await?;
            let programs = all.get(which % all.len().max(1)).cloned().context("no failover-d")?;
            let (namespace, pod) = (programs.namespace.clone(), programs.pod.clone());
            trial.faults.kill_in(programs).await?;
            // Killed every five minutes it would be started later each time (CrashLoopBackOff): a new pod is started at once.
            trial.faults.delete_at_once_in(&namespace, &pod).await?;
        }
        Noise::NatsDown => {
            let nats = trial.harness.deployment(NATS).await?.name_any();
            trial.faults.scale(OPERATOR_NAMESPACE, &nats, 0).await?;
        }
        Noise::ApiServerDown => {
            trial.faults.stop_api_server().await?;
        }
        Noise::Nothing | Noise::Over => {}
    }
    Ok(trial.faults.undone_by().get(before..).and_then(<[Undo]>::first).cloned())
}

async fn lossy(trial: &mut Trial) -> Result<()> {
    let pods: Vec<String> = trial.shop.pods().await?.into_keys().collect();
    let mut parties: Vec<Party> = pods.iter().map(|pod| trial.faults.party(pod)).collect();
    parties.push(trial.faults.daemon(daemon::FAILOVER_D).await?);
    for (n, one) in parties.iter().enumerate() {
        for other in parties.iter().skip(n + 1) {
            trial.faults.lose(one.clone(), other.clone(), Direction::Both, LOST).await?;
        }
    }
    Ok(())
}

async fn noise(trial: &mut Trial, length: Duration) -> Result<Expect> {
    let primary = trial.primary.clone();
    lossy(trial).await?;
    let thief = Thief::begin();
    let begun = Instant::now();
    trial.began(begun, "packets are lost, a core is taken in bursts")?;
    let mut rounds = 0;
    'all: loop {
        let round = Instant::now();
        let mut way_back = None;
        for (second, noise) in ROUND {
            while round.elapsed() < Duration::from_secs(second) {
                if begun.elapsed() >= length {
                    break 'all;
                }
                trial.stays(&primary, Duration::from_secs(1)).await?;
            }
            trial.step(&format!("round {rounds}: {noise:?}"));
            if matches!(noise, Noise::Over)
                && let Some(undo) = way_back.take()
            {
                trial.undo(&undo).await?;
            }
            way_back = make(trial, noise).await?.or(way_back);
        }
        rounds += 1;
    }
    drop(thief);
    trial.heal().await?;
    trial.whole().await?;
    ensure!(trial.shop.primary().await? == primary, "the primary changed");
    trial.never("FailoverStarted").await?;
    trial.step(&format!("{:.1} minutes, {rounds} whole rounds", begun.elapsed().as_secs_f64() / 60.0));
    Ok(Expect::unchanged())
}

#[tokio::main]
async fn main() -> Result<()> {
    let minutes = setting("MINUTES", 60)?;
    let length = Duration::from_secs(60 * minutes);
    row_with("NOISE", Setup::default().patient(), async move |trial| noise(trial, length).await).await?;
    println!("{minutes} minutes of noise: the primary stayed, nothing was lost");
    Ok(())
}
