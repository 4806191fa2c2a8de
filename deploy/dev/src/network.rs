//! The wires: a bridge on the host, a network namespace with one cable to it for each node, routes between the pods of different nodes.
//!
//! ```text
//!   host 10.90.0.1 -- pel0 --+-- pelnode1 | eth0 10.90.0.11  pelorus-node1   cni0 10.244.1.0/24
//!                            +-- pelnode2 | eth0 10.90.0.12  pelorus-node2   cni0 10.244.2.0/24
//!                            +-- pelnode3 | eth0 10.90.0.13  pelorus-node3   cni0 10.244.3.0/24
//! ```
//!
//! The host's firewall policy is left alone: the only rules are in a chain of our own, entered from the top of FORWARD for packets on the bridge.

use std::{fs, path::Path, thread, time::Duration};

use crate::{
    command::{self, line, succeeds},
    error::{Error, Result},
    mounts,
    paths::{BRIDGE, HOST_CHAIN, HOST_IP, Node, POD_CIDR},
};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Path of a node's network namespace.
pub(crate) fn netns_path(node: Node) -> std::path::PathBuf {
    Path::new("/run/netns").join(node.netns())
}

/// Makes what is missing of the bridge, the routes and the firewall rules of the host.
pub(crate) fn host_up() -> Result<()> {
    if !succeeds(&format!("ip link show {BRIDGE}")) {
        line(&format!("ip link add {BRIDGE} type bridge"))?;
    }
    line(&format!("ip addr replace {HOST_IP}/24 dev {BRIDGE}"))?;
    line(&format!("ip link set {BRIDGE} up"))?;
    fs::write(IP_FORWARD, "1").map_err(Error::file("write", IP_FORWARD))?;
    // Filled before it is entered, so a packet never meets half of it.
    if !succeeds(&format!("iptables -w -n -L {HOST_CHAIN}")) {
        line(&format!("iptables -w -N {HOST_CHAIN}"))?;
    }
    for rule in [
        format!("{HOST_CHAIN} -i {BRIDGE} -j ACCEPT"),
        format!("{HOST_CHAIN} -o {BRIDGE} -j ACCEPT"),
        format!("FORWARD -j {HOST_CHAIN}"),
    ] {
        if !succeeds(&format!("iptables -w -C {rule}")) {
            let how = if rule.starts_with("FORWARD") { "-I" } else { "-A" };
            line(&format!("iptables -w {how} {rule}"))?;
        }
    }
    Ok(())
}

/// Makes what is missing of a node's namespace and cable.
pub(crate) fn node_up(node: Node) -> Result<()> {
    let (netns, link, ip) = (node.netns(), node.link(), node.ip());
    let usable = succeeds(&format!("ip -n {netns} link show lo"));
    if !usable {
        // Nothing, or the empty file that a half-finished `ip netns add` or a reboot leaves.
        let _ = line(&format!("ip netns delete {netns}"));
        line(&format!("ip netns add {netns}"))?;
    }
    if !succeeds(&format!("ip -n {netns} link show eth0")) || !succeeds(&format!("ip link show {link}")) {
        let _ = line(&format!("ip link delete {link}"));
        let _ = line(&format!("ip -n {netns} link delete eth0"));
        line(&format!("ip link add {link} type veth peer name eth0 netns {netns}"))?;
    }
    line(&format!("ip link set {link} master {BRIDGE} up"))?;
    line(&format!("ip -n {netns} link set lo up"))?;
    line(&format!("ip -n {netns} addr replace {ip}/24 dev eth0"))?;
    line(&format!("ip -n {netns} link set eth0 up"))?;
    line(&format!("ip -n {netns} route replace default via {HOST_IP}"))?;
    for other in Node::all().filter(|other| *other != node) {
        line(&format!("ip -n {netns} route replace {} via {}", other.pod_cidr(), other.ip()))?;
    }
    in_netns(&netns_path(node), "sysctl -qw net.ipv4.ip_forward=1")?;
    line(&format!("ip route replace {} via {ip}", node.pod_cidr()))?;
    Ok(())
}

/// Runs a line inside a network namespace. `ip netns exec` would hide the cgroup mounts, so nsenter.
pub(crate) fn in_netns(netns: &Path, text: &str) -> Result<String> {
    let mut args = vec![format!("--net={}", netns.display())];
    args.extend(text.split_whitespace().map(str::to_owned));
    command::run("nsenter", args)
}

/// Plugs the node's cable in or out, on the host's side.
pub(crate) fn set_link(node: Node, up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    line(&format!("ip link set {} {state}", node.link())).map(drop)
}

/// Whether the node's cable is plugged in.
pub(crate) fn link_is_up(node: Node) -> bool {
    line(&format!("ip -o link show {}", node.link()))
        .is_ok_and(|text| text.split(['<', '>', ',']).any(|flag| flag == "UP"))
}

/// Removes a node's cable and namespace.
pub(crate) fn node_down(node: Node) -> Result<()> {
    if succeeds(&format!("ip link show {}", node.link())) {
        line(&format!("ip link delete {}", node.link()))?;
    }
    let path = netns_path(node);
    if path.exists() {
        mounts::unmount_below(&path)?;
        fs::remove_file(&path).map_err(Error::file("remove", path))?;
    }
    Ok(())
}

/// Removes everything of ours from the host's network.
pub(crate) fn host_down() -> Result<()> {
    for node in Node::all() {
        node_down(node)?;
    }
    if succeeds(&format!("ip link show {BRIDGE}")) {
        line(&format!("ip link delete {BRIDGE}"))?;
    }
    while succeeds(&format!("iptables -w -D FORWARD -j {HOST_CHAIN}")) {}
    if succeeds(&format!("iptables -w -n -L {HOST_CHAIN}")) {
        line(&format!("iptables -w -F {HOST_CHAIN}"))?;
        line(&format!("iptables -w -X {HOST_CHAIN}"))?;
    }
    // The kernel tears namespaces down behind our back; the links in them vanish a moment later.
    for _ in 0..50 {
        if !line("ip -o link").is_ok_and(|text| text.contains("pelnode")) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What is left of ours, for `status` and for the check after `down`.
pub(crate) fn leftovers() -> Vec<String> {
    let mut found = Vec::new();
    let links = line("ip -o link").unwrap_or_default();
    found.extend(
        links
            .lines()
            .filter_map(|text| text.split(": ").nth(1))
            .filter(|name| name.starts_with("pelnode") || name.starts_with(BRIDGE))
            .map(|name| format!("link {name}")),
    );
    found.extend(
        Node::all().map(netns_path).filter(|path| path.exists()).map(|path| format!("namespace {}", path.display())),
    );
    let rules = line("iptables-save").unwrap_or_default();
    found.extend(rules.lines().filter(|rule| rule.contains(HOST_CHAIN)).map(|rule| format!("iptables {rule}")));
    let routes = line("ip route").unwrap_or_default();
    let prefix = POD_CIDR.trim_end_matches("0.0/16");
    found.extend(routes.lines().filter(|route| route.starts_with(prefix)).map(|route| format!("route {route}")));
    found
}
