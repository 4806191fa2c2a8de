//! DNS, storage classes, rights of kube-proxy: applied once the API server answers, and the wait until nodes and DNS are usable.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{build::Artifacts, cluster::Cluster, command, error::Result, paths::NODES, process::wait_for};

/// A DNS query over TCP for the A record of `kubernetes.default.svc.cluster.local` (RFC 1035, with the length in front).
const QUERY: &[u8] =
    b"\0\x36\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

/// Applies the manifests.
pub(crate) fn apply(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let mut kubectl = command::command(
        artifacts.kubectl(),
        ["--request-timeout=20s", "apply", "--server-side", "--force-conflicts", "-f", "-"],
    );
    kubectl.env("KUBECONFIG", cluster.kubeconfig());
    command::feed(kubectl, include_bytes!("../addons.yaml")).map(drop)
}

/// Waits until all nodes are Ready.
pub(crate) fn wait_for_nodes(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let path = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    wait_for("not all nodes became ready", Duration::from_secs(120), Some(&cluster.paths.log("node1-kubelet")), || {
        cluster
            .kubectl(artifacts, &["get", "nodes", "-o", path])
            .is_ok_and(|text| text.lines().filter(|line| *line == "True").count() == usize::from(NODES))
    })
}

/// Waits until every CoreDNS pod answers a query.
pub(crate) fn wait_for_dns(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    let path = r#"jsonpath={range .items[*]}{.status.podIP}{"\n"}{end}"#;
    wait_for("DNS did not answer", Duration::from_secs(120), None, || {
        cluster
            .kubectl(artifacts, &["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", path])
            .is_ok_and(|text| {
                let addresses: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
                addresses.len() >= 2 && addresses.iter().all(|ip| answers(ip))
            })
    })
}

/// Whether a name server knows the API server's Service.
fn answers(ip: &str) -> bool {
    let Ok(address) = format!("{ip}:53").parse() else { return false };
    let limit = Duration::from_secs(1);
    let ask = || -> std::io::Result<[u8; 14]> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(QUERY)?;
        let mut head = [0; 14];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    // Length, id, flags (lowest four bits: the code of the error), questions, answers.
    ask().is_ok_and(|[_, _, _, _, _, flags, _, _, high, low, ..]| flags % 16 == 0 && (high, low) != (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_its_length() {
        assert_eq!(
            QUERY.first().zip(QUERY.get(1)).map(|(high, low)| usize::from(*high) * 256 + usize::from(*low)),
            Some(QUERY.len() - 2)
        );
    }
}
