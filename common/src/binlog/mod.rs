//! Reads binlogs: event by event, in constant memory, checksums verified, panicking at nothing.
//!
//! mysql_common knows the events too, but its reader panics on a torn one and verifies no checksum; a crash leaves just such
//! files, and what goes into an archive has to be proven whole.

mod body;
mod content;
mod event;
mod group;

pub use self::body::{Begin, Bytes, Query};
pub use self::content::{Content, HEADER, Header, Piece, Told, content, kind};
pub use self::event::{Ending, Event, Events, IN_USE, IN_USE_AT, MAGIC, Next, closed};
pub use self::group::{Group, Step};
