//! Waiting for something, with a deadline and a reason.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(150);

/// What a look found.
pub enum Look<T> {
    /// What was waited for.
    Done(T),
    /// Not yet; what was seen instead.
    Not(String),
}

/// Looks until it is done. Errors of a look count as "not yet": an API server or a MySQL that is away comes back.
pub async fn until<T>(what: &str, within: Duration, look: impl AsyncFn() -> Result<Look<T>>) -> Result<T> {
    until_often(what, within, LOOK, look).await
}

/// As [`until`], with another rest between two looks.
pub async fn until_often<T>(
    what: &str,
    within: Duration,
    rest: Duration,
    look: impl AsyncFn() -> Result<Look<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let seen = match look().await {
            Ok(Look::Done(found)) => return Ok(found),
            Ok(Look::Not(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() > within {
            bail!("waited {within:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(rest).await;
    }
}

/// Holds for the whole time: a look that says otherwise ends it with what was seen.
pub async fn holds(what: &str, during: Duration, look: impl AsyncFn() -> Result<Look<()>>) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < during {
        if let Look::Not(seen) = look().await? {
            bail!("{what} did not hold after {:?}: {seen}", started.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
