//! Aggregates with an ORDER BY inside over all their rows: the rows are kept, and sorted when a value is due.
//!
//! DataFusion sorts below such an aggregate, or lets it merge sorted lists, which leaves the order of rows that tie
//! open. Here they stay in the order of their arrival, whatever pieces they came in.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::lit;

/// The same aggregate, which takes its rows in any order. What it sorts by has become further arguments.
///
/// # Errors
/// Arguments that have no type over this input.
pub(crate) fn sorted(aggregate: Arc<AggregateFunctionExpr>, input: &SchemaRef) -> Result<AggregateFunctionExpr> {
    around(aggregate, input, false)
}

/// The same aggregate for rows that are brought together from several places: they are sorted, and those that tie put
/// in the order of their arrival. The number of it, a further last argument, is to be given: see [`takes_arrival`].
///
/// # Errors
/// Arguments that have no type over this input.
pub(crate) fn by_arrival(aggregate: Arc<AggregateFunctionExpr>, input: &SchemaRef) -> Result<AggregateFunctionExpr> {
    around(aggregate, input, true)
}

/// Whether the last argument of an aggregate stands for the number of a row's arrival.
pub(super) fn takes_arrival(aggregate: &AggregateFunctionExpr) -> bool {
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    function.downcast_ref::<Sorted>().is_some_and(|sorted| sorted.by_arrival)
}

fn around(aggregate: Arc<AggregateFunctionExpr>, input: &SchemaRef, by_arrival: bool) -> Result<AggregateFunctionExpr> {
    let exprs = aggregate.all_expressions();
    let arrival = by_arrival.then(|| lit(0_u64));
    let arguments: Vec<_> = exprs.args.iter().chain(&exprs.order_by_exprs).cloned().chain(arrival).collect();
    let name = aggregate.name().to_string();
    let mut order: Vec<SortOptions> = aggregate.order_bys().iter().map(|order| order.options).collect();
    order.extend(by_arrival.then(SortOptions::default));
    let aggregate = match OF_SORTED_ROWS.contains(&aggregate.fun().name()) && !aggregate.order_bys().is_empty() {
        true => Arc::new(unsorted(&aggregate, input)?),
        false => aggregate,
    };
    let fields = arguments.iter().enumerate().map(|(index, argument)| {
        let field = argument.return_field(input)?;
        Ok(Field::new(format!("c{index}"), field.data_type().clone(), true))
    });
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
    let function = AggregateUDF::from(Sorted {
        signature: Signature::variadic_any(Volatility::Immutable),
        aggregate,
        order,
        schema,
        by_arrival,
    });
    AggregateExprBuilder::new(Arc::new(function), arguments).schema(Arc::clone(input)).alias(name).build()
}

/// Aggregates that take sorted rows as they come, if they do not know what they are sorted by.
const OF_SORTED_ROWS: [&str; 3] = ["array_agg", "string_agg", "nth_value"];

/// The same aggregate without its ORDER BY.
fn unsorted(aggregate: &AggregateFunctionExpr, input: &SchemaRef) -> Result<AggregateFunctionExpr> {
    AggregateExprBuilder::new(Arc::new(aggregate.fun().clone()), aggregate.expressions())
        .schema(Arc::clone(input))
        .alias(aggregate.name())
        .with_ignore_nulls(aggregate.ignore_nulls())
        .build()
}

/// An aggregate around one that wants its rows sorted.
#[derive(Debug)]
struct Sorted {
    signature: Signature,
    aggregate: Arc<AggregateFunctionExpr>,
    order: Vec<SortOptions>,
    /// The rows that are kept: arguments, then what they are sorted by.
    schema: SchemaRef,
    /// Whether the last of that is the number of a row's arrival.
    by_arrival: bool,
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Self) -> bool {
        self.aggregate == other.aggregate
    }
}
impl Eq for Sorted {}
impl Hash for Sorted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.aggregate.name().hash(state);
    }
}

impl AggregateUDFImpl for Sorted {
    fn name(&self) -> &str {
        self.aggregate.fun().name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.aggregate.field().data_type().clone())
    }
    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let rows = Field::new_list_field(DataType::Struct(self.schema.fields().clone()), true);
        Ok(vec![Arc::new(Field::new_list("rows", rows, true))])
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SortedRows {
            aggregate: Arc::clone(&self.aggregate),
            order: self.order.clone(),
            schema: Arc::clone(&self.schema),
            batches: vec![],
        }))
    }
}

/// The rows of one group.
struct SortedRows {
    aggregate: Arc<AggregateFunctionExpr>,
    order: Vec<SortOptions>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl fmt::Debug for SortedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows of {}", self.aggregate.name())
    }
}

impl SortedRows {
    /// All rows as one batch, which is kept instead.
    fn rows(&mut self) -> Result<RecordBatch> {
        let rows = concat_batches(&self.schema, &self.batches)?;
        self.batches = vec![rows.clone()];
        Ok(rows)
    }
}

impl Accumulator for SortedRows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.batches.push(RecordBatch::try_new(Arc::clone(&self.schema), values.to_vec())?);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let rows = self.rows()?;
        let mut accumulator = self.aggregate.create_accumulator()?;
        if rows.num_rows() > 0 {
            let (_, by) = rows.columns().split_at(rows.num_columns() - self.order.len());
            let column = |(values, order): (&ArrayRef, &SortOptions)| SortColumn {
                values: Arc::clone(values),
                options: Some(*order),
            };
            let mut order: Vec<SortColumn> = by.iter().zip(&self.order).map(column).collect();
            let arrival = Arc::new(UInt64Array::from_iter_values(0..rows.num_rows() as u64));
            order.push(SortColumn { values: arrival, options: Some(SortOptions::default()) });
            let rows = take_record_batch(&rows, &lexsort_to_indices(&order, None)?)?;
            let arguments = self.aggregate.all_expressions();
            let width = arguments.args.len() + arguments.order_by_exprs.len();
            accumulator.update_batch(&rows.columns()[..width])?;
        }
        accumulator.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let rows: ArrayRef = Arc::new(StructArray::from(self.rows()?));
        Ok(vec![ScalarValue::List(Arc::new(SingleRowListArrayBuilder::new(rows).build_list_array()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states: &ListArray = states[0].as_list();
        for rows in states.iter().flatten() {
            self.batches.push(RecordBatch::try_new(Arc::clone(&self.schema), rows.as_struct().columns().to_vec())?);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        // Rows of several groups share the arrays that they came in, each its part of them.
        let columns = self.batches.iter().flat_map(RecordBatch::columns);
        size_of_val(self) + columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>()
    }
}
