//! The session that instance-d works with on its mysqld.

use std::sync::Arc;
use std::time::Duration;

use common::mysql::Session;
use common::names::account;

use super::{Instance, LOGIN, STATEMENT, lock};
use crate::error::{Error, Result};
use crate::process::Mysqld;

impl Instance {
    /// The session that orders are carried out on. It is held from order to order, because logins may be blocked when
    /// an order matters most.
    ///
    /// # Errors
    /// mysqld does not run, or does not let us in.
    pub async fn hands(self: &Arc<Self>) -> Result<Hands> {
        let child = self.child().ok_or(Error::NotRunning)?;
        let held = lock(&self.hands).take().filter(|session| !session.is_closed());
        let session = match held {
            Some(session) => session,
            None => self.another_session().await?,
        };
        Ok(Hands { session: Some(session), child, instance: Arc::clone(self) })
    }

    /// A new session of instance-d's own account.
    ///
    /// # Errors
    /// The login.
    pub async fn another_session(&self) -> Result<Session> {
        let credentials = self.layout.credentials(account::LOCAL)?;
        long_lived(Session::connect(&self.layout.endpoint(), &credentials, LOGIN).await?).await
    }
}

/// A session for orders, given back for the next one when it is still good.
#[derive(Debug)]
pub struct Hands {
    session: Option<Session>,
    child: Arc<Mysqld>,
    instance: Arc<Instance>,
}

impl Hands {
    /// The session.
    ///
    /// # Errors
    /// Never while held.
    pub fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or(Error::NotRunning)
    }

    /// The process that the session is with.
    pub fn process(&self) -> i32 {
        self.child.pid()
    }

    /// A statement whose result does not matter.
    ///
    /// # Errors
    /// Those of MySQL.
    pub async fn exec(&mut self, sql: &str, within: Duration) -> Result<()> {
        Ok(self.session()?.exec(sql, within).await?)
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !session.is_closed()
            && self.child.lives()
        {
            *lock(&self.instance.hands) = Some(session);
        }
    }
}

pub(super) async fn long_lived(mut session: Session) -> Result<Session> {
    // Nothing that instance-d does may get a GTID: it would be errant, or wait for an acknowledgement (Never 6).
    session.exec("SET SESSION wait_timeout=31536000, sql_log_bin=0", STATEMENT).await?;
    Ok(session)
}
