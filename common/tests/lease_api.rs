//! Leadership against a real API server, the one that `KUBECONFIG` names.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use common::lease::{Config, Ended, Lease, client};
use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "default";

fn config(name: &str, identity: &str) -> Config {
    Config {
        duration: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry: Duration::from_millis(300),
        ..Config::new(NAMESPACE, name, identity)
    }
}

async fn leases(name: &str) -> Api<Object> {
    let leases: Api<Object> = Api::namespaced(client().await.unwrap(), NAMESPACE);
    let _ = leases.delete(name, &DeleteParams::default()).await;
    leases
}

/// A candidate that counts how many lead at the same time.
struct Contender {
    stop: CancellationToken,
    run: JoinHandle<Ended>,
    /// Terms that this one has begun.
    terms: Arc<AtomicU32>,
}

fn contend(client: kube::Client, config: Config, leading: Arc<AtomicI32>, at_once: Arc<AtomicI32>) -> Contender {
    let (stop, terms) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let (token, count) = (stop.clone(), terms.clone());
    let run = tokio::spawn(async move {
        let work = |term: common::lease::Term| async move {
            count.fetch_add(1, Ordering::SeqCst);
            at_once.fetch_max(leading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            term.token.cancelled().await;
            leading.fetch_sub(1, Ordering::SeqCst);
        };
        Lease::new(client, config).run(token, work).await
    });
    Contender { stop, run, terms }
}

async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn one_candidate_leads_and_a_released_lease_changes_hands_at_once() {
    let name = "lease-test-hands";
    let leases = leases(name).await;
    let (leading, at_once) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let mut contenders = Vec::new();
    for n in 0..5 {
        let (leading, at_once) = (leading.clone(), at_once.clone());
        contenders.push(contend(client().await.unwrap(), config(name, &format!("pod-{n}")), leading, at_once));
    }
    for round in 0..5 {
        let took = until("somebody leads", Duration::from_secs(2), || leading.load(Ordering::SeqCst) == 1).await;
        assert!(took < Duration::from_millis(1500), "{took:?}: a released lease is not waited for");
        sleep(Duration::from_secs(1)).await;
        let spec = leases.get(name).await.unwrap().spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(round));
        let leader = contenders.iter().position(|contender| contender.terms.load(Ordering::SeqCst) == 1).unwrap();
        assert_eq!(contenders.iter().filter(|contender| contender.terms.load(Ordering::SeqCst) > 0).count(), 1);
        let contender = contenders.remove(leader);
        contender.stop.cancel();
        assert_eq!(contender.run.await.unwrap(), Ended::Stopped);
    }
    assert_eq!(at_once.load(Ordering::SeqCst), 1);
    assert_eq!(leases.get(name).await.unwrap().spec.unwrap().holder_identity.as_deref(), Some(""));
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn usurped_leader_stops() {
    let name = "lease-test-usurped";
    let leases = leases(name).await;
    let (leading, at_once) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let contender = contend(client().await.unwrap(), config(name, "a"), leading.clone(), at_once);
    until("it leads", Duration::from_secs(2), || leading.load(Ordering::SeqCst) == 1).await;
    // A label of somebody else changes the resourceVersion, and nothing else.
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    leases.patch(name, &PatchParams::default(), &label).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(leading.load(Ordering::SeqCst), 1);
    let other = Patch::Merge(json!({"spec": {"holderIdentity": "b"}}));
    leases.patch(name, &PatchParams::default(), &other).await.unwrap();
    let ended = timeout(Duration::from_secs(2), contender.run).await.unwrap().unwrap();
    assert_eq!((ended, leading.load(Ordering::SeqCst)), (Ended::Lost, 0));
    assert_eq!(leases.get(name).await.unwrap().spec.unwrap().holder_identity.as_deref(), Some("b"));
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn cut_off_leader_stops_before_another_begins() {
    let name = "lease-test-cut";
    let _ = leases(name).await;
    // The way of the first candidate to the API server.
    let (wire, cut) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let mut through = kube::Config::infer().await.unwrap();
    let server = (through.cluster_url.host().unwrap().to_owned(), through.cluster_url.port_u16().unwrap_or(443));
    through.tls_server_name = Some(server.0.clone());
    through.cluster_url = format!("https://{}", wire.local_addr().unwrap()).parse().unwrap();
    through.default_retry = false;
    let token = cut.clone();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = wire.accept().await.unwrap();
            let (server, token) = (server.clone(), token.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    // Silence, not an end of the stream.
                    () = token.cancelled() => sleep(Duration::from_secs(60)).await,
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    let (leading, at_once) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let first = contend(kube::Client::try_from(through).unwrap(), config(name, "a"), leading.clone(), at_once.clone());
    until("the first leads", Duration::from_secs(2), || leading.load(Ordering::SeqCst) == 1).await;
    let second = contend(client().await.unwrap(), config(name, "b"), leading.clone(), at_once.clone());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(second.terms.load(Ordering::SeqCst), 0, "the first renews");

    cut.cancel();
    let stopped = until("the first stops", Duration::from_secs(3), || leading.load(Ordering::SeqCst) == 0).await;
    assert!(stopped < Duration::from_millis(2300), "{stopped:?}");
    until("the second leads", Duration::from_secs(4), || leading.load(Ordering::SeqCst) == 1).await;
    assert_eq!(timeout(Duration::from_secs(3), first.run).await.unwrap().unwrap(), Ended::Lost);
    assert_eq!((second.terms.load(Ordering::SeqCst), at_once.load(Ordering::SeqCst)), (1, 1));
    second.stop.cancel();
    assert_eq!(second.run.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn stubborn_work_is_dropped_and_finished_work_releases() {
    let name = "lease-test-stubborn";
    let leases = leases(name).await;
    let lease = Lease::new(client().await.unwrap(), config(name, "a"));
    assert_eq!(lease.run(CancellationToken::new(), |_| async {}).await, Ended::Finished);
    assert_eq!(leases.get(name).await.unwrap().spec.unwrap().holder_identity.as_deref(), Some(""));
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        stopper.cancel();
    });
    let run = lease.run(stop, |_| std::future::pending());
    assert_eq!(timeout(Duration::from_secs(3), run).await.unwrap(), Ended::Stopped);
}
