//! Dropping packets between any two named parties, in one direction or both.
//!
//! Rules are made in the network namespaces of the parties themselves (a pod's own, a node's), in the mangle table: pods of one node talk over
//! a bridge that the node's rules do not see, and mangle POSTROUTING sees the addresses behind a ClusterIP, which the packet's sender does not know.
//! Packets of connections that exist are dropped like all others. Each fault has a chain of its own. A lossy wire drops some by chance.

use std::{
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::Cluster,
    command,
    error::{Error, Result},
    network::{in_netns, netns_path},
    paths::{API_PORT, API_SERVICE_IP, HOST_IP, Node},
    pods::{self, Container},
};

use super::{Fault, Process, forget, record, recorded};

/// Somebody who sends and receives packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Party {
    /// `pod:<namespace>/<name>`
    Pod {
        /// Namespace.
        namespace: String,
        /// Name of the pod.
        name: String,
    },
    /// `deploy:<namespace>/<name>`: all pods of a Deployment that run now.
    Deployment {
        /// Namespace.
        namespace: String,
        /// Name of the Deployment.
        name: String,
    },
    /// `node:<name>`: the node and all its pods.
    Node(String),
    /// `apiserver`
    ApiServer,
    /// `host`: this host, that is the API server and whatever else talks to pods from here, tests for instance.
    Host,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod:{namespace}/{name}"),
            Self::Deployment { namespace, name } => write!(f, "deploy:{namespace}/{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::ApiServer => f.write_str("apiserver"),
            Self::Host => f.write_str("host"),
        }
    }
}

impl From<Party> for String {
    fn from(party: Party) -> Self {
        party.to_string()
    }
}

impl FromStr for Party {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Invalid(format!(
                "{text:?} is none of pod:NAMESPACE/NAME, deploy:NAMESPACE/NAME, node:NAME, apiserver, host"
            ))
        };
        let object = |rest: &str| {
            let (namespace, name) = rest.split_once('/').ok_or_else(wrong)?;
            let plain = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
            plain.then(|| (namespace.to_owned(), name.to_owned())).ok_or_else(wrong)
        };
        match text.split_once(':') {
            None if text == "apiserver" => Ok(Self::ApiServer),
            None if text == "host" => Ok(Self::Host),
            Some(("pod", rest)) => object(rest).map(|(namespace, name)| Self::Pod { namespace, name }),
            Some(("deploy", rest)) => object(rest).map(|(namespace, name)| Self::Deployment { namespace, name }),
            Some(("node", name)) => Node::parse(name).map(|node| Self::Node(node.name())).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Party {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Which packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// All between the two.
    Both,
    /// Only those from the first to the second.
    OneWay,
}

/// Where a party's packets come from: an address or a network, and a TCP port when only that one is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    network: String,
    port: Option<u16>,
}

impl Address {
    fn any_port(network: String) -> Self {
        Self { network, port: None }
    }
}

/// A party, found.
#[derive(Debug, Default)]
struct Found {
    addresses: Vec<Address>,
    pods: Vec<Container>,
    node: Option<Node>,
}

fn resolve(cluster: &Cluster, party: &Party) -> Result<Found> {
    let of_pods = |pods: Vec<Container>| {
        let addresses = pods.iter().map(|pod| pod.ip().map(Address::any_port)).collect::<Result<_>>()?;
        Ok(Found { addresses, pods, node: None })
    };
    match party {
        Party::Pod { namespace, name } => of_pods(vec![pods::sandbox(cluster, namespace, name)?]),
        Party::Deployment { namespace, name } => {
            let pods = pods::of_deployment(cluster, namespace, name);
            if pods.is_empty() {
                return Err(Error::NotFound(format!("no pod of Deployment {namespace}/{name} runs on any node")));
            }
            of_pods(pods)
        }
        Party::Node(name) => {
            let node = Node::parse(name).ok_or_else(|| Error::NotFound(format!("there is no node {name}")))?;
            let addresses = vec![Address::any_port(node.ip()), Address::any_port(node.pod_cidr())];
            Ok(Found { addresses, pods: vec![], node: Some(node) })
        }
        Party::ApiServer => {
            // A pod knows it by the address of its Service.
            let address = |ip: &str, port| Address { network: ip.into(), port: Some(port) };
            Ok(Found { addresses: vec![address(HOST_IP, API_PORT), address(API_SERVICE_IP, 443)], ..Found::default() })
        }
        Party::Host => Ok(Found { addresses: vec![Address::any_port(HOST_IP.into())], ..Found::default() }),
    }
}

/// Arguments of iptables that match packets from one of `from` to one of `to`.
fn matches(from: &[Address], to: &[Address]) -> Vec<String> {
    let mut all = Vec::new();
    for source in from {
        for target in to {
            let mut text = format!("-s {} -d {}", source.network, target.network);
            if source.port.is_some() || target.port.is_some() {
                text.push_str(" -p tcp");
            }
            if let Some(port) = source.port {
                let _ = write!(text, " --sport {port}");
            }
            if let Some(port) = target.port {
                let _ = write!(text, " --dport {port}");
            }
            all.push(text);
        }
    }
    all
}

/// Input for `iptables-restore --noflush`: a chain with the rules, entered by all packets that come in, go out or pass through.
fn rules(chain: &str, from: &[Address], to: &[Address], direction: Direction, percent: u8) -> String {
    let mut all = matches(from, to);
    if direction == Direction::Both {
        all.extend(matches(to, from));
    }
    let chance = match percent {
        100.. => String::new(),
        some => format!(" -m statistic --mode random --probability 0.{some:02}"),
    };
    let mut text = format!("*mangle\n:{chain} - [0:0]\n");
    for one in all {
        let _ = writeln!(text, "-A {chain} {one}{chance} -j DROP");
    }
    let _ = write!(text, "-I INPUT 1 -j {chain}\n-I POSTROUTING 1 -j {chain}\nCOMMIT\n");
    text
}

fn fault(from: &Party, to: &Party, direction: Direction) -> Fault {
    Fault::Dropped { from: from.clone(), to: to.clone(), direction, percent: ALL, holders: vec![], nodes: vec![] }
}

/// Share of the packets that are dropped unless a lossy wire is asked for.
pub(crate) const ALL: u8 = 100;

/// Name of the fault's chain; the kernel allows 28 letters.
fn chain(identity: &str) -> String {
    format!("{}-{}", crate::paths::FAULT_CHAIN, identity.trim_start_matches("drop-"))
}

/// Drops packets between two parties.
pub fn drop_between(cluster: &Cluster, from: &Party, to: &Party, direction: Direction) -> Result<()> {
    lose_between(cluster, from, to, direction, ALL)
}

/// Drops so many of a hundred packets between two parties, by chance. In the network namespaces of both, so that a packet between two pods is
/// drawn for twice.
pub fn lose_between(cluster: &Cluster, from: &Party, to: &Party, direction: Direction, percent: u8) -> Result<()> {
    undrop(cluster, from, to)?;
    let identity = fault(from, to, direction).identity();
    let (source, target) = (resolve(cluster, from)?, resolve(cluster, to)?);
    let holders: Vec<_> = source.pods.iter().chain(&target.pods).filter_map(|pod| Process::of(pod.init)).collect();
    let nodes: Vec<_> = [source.node, target.node].into_iter().flatten().collect();
    if holders.is_empty() && nodes.is_empty() {
        return Err(Error::Invalid("one of the two parties has to be a pod, a Deployment or a node".into()));
    }
    record(
        cluster,
        &Fault::Dropped {
            from: from.clone(),
            to: to.clone(),
            direction,
            percent,
            holders: holders.clone(),
            nodes: nodes.iter().map(|node| node.name()).collect(),
        },
    )?;
    let text = rules(&chain(&identity), &source.addresses, &target.addresses, direction, percent);
    for netns in namespaces(&holders, &nodes) {
        let mut restore = command::command("nsenter", [format!("--net={}", netns.display())]);
        restore.args(["iptables-restore", "--noflush", "-w"]);
        command::feed(restore, text.as_bytes())?;
    }
    Ok(())
}

/// Namespaces of processes that still live, and of nodes.
fn namespaces(holders: &[Process], nodes: &[Node]) -> Vec<PathBuf> {
    let pods =
        holders.iter().filter(|holder| holder.is_alive()).map(|holder| format!("/proc/{}/ns/net", holder.pid).into());
    pods.chain(nodes.iter().map(|node| netns_path(*node))).collect()
}

/// Lets the packets between two parties pass again, named in the same order as when they were dropped.
pub fn undrop(cluster: &Cluster, from: &Party, to: &Party) -> Result<()> {
    let identity = fault(from, to, Direction::Both).identity();
    let Some(Fault::Dropped { holders, nodes, .. }) = recorded(cluster, &identity) else { return Ok(()) };
    let nodes: Vec<_> = nodes.iter().filter_map(|name| Node::parse(name)).collect();
    let chain = chain(&identity);
    for netns in namespaces(&holders, &nodes) {
        let iptables = |args: &str| in_netns(&netns, &format!("iptables -w -t mangle {args} {chain}"));
        if iptables("-n -L").is_err() {
            continue;
        }
        for hook in ["INPUT", "POSTROUTING"] {
            // A half-made fault may lack them.
            let _ = iptables(&format!("-D {hook} -j"));
        }
        iptables("-F")?;
        iptables("-X")?;
    }
    forget(cluster, &identity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parties_are_printed_as_they_are_parsed() {
        for text in ["pod:default/demo-0", "deploy:pelorus-system/failover-d", "node:node2", "apiserver", "host"] {
            assert_eq!(text.parse::<Party>().unwrap().to_string(), text);
        }
        for text in ["", "pod:demo-0", "pod:/x", "pod:a/b/c", "node:node9", "svc:a/b"] {
            assert!(text.parse::<Party>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_way_rules_match_one_way() {
        let pod = [Address::any_port("10.244.1.5".into())];
        let api = [Address { network: "10.90.0.1".into(), port: Some(6443) }];
        assert_eq!(
            rules("C", &pod, &api, Direction::OneWay, ALL),
            "*mangle\n:C - [0:0]\n-A C -s 10.244.1.5 -d 10.90.0.1 -p tcp --dport 6443 -j DROP\n-I INPUT 1 -j C\n-I POSTROUTING 1 -j C\nCOMMIT\n"
        );
        assert!(
            rules("C", &pod, &api, Direction::Both, ALL)
                .contains("-A C -s 10.90.0.1 -d 10.244.1.5 -p tcp --sport 6443 -j DROP\n")
        );
        assert!(
            rules("C", &pod, &api, Direction::OneWay, 5)
                .contains("--dport 6443 -m statistic --mode random --probability 0.05 -j DROP\n")
        );
    }

    #[test]
    fn chains_fit_the_kernel_and_do_not_depend_on_the_direction() {
        let (pod, node) = ("pod:default/demo-0".parse().unwrap(), "node:node1".parse().unwrap());
        let identity = fault(&pod, &node, Direction::Both).identity();
        assert_eq!(identity, fault(&pod, &node, Direction::OneWay).identity());
        assert_ne!(identity, fault(&node, &pod, Direction::Both).identity());
        assert!(chain(&identity).len() <= 28);
    }
}
