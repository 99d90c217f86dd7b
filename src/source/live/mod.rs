//! Rows that come while they are read: lines at the end of a file, bytes of a pipe, of standard input or of a connection,
//! and batches of a stream of the library's user.
//!
//! ```text
//!   Live: what is to be opened next ─▶ Feed: text as it comes ─▶ LiveRows: whole rows of it, decoded at once
//!                                 └─▶ batches as they come
//! ```
//!
//! Nobody waits for a batch to fill: what has come is given, and where nothing has come for a while, a reader says so, so
//! that whoever waits for rows has its turn (to save itself, or to end).

mod arriving;
mod batches;
mod feed;
mod handed;
mod identity;
mod place;
mod record_ends;
mod rows;
mod tail;

pub(super) use arriving::Live;
pub(super) use batches::Batches;
pub use batches::LiveStream;
pub(crate) use identity::FileIdentity;
pub(super) use place::{Bytes, Place};
pub(super) use rows::{Came, LiveRows};
