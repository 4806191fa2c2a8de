//! `kubectl pelorus restore`: asks for a new cluster that is made of the archive of another, and shows how it is made.
//!
//! ```text
//! target, dump -> plan (where from, whether it can be reached) -> a MySQLCluster with spec.restore -> follow, until Ready
//! ```

pub mod follow;
pub mod plan;

use std::time::{Duration, Instant};

use common::crd::{MySQLCluster, MySQLDump, Restore};
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::sleep;

use self::plan::{Target, Verdict};
use crate::args;
use crate::error::{Error, Result};
use crate::kubernetes::Kubernetes;
use crate::show;
use crate::wait::{Patience, until};

/// So long is waited for a moment that has passed to be in the archive: a put, a proof, and their paces.
const ARRIVES: Duration = Duration::from_secs(45);
/// Pace of looking whether it is.
const PACE: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub async fn run(kubernetes: &Kubernetes, wanted: &args::Restore) -> Result<()> {
    let zone = TimeZone::system();
    let target = Target::parse(wanted.at.as_deref(), wanted.gtid.as_deref(), &zone).map_err(Error::Usage)?;
    let of = kubernetes.cluster(&wanted.cluster).await?;
    let dump = match &wanted.from_dump {
        Some(name) => Some(kubernetes.get::<MySQLDump>(name).await?),
        None => None,
    };
    let from_location = plan::place(&of, dump.as_ref(), &target).map_err(Error::Refused)?;
    let of = reachable(kubernetes, of, &target, &zone).await?;
    let (point_in_time, gtid) = match target {
        Target::Newest => (None, None),
        Target::Time(at) => (Some(MicroTime(at)), None),
        Target::Gtid(gtid) => (None, Some(gtid.to_string())),
    };
    let restore = Restore { from_selector: None, from_location: Some(from_location), point_in_time, gtid };
    let left_out = plan::left_out(&of.spec);
    let new = MySQLCluster::new(&wanted.name, plan::spec(of.spec, restore, wanted.instances));
    let asked = kubernetes.create(&new).await?;
    let (form, name) = (wanted.output.output, &wanted.name);
    eprintln!("MySQLCluster {name} is asked for{}", plan::without(&left_out));
    if wanted.waiting.no_wait {
        return show::print(form, || format!("MySQLCluster {name} is asked for\n"), &asked);
    }
    let again = format!("look again with `kubectl -n {} get mysqlcluster {name} -o wide`", kubernetes.namespace);
    let patience = Patience { timeout: wanted.waiting.timeout, again: &again };
    let made = until(kubernetes.api(), name, &patience, follow::look).await?;
    show::print(form, || follow::made(&made), &made)
}

/// The cluster as it is when its archive reaches the target, as far as that is known.
async fn reachable(
    kubernetes: &Kubernetes,
    mut of: MySQLCluster,
    target: &Target,
    zone: &TimeZone,
) -> Result<MySQLCluster> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let restorable = of.status.as_ref().and_then(|status| status.restorable.as_ref());
        let why = match plan::verdict(target, restorable, common::clock::now(), zone) {
            Verdict::Go => return Ok(of),
            Verdict::Refuse(why) => return Err(Error::Refused(why)),
            Verdict::NotYet(why) => why,
        };
        if begun.elapsed() >= ARRIVES {
            return Err(Error::Refused(why));
        }
        if !told {
            eprintln!("{why}; waiting for it to arrive there");
            told = true;
        }
        sleep(PACE).await;
        of = kubernetes.cluster(of.metadata.name.as_deref().unwrap_or_default()).await?;
    }
}
