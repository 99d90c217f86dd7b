//! Keys that all windows share: a key is looked up by value once for each row, or once for each code of a dictionary,
//! and a number stands for it in every pane and window. So panes are brought together without looking at keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::expressions::Column;

use super::aggregate_spec::{AggregateSpec, Derived};
use super::key_values::KeyValues;
use super::keys::Keys;

/// Keys by number, in order of their first rows.
pub(super) struct SharedKeys {
    keys: Keys,
    values: KeyValues,
    /// How many there were when those without rows were left out last.
    kept: usize,
}

impl SharedKeys {
    pub(super) fn new(spec: &AggregateSpec) -> Self {
        Self { keys: Keys::new(spec), values: KeyValues::new(&spec.key_schema()), kept: 0 }
    }

    /// The numbers of rows' keys.
    pub(super) fn number(&mut self, keys: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.keys.intern(keys, rows)?;
        self.values.learn(&self.keys.groups, self.keys.len(), keys)?;
        Ok(Arc::new(UInt32Array::from_iter_values(self.keys.groups.iter().map(|group| *group as u32))))
    }

    /// A batch with keys in place of their numbers, which are at column `at`.
    pub(super) fn with_keys(&self, batch: &RecordBatch, at: usize, schema: &SchemaRef) -> Result<RecordBatch> {
        let numbers = batch.columns().get(at).and_then(|numbers| numbers.as_primitive_opt::<UInt32Type>());
        let numbers = numbers.ok_or_else(|| internal_datafusion_err!("groups without numbers of keys"))?;
        let mut columns = batch.columns()[..at].to_vec();
        for (column, field) in self.values.take(numbers)?.into_iter().zip(&schema.fields()[at..]) {
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                cast(&column, field.data_type())?
            });
        }
        columns.extend_from_slice(&batch.columns()[at + 1..]);
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// A batch with numbers in place of keys, which are its first `width` columns.
    pub(super) fn with_numbers(
        &mut self,
        batch: &RecordBatch,
        width: usize,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let (keys, others) = batch.columns().split_at(width);
        let numbers = self.number(keys, batch.num_rows())?;
        Ok(RecordBatch::try_new(Arc::clone(schema), [&[numbers], others].concat())?)
    }

    /// Whether most keys have no rows any more, when a window has so many.
    pub(super) fn are_mostly_gone(&mut self, groups: usize) -> bool {
        let keys = self.keys.len();
        keys > 1024 && keys > 4 * groups && keys > 2 * self.kept
    }

    /// Notes that only keys with rows are left.
    pub(super) fn kept(&mut self) {
        self.kept = self.keys.len();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn size(&self) -> usize {
        self.keys.size() + self.values.size()
    }
}

/// The same aggregation with one key, the number of what were the keys.
pub(super) fn numbered(spec: &AggregateSpec) -> AggregateSpec {
    let (at, width) = (spec.window_columns(), spec.keys.len());
    let fields = spec.schema.fields();
    let number = Arc::new(Field::new("number", DataType::UInt32, false));
    let fields = fields[..at].iter().chain([&number]).chain(&fields[at + width..]).cloned();
    AggregateSpec {
        window: spec.window.clone(),
        keys: vec![(Arc::new(Column::new("number", 0)), "number".to_string())],
        aggregates: spec.aggregates.clone(),
        filters: spec.filters.clone(),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        is_ordered: spec.is_ordered,
        is_numbered: true,
        totals: vec![],
        ttl: None,
        derived: Derived::default(),
    }
}
