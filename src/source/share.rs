//! Which of several pipelines that read the same rows owns each: by a hash of its keys.

use arrow::array::{BooleanArray, RecordBatch};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};

/// Another one than the operators', whose tables would be full of like hashes otherwise.
const SEED: u64 = 0x5747_2E41_6D6C_696E;

/// How pipelines share the rows.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// Positions of the keys' columns in a batch.
    pub(super) keys: Vec<usize>,
    pub(super) pipelines: usize,
}

impl Share {
    /// Whether each row belongs to a pipeline.
    ///
    /// # Errors
    /// A type of key that has no hash.
    pub(super) fn own(&self, batch: &RecordBatch, pipeline: usize) -> Result<BooleanArray> {
        let keys: Vec<_> = self.keys.iter().map(|key| batch.column(*key)).collect();
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(keys, &RandomState::with_seed(SEED), &mut hashes)?;
        // The upper half, for a remainder takes the lower bits of a power of two.
        let owner = |hash: &u64| (hash >> 32) as usize % self.pipelines;
        Ok(hashes.iter().map(|hash| Some(owner(hash) == pipeline)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn each_row_has_one_owner_whatever_its_batch() {
        let text: ArrayRef = Arc::new(StringViewArray::from_iter(
            (0..500).map(|row| (row % 7 > 0).then(|| format!("key {}{}", row % 90, "long ".repeat(row % 3)))),
        ));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..500).map(|row| (row % 11 > 0).then_some(row % 5))));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("text", text, true), ("number", numbers, true)]).unwrap();
        let share = Share { keys: vec![0, 1], pipelines: 3 };
        let own: Vec<_> = (0..3).map(|pipeline| share.own(&batch, pipeline).unwrap()).collect();
        assert!((0..500).all(|row| own.iter().filter(|own| own.value(row)).count() == 1));
        assert!(own.iter().all(|own| own.true_count() > 50), "{own:?}");
        for row in 0..500 {
            let alone = share.own(&batch.slice(row, 1), 1).unwrap();
            assert_eq!(alone.value(0), own[1].value(row));
        }
    }
}
