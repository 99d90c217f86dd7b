//! The keys of one PARTITION BY, numbered in the order of their first rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, new_empty_array};
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::spec::{RowsFunction, RowsWindowSpec};

/// The keys of one PARTITION BY; functions with the same one share it.
pub(super) struct Partitioning {
    pub(super) exprs: Vec<Arc<dyn PhysicalExpr>>,
    keys: Option<Box<dyn GroupValues>>,
    /// The key of each row of the batch at hand.
    pub(super) groups: Vec<usize>,
}

impl Partitioning {
    pub(super) fn try_new(function: &RowsFunction, spec: &RowsWindowSpec) -> Result<Self> {
        let exprs = function.partition_by.clone();
        let keys = match exprs.is_empty() {
            true => None,
            false => Some(new_group_values(key_schema(&exprs, &spec.input_schema)?, &GroupOrdering::None)?),
        };
        Ok(Self { exprs, keys, groups: vec![] })
    }

    /// Numbers the keys of rows.
    pub(super) fn number(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(keys) = &mut self.keys else {
            self.groups = vec![0; rows.num_rows()];
            return Ok(());
        };
        let columns = self.exprs.iter().map(|expr| Ok(as_bits(expr.evaluate(rows)?.into_array(rows.num_rows())?)));
        keys.intern(&columns.collect::<Result<Vec<_>>>()?, &mut self.groups)
    }

    pub(super) fn size(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.size()) + self.groups.capacity() * size_of::<usize>()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    /// All keys in order; they stay.
    pub(super) fn snapshot(&mut self, input: &Schema) -> Result<RecordBatch> {
        let schema = key_schema(&self.exprs, input)?;
        let Some(keys) = self.keys.as_mut().filter(|keys| !keys.is_empty()) else {
            return Ok(RecordBatch::new_empty(schema));
        };
        let columns = keys.emit(EmitTo::All)?;
        // Of several columns DataFusion's keys give their values, and keep the numbers that point to them.
        keys.clear_shrink(columns.first().map_or(0, |column| column.len()));
        let batch = RecordBatch::try_new(schema, columns)?;
        self.restore(&batch)?;
        Ok(batch)
    }

    pub(super) fn restore(&mut self, keys: &RecordBatch) -> Result<()> {
        match &mut self.keys {
            Some(own) if keys.num_rows() > 0 => own.intern(keys.columns(), &mut self.groups),
            _ => Ok(()),
        }
    }
}

fn key_schema(exprs: &[Arc<dyn PhysicalExpr>], input: &Schema) -> Result<SchemaRef> {
    let fields = exprs.iter().map(|expr| {
        let bits = as_bits(new_empty_array(&expr.data_type(input)?));
        Ok(Field::new(expr.to_string(), bits.data_type().clone(), true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// DataFusion tells zero from minus zero where it sorts by a key, as it does here, and only there.
fn as_bits(keys: ArrayRef) -> ArrayRef {
    match keys.data_type() {
        DataType::Float16 => {
            Arc::new(keys.as_primitive::<Float16Type>().unary::<_, Int16Type>(|key| key.to_bits() as i16))
        }
        DataType::Float32 => {
            Arc::new(keys.as_primitive::<Float32Type>().unary::<_, Int32Type>(|key| key.to_bits() as i32))
        }
        DataType::Float64 => {
            Arc::new(keys.as_primitive::<Float64Type>().unary::<_, Int64Type>(|key| key.to_bits() as i64))
        }
        _ => keys,
    }
}

pub(super) fn same_exprs(a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_ref() == b.as_ref())
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    /// Text of several columns, long enough to be in buffers.
    #[test]
    fn keys_of_several_columns_stay_when_they_are_saved() {
        let texts = |prefix: &str, of: &dyn Fn(usize) -> usize| {
            let values = (0..40).map(|row| format!("{prefix} that is longer than twelve bytes {}", of(row)));
            Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef
        };
        let columns = [("a", texts("one", &|row| row % 5)), ("b", texts("other", &|row| row % 3))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let exprs: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("a", 0)), Arc::new(Column::new("b", 1))];
        let schema = key_schema(&exprs, &rows.schema()).unwrap();
        let keys = new_group_values(schema, &GroupOrdering::None).unwrap();
        let mut partitioning = Partitioning { exprs, keys: Some(keys), groups: vec![] };
        partitioning.number(&rows).unwrap();
        let expected = partitioning.groups.clone();
        for _ in 0..2 {
            let saved = partitioning.snapshot(&rows.schema()).unwrap();
            assert_eq!(saved.num_rows(), 15);
            partitioning.number(&rows).unwrap();
            assert_eq!(partitioning.groups, expected);
        }
    }
}
