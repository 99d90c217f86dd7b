//! The keys of one window, numbered in the order of their first rows.
//!
//! Keys are found by value, through DataFusion's group values. A column that comes as codes into a dictionary of
//! distinct values (see [`Keys::intern`]) needs that only once for each new code, and not at all while every row so
//! far had the same dictionary: then a code is looked up in a list, and its value is taken when the keys are asked for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::aggregate_spec::AggregateSpec;
use super::codes::Codes;
use super::numbers::Numbers;

/// Keys by number, in order of their first rows.
pub(super) struct Keys {
    /// The columns of a key; without any, all rows are one group.
    schema: SchemaRef,
    /// The type of the first of them.
    key_type: DataType,
    /// The keys by value; none while all of them are known by code alone.
    values: Option<Box<dyn GroupValues>>,
    codes: Option<Codes>,
    /// The keys, if they are numbers.
    numbers: Option<Numbers>,
    /// The group of each row of the batch at hand.
    pub(super) groups: Vec<usize>,
}

impl Keys {
    pub(super) fn new(spec: &AggregateSpec) -> Self {
        let schema = spec.key_schema();
        let key_type = schema.fields().first().map_or(DataType::Null, |field| field.data_type().clone());
        let numbers = spec.is_numbered.then(Numbers::default);
        Self { schema, key_type, values: None, codes: None, numbers, groups: vec![] }
    }

    /// Numbers the groups of a batch's rows.
    ///
    /// The columns have the types of the keys. The column of a single key may instead be a dictionary of such values,
    /// distinct ones and without null, by `Int32` codes.
    pub(super) fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
        if let ([key], Some(numbers)) = (keys, &mut self.numbers)
            && let Some(rows) = key.as_primitive_opt()
        {
            numbers.intern(rows, &mut self.groups);
            return Ok(());
        }
        match keys {
            [] => {
                self.groups.clear();
                self.groups.resize(rows, 0);
                Ok(())
            }
            [key] if key.data_type() != &self.key_type => match key.as_dictionary_opt::<Int32Type>() {
                Some(codes) => self.intern_codes(codes),
                None => self.intern_values(&[cast(key, &self.key_type)?]),
            },
            _ => self.intern_values(keys),
        }
    }

    fn intern_values(&mut self, keys: &[ArrayRef]) -> Result<()> {
        self.know_values()?;
        let Some(values) = &mut self.values else { return Ok(()) };
        values.intern(keys, &mut self.groups)
    }

    /// Puts keys that were known by code alone among the values.
    fn know_values(&mut self) -> Result<()> {
        if self.values.is_some() {
            return Ok(());
        }
        let values = self.values.insert(new_group_values(Arc::clone(&self.schema), &GroupOrdering::None)?);
        if let Some(codes) = self.codes.take()
            && codes.len() > 0
        {
            values.intern(&[codes.values(0..codes.len(), &self.key_type)?], &mut self.groups)?;
        }
        Ok(())
    }

    fn intern_codes(&mut self, rows: &DictionaryArray<Int32Type>) -> Result<()> {
        if self.codes.as_ref().is_some_and(|codes| !codes.are_of(rows)) {
            self.know_values()?;
            self.codes = None;
        }
        let codes = self.codes.get_or_insert_with(|| Codes::new(rows));
        let Some(values) = &mut self.values else {
            codes.number_rows(rows, &mut self.groups);
            return Ok(());
        };
        // Once a dictionary has been in use for a while there is rarely a code that is new.
        if !codes.look_up(rows, &mut self.groups) {
            let new = codes.meet(rows);
            values.intern(&[codes.values(new.clone(), &self.key_type)?], &mut self.groups)?;
            codes.number(new, self.groups.iter().copied());
            codes.look_up(rows, &mut self.groups);
        }
        Ok(())
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        if self.schema.fields().is_empty() {
            return 1;
        }
        if let Some(numbers) = &self.numbers {
            return numbers.len();
        }
        match (&self.values, &self.codes) {
            (Some(values), _) => values.len(),
            (None, Some(codes)) => codes.len(),
            (None, None) => 0,
        }
    }

    /// Takes all keys out.
    pub(super) fn emit(&mut self) -> Result<Vec<ArrayRef>> {
        if let Some(numbers) = &mut self.numbers {
            return Ok(vec![numbers.emit()]);
        }
        let codes = self.codes.take();
        match (&mut self.values, codes) {
            (Some(values), _) if !values.is_empty() => values.emit(EmitTo::All),
            (None, Some(codes)) if codes.len() > 0 => Ok(vec![codes.values(0..codes.len(), &self.key_type)?]),
            _ => Ok(vec![]),
        }
    }

    pub(super) fn size(&self) -> usize {
        let values = self.values.as_ref().map_or(0, |values| values.size());
        let values = values + self.numbers.as_ref().map_or(0, Numbers::size);
        values + self.codes.as_ref().map_or(0, Codes::size) + self.groups.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use proptest::collection::vec;
    use proptest::option::weighted;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::testing::common_group_by;
    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    /// A batch's keys: as text, or as codes into one of a few dictionaries, which hold names that no row has.
    #[derive(Debug, Clone)]
    struct Batch {
        keys: Vec<Option<&'static str>>,
        dictionary: Option<usize>,
    }

    fn batches() -> impl Strategy<Value = (Vec<Vec<&'static str>>, Vec<Batch>)> {
        let dictionaries = vec(subsequence(NAMES.to_vec(), 1..=5).prop_shuffle(), 3);
        dictionaries.prop_flat_map(|dictionaries| {
            let known = dictionaries.clone();
            let batch = weighted(0.8, 0..known.len()).prop_flat_map(move |dictionary| {
                let names = dictionary.map_or(NAMES.to_vec(), |index| known[index].clone());
                let keys = vec(weighted(0.9, select(names)), 0..8);
                keys.prop_map(move |keys| Batch { keys, dictionary })
            });
            (Just(dictionaries), vec(batch, 0..8))
        })
    }

    proptest! {
        #[test]
        fn codes_and_text_are_numbered_alike((dictionaries, batches) in batches(), restarts: bool) {
            let dictionaries: Vec<ArrayRef> =
                dictionaries.into_iter().map(|names| Arc::new(StringArray::from(names)) as ArrayRef).collect();
            let mut keys = Keys::new(&common_group_by(None, true));
            let mut known: Vec<Option<&str>> = vec![];
            for batch in &batches {
                let array: ArrayRef = match batch.dictionary {
                    None => Arc::new(StringArray::from(batch.keys.clone())),
                    Some(index) => {
                        let values = dictionaries[index].as_string::<i32>();
                        let code = |key: &str| values.iter().position(|value| value == Some(key)).unwrap() as i32;
                        let codes = batch.keys.iter().map(|key| key.map(code)).collect();
                        Arc::new(DictionaryArray::<Int32Type>::new(codes, Arc::clone(&dictionaries[index])))
                    }
                };
                keys.intern(&[array], batch.keys.len()).unwrap();
                let number = |key: &Option<&'static str>| match known.iter().position(|other| other == key) {
                    Some(number) => number,
                    None => {
                        known.push(*key);
                        known.len() - 1
                    }
                };
                let expected: Vec<usize> = batch.keys.iter().map(number).collect();
                prop_assert_eq!(&keys.groups, &expected);
                prop_assert_eq!(keys.len(), known.len());
                if restarts {
                    let state = keys.emit().unwrap();
                    keys = Keys::new(&common_group_by(None, true));
                    if !state.is_empty() {
                        keys.intern(&state, known.len()).unwrap();
                    }
                }
            }
            let emitted = keys.emit().unwrap();
            let emitted: Vec<_> = emitted.iter().flat_map(|column| column.as_string::<i32>().iter()).collect();
            prop_assert_eq!(emitted, known);
        }
    }
}
