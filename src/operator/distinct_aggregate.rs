//! DISTINCT inside of aggregates that DataFusion has no accumulator of it for: distinct arguments are kept, and taken in
//! by the plain aggregate when a value is due.
//!
//! DataFusion's own plans do so by a GROUP BY of the argument below the aggregate's, where a query has one such argument.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};

/// Whether an aggregate is of distinct arguments, and cannot tell which are.
pub(crate) fn lacks_distinct(aggregate: &AggregateFunctionExpr) -> bool {
    let is_missing = |error: DataFusionError| matches!(error.find_root(), DataFusionError::NotImplemented(_));
    aggregate.is_distinct() && aggregate.order_bys().is_empty() && aggregate.create_accumulator().is_err_and(is_missing)
}

/// The same aggregate, which finds the distinct arguments itself.
///
/// # Errors
/// Arguments that have no type over this input.
pub(crate) fn distinct(aggregate: &AggregateFunctionExpr, input: &SchemaRef) -> Result<AggregateFunctionExpr> {
    let (arguments, name) = (aggregate.expressions(), aggregate.name());
    let plain = AggregateExprBuilder::new(Arc::new(aggregate.fun().clone()), arguments.clone());
    let plain = plain.schema(Arc::clone(input)).alias(name).with_ignore_nulls(aggregate.ignore_nulls()).build()?;
    let field = |(index, data_type): (usize, DataType)| Field::new(format!("c{index}"), data_type, true);
    let types = arguments.iter().map(|argument| argument.data_type(input)).collect::<Result<Vec<_>>>()?;
    let function = Distinct {
        signature: Signature::variadic_any(Volatility::Immutable),
        plain: Arc::new(plain),
        fields: types.into_iter().enumerate().map(field).collect(),
    };
    let function = Arc::new(AggregateUDF::from(function));
    AggregateExprBuilder::new(function, arguments).schema(Arc::clone(input)).alias(name).distinct().build()
}

/// An aggregate around one that takes all of its arguments in.
#[derive(Debug)]
struct Distinct {
    signature: Signature,
    plain: Arc<AggregateFunctionExpr>,
    fields: Fields,
}

impl PartialEq for Distinct {
    fn eq(&self, other: &Self) -> bool {
        self.plain == other.plain
    }
}
impl Eq for Distinct {}
impl Hash for Distinct {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.name().hash(state);
    }
}

impl AggregateUDFImpl for Distinct {
    fn name(&self) -> &str {
        self.plain.fun().name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.plain.field().data_type().clone())
    }
    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let arguments = Field::new_list_field(DataType::Struct(self.fields.clone()), true);
        Ok(vec![Arc::new(Field::new_list("arguments", arguments, true))])
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types = self.fields.iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Box::new(DistinctArguments {
            plain: Arc::clone(&self.plain),
            fields: self.fields.clone(),
            converter: RowConverter::new(types.collect())?,
            known: BTreeSet::new(),
            bytes: 0,
        }))
    }
}

/// The distinct arguments of one group, in their order, so that it does not matter in which they came.
struct DistinctArguments {
    plain: Arc<AggregateFunctionExpr>,
    fields: Fields,
    converter: RowConverter,
    known: BTreeSet<Box<[u8]>>,
    /// Of what is known.
    bytes: usize,
}

impl fmt::Debug for DistinctArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "distinct arguments of {}", self.plain.name())
    }
}

impl DistinctArguments {
    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(self.known.iter().map(|row| parser.parse(row)))?)
    }
}

impl Accumulator for DistinctArguments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in self.converter.convert_columns(values)?.iter() {
            if !self.known.contains(row.data()) {
                self.bytes += size_of::<Box<[u8]>>() + row.data().len();
                self.known.insert(row.data().into());
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut accumulator = self.plain.create_accumulator()?;
        if !self.known.is_empty() {
            accumulator.update_batch(&self.columns()?)?;
        }
        accumulator.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let arguments: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), self.columns()?, None)?);
        Ok(vec![ScalarValue::List(Arc::new(SingleRowListArrayBuilder::new(arguments).build_list_array()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states: &ListArray = states[0].as_list();
        states.iter().flatten().try_for_each(|arguments| self.update_batch(arguments.as_struct().columns()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.converter.size() + self.bytes
    }
}
