//! What the daemons make of the API server: Leases, of which one or each replica has one, and watches that die without a word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::daemon::{self, Patience};
use common::lease::members::{Members, Seats};
use common::lease::{Config, Ended, Lease, client_of};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease as Object;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tests::wire::Wire;
use tests::{Scene, run};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const NAME: &str = "daemon";

/// A pace that tests have time for.
fn config(scene: &Scene, identity: &str) -> Config {
    Config {
        duration: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry: Duration::from_millis(300),
        ..Config::new(&scene.namespace, NAME, identity)
    }
}

fn leases(scene: &Scene) -> Api<Object> {
    Api::namespaced(scene.harness.client.clone(), &scene.namespace)
}

/// As the daemons have it for their Leases.
fn scene_client(scene: &Scene) -> Result<kube::Client> {
    Ok(client_of(kube::Config::clone(&scene.harness.config))?)
}

async fn holder(scene: &Scene, name: &str) -> Result<String> {
    let spec = leases(scene).get(name).await?.spec.unwrap_or_default();
    spec.holder_identity.context("the Lease has no field for its holder")
}

/// A candidate that counts how many lead at the same time.
struct Contender {
    stop: CancellationToken,
    run: JoinHandle<Ended>,
    /// Terms that this one has begun.
    terms: Arc<AtomicU32>,
}

/// How many lead now, and how many ever did at once.
#[derive(Clone, Default)]
struct Leading(Arc<AtomicI32>, Arc<AtomicI32>);

impl Leading {
    fn now(&self) -> i32 {
        self.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> i32 {
        self.1.load(Ordering::SeqCst)
    }
}

fn contend(client: kube::Client, config: Config, leading: &Leading) -> Contender {
    let (stop, terms) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let (token, count, leading) = (stop.clone(), terms.clone(), leading.clone());
    let run = tokio::spawn(async move {
        let work = |term: common::lease::Term| async move {
            count.fetch_add(1, Ordering::SeqCst);
            leading.1.fetch_max(leading.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            term.token.cancelled().await;
            leading.0.fetch_sub(1, Ordering::SeqCst);
        };
        Lease::new(client, config).run(token, work).await
    });
    Contender { stop, run, terms }
}

async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    while !condition() {
        ensure!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(start.elapsed())
}

#[tokio::test]
async fn one_candidate_leads_and_a_released_lease_changes_hands_at_once() -> Result<()> {
    run("lease-hands", async |scene| {
        let leading = Leading::default();
        let mut contenders = Vec::new();
        for n in 0..5 {
            let client = scene_client(scene)?;
            contenders.push(contend(client, config(scene, &format!("pod-{n}")), &leading));
        }
        for round in 0..5 {
            let took = until("somebody leads", Duration::from_secs(4), || leading.now() == 1).await?;
            scene.step(&format!("somebody leads after {took:.1?}"));
            ensure!(took < Duration::from_secs(3), "{took:?}: a released lease is not waited for");
            sleep(Duration::from_secs(1)).await;
            let spec = leases(scene).get(NAME).await?.spec.unwrap_or_default();
            ensure!(spec.lease_transitions == Some(round), "{spec:?}");
            let began = |contender: &Contender| contender.terms.load(Ordering::SeqCst) > 0;
            ensure!(contenders.iter().filter(|contender| began(contender)).count() == 1);
            let leader = contenders.iter().position(began).context("nobody leads")?;
            let contender = contenders.remove(leader);
            contender.stop.cancel();
            ensure!(contender.run.await? == Ended::Stopped);
        }
        ensure!(leading.most() == 1);
        ensure!(holder(scene, NAME).await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_usurped_stops() -> Result<()> {
    run("lease-usurped", async |scene| {
        let leading = Leading::default();
        let contender = contend(scene_client(scene)?, config(scene, "a"), &leading);
        until("it leads", Duration::from_secs(4), || leading.now() == 1).await?;
        // A label of somebody else changes the resourceVersion, and nothing else.
        let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        leases(scene).patch(NAME, &PatchParams::default(), &label).await?;
        sleep(Duration::from_secs(3)).await;
        ensure!(leading.now() == 1, "a label ended its term");
        let other = Patch::Merge(json!({"spec": {"holderIdentity": "b"}}));
        leases(scene).patch(NAME, &PatchParams::default(), &other).await?;
        let ended = timeout(Duration::from_secs(3), contender.run).await.context("it went on")??;
        ensure!((ended, leading.now()) == (Ended::Lost, 0));
        ensure!(holder(scene, NAME).await? == "b");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_another_begins() -> Result<()> {
    run("lease-cut", async |scene| {
        let wire = Wire::to(&scene.harness.config).await?;
        let leading = Leading::default();
        let first = contend(client_of(wire.config.clone())?, config(scene, "a"), &leading);
        until("the first leads", Duration::from_secs(4), || leading.now() == 1).await?;
        let second = contend(scene_client(scene)?, config(scene, "b"), &leading);
        sleep(Duration::from_secs(5)).await;
        ensure!(second.terms.load(Ordering::SeqCst) == 0, "the first renews");
        wire.cut();
        wire.close();
        let stopped = until("the first stops", Duration::from_secs(3), || leading.now() == 0).await?;
        scene.step(&format!("the first stopped after {stopped:.1?}"));
        until("the second leads", Duration::from_secs(5), || leading.now() == 1).await?;
        ensure!(timeout(Duration::from_secs(3), first.run).await.context("it goes on")?? == Ended::Lost);
        ensure!((second.terms.load(Ordering::SeqCst), leading.most()) == (1, 1));
        second.stop.cancel();
        ensure!(second.run.await? == Ended::Stopped);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stubborn_work_is_dropped_and_finished_work_releases_its_lease() -> Result<()> {
    run("lease-stubborn", async |scene| {
        let lease = Lease::new(scene_client(scene)?, config(scene, "a"));
        ensure!(lease.run(CancellationToken::new(), |_| async {}).await == Ended::Finished);
        ensure!(holder(scene, NAME).await?.is_empty());
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            stopper.cancel();
        });
        let run = lease.run(stop, |_| std::future::pending());
        ensure!(timeout(Duration::from_secs(4), run).await.context("it is waited for")? == Ended::Stopped);
        Ok(())
    })
    .await
}

/// A replica at work.
struct Replica {
    stop: CancellationToken,
    run: JoinHandle<()>,
    members: watch::Receiver<Members>,
}

fn join(client: &kube::Client, config: Config, seats: u32) -> Replica {
    let (stop, (sender, members)) = (CancellationToken::new(), watch::channel(Members::default()));
    let (mut seats, token) = (Seats::new(client, config, seats), stop.clone());
    let run = tokio::spawn(async move {
        seats.keep(&token, &sender).await;
        seats.release().await;
    });
    Replica { stop, run, members }
}

/// Waits until the objects are shared: each belongs to one of these replicas, and each replica has some. How many each has.
async fn shared(replicas: &[&Replica], limit: Duration) -> Result<Vec<usize>> {
    let objects: Vec<String> = (0..60).map(|n| format!("object-{n}")).collect();
    let owned = || -> Vec<BTreeSet<&String>> {
        let of = |replica: &&Replica| {
            let members = replica.members.borrow().clone();
            objects.iter().filter(|object| members.is_mine(object)).collect()
        };
        replicas.iter().map(of).collect()
    };
    let is_whole = || {
        let owned = owned();
        let all: BTreeSet<&String> = owned.iter().flatten().copied().collect();
        all.len() == objects.len()
            && owned.iter().map(BTreeSet::len).sum::<usize>() == objects.len()
            && owned.iter().all(|some| !some.is_empty())
    };
    until("each object has one owner, and each replica some", limit, is_whole).await?;
    Ok(owned().iter().map(BTreeSet::len).collect())
}

#[tokio::test]
async fn replicas_share_the_work_and_who_falls_silent_is_replaced() -> Result<()> {
    run("members", async |scene| {
        let client = scene_client(scene)?;
        let wire = Wire::to(&scene.harness.config).await?;
        let (soon, seats) = (Duration::from_secs(3), 2);
        let first = join(&client_of(wire.config.clone())?, config(scene, "a"), seats);
        ensure!(shared(&[&first], soon).await? == [60], "one alone has all");
        let second = join(&client, config(scene, "b"), seats);
        scene.step(&format!("shared: {:?}", shared(&[&first, &second], soon).await?));
        let third = join(&client, config(scene, "c"), seats);
        sleep(Duration::from_secs(2)).await;
        ensure!(third.members.borrow().seat().is_none(), "there are two seats for three");
        shared(&[&first, &second], soon).await?;

        // Who stops gives its seat away at once.
        second.stop.cancel();
        second.run.await?;
        scene.step(&format!("the third has the seat: {:?}", shared(&[&first, &third], soon).await?));

        // Who is cut off goes on with what it had, and the others wait for its silence before they do the same.
        let fourth = join(&client, config(scene, "d"), seats);
        wire.cut();
        wire.close();
        let at = Instant::now();
        scene.step(&format!("the fourth came in: {:?}", shared(&[&third, &fourth], Duration::from_secs(9)).await?));
        ensure!(at.elapsed() > Duration::from_secs(2), "it was replaced within {:?}", at.elapsed());
        ensure!(first.members.borrow().seat().is_some(), "it cannot know");
        wire.open();
        let mut seen = first.members.clone();
        let lost = seen.wait_for(|members| members.seat().is_none());
        timeout(Duration::from_secs(9), lost).await.context("it holds a seat that another has")??;
        shared(&[&third, &fourth], soon).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_member_keeps_its_seat_and_its_share_through_an_outage_that_all_have() -> Result<()> {
    run("members-outage", async |scene| {
        let wire = Wire::to(&scene.harness.config).await?;
        let client = client_of(wire.config.clone())?;
        let replicas = ["a", "b"].map(|name| join(&client, config(scene, name), 2));
        let [a, b] = &replicas;
        let before = shared(&[a, b], Duration::from_secs(4)).await?;
        wire.cut();
        wire.close();
        // Three times as long as a seat is held without a word.
        sleep(Duration::from_secs(9)).await;
        ensure!(shared(&[a, b], Duration::ZERO).await? == before, "an outage moved work");
        wire.open();
        for _ in 0..40 {
            sleep(Duration::from_millis(200)).await;
            ensure!(shared(&[a, b], Duration::ZERO).await? == before, "the end of an outage moved work");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_watch_that_dies_without_a_word_is_noticed_within_a_minute() -> Result<()> {
    run("silent-watch", async |scene| {
        let wire = Wire::to(&scene.harness.config).await?;
        let watched: Api<ConfigMap> =
            Api::namespaced(daemon::watching_client_of(wire.config.clone())?, &scene.namespace);
        let mut events =
            std::pin::pin!(watcher(watched, daemon::watching()).backoff(Patience::default()).applied_objects());
        let direct: Api<ConfigMap> = Api::namespaced(scene.harness.client.clone(), &scene.namespace);
        let make = async |name: &str| {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            direct.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await
        };
        make("before").await?;
        let mut seen = async |name: &str, limit: Duration| -> Result<Duration> {
            let at = Instant::now();
            while let Some(event) =
                timeout(limit, events.next()).await.with_context(|| format!("{name} is not seen"))?
            {
                if event.is_ok_and(|object| object.name_any() == name) {
                    return Ok(at.elapsed());
                }
            }
            bail!("the watch ended")
        };
        seen("before", Duration::from_secs(10)).await?;
        wire.cut();
        make("after").await?;
        let took = seen("after", Duration::from_secs(60)).await?;
        scene.step(&format!("what happened after the cut was seen {took:.1?} later"));
        ensure!(took > Duration::from_secs(1), "nothing was cut");
        Ok(())
    })
    .await
}
