//! Waits for what a daemon makes of an object, by a watch of that object.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::signal::ctrl_c;
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::progress::{Progress, View};

/// What a look at an object says.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// It is as it was waited for.
    Done(T),
    /// Not yet.
    Not(View),
}

/// How long, and what is said to who does not see the end.
pub struct Patience<'a> {
    /// Longest wait.
    pub timeout: Option<Duration>,
    /// How to look again.
    pub again: &'a str,
}

/// Looks at an object whenever it changes, until it is as wanted. The object is left as it is, whatever ends this.
///
/// # Errors
/// What `look` says, a watch that is not allowed, a missed deadline, Ctrl-C. A watch that breaks is begun anew.
pub async fn until<K, T>(
    api: Api<K>,
    name: &str,
    patience: &Patience<'_>,
    mut look: impl FnMut(Option<K>) -> Result<Look<T>>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut progress = Progress::start();
    let mut seen = View::default();
    let mut changes = pin!(watch_object(api, name).default_backoff());
    let (mut interrupted, mut expired) = (pin!(ctrl_c()), pin!(expired(patience.timeout)));
    let ended = loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = &mut interrupted => break Err(Error::Interrupted(format!("not waiting any more; {}", patience.again))),
            () = &mut expired => {
                let last = seen.line();
                break Err(Error::TimedOut(format!("gave up waiting ({last}); {}", patience.again)));
            }
        };
        match change.map(|change| change.map(&mut look)) {
            Some(Ok(Ok(Look::Done(value)))) => break Ok(value),
            Some(Ok(Ok(Look::Not(view)))) => {
                seen = view.clone();
                progress.say(view);
            }
            Some(Ok(Err(error))) => break Err(error),
            Some(Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))) if status.is_forbidden() => {
                break Err(Error::kubernetes(format!("watch {name}"))(kube::Error::Api(status)));
            }
            Some(Err(error)) => progress.say(View::step(format!("{error}; trying again"))),
            None => break Err(Error::Failed(format!("the watch of {name} ended; {}", patience.again))),
        }
    };
    progress.end();
    ended
}

async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => std::future::pending().await,
    }
}
