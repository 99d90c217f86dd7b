//! Checkpoints: what is saved of each pipeline, so that a job goes on where it was.
//!
//! Pipelines are independent, and so are their checkpoints: no pipeline waits for another one to save itself. One is
//! taken between two batches, when every effect of the rows read so far is in an operator's state or in the output.
//!
//! ```text
//!   folder/job.json                         what the checkpoints are of
//!   folder/lock                             held while a job runs; in a store lease.json, which says that it lives
//!   folder/rows/                            rows for what runs where the pipelines meet
//!   folder/00003/0000000012.checkpoint      pipeline 3 after its 12th epoch
//!   folder/00003/0000000012-5.part          what its operators have saved in that epoch, by run 5, for later ones too
//!   folder/00003/oldest                     in a store, the epoch of its oldest one
//! ```

mod job;
mod lease;
mod look;
mod object;
mod parts;
mod sealed;
mod settings;
mod store;

pub(crate) use job::Fingerprint;
pub use look::{SavedContent, SavedJob, SavedPipeline, checkpoints, delete_checkpoints};
pub(crate) use object::{Checkpoint, Saved};
pub(crate) use settings::Interval;
pub(crate) use store::{CheckpointStore, ROWS};
