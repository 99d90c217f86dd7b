//! Which of several pipelines that read the same rows owns each: by a hash of its keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::operator::same_dictionary;

use super::reader::Read;

/// Another one than the operators', whose tables would be full of like hashes otherwise.
const SEED: u64 = 0x5747_2E41_6D6C_696E;

/// How pipelines share the rows.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// Positions of the keys' columns in a batch.
    pub(super) keys: Vec<usize>,
    pub(super) pipelines: usize,
    pub(super) way: Sharing,
}

/// How rows get to their pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each reads all rows and keeps its own.
    AtSource,
    /// One reader sends them.
    Exchange,
}

impl Share {
    /// Rows by the pipeline that each belongs to.
    ///
    /// # Errors
    /// A type of key that has no hash.
    pub(super) fn divide(&self, read: &Read) -> Result<Vec<Read>> {
        let owners = self.owners(read.batch.num_rows(), self.columns(&read.batch))?;
        (0..self.pipelines).map(|pipeline| read.clone().of_rows(&are(&owners, pipeline))).collect()
    }

    fn columns(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect()
    }

    fn owners(&self, rows: usize, keys: Vec<ArrayRef>) -> Result<Vec<usize>> {
        let mut hashes = vec![0; rows];
        create_hashes(keys.iter(), &RandomState::with_seed(SEED), &mut hashes)?;
        // The upper half, for a remainder takes the lower bits of a power of two.
        Ok(hashes.iter().map(|hash| (hash >> 32) as usize % self.pipelines).collect())
    }
}

fn are(owners: &[usize], pipeline: usize) -> BooleanArray {
    owners.iter().map(|owner| Some(*owner == pipeline)).collect()
}

/// Which rows are those of one pipeline.
#[derive(Debug, Clone)]
pub(super) struct Own {
    share: Share,
    pipeline: usize,
    /// The dictionary that was met last, and the owner of each of its values; the last one is that of null.
    dictionary: Option<(ArrayRef, Vec<usize>)>,
}

impl Own {
    pub(super) fn new(share: Share, pipeline: usize) -> Self {
        Self { share, pipeline, dictionary: None }
    }

    /// Whether each row belongs to the pipeline. A key of type `text` that may come as codes has the owner that its text has.
    ///
    /// # Errors
    /// A type of key that has no hash.
    pub(super) fn rows(&mut self, batch: &RecordBatch, text: Option<&DataType>) -> Result<BooleanArray> {
        let keys = self.share.columns(batch);
        let codes = match (keys.as_slice(), text) {
            ([key], Some(text)) => key.as_dictionary_opt::<Int32Type>().map(|codes| (codes, text)),
            _ => None,
        };
        let Some((codes, text)) = codes else {
            return Ok(are(&self.share.owners(batch.num_rows(), keys)?, self.pipeline));
        };
        let pipeline = self.pipeline;
        let owners = self.of_dictionary(codes.values(), text)?;
        let null = owners.len() - 1;
        let owner = |code: Option<i32>| owners[code.map_or(null, |code| code as usize)];
        Ok(codes.keys().iter().map(|code| Some(owner(code) == pipeline)).collect())
    }

    fn of_dictionary(&mut self, values: &ArrayRef, text: &DataType) -> Result<&[usize]> {
        let known = self.dictionary.take().filter(|(known, _)| same_dictionary(known, values));
        let known = match known {
            Some(known) => known,
            None => {
                let null = new_null_array(text, 1);
                let texts = concat(&[&cast(values, text)?, &null])?;
                (Arc::clone(values), self.share.owners(texts.len(), vec![texts])?)
            }
        };
        Ok(&self.dictionary.insert(known).1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn each_row_has_one_owner_whatever_its_batch() {
        let text: ArrayRef = Arc::new(StringViewArray::from_iter(
            (0..500).map(|row| (row % 7 > 0).then(|| format!("key {}{}", row % 90, "long ".repeat(row % 3)))),
        ));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..500).map(|row| (row % 11 > 0).then_some(row % 5))));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("text", text, true), ("number", numbers, true)]).unwrap();
        let own = |keys: &[usize]| {
            let share = Share { keys: keys.to_vec(), pipelines: 3, way: Sharing::AtSource };
            (0..3).map(|pipeline| Own::new(share.clone(), pipeline)).collect::<Vec<_>>()
        };
        let rows = |own: &mut Own, batch: &RecordBatch| own.rows(batch, Some(&DataType::Utf8View)).unwrap();
        let owned: Vec<_> = own(&[0, 1]).iter_mut().map(|own| rows(own, &batch)).collect();
        assert!((0..500).all(|row| owned.iter().filter(|own| own.value(row)).count() == 1));
        assert!(owned.iter().all(|own| own.true_count() > 50), "{owned:?}");
        for row in 0..500 {
            let alone = rows(&mut own(&[0, 1])[1], &batch.slice(row, 1));
            assert_eq!(alone.value(0), owned[1].value(row));
        }
        let codes = cast(batch.column(0), &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)));
        let coded = RecordBatch::try_from_iter_with_nullable([("text", codes.unwrap(), true)]).unwrap();
        for (mut of_text, mut of_codes) in own(&[0]).into_iter().zip(own(&[0])) {
            assert_eq!(rows(&mut of_text, &batch), rows(&mut of_codes, &coded));
            // The column may also be declared so: then files have dictionaries of their own.
            let own_part = |own: &mut Own, from, to| {
                let texts = batch.column(0).slice(from, to - from);
                let codes = cast(&texts, coded.column(0).data_type()).unwrap();
                let part = RecordBatch::try_from_iter_with_nullable([("text", codes, true)]).unwrap();
                own.rows(&part, None).unwrap()
            };
            assert_eq!(own_part(&mut of_codes, 123, 500), own_part(&mut of_text, 0, 500).slice(123, 377));
        }
    }
}
