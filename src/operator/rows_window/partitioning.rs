//! The keys of one PARTITION BY, numbered in the order of their first rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::spec::{RowsFunction, RowsWindowSpec};
use crate::operator::lifetimes::{Lifetimes, Living, groups_of, moments, moments_of};
use crate::operator::{WATERMARK_MAX, WATERMARK_MIN};

/// The keys of one PARTITION BY; functions with the same one share it.
pub(super) struct Partitioning {
    pub(super) exprs: Vec<Arc<dyn PhysicalExpr>>,
    keys: Option<Box<dyn GroupValues>>,
    /// Where keys are forgotten: a key is another group then, each time that it begins anew.
    lifetimes: Option<Lifetimes>,
    /// Groups whose keys have begun anew since this was taken.
    ended: Vec<usize>,
    /// The group of each row of the batch at hand.
    pub(super) groups: Vec<usize>,
}

impl Partitioning {
    pub(super) fn try_new(function: &RowsFunction, spec: &RowsWindowSpec) -> Result<Self> {
        let exprs = function.partition_by.clone();
        let keys = match exprs.is_empty() {
            true => None,
            false => Some(new_group_values(key_schema(&exprs, &spec.input_schema)?, &GroupOrdering::None)?),
        };
        let lifetimes = spec.ttl.filter(|_| function.forgets()).map(Lifetimes::new);
        Ok(Self { exprs, keys, lifetimes, ended: vec![], groups: vec![] })
    }

    /// Whether a function goes by the same keys, for as long.
    pub(super) fn is_of(&self, function: &RowsFunction, spec: &RowsWindowSpec) -> bool {
        let forgets = spec.ttl.is_some() && function.forgets();
        same_exprs(&self.exprs, &function.partition_by) && self.lifetimes.is_some() == forgets
    }

    /// Numbers the keys of rows, given their event times, and gives the columns of the keys.
    pub(super) fn number(&mut self, rows: &RecordBatch, times: &Int64Array) -> Result<Vec<ArrayRef>> {
        let Some(keys) = &mut self.keys else {
            self.groups = vec![0; rows.num_rows()];
            return Ok(vec![]);
        };
        let columns = self.exprs.iter().map(|expr| Ok(as_bits(expr.evaluate(rows)?.into_array(rows.num_rows())?)));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        keys.intern(&columns, &mut self.groups)?;
        if let Some(lifetimes) = &mut self.lifetimes {
            // What is behind the watermark has been left out.
            self.ended.extend(lifetimes.assign(&mut self.groups, &moments(times, WATERMARK_MIN)));
        }
        Ok(columns)
    }

    /// Whether its keys can go to disk: there are some, and none is forgotten.
    pub(super) fn can_spill(&self) -> bool {
        self.keys.is_some() && self.lifetimes.is_none()
    }

    /// Takes all keys out.
    pub(super) fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.keys {
            Some(keys) if !keys.is_empty() => emptied(keys.as_mut()),
            _ => Ok(vec![]),
        }
    }

    /// Numbers keys that come back.
    pub(super) fn put_keys(&mut self, columns: &[ArrayRef]) -> Result<Vec<usize>> {
        let mut groups = vec![];
        if let Some(keys) = &mut self.keys {
            keys.intern(columns, &mut groups)?;
        }
        Ok(groups)
    }

    /// Takes the groups of which nothing is wanted any more: of keys that have begun anew, and once there may be many those
    /// of keys whose time is over by `watermark`.
    pub(super) fn forget(&mut self, watermark: i64) -> Result<Vec<usize>> {
        let mut ended = std::mem::take(&mut self.ended);
        let (Some(lifetimes), Some(keys)) = (&mut self.lifetimes, &mut self.keys) else { return Ok(ended) };
        if lifetimes.are_many() && watermark != WATERMARK_MAX {
            let living = lifetimes.living(watermark, |_| false);
            let columns = taken(emptied(keys.as_mut())?, &living)?;
            // None is left only where there was none.
            if !living.is_empty() {
                keys.intern(&columns, &mut self.groups)?;
            }
            ended.extend(lifetimes.retain(&living));
        }
        lifetimes.give_back(&ended);
        Ok(ended)
    }

    /// Takes the number of keys that have been forgotten since it was taken; at the end those are counted whose time was over
    /// when the last row came.
    pub(super) fn take_forgotten(&mut self, is_end: bool) -> u64 {
        let Some(lifetimes) = &mut self.lifetimes else { return 0 };
        if is_end {
            lifetimes.end();
        }
        lifetimes.take_forgotten()
    }

    pub(super) fn size(&self) -> usize {
        let lifetimes = self.lifetimes.as_ref().map_or(0, Lifetimes::size);
        self.keys.as_ref().map_or(0, |keys| keys.size()) + lifetimes + self.groups.capacity() * size_of::<usize>()
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        let keys = || self.keys.as_ref().map_or(1, |keys| keys.len());
        self.lifetimes.as_ref().map_or_else(keys, Lifetimes::groups)
    }

    /// All keys in order, where they are forgotten after the moments of their last rows and their groups; they stay.
    pub(super) fn snapshot(&mut self, input: &Schema) -> Result<RecordBatch> {
        let mut fields = key_schema(&self.exprs, input)?.fields().to_vec();
        let living = self.lifetimes.as_mut().map(|lifetimes| lifetimes.living(WATERMARK_MIN, |_| false));
        if living.is_some() {
            let lives = [("touched", DataType::Int64), ("group", DataType::UInt64)];
            fields.splice(0..0, lives.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false))));
        }
        let schema = Arc::new(Schema::new(fields));
        let columns = match &mut self.keys {
            Some(keys) if !keys.is_empty() => emptied(keys.as_mut())?,
            _ => return Ok(RecordBatch::new_empty(schema)),
        };
        let columns = match &living {
            Some(living) => [vec![moments_of(living), groups_of(living)], taken(columns, living)?].concat(),
            None => columns,
        };
        let batch = RecordBatch::try_new(schema, columns)?;
        self.restore(&batch)?;
        Ok(batch)
    }

    pub(super) fn restore(&mut self, keys: &RecordBatch) -> Result<()> {
        let columns = match (&mut self.lifetimes, keys.columns()) {
            (Some(lifetimes), [touched, groups, columns @ ..]) => {
                lifetimes.restore_groups(touched, groups)?;
                columns
            }
            (_, columns) => columns,
        };
        match &mut self.keys {
            Some(own) if keys.num_rows() > 0 => own.intern(columns, &mut self.groups),
            _ => Ok(()),
        }
    }
}

/// All keys, taken out.
fn emptied(keys: &mut dyn GroupValues) -> Result<Vec<ArrayRef>> {
    let columns = keys.emit(EmitTo::All)?;
    // Of several columns DataFusion's keys give their values, and keep the numbers that point to them.
    keys.clear_shrink(columns.first().map_or(0, |column| column.len()));
    Ok(columns)
}

/// Keys of their numbers.
fn taken(keys: Vec<ArrayRef>, living: &[Living]) -> Result<Vec<ArrayRef>> {
    let numbers = UInt32Array::from_iter_values(living.iter().map(|living| living.key as u32));
    keys.iter().map(|key| Ok(take(key, &numbers, None)?)).collect()
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

fn same_exprs(a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]) -> bool {
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
        let keys = Some(new_group_values(schema, &GroupOrdering::None).unwrap());
        let mut partitioning = Partitioning { exprs, keys, lifetimes: None, ended: vec![], groups: vec![] };
        let times = Int64Array::from(vec![0; rows.num_rows()]);
        partitioning.number(&rows, &times).unwrap();
        let expected = partitioning.groups.clone();
        for _ in 0..2 {
            let saved = partitioning.snapshot(&rows.schema()).unwrap();
            assert_eq!(saved.num_rows(), 15);
            partitioning.number(&rows, &times).unwrap();
            assert_eq!(partitioning.groups, expected);
        }
    }
}
