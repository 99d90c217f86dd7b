//! Hosts of operators in a DataFusion plan: what runs inside one pipeline.
//!
//! ```text
//!   StreamScanExec        the leaf: gives the batch that the pipeline put there, or says that it wants one
//!     StreamFilterExec    WHERE, without holding rows back
//!     LookupJoinExec      a join with a table, batch by batch
//!     StreamUnnestExec    lists to rows, batch by batch
//!       OperatorExec      the stateful operator; without one, UsedRowsExec
//!         ChangesFilterExec   HAVING over its changes, above it
//! ```
//!
//! The invariant of all of them: a batch that goes in has left again, or is in an operator's declared state, when
//! the leaf is asked for the next one, and each of its rows is accounted for. An empty batch passes like any other, for
//! it carries a watermark.

pub(crate) mod changes_filter;
pub(crate) mod context;
pub(crate) mod filter;
mod flight;
pub(crate) mod lookup;
mod memory;
mod merge;
mod one_batch;
pub(crate) mod operator;
mod operator_stream;
pub(crate) mod rank;
mod row_order;
mod rows_estimate;
pub(crate) mod scan;
pub(crate) mod source_rows;
pub(crate) mod state_bound;
pub(crate) mod state_size;
pub(crate) mod unnest;
pub(crate) mod used;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{ExecutionPlan, Partitioning, PlanProperties};

/// The properties of a plan node that gives each batch on at once.
pub(crate) fn streaming_properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// The parts of `ExecutionPlan` that our nodes all have alike: one input, nothing required of it.
macro_rules! streaming_node {
    ($rebuild:expr) => {
        fn properties(&self) -> &Arc<datafusion::physical_plan::PlanProperties> {
            &self.properties
        }
        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![&self.input]
        }
        fn benefits_from_input_partitioning(&self) -> Vec<bool> {
            vec![false]
        }
        fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
            let rebuild: fn(&Self, Vec<Arc<dyn ExecutionPlan>>) -> Result<Self> = $rebuild;
            Ok(Arc::new(rebuild(&self, children)?))
        }
    };
}
pub(crate) use streaming_node;

/// For nodes whose expressions, if they have any, are not for DataFusion's rules.
macro_rules! no_expressions {
    () => {
        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(
                &Arc<dyn datafusion::physical_plan::PhysicalExpr>,
            ) -> Result<datafusion::common::tree_node::TreeNodeRecursion>,
        ) -> Result<datafusion::common::tree_node::TreeNodeRecursion> {
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        }
    };
}
pub(crate) use no_expressions;

/// The first node of a type on the stream's way down a plan.
pub(crate) fn find<T: ExecutionPlan>(plan: &Arc<dyn ExecutionPlan>) -> Option<&T> {
    match plan.downcast_ref::<T>() {
        Some(found) => Some(found),
        None => plan.children().into_iter().find_map(find),
    }
}
