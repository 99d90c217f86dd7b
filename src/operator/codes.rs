//! Codes into one dictionary of distinct values: which of them rows have had so far, and the number given to each.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::Result;

/// The codes that rows have had so far. A dictionary may hold more: those count for nothing.
#[derive(Debug)]
pub(crate) struct Codes {
    dictionary: ArrayRef,
    /// The number of each code, and after them that of null.
    numbers: Vec<u32>,
    /// The codes met, in the order of their first rows; that of null is one past the dictionary.
    met: Vec<u32>,
}

/// Not met yet.
const UNKNOWN: u32 = u32::MAX;
/// Met, without a number so far.
const PENDING: u32 = u32::MAX - 1;

/// Whether two arrays are the same memory.
pub(crate) fn same_dictionary(a: &ArrayRef, b: &ArrayRef) -> bool {
    a.to_data().ptr_eq(&b.to_data())
}

impl Codes {
    /// Codes into the dictionary of `rows`, none met.
    pub(crate) fn new(rows: &DictionaryArray<Int32Type>) -> Self {
        let dictionary = Arc::clone(rows.values());
        Self { numbers: vec![UNKNOWN; dictionary.len() + 1], dictionary, met: vec![] }
    }

    /// Whether `rows` are codes into the same dictionary.
    pub(crate) fn are_of(&self, rows: &DictionaryArray<Int32Type>) -> bool {
        same_dictionary(&self.dictionary, rows.values())
    }

    /// How many codes were met.
    pub(super) fn len(&self) -> usize {
        self.met.len()
    }

    /// Notes the codes of some rows, and says which of all that were met are new.
    pub(crate) fn meet(&mut self, rows: &DictionaryArray<Int32Type>) -> Range<usize> {
        let known = self.met.len();
        let null = self.dictionary.len();
        let knows_null = self.numbers[null] != UNKNOWN;
        let knows_all = known == null + usize::from(knows_null);
        // Most batches have no new one, which one pass without a branch for a row tells.
        let is_known = |is_known: bool, code: &i32| is_known & (self.numbers[*code as usize] != UNKNOWN);
        let knows_rows = || rows.null_count() == 0 && rows.keys().values().iter().fold(true, is_known);
        if (!knows_all || (!knows_null && rows.null_count() > 0)) && !knows_rows() {
            for code in codes(rows.keys(), null) {
                if self.numbers[code] == UNKNOWN {
                    self.numbers[code] = PENDING;
                    self.met.push(code as u32);
                }
            }
        }
        known..self.met.len()
    }

    /// Gives each code the next number when it is met first, and each row the number of its code.
    pub(super) fn number_rows(&mut self, rows: &DictionaryArray<Int32Type>, numbers: &mut Vec<usize>) {
        numbers.clear();
        let (null, Self { numbers: known, met, .. }) = (self.dictionary.len(), self);
        let mut number = |code: usize| {
            if known[code] == UNKNOWN {
                known[code] = met.len() as u32;
                met.push(code as u32);
            }
            known[code] as usize
        };
        match rows.null_count() {
            0 => numbers.extend(rows.keys().values().iter().map(|code| number(*code as usize))),
            _ => numbers.extend(codes(rows.keys(), null).map(number)),
        }
    }

    /// Gives numbers to codes that were met.
    pub(super) fn number(&mut self, met: Range<usize>, numbers: impl IntoIterator<Item = usize>) {
        for (code, number) in self.met[met].iter().zip(numbers) {
            self.numbers[*code as usize] = number as u32;
        }
    }

    /// The number of each row's code, and whether all of them have one.
    pub(super) fn look_up(&self, rows: &DictionaryArray<Int32Type>, numbers: &mut Vec<usize>) -> bool {
        numbers.clear();
        let mut knows_all = true;
        let mut number = |code: usize| {
            let number = self.numbers[code];
            knows_all &= number < PENDING;
            number as usize
        };
        match rows.null_count() {
            0 => numbers.extend(rows.keys().values().iter().map(|code| number(*code as usize))),
            _ => numbers.extend(codes(rows.keys(), self.dictionary.len()).map(number)),
        }
        knows_all
    }

    /// The values of codes that were met, as `data_type`.
    pub(crate) fn values(&self, met: Range<usize>, data_type: &DataType) -> Result<ArrayRef> {
        let null = self.dictionary.len() as u32;
        let codes = self.met[met].iter().map(|code| (*code != null).then_some(*code as i32));
        Ok(cast(&take(&self.dictionary, &codes.collect::<Int32Array>(), None)?, data_type)?)
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        (self.numbers.capacity() + self.met.capacity()) * size_of::<u32>() + self.dictionary.get_array_memory_size()
    }
}

/// The values of the dictionary that rows had last, as the type that is wanted of them.
#[derive(Debug, Default)]
pub(super) struct DecodedDictionary(Option<(ArrayRef, ArrayRef)>);

impl DecodedDictionary {
    /// A column as a type. If it comes as codes, the dictionary's values are cast once for all batches that share it.
    pub(super) fn decode(&mut self, column: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
        let codes = match column.as_dictionary_opt::<Int32Type>() {
            Some(codes) if column.data_type() != data_type => codes,
            _ => return Ok(column),
        };
        let values = match &self.0 {
            Some((dictionary, values)) if same_dictionary(dictionary, codes.values()) => values,
            _ => &self.0.insert((Arc::clone(codes.values()), cast(codes.values(), data_type)?)).1,
        };
        Ok(take(values, codes.keys(), None)?)
    }
}

/// The code of each row; that of null is one past the dictionary.
fn codes(rows: &Int32Array, null: usize) -> impl Iterator<Item = usize> {
    rows.iter().map(move |code| code.map_or(null, |code| code as usize))
}
