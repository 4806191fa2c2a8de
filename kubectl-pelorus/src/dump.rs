//! `kubectl pelorus dump`: a cluster as SQL on standard output.

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::access::Access;
use common::mysql::{Ca, Endpoint, Tls};
use common::names::{PORT_MYSQL, account};
use common::source::source;
use dump::make::Progress as Counters;
use dump::schema;
use dump::sql;
use tokio::io::stdout;
use tokio::time::interval;

use crate::args::{Dump, Selection};
use crate::error::{Error, Result};
use crate::kubernetes::Kubernetes;
use crate::progress::{Progress, View};
use crate::show;
use crate::tunnel::Tunnel;

/// Pace of what is shown.
const PACE: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub async fn run(kubernetes: &Kubernetes, wanted: &Dump) -> Result<()> {
    let selection = selection(&wanted.selection).map_err(Error::Usage)?;
    let cluster = kubernetes.cluster(&wanted.cluster).await?;
    let source = source(cluster.status.as_ref());
    let source = source.map_err(|why| Error::Failed(format!("MySQLCluster {}: {why}", wanted.cluster)))?;
    let Kubernetes { client, namespace } = kubernetes;
    let access = Access::of(client, namespace, &wanted.cluster, source, account::BACKUP).await?;
    let listens = |error| Error::Failed(format!("listen on this host: {error}"));
    let tunnel = Tunnel::open(kubernetes.api(), source, PORT_MYSQL).await.map_err(listens)?;
    let tls = Tls { ca: Ca::Pem(access.authority), server_name: access.host };
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: tunnel.port, tls };
    let order = sql::Order { endpoint: &endpoint, credentials: &access.credentials, selection: &selection };
    let (counters, mut out) = (Counters::default(), stdout());
    let mut writing = Box::pin(sql::write(&order, &mut out, &counters));
    let (mut progress, mut pace) = (Progress::beside_output(), interval(PACE));
    let written = loop {
        tokio::select! {
            written = &mut writing => break written,
            _ = pace.tick() => progress.say(view(source, &counters)),
        }
    };
    progress.end();
    let written = written.map_err(|source| {
        let tunnel = tunnel.problem().map(|problem| problem + ": ").unwrap_or_default();
        Error::Dump { tunnel, source: Box::new(source) }
    })?;
    eprintln!("{} tables, {} rows from {source}, {}", written.tables, show::count(written.rows), written.gtid);
    Ok(())
}

fn selection(wanted: &Selection) -> Result<schema::Selection, String> {
    let odd = wanted.exclude_tables.iter().find(|text| schema::table(text).is_none());
    match odd {
        Some(text) => Err(format!("'{text}' is no table: write schema.table")),
        None => Ok(schema::Selection::new(&wanted.schemas, &wanted.exclude_tables)),
    }
}

/// By the server's estimate, which knows nothing of how long values are as text: it stays below a hundred.
fn view(source: &str, counters: &Counters) -> View {
    let [rows, bytes, estimate] =
        [&counters.rows, &counters.bytes, &counters.estimate].map(|counter| counter.load(Ordering::Relaxed));
    let percent = bytes.saturating_mul(100).checked_div(estimate).map(|percent| percent.min(99));
    let detail =
        if estimate == 0 { String::new() } else { format!("{} rows, {}", show::count(rows), show::bytes(bytes)) };
    View { step: format!("Reading {source}"), detail, percent }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tables_that_are_left_out_have_a_schema() {
        let of = |tables: &[&str]| {
            let exclude_tables = tables.iter().map(|table| (*table).to_owned()).collect();
            selection(&Selection { schemas: Vec::new(), exclude_tables })
        };
        assert_eq!(of(&["a.b"]).unwrap().without, [("a".to_owned(), "b".to_owned())]);
        assert!(of(&["a.b", "c"]).unwrap_err().contains("'c' is no table"));
    }

    #[test]
    fn progress_is_an_estimate() {
        let counters = Counters::default();
        assert_eq!(view("shop-1", &counters), View::step("Reading shop-1"));
        counters.estimate.store(1000, Ordering::Relaxed);
        counters.bytes.store(5000, Ordering::Relaxed);
        counters.rows.store(1234, Ordering::Relaxed);
        let shown = view("shop-1", &counters);
        assert_eq!((shown.line().as_str(), shown.percent), ("Reading shop-1: 1 234 rows, 4.9 KiB, 99 %", Some(99)));
    }
}
