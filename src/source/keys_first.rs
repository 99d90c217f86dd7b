//! Where several pipelines read the same Parquet files, each for the rows of its own keys: what tells these apart is
//! decoded first, and the rest only where some of them are.
//!
//! ```text
//!   key, time   ░░░░ ▓▓▓▓ ░░░░ ▓▓▓▓      all batches of a row group
//!   the rest         ▓▓▓▓      ▓▓▓▓      those that have rows of the pipeline's own
//! ```
//!
//! A batch is decoded as a whole: the rows of a hash stand close together, and to pass over some takes longer than to
//! decode all of them.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::common::{Result, internal_err};
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection, RowSelector};

/// The columns of a batch that are decoded, in the order of the file; none where one is not.
pub(super) type Decoded = Vec<Option<ArrayRef>>;

/// Puts the columns of a batch in their places among those that are decoded.
pub(super) fn put(decoded: &mut Decoded, places: &[usize], batch: &RecordBatch) {
    for (place, column) in places.iter().zip(batch.columns()) {
        decoded[*place] = Some(column.clone());
    }
}

/// A batch of which the first columns are decoded.
pub(super) struct Begun {
    pub(super) decoded: Decoded,
    pub(super) rows: usize,
    /// The rows of the pipeline's own.
    pub(super) own: BooleanArray,
}

impl Begun {
    fn has_own(&self) -> bool {
        self.own.true_count() > 0
    }
}

/// The batches of a row group.
pub(super) struct KeysFirst {
    begun: VecDeque<Begun>,
    /// Places of the other columns, and what decodes them; none if there is nothing to decode.
    rest: Option<(Vec<usize>, ParquetRecordBatchReader)>,
}

impl KeysFirst {
    /// Goes on with the other columns, in `places`; `open` begins to decode the rows of a selection, in batches as before.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) fn new(
        begun: VecDeque<Begun>,
        places: Vec<usize>,
        open: impl FnOnce(RowSelection) -> Result<ParquetRecordBatchReader>,
    ) -> Result<Self> {
        let select = |batch: &Begun| match batch.has_own() {
            true => RowSelector::select(batch.rows),
            false => RowSelector::skip(batch.rows),
        };
        let is_needed = !places.is_empty() && begun.iter().any(Begun::has_own);
        let selection: Vec<RowSelector> = begun.iter().map(select).collect();
        let rest = is_needed.then(|| open(selection.into())).transpose()?.map(|rows| (places, rows));
        Ok(Self { begun, rest })
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Begun>> {
        let Some(mut next) = self.begun.pop_front() else { return Ok(None) };
        if let Some((places, rows)) = self.rest.as_mut().filter(|_| next.has_own()) {
            match rows.next().transpose()? {
                Some(batch) if batch.num_rows() == next.rows => put(&mut next.decoded, places, &batch),
                batch => {
                    let rows = batch.map_or(0, |batch| batch.num_rows());
                    return internal_err!("{rows} rows of some columns beside {} of others", next.rows);
                }
            }
        }
        Ok(Some(next))
    }
}
