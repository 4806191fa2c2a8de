//! A node: a network namespace with its own containerd, kubelet and kube-proxy.
//!
//! Everything of a node, shims and containers included, is in the node's cgroup, so that it can be found and killed as a whole.

use std::{fs, path::Path, time::Duration};

use crate::{
    build::Artifacts,
    cluster::Cluster,
    command,
    error::{Error, Result},
    mounts, network,
    paths::{DNS_SERVICE_IP, Node, POD_CIDR, Paths},
    process::{Wanted, wait_for},
};

/// Choices of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// kube-proxy's `--iptables-min-sync-period`.
    pub kube_proxy_sync: String,
}

impl Default for NodeOptions {
    fn default() -> Self {
        // kube-proxy's own default of 1 s is a choice for clusters with thousands of Services.
        Self { kube_proxy_sync: "50ms".into() }
    }
}

impl NodeOptions {
    fn file(paths: &Paths) -> std::path::PathBuf {
        paths.state.join("kube-proxy-sync")
    }

    /// What the cluster was started with.
    pub(crate) fn load(paths: &Paths) -> Self {
        fs::read_to_string(Self::file(paths))
            .map_or_else(|_| Self::default(), |text| Self { kube_proxy_sync: text.trim().into() })
    }

    pub(crate) fn save(&self, paths: &Paths) -> Result<()> {
        command::write(&Self::file(paths), &self.kube_proxy_sync)
    }
}

/// Cgroup of a node.
pub(crate) fn group(node: Node) -> String {
    node.name()
}

/// Names of a node's processes, in the order in which they stop.
pub(crate) fn processes(node: Node) -> [String; 3] {
    ["proxy", "kubelet", "containerd"].map(|what| format!("{}-{what}", node.name()))
}

/// Starts containerd of a node unless it runs, and waits for it.
pub(crate) fn start_containerd(cluster: &Cluster, node: Node) -> Result<()> {
    let paths = &cluster.paths;
    let [_, _, name] = processes(node);
    let log = paths.log(&name);
    if !cluster.supervisor.is_alive(&name)
        && !cluster.cgroups.processes(&format!("{}/kubepods", group(node))).is_empty()
    {
        // containerd died alone: its shims keep the pods, and it finds them again.
        tracing::info!("{}: containerd comes back to running pods", node.name());
    }
    command::folder(&paths.node(node).join("cni"))?;
    command::folder(&paths.node_run(node))?;
    command::write(&paths.node(node).join("cni/10-pelorus.conflist"), cni_config(paths, node))?;
    let config = paths.node(node).join("containerd.toml");
    command::write(&config, containerd_config(paths, node))?;
    let args = ["containerd".into(), "--config".into(), config.display().to_string()];
    start(cluster, node, &name, args)?;
    let socket = paths.containerd_socket(node);
    wait_for(&format!("containerd of {} did not answer", node.name()), Duration::from_secs(60), Some(&log), || {
        command::run("ctr", [Path::new("-a"), &socket, Path::new("version")]).is_ok()
    })
}

/// Where kubelet says that it is well.
const KUBELET_HEALTH: u16 = 10248;

/// Starts kubelet and kube-proxy of a node unless they run, and waits until kubelet answers. One that finds containerd not ready
/// yet ends itself; it is started again, as systemd would.
pub(crate) fn start_kubelet(cluster: &Cluster, artifacts: &Artifacts, node: Node, options: &NodeOptions) -> Result<()> {
    let paths = &cluster.paths;
    let [proxy, kubelet, _] = processes(node);
    let devkube = artifacts.devkube().display().to_string();
    let folder = paths.node(node);
    command::folder(&folder.join("kubelet"))?;
    let config = folder.join("kubelet.yaml");
    command::write(&config, kubelet_config(paths, node))?;
    command::write(&paths.state.join("etc/resolv.conf"), "")?;
    let args = [
        devkube.clone(),
        "kubelet".into(),
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", paths.kubeconfig_of(&node.name()).display()),
        format!("--hostname-override={}", node.name()),
        format!("--node-ip={}", node.ip()),
        format!("--root-dir={}/kubelet", folder.display()),
        format!("--node-labels=topology.kubernetes.io/zone={}", node.zone()),
    ];
    start(cluster, node, &kubelet, args.clone())?;
    let proxy_args = [
        devkube,
        "kube-proxy".into(),
        format!("--kubeconfig={}", paths.kubeconfig_of("proxy").display()),
        format!("--hostname-override={}", node.name()),
        format!("--cluster-cidr={POD_CIDR}"),
        "--proxy-mode=iptables".into(),
        // Conntrack limits are the host's and not ours to set.
        "--conntrack-max-per-core=0".into(),
        "--conntrack-tcp-timeout-established=0".into(),
        "--conntrack-tcp-timeout-close-wait=0".into(),
        format!("--iptables-min-sync-period={}", options.kube_proxy_sync),
        "--iptables-sync-period=10s".into(),
    ];
    start(cluster, node, &proxy, proxy_args)?;
    let (what, log) = (format!("kubelet of {} did not answer", node.name()), paths.log(&kubelet));
    wait_for(&what, Duration::from_secs(60), Some(&log), || {
        start(cluster, node, &kubelet, args.clone()).is_ok() && answers(node, KUBELET_HEALTH)
    })
}

/// Whether something listens on a port of a node's loopback address.
fn answers(node: Node, port: u16) -> bool {
    let enter = format!("--net={}", network::netns_path(node).display());
    let knock = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    command::run("nsenter", [enter.as_str(), "bash", "-c", &knock]).is_ok()
}

fn start(cluster: &Cluster, node: Node, name: &str, args: impl IntoIterator<Item = String>) -> Result<()> {
    let enter = ["nsenter".into(), format!("--net={}", network::netns_path(node).display())];
    let command = enter.into_iter().chain(args).collect();
    let cgroups = cluster.cgroups.joined(&format!("{}/runtime", group(node)));
    cluster.supervisor.ensure(&Wanted { name, command, log: cluster.paths.log(name), cgroups }).map(drop)
}

/// What a power-off takes: all processes, in no order, without a warning.
pub(crate) fn kill_all(cluster: &Cluster, node: Node) -> Result<()> {
    for name in processes(node) {
        cluster.supervisor.kill(&name)?;
    }
    cluster.cgroups.kill_all(&group(node))
}

/// Removes what the processes of a dead node left: mounts, network namespaces of pods, cgroups, sockets. The data of containerd and
/// kubelet stays, as a disk would.
pub(crate) fn clean(cluster: &Cluster, node: Node) -> Result<()> {
    let paths = &cluster.paths;
    mounts::unmount_below(&paths.node_run(node))?;
    mounts::unmount_below(&paths.node(node))?;
    remove(&paths.node_run(node))?;
    // Addresses of pods that are gone: on a real node this folder is on a tmpfs.
    remove(&paths.node(node).join("ipam"))?;
    network::node_down(node)?;
    cluster.cgroups.remove(&group(node))
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn cni_config(paths: &Paths, node: Node) -> String {
    let ipam = paths.node(node).join("ipam");
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pelorus",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": ipam, "ranges": [[{"subnet": node.pod_cidr()}]], "routes": [{"dst": "0.0.0.0/0"}]
                }
            },
            {"type": "portmap", "capabilities": {"portMappings": true}}
        ]
    })
    .to_string()
}

fn containerd_config(paths: &Paths, node: Node) -> String {
    let (data, run) = (paths.node(node), paths.node_run(node));
    let (data, run) = (data.display(), run.display());
    format!(
        r#"version = 2
root = "{data}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{data}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:dev"
  # Without CAP_SYS_RESOURCE a lower score is refused and no sandbox starts; elsewhere this changes nothing.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{data}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
"#
    )
}

fn kubelet_config(paths: &Paths, node: Node) -> String {
    let (data, pki, name) = (paths.node(node), paths.pki(), node.name());
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}/{name}", crate::paths::CGROUP),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "address": node.ip(),
        "authentication": {
            "x509": {"clientCAFile": pki.join("ca.crt")}, "anonymous": {"enabled": false}, "webhook": {"enabled": true}
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{name}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{name}.key")),
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", paths.containerd_socket(node).display()),
        // Nothing can be pulled again, so nothing may be collected, least of all because others fill this machine's disk.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "maxPods": 250,
        "resolvConf": paths.state.join("etc/resolv.conf"),
        "registerNode": true,
        "volumePluginDir": data.join("volumeplugins"),
        "podLogsDir": data.join("pods"),
        // Files of changed Secrets and ConfigMaps arrive after 10 s at most, not after the default of a minute.
        "syncFrequency": "10s",
    })
    .to_string()
}
