//! Checking that a declared `partitioned_by` is true: no key in two files.
//!
//! Keys are compared by 64-bit hashes. A reader knows the keys that it has seen; only a key that is new to it is
//! looked up among all readers' keys, under a lock. Every row is checked until the memory for it is spent; of keys
//! that come as codes only the new ones are looked at.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use parking_lot::Mutex;

use crate::error::Error;
use crate::operator::Codes;

/// What a key costs in both maps, with the room that hash maps leave free.
const BYTES_PER_KEY: usize = 48;

/// A hash is its own hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Keyed = BuildHasherDefault<Identity>;

/// The keys of all readers of a scan.
#[derive(Debug)]
pub(super) struct KeyCheck {
    /// Indices of the key columns in the projected batches.
    columns: Vec<usize>,
    /// Their declared types.
    types: Vec<DataType>,
    names: Vec<String>,
    keys_max: usize,
    files: Mutex<HashMap<u64, String, Keyed>>,
    rows: AtomicU64,
    checked_rows: AtomicU64,
}

impl KeyCheck {
    /// The positions of the columns that are checked.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    pub(super) fn new(columns: Vec<usize>, names: Vec<String>, schema: &Schema, bytes_max: usize) -> Self {
        let types = columns.iter().map(|index| schema.field(*index).data_type().clone()).collect();
        let (rows, checked_rows) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { columns, types, names, keys_max: bytes_max / BYTES_PER_KEY, files: Mutex::default(), rows, checked_rows }
    }

    /// The share of rows that was checked, from 0 to 1; none before any row was read.
    pub(super) fn checked_share(&self) -> Option<f64> {
        let rows = self.rows.load(Ordering::Relaxed);
        (rows > 0).then(|| self.checked_rows.load(Ordering::Relaxed) as f64 / rows as f64)
    }

    /// Notes that `file` holds a key.
    fn claim(&self, hash: u64, file: &str) -> Claim {
        let mut files = self.files.lock();
        if let Some(owner) = files.get(&hash) {
            return if owner == file { Claim::Fine } else { Claim::Taken(owner.clone()) };
        }
        if files.len() >= self.keys_max {
            return Claim::Full;
        }
        files.insert(hash, file.to_string());
        Claim::Fine
    }
}

enum Claim {
    Fine,
    Taken(String),
    Full,
}

/// The keys of one reader.
#[derive(Default)]
pub(super) struct ReaderKeys {
    seen: HashSet<u64, Keyed>,
    hashes: Vec<u64>,
    /// Those of the dictionary at hand, if keys come as codes.
    codes: Option<Codes>,
    full: bool,
}

impl ReaderKeys {
    /// Checks the keys of a batch of `file`.
    ///
    /// # Errors
    /// A key that another file holds too.
    pub(super) fn check(&mut self, all: &KeyCheck, batch: &RecordBatch, file: &str) -> Result<()> {
        all.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        if self.full {
            return Ok(());
        }
        let keys = self.keys_to_check(all, batch)?;
        self.check_rows(all, &keys, file)?;
        if !self.full {
            all.checked_rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The key columns of a batch; of keys that come as codes only those that are new.
    fn keys_to_check(&mut self, all: &KeyCheck, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns = all.columns.iter().map(|index| batch.column(*index)).zip(&all.types);
        let columns: Vec<(&ArrayRef, &DataType)> = columns.collect();
        if let [(column, data_type)] = columns.as_slice()
            && column.data_type() != *data_type
            && let Some(rows) = column.as_dictionary_opt::<Int32Type>()
        {
            if !self.codes.as_ref().is_some_and(|codes| codes.are_of(rows)) {
                self.codes = None;
            }
            let codes = self.codes.get_or_insert_with(|| Codes::new(rows));
            let new = codes.meet(rows);
            return Ok(vec![codes.values(new, data_type)?]);
        }
        let columns = columns.into_iter().map(|(column, data_type)| cast(column, data_type));
        Ok(columns.collect::<Result<_, _>>()?)
    }

    fn check_rows(&mut self, all: &KeyCheck, columns: &[ArrayRef], file: &str) -> Result<()> {
        self.hashes.clear();
        self.hashes.resize(columns.first().map_or(0, |column| column.len()), 0);
        create_hashes(columns, &RandomState::with_seed(7), &mut self.hashes)?;
        let mut before = None;
        for (row, hash) in self.hashes.iter().enumerate() {
            if before == Some(*hash) || self.seen.contains(hash) {
                continue;
            }
            before = Some(*hash);
            match all.claim(*hash, file) {
                Claim::Fine => self.seen.insert(*hash),
                Claim::Taken(owner) => return Err(two_files(all, columns, row, &owner, file).into()),
                Claim::Full => {
                    self.full = true;
                    return Ok(());
                }
            };
        }
        Ok(())
    }
}

fn two_files(all: &KeyCheck, columns: &[ArrayRef], row: usize, owner: &str, file: &str) -> Error {
    let values = all.names.iter().zip(columns).map(|(name, column)| {
        let value = array_value_to_string(column, row).unwrap_or_default();
        format!("{name} = {value}")
    });
    let key = values.collect::<Vec<_>>().join(", ");
    Error::data(format!(
        "{key} is in {owner} too, and the stream is declared 'partitioned_by' {}",
        all.names.join(", ")
    ))
    .in_file(file)
    .help("declare OPTIONS ('partitions' 'files') instead, or leave 'partitioned_by' out")
}
