//! A way from here to a port of a pod, through the API server: a port of this host's loopback, as `kubectl port-forward` has it.
//!
//! The driver of MySQL takes addresses, not streams, so there is a listener between. What goes through it is TLS from end to end.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listener; gone when dropped.
pub struct Tunnel {
    /// Its port on 127.0.0.1.
    pub port: u16,
    problem: Arc<Mutex<Option<String>>>,
    listening: JoinHandle<()>,
}

impl Tunnel {
    /// To a port of a pod; each connection is asked for when it comes.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub async fn open(pods: Api<Pod>, pod: &str, to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let problem = Arc::new(Mutex::new(None));
        let (pod, broken) = (pod.to_owned(), Arc::clone(&problem));
        let listening = async move {
            while let Ok((here, _)) = listener.accept().await {
                let (pods, pod, broken) = (pods.clone(), pod.clone(), Arc::clone(&broken));
                tokio::spawn(async move {
                    let mut here = here;
                    if let Err(error) = forward(&pods, &pod, to, &mut here).await {
                        *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                    // After that: whoever sees the end of the connection finds what it was.
                    drop(here);
                });
            }
        };
        Ok(Self { port, problem, listening: tokio::spawn(listening) })
    }

    /// What has gone wrong on the way, if something has.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn forward(pods: &Api<Pod>, pod: &str, to: u16, here: &mut TcpStream) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("forward port {to} of pod {pod}: {error}");
    here.set_nodelay(true).map_err(|error| failed(&error))?;
    let mut forwarder = pods.portforward(pod, &[to]).await.map_err(|error| failed(&error))?;
    let mut there = forwarder.take_stream(to).ok_or_else(|| failed(&"no stream"))?;
    let refusal = forwarder.take_error(to);
    let refused = async {
        match refusal {
            Some(refusal) => refusal.await,
            None => None,
        }
    };
    tokio::select! {
        // First: where the pod refused, the stream ends as well.
        biased;
        Some(error) = refused => Err(failed(&error)),
        // Either end may just hang up: whoever is connected knows whether it was done.
        _ = copy_bidirectional(here, &mut there) => Ok(()),
    }
}
