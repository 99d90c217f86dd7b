//! What a partition reads: files of a stream, replayed in order, each batch stamped with its watermark.
//!
//! ```text
//!   CREATE STREAM ─▶ StreamTable (files found, schemas checked, partitions fixed)
//!     ─ scan ─▶ ReplayPlan: one Piece for each pipeline ─ open ─▶ Reader: (RecordBatch, Stamp) …
//! ```
//!
//! A partition is a unit of data, fixed by the CREATE STREAM and never by the number of cores. Lateness is decided
//! here, over every row in its order in the files, before any filter.

mod apart;
mod arrivals;
mod bounded_watermark;
mod chunk_rows;
mod csv_rows;
mod csv_time;
mod early_pass;
mod event_time;
mod exact_watermark;
mod files;
mod follow;
mod footer;
mod idle;
mod key_check;
mod keys_first;
mod latency;
mod lateness;
mod left_out;
mod live;
mod opening;
mod opening_live;
mod options;
mod origin;
mod pacing;
mod parquet_pages;
mod parquet_rows;
mod pieces;
mod place;
mod position;
mod reader;
mod replay;
mod rows;
mod schema;
mod sequence;
mod share;
mod stamps;
mod statistics;
mod stored_files;
mod stored_text;
mod table;
mod text_parts;
mod text_rows;
mod together;
mod unchanged;
mod unreadable;
mod wait;

pub(crate) use event_time::EventTime;
pub(crate) use files::{HIVE_NULL, is_data_path};
pub(crate) use follow::{Followed, Signals};
pub use latency::Latency;
pub use lateness::{Culprit, Lateness, SequenceLateness};
pub(crate) use left_out::LeftOut;
pub(crate) use live::FileIdentity;
pub use live::LiveStream;
pub(crate) use origin::Origin;
pub(crate) use pacing::{Due, Pacing, Schedule, Speed};
pub(crate) use pieces::{Division, ReadOrder, Split, TextStart};
pub(crate) use position::{Position, TextPosition};
pub(crate) use reader::{Read, Reader, ReaderCounts};
pub(crate) use replay::ReplayPlan;
pub(crate) use share::Sharing;
pub(crate) use statistics::{ReadStatistics, TimesRead, ValuesRead};
pub(crate) use table::{PLACE, StreamTable};
