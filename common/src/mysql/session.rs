//! One connection, its deadlines and its fixed settings.
//!
//! A connection is out of the session while a call is under way and goes back only after a complete answer. A call
//! that is dropped half way (by its deadline, or by a caller that lost patience) so takes the connection with it, and
//! no later call can read an answer that was meant for it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error as Driver, Row};
use tokio::time::timeout;

use super::{Credentials, Endpoint, Error};

/// The `sql_mode` of every session: statements mean the same whatever the server's default is. Backslashes escape.
pub const SQL_MODE: &str = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
                            ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// The server ends sessions that were idle this long, so that those of vanished peers do not pile up.
const IDLE: Duration = Duration::from_secs(600);

/// `ER_NO_SUCH_THREAD`: whoever should be killed is gone.
const NO_SUCH_THREAD: u16 = 1094;

/// A connection that is closed at once when dropped.
///
/// mysql_async would read what is pending in a background task of no bounded length instead, which piles up tasks and
/// sockets when the server is frozen.
#[derive(Debug)]
struct Held(Option<Conn>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            // One poll: marks the connection as done with, says goodbye if that takes no waiting, and closes it.
            let _ = conn.disconnect().now_or_never();
        }
    }
}

/// One session on one server.
#[derive(Debug)]
pub struct Session {
    conn: Held,
    id: u32,
    server: String,
}

impl Session {
    /// Logs in and fixes the session's settings (`sql_mode`, idle timeout), all within `within`.
    pub async fn connect(endpoint: &Endpoint, credentials: &Credentials, within: Duration) -> Result<Self, Error> {
        let server = endpoint.to_string();
        let login = async {
            let mut conn = Held(Some(Conn::new(endpoint.opts(credentials)).await?));
            if let Some(conn) = &mut conn.0 {
                conn.query_drop(format!("SET SESSION sql_mode='{SQL_MODE}', wait_timeout={}", IDLE.as_secs())).await?;
            }
            Ok::<_, Driver>(conn)
        };
        match timeout(within, login).await {
            Ok(Ok(conn)) => {
                let id = conn.0.as_ref().map_or(0, Conn::id);
                Ok(Self { conn, id, server })
            }
            Ok(Err(error)) => Err(Error::from_driver("connect".to_owned(), server, error)),
            Err(_) => Err(Error::Timeout { what: "connect".to_owned(), server, after: within }),
        }
    }

    /// The connection id, for [`Session::kill`] on another session.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether an earlier failure closed the connection: connect anew.
    pub fn is_closed(&self) -> bool {
        self.conn.0.is_none()
    }

    /// Runs a statement whose result, if any, does not matter.
    pub async fn exec(&mut self, sql: &str, within: Duration) -> Result<(), Error> {
        self.call(sql, within, |conn, sql| conn.query_drop(sql).boxed()).await
    }

    /// All rows of a query.
    pub async fn rows<T: FromRow + Send + 'static>(&mut self, sql: &str, within: Duration) -> Result<Vec<T>, Error> {
        let rows = self.call(sql, within, |conn, sql| conn.query::<Row, _>(sql).boxed()).await?;
        rows.into_iter().map(|row| self.shaped(sql, row)).collect()
    }

    /// The first row of a query, if there is one.
    pub async fn first<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
        within: Duration,
    ) -> Result<Option<T>, Error> {
        let row = self.call(sql, within, |conn, sql| conn.query_first::<Row, _>(sql).boxed()).await?;
        row.map(|row| self.shaped(sql, row)).transpose()
    }

    /// Ends another session of this server. One that is gone already is no error.
    pub async fn kill(&mut self, id: u64, within: Duration) -> Result<(), Error> {
        match self.exec(&format!("KILL {id}"), within).await {
            Err(error) if error.code() == Some(NO_SUCH_THREAD) => Ok(()),
            done => done,
        }
    }

    /// Says goodbye and closes the connection without waiting for an answer. Dropping a session does the same.
    pub fn close(self) {}

    /// `FromRow::from_row` panics on a surprise, this does not.
    fn shaped<T: FromRow>(&self, sql: &str, row: Row) -> Result<T, Error> {
        T::from_row_opt(row).map_err(|_| Error::Shape { what: label(sql), server: self.server.clone() })
    }

    async fn call<T>(
        &mut self,
        sql: &str,
        within: Duration,
        ask: impl for<'c> FnOnce(&'c mut Conn, String) -> BoxFuture<'c, Result<T, Driver>>,
    ) -> Result<T, Error> {
        let mut held = Held(self.conn.0.take());
        let Some(conn) = &mut held.0 else {
            return Err(Error::Closed { what: label(sql), server: self.server.clone() });
        };
        match timeout(within, ask(conn, sql.to_owned())).await {
            Ok(Ok(answer)) => {
                self.conn = held;
                Ok(answer)
            }
            Ok(Err(error)) => {
                if !error.is_fatal() {
                    self.conn = held;
                }
                Err(Error::from_driver(label(sql), self.server.clone(), error))
            }
            Err(_) => Err(Error::Timeout { what: label(sql), server: self.server.clone(), after: within }),
        }
    }
}

/// The first words of a statement: enough to know it by, and nothing that could be a value.
fn label(sql: &str) -> String {
    let words: Vec<&str> = sql
        .split_ascii_whitespace()
        .take_while(|word| word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_'))
        .take(3)
        .collect();
    if words.is_empty() { "statement".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn labels_hold_no_values() {
        for (sql, expected) in [
            ("SELECT @@gtid_executed", "SELECT"),
            ("ALTER USER `a`@`%` IDENTIFIED BY 'secret'", "ALTER USER"),
            ("CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='secret'", "CHANGE REPLICATION SOURCE"),
            ("  'x'", "statement"),
            ("", "statement"),
        ] {
            assert_eq!(label(sql), expected);
        }
    }
}
