//! State on disk, where it goes when memory is short, and comes back from as it was.
//!
//! State goes in one of three ways, by how it is asked for again:
//!
//! | file | state | on disk | comes back |
//! |---|---|---|---|
//! | `parts.rs` | groups of a window, which is answered as a whole | divided by the hash of keys | when the window closes, a part at a time |
//! | `cold_rows.rs` | keys that no row has come to for long | a row for each, in pages of some rows | when a row of the key comes, or at the end |
//! | `kept_batches.rs` | batches that are for checkpoints alone | one after the other | for each checkpoint |
//! | `file.rs` | all of them | Arrow IPC in a temporary file that ends with the last who knows of it | |
//!
//! A window's groups are all wanted at one time, so they are read in order, and no more than a part of them is in memory
//! then. (Grace hash join, Kitsuregawa et al. 1983, does the same to its inputs.) Keys are wanted one by one. For them a
//! list of hashes stays in memory, as an index of a log-structured store does, and only a key that is not in memory is
//! looked for in it: whoever is busy never comes near the disk.
//!
//! What is on disk is not in memory as well, and the other way round. A snapshot holds both.

mod cold_rows;
mod file;
mod kept_batches;
mod parts;

pub(super) use cold_rows::{ColdRows, Warmth, first_rows, hashes_of};
pub(super) use kept_batches::KeptBatches;
pub(super) use parts::{Divided, PARTS, SpillOut, Spilled};
