//! Clients that live on a node.
//!
//! ClusterIPs exist only where kube-proxy has written its rules: in the network namespace of a node. A thread that has
//! entered one connects through them exactly as a pod of that node does.

use std::future::Future;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use pelorus_dev::Node;
use tokio::sync::oneshot;

/// Work that goes on in a node's network namespace.
pub struct InNode<T>(oneshot::Receiver<Result<T>>);

impl<T: Send + 'static> InNode<T> {
    /// Starts `task` on a thread of its own, with a runtime of its own, inside the node. Without a node (another
    /// cluster than the development one) it runs where we are, which then has to reach ClusterIPs.
    pub fn spawn<F, Fut>(node: Option<Node>, task: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>>,
    {
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || {
            let result = enter(node).and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(task())
            });
            sender.send(result).ok();
        });
        Self(receiver)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Those of the task, and when it panicked.
    pub async fn join(self) -> Result<T> {
        self.0.await.context("the task in the node panicked")?
    }
}

fn enter(node: Option<Node>) -> Result<()> {
    let Some(node) = node else { return Ok(()) };
    let path = Path::new("/run/netns").join(node.netns());
    let namespace = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))
}

/// The node that clients live on unless a test says otherwise.
pub fn client_node(harness: &crate::Harness) -> Option<Node> {
    harness.dev.as_ref().and(Node::all().last())
}
