//! A way to the API server that can fall silent, as it does when the machine at the other end loses its power.

use anyhow::{Context, Result};
use kube::Config;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way. Connections that it has when it is cut stand still for ever.
pub struct Wire {
    state: watch::Sender<State>,
    /// The API server at the near end of the way.
    pub config: Config,
}

#[derive(Clone, Copy, Default)]
struct State {
    cuts: u32,
    is_closed: bool,
}

impl Wire {
    /// A way to the API server of this configuration.
    ///
    /// # Errors
    /// No port is free here, or the address names no host.
    pub async fn to(far: &Config) -> Result<Self> {
        let near = TcpListener::bind("127.0.0.1:0").await?;
        let mut config = far.clone();
        let host = far.cluster_url.host().context("the address of the API server names no host")?.to_owned();
        let server = (host.trim_matches(['[', ']']).to_owned(), far.cluster_url.port_u16().unwrap_or(443));
        config.tls_server_name.get_or_insert_with(|| server.0.clone());
        config.cluster_url = format!("https://{}", near.local_addr()?).parse()?;
        let (state, seen) = watch::channel(State::default());
        tokio::spawn(async move {
            while let Ok((near, _)) = near.accept().await {
                tokio::spawn(carry(near, server.clone(), seen.clone()));
            }
        });
        Ok(Self { state, config })
    }

    /// Silences all connections that there are; new ones work.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// New connections are taken, and not carried, until [`Self::open`].
    pub fn close(&self) {
        self.state.send_modify(|state| state.is_closed = true);
    }

    /// New connections work again.
    pub fn open(&self) {
        self.state.send_modify(|state| state.is_closed = false);
    }
}

async fn carry(mut near: TcpStream, server: (String, u16), mut seen: watch::Receiver<State>) {
    let State { cuts, is_closed } = *seen.borrow_and_update();
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let mut is_cut = async || {
        if !is_closed {
            let _ = seen.wait_for(|state| state.cuts != cuts).await;
        }
    };
    tokio::select! {
        biased;
        // Silence, not an end of the stream: both stay open.
        () = is_cut() => std::future::pending().await,
        _ = copy_bidirectional(&mut near, &mut far) => {}
    }
}
