//! Access to MySQL with a deadline on everything.
//!
//! mysql_async knows no timeouts, and a connection whose answer was not waited for is in an unknown state. So every
//! call here takes its longest wait; when that is missed (or the caller gives up waiting) the connection is closed at
//! once, without another word to a server that may be frozen, and every later call on the session says so.
//!
//! TCP is always TLS, with one explicit root and the name that the certificate must be valid for: callers connect to
//! pod addresses and verify host names. No secret is in any error or debug output.

mod endpoint;
mod error;
mod session;
pub mod wire;

pub use mysql_async::prelude::{FromRow, FromValue};
pub use mysql_async::{Row, Value};

pub use self::endpoint::{Ca, Credentials, Endpoint, Password, Tls, exposed};
pub use self::error::Error;
pub use self::session::{SQL_MODE, Session};
