//! What mysqld says about itself, asked a few times a second.
//!
//! Three sessions, so that one that blocks does not hide the others: the observer's, the canary's, and a new login
//! each time. Nothing here blocks behind FLUSH (SHOW BINARY LOG STATUS would), and nothing changes anything.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gtid::GtidSet;
use common::instance::{MysqldState, Phase, ReceiverState, ReplicationState, SourceState};
use common::mysql::Session;
use common::names::account;

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::nudge;

/// Pace of observations and of the canary on a held session.
const PACE: Duration = Duration::from_millis(250);
/// Pace of new logins.
const LOGIN_PACE: Duration = Duration::from_millis(500);
/// Pace of looking at the volume.
const DISK_PACE: Duration = Duration::from_secs(1);
/// Whoever has waited so long for an acknowledgement may wait for one that is there and is not read.
const STUCK_MS: u64 = 200;
/// A canary's patience: its age counts from the last answer, so this only bounds how long one question is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest observation query.
const QUERY: Duration = Duration::from_secs(2);

/// The channel. Read before the executed set, so that "received and not executed" is never a trick of the order.
const CHANNEL: &str = "SELECT c.HOST, s.SERVICE_STATE, s.RECEIVED_TRANSACTION_SET, s.LAST_ERROR_NUMBER, \
    s.LAST_ERROR_MESSAGE, TIMESTAMPDIFF(MICROSECOND, GREATEST(s.LAST_HEARTBEAT_TIMESTAMP, \
    s.LAST_QUEUED_TRANSACTION_END_QUEUE_TIMESTAMP, s.QUEUEING_TRANSACTION_START_QUEUE_TIMESTAMP), NOW(6)), \
    a.SERVICE_STATE, \
    TIMESTAMPDIFF(MICROSECOND, s.LAST_QUEUED_TRANSACTION_IMMEDIATE_COMMIT_TIMESTAMP, NOW(6)), \
    (SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME='Rpl_semi_sync_replica_status') \
    FROM performance_schema.replication_connection_configuration c \
    JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME) \
    JOIN performance_schema.replication_applier_status a USING (CHANNEL_NAME) WHERE CHANNEL_NAME=''";

/// Errors of the applier, and how far what it is at lies behind.
const APPLIER: &str = "SELECT \
    (SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_coordinator \
     WHERE CHANNEL_NAME='' AND LAST_ERROR_NUMBER<>0 LIMIT 1), \
    (SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker \
     WHERE CHANNEL_NAME='' AND LAST_ERROR_NUMBER<>0 LIMIT 1), \
    (SELECT MAX(TIMESTAMPDIFF(MICROSECOND, APPLYING_TRANSACTION_IMMEDIATE_COMMIT_TIMESTAMP, NOW(6))) \
     FROM performance_schema.replication_applier_status_by_worker WHERE CHANNEL_NAME='' AND APPLYING_TRANSACTION<>''), \
    (SELECT MIN(TIMESTAMPDIFF(MICROSECOND, LAST_APPLIED_TRANSACTION_IMMEDIATE_COMMIT_TIMESTAMP, NOW(6))) \
     FROM performance_schema.replication_applier_status_by_worker WHERE CHANNEL_NAME='')";

const VARIABLES: &str = "SELECT @@GLOBAL.version, @@GLOBAL.server_uuid, @@GLOBAL.super_read_only, @@GLOBAL.read_only, \
    @@GLOBAL.offline_mode, @@GLOBAL.gtid_owned, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.rpl_semi_sync_source_enabled, \
    @@GLOBAL.rpl_semi_sync_source_wait_for_replica_count";

/// Dump threads, and sessions that wait for an acknowledgement: the leader of a group commit shows it, its followers
/// wait for the handler.
const THREADS: &str = "SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_COMMAND LIKE 'Binlog Dump%', \
    PROCESSLIST_STATE LIKE 'Waiting for semi-sync ACK%', PROCESSLIST_TIME, PROCESSLIST_HOST FROM performance_schema.threads \
    WHERE TYPE='FOREGROUND' AND (PROCESSLIST_COMMAND LIKE 'Binlog Dump%' \
    OR PROCESSLIST_STATE LIKE 'Waiting for semi-sync ACK%' OR PROCESSLIST_STATE='waiting for handler commit')";

/// Since when each session has been seen waiting: mysqld itself tells whole seconds, of the statement.
#[derive(Debug, Default)]
pub struct WaitClock(HashMap<u64, Instant>);

impl WaitClock {
    /// Oldest wait in milliseconds, given the waiting sessions and the seconds of their statements.
    fn oldest(&mut self, waiting: &[(u64, u64)], now: Instant) -> u64 {
        self.0.retain(|id, _| waiting.iter().any(|(waits, _)| waits == id));
        waiting
            .iter()
            .map(|(id, statement_seconds)| {
                let seen = crate::instance::millis(now.duration_since(*self.0.entry(*id).or_insert(now)));
                // A statement younger than the first sighting is another one: the session waited, went on, waits again.
                let young = statement_seconds.saturating_add(1).saturating_mul(1000);
                if young < seen {
                    self.0.insert(*id, now);
                }
                seen.min(young)
            })
            .max()
            .unwrap_or(0)
    }
}

/// A row of what is asked.
type Channel = (String, String, String, u32, String, Option<i64>, String, Option<i64>, Option<String>);

/// A row of what is asked.
type Variables = (String, String, bool, bool, bool, String, String, String, bool, u32);

/// A row of what is asked.
type Applier = (Option<String>, Option<String>, Option<i64>, Option<i64>);

/// A row of what is asked.
type Thread = (u64, Option<String>, Option<bool>, Option<bool>, Option<i64>, Option<String>);

fn parse_set(text: &str) -> Result<GtidSet> {
    text.parse().map_err(|error| Error::Unexpected(format!("mysqld's GTID set is not understood: {error}")))
}

/// `@@gtid_owned` names the thread behind each number: `uuid:7#31:8#32`.
fn parse_owned(text: &str) -> Result<GtidSet> {
    let mut set = String::with_capacity(text.len());
    let mut thread = false;
    for char in text.chars() {
        thread = char == '#' || (thread && char.is_ascii_digit());
        if !thread {
            set.push(char);
        }
    }
    parse_set(&set)
}

/// What mysqld said.
#[derive(Debug)]
pub struct Observation {
    /// For the report.
    pub state: MysqldState,
    /// Hosts of the replicas that are connected.
    pub peers: BTreeSet<IpAddr>,
}

/// Asks mysqld everything that a state reports.
///
/// # Errors
/// A query that failed, or was not answered in time.
pub async fn collect(session: &mut Session, waits: &mut WaitClock) -> Result<Observation> {
    let channel: Option<Channel> = session.first(CHANNEL, QUERY).await?;
    let variables: Option<Variables> = session.first(VARIABLES, QUERY).await?;
    let (version, server_uuid, super_read_only, read_only, offline, owned, executed, purged, enabled, acks_needed) =
        variables.ok_or_else(|| Error::Unexpected("mysqld has no variables".to_owned()))?;
    let executed = parse_set(&executed)?;
    let mut received = executed.clone();
    let mut replication = None;
    // A channel that was reset, or never configured, has no host.
    if let Some((host, receiver, set, error_number, error, heard, applier, queued_behind, acknowledges)) = channel
        && !host.is_empty()
    {
        let retrieved = parse_set(&set)?;
        let applied = retrieved.is_subset(&executed);
        received.extend_with(&retrieved);
        let asked: Option<Applier> = session.first(APPLIER, QUERY).await?;
        let (coordinator_error, worker_error, applying_behind, applied_behind) = asked.unwrap_or_default();
        let applier_running = applier == "ON";
        let behind = match (applied, applier_running) {
            (true, _) => None,
            (false, true) => applying_behind.or(queued_behind),
            (false, false) => applied_behind.or(queued_behind),
        };
        replication = Some(ReplicationState {
            source_host: host,
            receiver: match receiver.as_str() {
                "ON" => ReceiverState::Yes,
                "CONNECTING" => ReceiverState::Connecting,
                _ => ReceiverState::No,
            },
            heard_age_ms: heard.map(|micros| u64::try_from(micros / 1000).unwrap_or(0)),
            receiver_error: if error_number == 0 { String::new() } else { error },
            applier_running,
            applier_error: worker_error.or(coordinator_error).unwrap_or_default(),
            lag_seconds: behind
                .map_or(0.0, |micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()),
            acknowledges: acknowledges.as_deref() == Some("ON"),
        });
    }
    let (source, peers) = source_state(session, waits, enabled, acks_needed).await?;
    let state = MysqldState {
        version,
        server_uuid,
        super_read_only,
        read_only,
        offline,
        owned: parse_owned(&owned)?,
        executed,
        received,
        purged: parse_set(&purged)?,
        replication,
        source,
    };
    Ok(Observation { state, peers })
}

async fn source_state(
    session: &mut Session,
    waits: &mut WaitClock,
    enabled: bool,
    acks_needed: u32,
) -> Result<(SourceState, BTreeSet<IpAddr>)> {
    let threads: Vec<Thread> = session.rows(THREADS, QUERY).await?;
    let mut dumps = Vec::new();
    let mut peers = BTreeSet::new();
    let mut waiting = Vec::new();
    let mut leader = false;
    for (id, user, dump, waits_for_ack, seconds, host) in threads {
        if dump == Some(true) {
            peers.extend(host.and_then(|host| host.parse::<IpAddr>().ok()));
            dumps.extend(user.filter(|user| user.starts_with(account::REPLICATION_PREFIX)));
        } else {
            leader |= waits_for_ack == Some(true);
            waiting.push((id, seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)));
        }
    }
    if !leader {
        waiting.clear();
    }
    dumps.sort();
    let source = SourceState {
        enabled,
        acks_needed,
        dumps,
        waiters: u32::try_from(waiting.len()).unwrap_or(u32::MAX),
        oldest_wait_ms: waits.oldest(&waiting, Instant::now()),
    };
    Ok((source, peers))
}

/// Takes an observation in, unless one that began later is known: what was asked before an order was carried out must
/// not hide what was seen after it.
pub fn publish(instance: &Instance, seen: Observation, begun: Instant) {
    let Observation { state, peers } = seen;
    let observed_at = begun;
    if instance.look(|facts| facts.mysqld.as_ref().is_some_and(|(_, known)| *known > begun)) {
        return;
    }
    let differs = instance
        .look(|facts| facts.mysqld.as_ref().is_none_or(|(before, _)| without_ages(before) != without_ages(&state)));
    if !peers.is_empty() && instance.look(|facts| facts.peers != peers) {
        instance.change_quietly(|facts| facts.peers = peers);
    }
    if differs {
        instance.change(|facts| facts.mysqld = Some((state, observed_at)));
    } else {
        instance.change_quietly(|facts| facts.mysqld = Some((state, observed_at)));
    }
    instance.observed.notify_waiters();
}

/// Waits for an observation that begins now, as long as mysqld answers at once. What is known then is the best there is.
pub async fn now(instance: &Instance, within: Duration) {
    let asked = Instant::now();
    let seen = async {
        loop {
            let mut observed = std::pin::pin!(instance.observed.notified());
            observed.as_mut().enable();
            if instance.look(|facts| facts.mysqld.as_ref().is_none_or(|(_, begun)| *begun >= asked)) {
                return;
            }
            instance.ask.notify_one();
            observed.await;
        }
    };
    if tokio::time::timeout(within, seen).await.is_err() {
        tracing::debug!("no observation in time");
    }
}

fn without_ages(state: &MysqldState) -> MysqldState {
    let mut state = state.clone();
    state.source.oldest_wait_ms = 0;
    if let Some(replication) = &mut state.replication {
        replication.heard_age_ms = None;
        replication.lag_seconds = 0.0;
    }
    state
}

fn observable(instance: &Instance) -> bool {
    instance.child().is_some() && matches!(instance.look(|facts| facts.phase), Phase::Running | Phase::Failed)
}

/// Observes for as long as the process lives.
pub async fn observe(instance: Arc<Instance>) {
    let mut session: Option<(i32, Session)> = None;
    let mut waits = WaitClock::default();
    let mut ticks = ticker(PACE);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = instance.ask.notified() => {}
        }
        let Some(child) = instance.child().filter(|_| observable(&instance)) else {
            session = None;
            continue;
        };
        let held = session.take().filter(|(pid, held)| *pid == child.pid() && !held.is_closed());
        let begun = Instant::now();
        let seen = async {
            let mut held = match held {
                Some((_, held)) => held,
                None => instance.another_session().await?,
            };
            let state = collect(&mut held, &mut waits).await?;
            Ok::<_, Error>((state, held))
        };
        match seen.await {
            // An observation that began before mysqld ended must not bring it back.
            Ok((state, held)) if child.lives() => {
                if state.state.source.oldest_wait_ms >= STUCK_MS {
                    nudge::nudge(child.pid(), nudge::ACKNOWLEDGEMENTS);
                }
                publish(&instance, state, begun);
                session = Some((child.pid(), held));
            }
            Ok(_) => {}
            Err(error) => {
                instance.metrics.observation_failures.inc();
                tracing::debug!(%error, "observation failed");
            }
        }
    }
}

/// Looks at the space on the volume. A disk that hangs blocks this look and no report.
pub async fn disk(instance: Arc<Instance>) {
    let mut ticks = ticker(DISK_PACE);
    loop {
        ticks.tick().await;
        let volume = instance.volume.clone();
        if let Ok(disk) = tokio::task::spawn_blocking(move || volume.disk()).await {
            instance.change_quietly(|facts| facts.disk = disk);
        }
    }
}

/// Asks on a held session whether mysqld still answers.
pub async fn canary(instance: Arc<Instance>) {
    let mut session: Option<(i32, Session)> = None;
    let mut ticks = ticker(PACE);
    loop {
        ticks.tick().await;
        let Some(child) = instance.child().filter(|_| observable(&instance)) else {
            session = None;
            continue;
        };
        let held = session.take().filter(|(pid, held)| *pid == child.pid() && !held.is_closed());
        let asked = async {
            let mut held = match held {
                Some((_, held)) => held,
                None => instance.another_session().await?,
            };
            held.exec("DO 1", PATIENCE).await?;
            Ok::<_, Error>(held)
        };
        if let Ok(held) = asked.await {
            session = Some((child.pid(), held));
            let now = Instant::now();
            instance.change_quietly(|facts| {
                if let Some((session, _)) = &mut facts.canary {
                    *session = now;
                }
            });
        }
    }
}

/// Asks by a new login. An error of the server ("too many connections") is an answer.
pub async fn login_canary(instance: Arc<Instance>) {
    let mut ticks = ticker(LOGIN_PACE);
    loop {
        ticks.tick().await;
        if !observable(&instance) {
            continue;
        }
        let Ok(credentials) = instance.layout.credentials(account::LOCAL) else { continue };
        let answered = match Session::connect(&instance.layout.endpoint(), &credentials, PATIENCE).await {
            Ok(_) => true,
            Err(error) => error.code().is_some(),
        };
        if answered {
            let now = Instant::now();
            instance.change_quietly(|facts| {
                if let Some((_, login)) = &mut facts.canary {
                    *login = now;
                }
            });
        }
    }
}

fn ticker(pace: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::{WaitClock, parse_owned};
    use std::time::{Duration, Instant};

    #[test]
    fn owned_transactions_are_parsed_without_their_threads() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let owned = parse_owned(&format!("{uuid}:7#31:8#32,\n{uuid}:tag:1#33")).map(|set| set.to_string());
        assert_eq!(owned.ok(), Some(format!("{uuid}:7-8:tag:1")));
        assert!(parse_owned("").is_ok_and(|set| set.is_empty()));
    }

    #[test]
    fn waits_count_from_the_first_sighting_and_never_longer_than_the_statement() {
        let mut clock = WaitClock::default();
        let start = Instant::now();
        let later = start + Duration::from_millis(2500);
        assert_eq!(clock.oldest(&[(7, 0)], start), 0);
        assert_eq!(clock.oldest(&[(7, 2), (8, 2)], later), 2500);
        // Session 8 was new; session 7's statement is now a younger one.
        assert_eq!(clock.oldest(&[(7, 0)], later + Duration::from_secs(2)), 1000);
        assert_eq!(clock.oldest(&[(7, 0)], later + Duration::from_millis(2250)), 250);
        assert_eq!(clock.oldest(&[], later), 0);
    }
}
