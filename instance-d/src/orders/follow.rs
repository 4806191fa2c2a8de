//! Follow: replicate from a source that has everything this instance has.
//!
//! Whatever was received is kept or proven to be on the source first (invariant 5), and nothing that the source does
//! not have is carried on (invariant 6): own sets are read before the source's, and twice before they condemn.
//! A former primary whose mysqld is down is rewound before it is started (see [`crate::rewind`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gtid::GtidSet;
use common::instance::{FollowOrder, Phase, RefusalCode};
use common::mysql::{Ca, Credentials, Endpoint, Session, Tls};
use common::names::account;
use common::sql::quote_str;

use super::replication::{Channel, channel, executed, held_here, parse, set_acks, stop_receiver_for_sure};
use super::{Done, close};
use crate::error::{Error, Result};
use crate::gate::Pass;
use crate::hosts;
use crate::instance::{Hands, Instance, STATEMENT};
use crate::rewind;
use crate::steps::Steps;

/// Longest closing of a primary that is told to follow without having been demoted.
const CLOSE: Duration = Duration::from_millis(1500);
/// Longest login at the source.
const SOURCE_LOGIN: Duration = Duration::from_secs(3);
/// Attempts to reach the source.
const SOURCE_ATTEMPTS: u32 = 3;
/// From the first look to the last, which condemns.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// Pace of looks in between: what the source is just receiving is there in a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// The metadata of the receiver or the applier cannot be read: the server died while it removed or made the channel.
const UNREADABLE: [u16; 2] = [1871, 1872];
/// Longest CHANGE: it waits for the applier to rotate its logs.
const CHANGE: Duration = Duration::from_secs(10);

pub(super) async fn follow(instance: &Arc<Instance>, order: &FollowOrder, pass: &Pass) -> Result<Done> {
    if instance.look(|facts| facts.opened) && close(instance, CLOSE).await.is_err() {
        // This order says what the killed primary is now: a replica, if its history allows it.
        start(instance, order, pass).await?;
    }
    hosts::point(instance, order.source_address.map(|address| (address, order.source_host.as_str())));
    let account = account::replication(instance.identity.ordinal);
    let credentials = instance.layout.credentials(&account)?;
    let mut hands = instance.hands().await?;
    let current = channel(hands.session()?).await?;
    let same = current.as_ref().is_some_and(|channel| {
        channel.host == order.source_host && channel.port == instance.layout.port_mysql && channel.user == account
    });
    let acknowledges: Option<bool> = hands
        .session()?
        .first::<(bool,)>("SELECT @@GLOBAL.rpl_semi_sync_replica_enabled", STATEMENT)
        .await?
        .map(|row| row.0);
    let receives = current.as_ref().is_some_and(|channel| channel.receiver != "OFF");
    let agrees = acknowledges == Some(order.acknowledges);
    if same && receives && agrees {
        if current.is_some_and(|channel| !channel.applier) {
            hands.exec("START REPLICA SQL_THREAD", STATEMENT).await?;
        }
        hands.exec("SET GLOBAL offline_mode=OFF", STATEMENT).await?;
        return Ok(Done::InForce);
    }
    drop(hands);
    let mut steps = Steps::begin();
    stop_receiver_for_sure(instance, pass).await?;
    steps.done("receiver");
    let mut hands = instance.hands().await?;
    let (current, applier) = match applier_runs(&mut hands).await {
        Err(Error::Mysql(error)) if order.expendable && error.code().is_some_and(|code| UNREADABLE.contains(&code)) => {
            tracing::warn!(%error, "the channel cannot be read after a crash, and nobody counts on it: it is made anew");
            hands.exec("RESET REPLICA ALL", CHANGE).await?;
            (None, false)
        }
        runs => (current, runs?),
    };
    let same = same && current.is_some();
    steps.done("applier");
    match pass.run(nothing_errant(instance, order, hands.session()?, &credentials)).await {
        Err(Error::Errant { source_name, gtids }) if order.ahead => {
            let message = format!("{source_name} is not the primary yet and still lacks {gtids}");
            return Err(Error::Refused(RefusalCode::Busy, message));
        }
        Err(Error::Errant { source_name, gtids }) => {
            rewind::condemn(instance, order, &gtids, false)?;
            return Err(Error::Errant { source_name, gtids });
        }
        checked => checked?,
    }
    steps.done("compared");
    rewind::finish(instance)?;
    // Closed for writes: nobody waits for an acknowledgement here.
    set_acks(&mut hands, 0).await?;
    let acknowledges = if order.acknowledges { "ON" } else { "OFF" };
    hands.exec(&format!("SET GLOBAL rpl_semi_sync_replica_enabled={acknowledges}"), STATEMENT).await?;
    if !(same && receives) {
        let change = change_source(instance, order, &credentials, current.as_ref(), applier);
        hands.exec(&change, CHANGE).await?;
    }
    steps.done("changed");
    hands.exec("START REPLICA", STATEMENT).await?;
    hands.exec("SET GLOBAL offline_mode=OFF", STATEMENT).await?;
    steps.done("started");
    tracing::info!(epoch = order.epoch, source = order.source, %steps, "follows");
    Ok(Done::InForce)
}

/// Starts the applier where it does not run: over a CHANGE only a running one keeps the relay log. What was received and
/// not applied may have been acknowledged, and is not thrown away because the applier is broken (invariant 5).
async fn applier_runs(hands: &mut Hands) -> Result<bool> {
    let Some(before) = channel(hands.session()?).await? else { return Ok(false) };
    if before.applier {
        return Ok(true);
    }
    hands.exec("START REPLICA SQL_THREAD", STATEMENT).await?;
    let runs = channel(hands.session()?).await?.is_some_and(|channel| channel.applier);
    if !runs && !before.received.is_subset(&executed(hands.session()?).await?) {
        let message = "the applier does not run, and what was received would be lost; rebuild this instance".to_owned();
        return Err(Error::Refused(RefusalCode::Failed, message));
    }
    Ok(runs)
}

/// Starts mysqld where it does not run; what nobody acknowledged is cut off first.
pub(super) async fn start(instance: &Arc<Instance>, order: &FollowOrder, pass: &Pass) -> Result<()> {
    if !rewind::is_due(instance)? {
        return pass.run(instance.ensure_running()).await;
    }
    if order.ahead {
        // What it lacks for a moment would be cut off, acknowledged or not.
        let message = format!("{} is not the primary yet: nothing is rewound to it", order.source);
        return Err(Error::Refused(RefusalCode::Busy, message));
    }
    instance.change(|facts| {
        facts.phase = Phase::Rewinding;
        facts.rewind_begun = Some(Instant::now());
    });
    tracing::info!(epoch = order.epoch, source = order.source, "looking for a tail that nobody acknowledged");
    let gone = async {
        instance.gone().await;
        Ok(())
    };
    pass.run(gone).await?;
    let credentials = instance.layout.credentials(&account::replication(instance.identity.ordinal))?;
    let theirs = pass.run(source_set(instance, order, &credentials)).await?;
    rewind::rewind(instance, order, theirs, pass).await
}

/// What the source has, before it is known what this instance lacks of it.
async fn source_set(instance: &Instance, order: &FollowOrder, credentials: &Credentials) -> Result<GtidSet> {
    let unknown = |error| match error {
        Error::Mysql(source) => Error::Source { source_name: order.source.clone(), source: Box::new(source) },
        other => other,
    };
    let mut source = connect(instance, order, credentials).await.map_err(unknown)?;
    held(&mut source).await.map_err(unknown)
}

/// Receiver options; `SOURCE_AUTO_POSITION` stands once and cannot be named while the applier runs.
fn change_source(
    instance: &Instance,
    order: &FollowOrder,
    credentials: &Credentials,
    current: Option<&Channel>,
    applier: bool,
) -> String {
    let auto_position = if current.is_some() && applier { "" } else { ", SOURCE_AUTO_POSITION=1" };
    format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST={host}, SOURCE_PORT={port}, SOURCE_USER={user}, \
         SOURCE_PASSWORD={password}, SOURCE_SSL=1, SOURCE_SSL_CA={ca}, SOURCE_SSL_VERIFY_SERVER_CERT=1, \
         GET_SOURCE_PUBLIC_KEY=0, SOURCE_HEARTBEAT_PERIOD=0.5, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=2147483647\
         {auto_position}",
        host = quote_str(&order.source_host, false),
        port = instance.layout.port_mysql,
        user = quote_str(&credentials.user, false),
        password = quote_str(credentials.password.expose(), false),
        ca = quote_str(&instance.layout.tls.join("ca.crt").display().to_string(), false),
    )
}

/// Everything that this instance has executed or received is on the source, by what it has said or by what it is asked.
async fn nothing_errant(
    instance: &Instance,
    order: &FollowOrder,
    own: &mut Session,
    credentials: &Credentials,
) -> Result<()> {
    if let Some(theirs) = &order.source_holds
        && held_here(own).await?.0.is_subset(theirs)
    {
        return Ok(());
    }
    let mut source = connect(instance, order, credentials).await?;
    let mut errant = difference(own, &mut source).await?;
    let begun = Instant::now();
    while !errant.is_empty() {
        if begun.elapsed() > SECOND_LOOK {
            return Err(Error::Errant { source_name: order.source.clone(), gtids: errant });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        errant = difference(own, &mut source).await?.intersect(&errant);
    }
    Ok(())
}

/// What is here and foreign to the source; own sets first.
async fn difference(own: &mut Session, source: &mut Session) -> Result<GtidSet> {
    let (mine, _) = held_here(own).await?;
    let theirs = held(source).await?;
    if mine.is_subset(&theirs) {
        return Ok(GtidSet::default());
    }
    let uuid: Option<String> = source.first("SELECT @@GLOBAL.server_uuid", STATEMENT).await?;
    Ok(mine.foreign_to(&theirs, &uuid.unwrap_or_default()))
}

/// What a source has. What it has received counts: it is applied before the source is opened; and it is read before what
/// it has executed, so that nothing is missed on its way from one to the other.
async fn held(source: &mut Session) -> Result<GtidSet> {
    let sql =
        "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME=''";
    let theirs: Option<String> = source.first(sql, STATEMENT).await?;
    Ok(parse(&theirs.unwrap_or_default())?.union(&executed(source).await?))
}

async fn connect(instance: &Instance, order: &FollowOrder, credentials: &Credentials) -> Result<Session> {
    let endpoint = Endpoint::Tcp {
        host: order.source_address.map_or_else(|| order.source_host.clone(), |address| address.to_string()),
        port: instance.layout.port_mysql,
        tls: Tls { ca: Ca::File(instance.layout.tls.join("ca.crt")), server_name: order.source_host.clone() },
    };
    let mut attempt = 1;
    loop {
        match Session::connect(&endpoint, credentials, SOURCE_LOGIN).await {
            Ok(session) => return Ok(session),
            Err(error) if attempt >= SOURCE_ATTEMPTS => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "the source does not answer yet");
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}
