//! etcd, API server, controller manager, scheduler and the provisioner of volumes: processes of the host.

use std::{path::Path, time::Duration};

use crate::{
    build::Artifacts,
    cache,
    cluster::Cluster,
    command,
    error::{Error, Result},
    paths::{API_PORT, HOST_IP, POD_CIDR, SERVICE_CIDR},
    process::{Wanted, wait_for},
};

/// Record of etcd.
pub(crate) const ETCD: &str = "etcd";
/// Record of the API server.
pub(crate) const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
const PROVISIONER: &str = "provisioner";
/// All of them, in the order in which they stop.
pub(crate) const ALL: [&str; 5] = [PROVISIONER, SCHEDULER, CONTROLLERS, API_SERVER, ETCD];
/// Their cgroup.
pub(crate) const GROUP: &str = "control";

const READY: Duration = Duration::from_secs(90);

fn ensure(cluster: &Cluster, name: &str, command: Vec<String>) -> Result<bool> {
    cluster.supervisor.ensure(&Wanted {
        name,
        command,
        log: cluster.paths.log(name),
        cgroups: cluster.cgroups.joined(GROUP),
    })
}

fn with(program: &Path, args: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(program.display().to_string()).chain(args).collect()
}

/// Starts etcd and the API server unless they run, and waits until it is ready.
pub(crate) fn start_api(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let state = cluster.paths.state.display();
    let etcd = [
        format!("--data-dir={state}/etcd"),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        // The data does not outlive `down`, and a crash of the host may cost it.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ];
    ensure(cluster, ETCD, with(&artifacts.tools.join("etcd"), etcd))?;
    start_api_server(cluster, artifacts)
}

/// Starts the API server alone unless it runs, and waits until it is ready.
pub(crate) fn start_api_server(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let pki = cluster.paths.pki();
    let pki = pki.display();
    let args = [
        "kube-apiserver".into(),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--service-account-key-file={pki}/sa.pub"),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--kubelet-client-certificate={pki}/apikubelet.crt"),
        format!("--kubelet-client-key={pki}/apikubelet.key"),
        format!("--kubelet-certificate-authority={pki}/ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--bind-address={HOST_IP}"),
        format!("--advertise-address={HOST_IP}"),
        format!("--secure-port={API_PORT}"),
    ];
    ensure(cluster, API_SERVER, with(&artifacts.devkube(), args))?;
    let log = cluster.paths.log(API_SERVER);
    wait_for("the API server did not become ready", READY, Some(&log), || {
        cluster.kubectl(artifacts, &["get", "--raw", "/readyz"]).is_ok()
    })
}

/// Starts the controllers unless they run.
pub(crate) fn start_controllers(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let pki = cluster.paths.pki();
    let pki = pki.display();
    let controllers = [
        "kube-controller-manager".into(),
        format!("--kubeconfig={}", cluster.paths.kubeconfig_of("controllers").display()),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--service-account-private-key-file={pki}/sa.key"),
        "--use-service-account-credentials=true".into(),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        format!("--cluster-cidr={POD_CIDR}"),
        "--allocate-node-cidrs=false".into(),
        "--leader-elect=false".into(),
        // Volumes grow by our provisioner; the controller manager would only write the new number.
        "--controllers=*,-persistentvolume-expander-controller".into(),
        // At the default of 20 calls a second many claims at once are bound, scheduled, and only later marked as bound: the kubelet that finds
        // a claim in between looks again after 10 s.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--node-monitor-period=2s".into(),
        "--node-monitor-grace-period=20s".into(),
        "--bind-address=127.0.0.1".into(),
    ];
    ensure(cluster, CONTROLLERS, with(&artifacts.devkube(), controllers))?;
    let scheduler = [
        "kube-scheduler".into(),
        format!("--kubeconfig={}", cluster.paths.kubeconfig_of("scheduler").display()),
        "--leader-elect=false".into(),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--bind-address=127.0.0.1".into(),
    ];
    ensure(cluster, SCHEDULER, with(&artifacts.devkube(), scheduler))?;
    Ok(())
}

/// Starts the provisioner of volumes unless it runs: this very program, copied, so that a build of the clone does not pull it away.
pub(crate) fn start_provisioner(cluster: &Cluster) -> Result<()> {
    let own = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    let key = cache::Inputs::default().with("devcluster", cache::file_digest(&own)?).key();
    let folder = cluster.paths.state.join("bin");
    let copy = folder.join(format!("devcluster-{key}"));
    if !copy.exists() {
        command::folder(&folder)?;
        command::write(&copy, std::fs::read(&own).map_err(Error::file("read", &own))?)?;
        cache::set_mode(&copy, 0o755)?;
    }
    let state = format!("PELORUS_DEV_DIR={}", cluster.paths.state.display());
    let command = ["env".into(), state, copy.display().to_string(), "provisioner".into()];
    if ensure(cluster, PROVISIONER, command.into())? {
        let others = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        others.filter(|path| *path != copy).for_each(|path| drop(std::fs::remove_file(path)));
    }
    Ok(())
}
