//! What bounds the state of an operator, as far as its parameters tell: EXPLAIN says so, and over a stream that does not end
//! nothing may grow for ever that nobody has asked for.

use std::fmt;

use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::operator::{AggregateSpec, Frame, RowsFunction, RowsFunctionKind, RowsWindowSpec};

use super::operator::OperatorSpec;

/// What an operator keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateBound {
    /// What windows hold that the watermark has not passed.
    OpenWindows,
    /// The rows that frames still reach back to.
    Frames,
    /// One group, or the rows of one.
    OneGroup,
    /// Something of every key that has had a row for as long as `streamlines.state_ttl` says.
    StateTtl,
    /// Something of every key that has ever come.
    EveryKey,
    /// Every value that has ever come, or every other one.
    EveryValue,
}

impl StateBound {
    /// The bound of an operator's state.
    pub(crate) fn of(spec: &OperatorSpec) -> Self {
        match spec {
            OperatorSpec::WindowAggregate(spec)
            | OperatorSpec::MergedWindowAggregate(spec)
            | OperatorSpec::ChangelogAggregate(spec, _) => Self::of_groups(spec),
            OperatorSpec::SessionAggregate(..) | OperatorSpec::SessionRows(_) => Self::OpenWindows,
            OperatorSpec::WindowTopN(spec)
            | OperatorSpec::MergedWindowTopN(spec)
            | OperatorSpec::ChangelogTopN(spec, ..) => Self::of_keys(&spec.groups, true),
            OperatorSpec::RowsWindow(spec) => Self::of_frames(spec),
        }
    }

    fn of_groups(spec: &AggregateSpec) -> Self {
        Self::of_keys(spec, spec.aggregates.iter().all(|aggregate| is_small(aggregate)))
    }

    /// `is_small` says whether one key has always about as much.
    fn of_keys(spec: &AggregateSpec, is_small: bool) -> Self {
        match (&spec.window, spec.keys.is_empty(), is_small) {
            (Some(_), ..) => Self::OpenWindows,
            (None, true, true) => Self::OneGroup,
            (None, false, true) if spec.ttl.is_some() => Self::StateTtl,
            (None, false, _) if spec.ttl.is_none() => Self::EveryKey,
            (None, ..) => Self::EveryValue,
        }
    }

    fn of_frames(spec: &RowsWindowSpec) -> Self {
        let leaves_keys = |frame: &Frame| matches!(frame, Frame::Range { start: Some(_), .. });
        if spec.functions.iter().all(|function| leaves_keys(&function.frame)) {
            return Self::Frames;
        }
        let lasts = |function: &&RowsFunction| !leaves_keys(&function.frame) && !function.partition_by.is_empty();
        if spec.functions.iter().filter(lasts).any(|function| spec.ttl.is_none() || !function.forgets()) {
            return Self::EveryKey;
        }
        let keeps_values = |function: &RowsFunction| {
            let RowsFunctionKind::Aggregate(aggregate) = &function.kind else { return false };
            function.frame.only_grows() && !is_small(aggregate)
        };
        match spec.functions.iter().any(keeps_values) {
            true => Self::EveryValue,
            false if spec.ttl.is_some() => Self::StateTtl,
            false if spec.functions.iter().any(|function| leaves_keys(&function.frame)) => Self::Frames,
            false => Self::OneGroup,
        }
    }

    /// Whether it may grow as long as the stream goes on.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Self::EveryKey | Self::EveryValue)
    }
}

/// Whether an aggregate is known to keep the same of a group however many values it has.
pub(super) fn is_small(aggregate: &AggregateFunctionExpr) -> bool {
    const SMALL: [&str; 24] = [
        "approx_distinct",
        "approx_median",
        "approx_percentile_cont",
        "approx_percentile_cont_with_weight",
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "corr",
        "count",
        "covar_pop",
        "covar_samp",
        "first_value",
        "grouping",
        "last_value",
        "max",
        "min",
        "stddev",
        "stddev_pop",
        "sum",
        "var",
        "var_pop",
    ];
    let name = aggregate.fun().name();
    // Repetition is nothing to the least and the greatest.
    let is_plain = !aggregate.is_distinct() || matches!(name, "max" | "min" | "bool_and" | "bool_or");
    is_plain && (SMALL.contains(&name) || name.starts_with("regr_"))
}

impl fmt::Display for StateBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenWindows => "bounded by open windows",
            Self::Frames => "bounded by frames",
            Self::OneGroup => "bounded, one group",
            Self::StateTtl => "bounded by state_ttl",
            Self::EveryKey => "unbounded, every key",
            Self::EveryValue => "unbounded, every value",
        })
    }
}
