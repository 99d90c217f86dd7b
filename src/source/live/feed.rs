//! Where text comes from, piece by piece.

use bytes::Bytes;
use datafusion::common::Result;

use crate::source::stored_text::StoredText;

use super::handed::Handed;
use super::identity::FileIdentity;
use super::tail::Tail;

/// Where text comes from.
pub(in crate::source) enum Feed {
    /// The end of a file.
    Tail(Tail),
    /// What can be read only once.
    Handed(Handed),
    /// An object of a store, or a part of one.
    Stored(StoredText),
}

/// What has come.
pub(super) enum Arrival {
    Text(Bytes),
    /// Nothing yet.
    Later,
    /// The end; where whoever writes may go on within the last row, that does not count.
    End {
        is_whole: bool,
    },
}

impl Feed {
    /// What comes next, or that nothing has come for a while.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) async fn next(&mut self) -> Result<Arrival> {
        match self {
            Self::Tail(tail) => tail.next().await,
            Self::Handed(handed) => handed.next().await,
            Self::Stored(text) => Ok(text.next().await?.map_or(Arrival::End { is_whole: true }, Arrival::Text)),
        }
    }

    /// Whether a row can be found again by its place.
    pub(super) fn can_be_read_again(&self) -> bool {
        !matches!(self, Self::Handed(_))
    }

    /// The file, if its name may come to mean another one.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        match self {
            Self::Tail(tail) => tail.identity(),
            Self::Handed(_) | Self::Stored(_) => None,
        }
    }
}
