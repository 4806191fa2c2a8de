//! Streams: how long a commit takes to the bucket, what an idle one puts, and the memory of many.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use archive::Root;
use archive::catalogue::Known;
use binlog_shipper::ship::{self, Step, Stream};
use binlog_shipper::source::Until;
use common::mysql::Session;
use testkit::Mysqld;
use tests::bench::Row;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::{Bucket, Source, root, sql};

/// Sessions that write.
const WRITERS: u64 = 16;
/// Longest insert.
const INSERT: Duration = Duration::from_secs(30);
/// Commits a second whose way to the bucket is timed, and for how long.
const COMMITS: u64 = 500;
const TIMED: Duration = Duration::from_secs(60);
/// How long an idle stream is watched.
const IDLE: Duration = Duration::from_secs(60);

/// How fast the writers are.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many commits a second, of all together.
    PerSecond(u64),
    /// The next as soon as one is answered.
    Free,
}

/// Small transactions for so long; when each was answered.
pub async fn load(mysqld: &Mysqld, pace: Pace, lasts: Duration) -> Result<Vec<Duration>> {
    sql(
        mysqld,
        "CREATE DATABASE IF NOT EXISTS w; CREATE TABLE IF NOT EXISTS w.s (id BIGINT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200))",
    )?;
    let (endpoint, credentials) = root(mysqld);
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut session = Session::connect(&endpoint, &credentials, INSERT).await?;
        writers.spawn(async move {
            let mut answered = Vec::new();
            let mut ticks = match pace {
                Pace::PerSecond(all) => {
                    sleep(Duration::from_secs(number) / u32::try_from(all).unwrap_or(u32::MAX)).await;
                    let mut ticks = interval(Duration::from_secs(WRITERS) / u32::try_from(all).unwrap_or(u32::MAX));
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                    Some(ticks)
                }
                Pace::Free => None,
            };
            while begun.elapsed() < lasts {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                session.exec("INSERT INTO w.s (v) VALUES (REPEAT('v', 150))", INSERT).await?;
                answered.push(begun.elapsed());
            }
            Ok::<_, common::mysql::Error>(answered)
        });
    }
    let mut all = Vec::new();
    while let Some(answered) = writers.join_next().await {
        all.extend(answered??);
    }
    Ok(all)
}

/// All of it.
pub async fn measure(scratch: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let bucket = Bucket::open()?;
    let Source { mysqld, stream } = Source::start(&bucket, scratch)?;
    let stream = Arc::new(stream);
    let delays = Arc::new(Mutex::new(Vec::new()));
    let mut shipping = JoinSet::new();
    let (task, into) = (Arc::clone(&stream), Arc::clone(&delays));
    shipping
        .spawn(async move { ship::run(&task, &Known::default(), Until::Forever, |step, _| note(step, &into)).await });
    let answered = load(&mysqld, Pace::PerSecond(COMMITS), TIMED).await?;
    sleep(Duration::from_secs(5)).await;
    let delays = std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner));
    #[allow(clippy::cast_precision_loss)]
    let rate = answered.len() as f64 / TIMED.as_secs_f64();
    let name = format!("stream: commit to bucket, {COMMITS} commits/s wanted");
    rows.push(Row::new(name, "s", delays).note(format!("{rate:.0} commits/s were made, flushEvery 1s")));

    let before = bucket.objects()?;
    sleep(IDLE).await;
    #[allow(clippy::cast_precision_loss)]
    let puts = (bucket.objects()? - before) as f64 * 60.0 / IDLE.as_secs_f64();
    rows.push(Row::new("stream: objects put in a minute when idle", "1", vec![puts]));
    shipping.shutdown().await;

    for count in [1, 20, 100] {
        rows.push(many(count, &bucket, &mysqld, &stream).await?);
    }
    Ok(())
}

/// When each transaction of a segment came there, as if they had been committed evenly.
#[allow(clippy::cast_precision_loss)]
fn note(step: &Step<'_>, delays: &Mutex<Vec<f64>>) {
    let Step::Shipped(segment) = step else { return };
    let now = u64::try_from(common::clock::now().as_microsecond()).unwrap_or(0);
    let mut delays = delays.lock().unwrap_or_else(PoisonError::into_inner);
    for number in 0..segment.transactions {
        let span = segment.last_commit.saturating_sub(segment.first_commit);
        let commit = segment.first_commit + span * number / segment.transactions.max(1);
        delays.push(now.saturating_sub(commit) as f64 / 1e6);
    }
}

/// Memory that so many streams of one server need beyond what there was before, each into an archive of its own.
async fn many(count: usize, bucket: &Bucket, mysqld: &Mysqld, of: &Stream) -> Result<Row> {
    let before = resident()?;
    let mut streams = JoinSet::new();
    let executed = sql(mysqld, "SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?;
    // From here on: what was written before is no part of it.
    let known = Arc::new(Known { gtid: executed, ..Known::default() });
    for number in 0..count {
        let known = Arc::clone(&known);
        let mut stream = of.clone();
        stream.executed = known.gtid.clone();
        stream.root = Root::new("bench", "many", &format!("{count}-{number}"), "u");
        stream.spool = of.spool.join(format!("{count}-{number}"));
        stream.flush_every = Duration::from_secs(5);
        stream.source.asker = Uuid::new_v4();
        streams.spawn(async move { ship::run(&stream, &known, Until::Forever, |_, _| {}).await });
    }
    let mut most: f64 = 0.0;
    let watch = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            most = most.max(resident().unwrap_or(0.0) - before);
        }
    };
    let written = tokio::select! {
        written = load(mysqld, Pace::PerSecond(20), Duration::from_secs(30)) => written?,
        () = watch => Vec::new(),
    };
    let gone = streams.try_join_next();
    anyhow::ensure!(gone.is_none(), "a stream ended: {gone:?}");
    streams.shutdown().await;
    let note = format!(
        "beyond the bench's own {before:.0}; {} commits meanwhile, {} objects in all",
        written.len(),
        bucket.objects()?
    );
    Ok(Row::new(format!("stream: memory of {count} at once"), "MiB", vec![most]).note(note))
}

fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
