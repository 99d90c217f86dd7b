//! The values of keys by their numbers, for operators that give rows of some groups while they keep others.

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Scalar, UInt32Array, new_empty_array};
use arrow::compute::kernels::numeric::add;
use arrow::compute::{cast, concat, interleave, take};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};

/// The columns of keys, a row for each group.
pub(super) struct KeyValues {
    types: Vec<DataType>,
    /// The rows of groups in their order. Each chunk is more than twice as long as the one after it, so that there are
    /// few, and a row is copied few times.
    chunks: Vec<Chunk>,
    known: usize,
}

struct Chunk {
    /// The group of its first row.
    first: usize,
    columns: Vec<ArrayRef>,
}

const NO_ROW: u32 = u32::MAX;

impl KeyValues {
    /// An empty store of keys of some columns.
    pub(super) fn new(schema: &SchemaRef) -> Self {
        // Dictionaries that grow together would outgrow their codes.
        let plain = |data_type: &DataType| match data_type {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        let types = schema.fields().iter().map(|field| plain(field.data_type())).collect();
        Self { types, chunks: vec![], known: 0 }
    }

    /// Remembers the keys of groups that are new, given the group of each row.
    pub(super) fn learn(&mut self, groups: &[usize], groups_total: usize, keys: &[ArrayRef]) -> Result<()> {
        if groups_total <= self.known || self.types.is_empty() {
            return Ok(());
        }
        let mut new = vec![NO_ROW; groups_total - self.known];
        for (row, group) in groups.iter().enumerate() {
            if let Some(first) = group.checked_sub(self.known).and_then(|group| new.get_mut(group))
                && *first == NO_ROW
            {
                *first = row as u32;
            }
        }
        if new.contains(&NO_ROW) {
            return Err(internal_datafusion_err!("a group whose key is not known"));
        }
        let new = UInt32Array::from(new);
        let columns = keys.iter().zip(&self.types).map(|(key, data_type)| take_plain(key, &new, data_type));
        self.chunks.push(Chunk { first: self.known, columns: columns.collect::<Result<_>>()? });
        self.known = groups_total;
        self.join_chunks()
    }

    fn join_chunks(&mut self) -> Result<()> {
        while let [.., before, last] = self.chunks.as_mut_slice()
            && last.first - before.first <= 2 * (self.known - last.first)
        {
            for (column, more) in before.columns.iter_mut().zip(&last.columns) {
                *column = concat(&[column.as_ref(), more.as_ref()])?;
            }
            self.chunks.pop();
        }
        Ok(())
    }

    /// The key columns of some groups, in that order.
    pub(super) fn columns(&self, groups: &[usize]) -> Result<Vec<ArrayRef>> {
        self.take(&UInt32Array::from_iter_values(groups.iter().map(|group| *group as u32)))
    }

    /// The same of groups that come as a column without nulls.
    pub(super) fn take(&self, groups: &UInt32Array) -> Result<Vec<ArrayRef>> {
        if self.types.is_empty() {
            return Ok(vec![]);
        }
        if groups.values().iter().any(|group| *group as usize >= self.known) {
            return Err(internal_datafusion_err!("a group whose key is not known"));
        }
        match self.chunks.as_slice() {
            [] => Ok(self.types.iter().map(new_empty_array).collect()),
            [all] => all.columns.iter().map(|column| Ok(take(column, groups, None)?)).collect(),
            chunks => {
                let place = |group: &u32| {
                    let group = *group as usize;
                    // Most are in the first, which is the longest.
                    let chunk = chunks[1..].iter().take_while(|chunk| chunk.first <= group).count();
                    (chunk, group - chunks[chunk].first)
                };
                let places: Vec<(usize, usize)> = groups.values().iter().map(place).collect();
                let column = |index: usize| {
                    let arrays: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.columns[index].as_ref()).collect();
                    Ok(interleave(&arrays, &places)?)
                };
                (0..self.types.len()).map(column).collect()
            }
        }
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let columns = self.chunks.iter().flat_map(|chunk| &chunk.columns);
        columns.map(|column| column.get_array_memory_size()).sum()
    }
}

/// Some rows of a column as a plain type; of codes only those rows are decoded.
fn take_plain(column: &ArrayRef, rows: &UInt32Array, data_type: &DataType) -> Result<ArrayRef> {
    let taken = take(column, rows, None)?;
    let taken = match taken.as_dictionary_opt::<Int32Type>() {
        Some(codes) => take(codes.values(), codes.keys(), None)?,
        None => taken,
    };
    one_zero(if taken.data_type() == data_type { taken } else { cast(&taken, data_type)? })
}

/// Zero and minus zero are one key, so whatever tells of both bears one of them.
pub(super) fn one_zero(keys: ArrayRef) -> Result<ArrayRef> {
    match keys.data_type().is_floating() {
        true => Ok(add(&keys, &Scalar::new(cast(&Int8Array::from(vec![0]), keys.data_type())?))?),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, StringArray};
    use arrow::datatypes::{Field, Schema};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn keys_come_back_by_their_numbers(
            batches in vec((vec(0u32..60, 0..12), any::<bool>()), 0..12), asked in vec(any::<Index>(), 0..20),
        ) {
            let mut values = KeyValues::new(&Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, true)])));
            let mut known: Vec<String> = vec![];
            for (keys, as_codes) in batches {
                let keys: Vec<String> = keys.iter().map(|key| format!("key {key}")).collect();
                let number = |key: &String| match known.iter().position(|other| other == key) {
                    Some(number) => number,
                    None => {
                        known.push(key.clone());
                        known.len() - 1
                    }
                };
                let groups: Vec<usize> = keys.iter().map(number).collect();
                let texts = keys.iter().map(String::as_str);
                let column: ArrayRef = match as_codes {
                    true => Arc::new(texts.collect::<DictionaryArray<Int32Type>>()),
                    false => Arc::new(StringArray::from_iter_values(texts)),
                };
                values.learn(&groups, known.len(), &[column]).unwrap();
            }
            let asked: Vec<usize> = asked.iter().filter(|_| !known.is_empty()).map(|index| index.index(known.len())).collect();
            let columns = values.columns(&asked).unwrap();
            let found: Vec<&str> = columns[0].as_string::<i32>().iter().flatten().collect();
            prop_assert_eq!(found, asked.iter().map(|group| known[*group].as_str()).collect::<Vec<_>>());
            prop_assert!(values.columns(&[known.len()]).is_err());
        }
    }
}
