//! Asking the cluster's DNS, as any pod would.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::Harness;
use crate::node::{InNode, client_node};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What an SRV record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Host name.
    pub target: String,
    /// Port.
    pub port: u16,
}

/// The SRV records of a name, asked for from a node; empty when there are none.
///
/// # Errors
/// When DNS does not answer, or does not know the name.
pub async fn srv(harness: &Harness, name: &str) -> Result<BTreeSet<Srv>> {
    let services: Api<Service> = Api::namespaced(harness.client.clone(), "kube-system");
    let service = services.get("kube-dns").await.context("get Service kube-system/kube-dns")?;
    let server = service.spec.and_then(|spec| spec.cluster_ip).context("kube-dns has no ClusterIP")?;
    let name = name.to_owned();
    let task = move || async move {
        timeout(TIMEOUT, ask(&server, &name)).await.with_context(|| format!("DNS does not answer for {name}"))?
    };
    InNode::spawn(client_node(harness), task).join().await
}

async fn ask(server: &str, name: &str) -> Result<BTreeSet<Srv>> {
    let id = rand::random();
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(Name::new(name)?, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false));
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect((server, 53)).await?;
    socket.send(&query.build_bytes_vec()?).await?;
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).await?;
    let answer = Packet::parse(buffer.get(..length).unwrap_or_default())?;
    ensure!(answer.id() == id, "an answer to another question");
    ensure!(answer.rcode() == RCODE::NoError, "DNS answers {:?} for {name}", answer.rcode());
    let records = answer.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(srv) => Some(Srv { target: srv.target.to_string(), port: srv.port }),
        _ => None,
    });
    Ok(records.collect())
}
