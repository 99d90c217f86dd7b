//! The best rows of a group as an aggregate, so that windows keep, merge and restore them like any other.
//!
//! Arguments: the columns that are kept, then what rows are ordered by. Value: a list of the kept columns, best first.
//! State: a list of both.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};

use super::best_rows::{BestRows, BestRowsSpec, Place};

/// The aggregate over some columns of an input and what its rows are ordered by.
///
/// # Errors
/// Expressions that have no type over this input.
pub(super) fn best_rows(
    columns: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<Arc<dyn PhysicalExpr>>,
    spec: BestRowsSpec,
    input: &SchemaRef,
) -> Result<AggregateFunctionExpr> {
    let field = |(index, expr): (usize, &Arc<dyn PhysicalExpr>)| {
        Ok(Field::new(format!("c{index}"), expr.data_type(input)?, true))
    };
    let arguments: Vec<_> = columns.iter().chain(&order).cloned().collect();
    let fields: Fields = arguments.iter().enumerate().map(field).collect::<Result<_>>()?;
    let signature = Signature::variadic_any(Volatility::Immutable);
    let function = AggregateUDF::from(BestRowsOf { signature, spec, kept: columns.len(), fields });
    AggregateExprBuilder::new(Arc::new(function), arguments).schema(Arc::clone(input)).alias("best_rows").build()
}

#[derive(Debug)]
struct BestRowsOf {
    signature: Signature,
    spec: BestRowsSpec,
    /// How many of the fields are kept.
    kept: usize,
    /// The kept columns, then what rows are ordered by.
    fields: Fields,
}

impl PartialEq for BestRowsOf {
    fn eq(&self, other: &Self) -> bool {
        self.spec.at_most == other.spec.at_most && self.kept == other.kept && self.fields == other.fields
    }
}
impl Eq for BestRowsOf {}
impl Hash for BestRowsOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.spec.at_most, self.kept).hash(state);
    }
}

impl BestRowsOf {
    fn kept_fields(&self) -> Fields {
        self.fields.iter().take(self.kept).cloned().collect()
    }
}

fn list_of(fields: &Fields) -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true))
}

impl AggregateUDFImpl for BestRowsOf {
    fn name(&self) -> &str {
        "best_rows"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(list_of(&self.kept_fields())))
    }
    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("rows", DataType::List(list_of(&self.fields)), true))])
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Err(internal_datafusion_err!("the best rows are kept of all groups at once"))
    }
    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }
    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let rows = BestRows::try_new(&self.spec)?;
        Ok(Box::new(BestRowsOfGroups { rows, kept: self.kept, fields: self.fields.clone() }))
    }
}

struct BestRowsOfGroups {
    rows: BestRows,
    kept: usize,
    fields: Fields,
}

impl BestRowsOfGroups {
    /// Takes all lists out, of the first columns.
    fn lists(&mut self, emit_to: EmitTo, with_order: bool) -> Result<ArrayRef> {
        if !matches!(emit_to, EmitTo::All) {
            return Err(internal_datafusion_err!("windows come out as a whole"));
        }
        let (lengths, places) = self.rows.take_lists();
        let mut columns = self.rows.gather(&places)?;
        if with_order {
            columns.extend(self.rows.gather_order(&places)?);
        }
        let fields: Fields = self.fields.iter().take(columns.len().max(self.kept)).cloned().collect();
        list_array(&fields, columns, &lengths, &places)
    }
}

fn list_array(fields: &Fields, columns: Vec<ArrayRef>, lengths: &[usize], places: &[Place]) -> Result<ArrayRef> {
    let field = list_of(fields);
    let columns = match places.is_empty() {
        true => fields.iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect(),
        false => columns,
    };
    let rows = StructArray::try_new_with_length(fields.clone(), columns, None, places.len())?;
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(rows), None)?))
}

impl GroupsAccumulator for BestRowsOfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        _: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let (columns, order) = values.split_at(self.kept);
        self.rows.begin(columns, order, total_num_groups)?;
        for (row, group) in group_indices.iter().enumerate() {
            self.rows.offer(row, *group);
        }
        self.rows.end()
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.lists(emit_to, false)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.lists(emit_to, true)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of the best rows is a list of them");
        let lists = values.first().and_then(|lists| lists.as_list_opt::<i32>()).ok_or_else(wrong)?;
        let offsets = lists.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        let rows = lists.values().slice(first, last - first);
        let mut groups = Vec::with_capacity(rows.len());
        for (group, ends) in group_indices.iter().zip(offsets.windows(2)) {
            groups.resize(groups.len() + (ends[1] - ends[0]) as usize, *group);
        }
        self.update_batch(rows.as_struct().columns(), &groups, None, total_num_groups)
    }

    fn size(&self) -> usize {
        self.rows.size()
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        Err(internal_datafusion_err!("rows become states where they are kept"))
    }
}
