//! What a partition reads: files of a stream, replayed in order, each batch stamped with its watermark.
//!
//! ```text
//!   CREATE STREAM ─▶ StreamTable (files found, schemas checked, partitions fixed)
//!     ─ scan ─▶ ReplayPlan: one Piece for each pipeline ─ open ─▶ Reader: (RecordBatch, Stamp) …
//! ```
//!
//! A partition is a unit of data, fixed by the CREATE STREAM and never by the number of cores. Lateness is decided
//! here, over every row in its order in the files, before any filter.
