//! What bounds the state of an operator, as far as its parameters tell: EXPLAIN says so, and over a stream that does not end
//! nothing may grow for ever that nobody has asked for.

use std::fmt;

use crate::operator::{AggregateSpec, Frame, RowsWindowSpec};

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
    /// Something of every key that has ever come.
    EveryKey,
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
            | OperatorSpec::ChangelogTopN(spec, ..) => Self::of_groups(&spec.groups),
            OperatorSpec::RowsWindow(spec) => Self::of_frames(spec),
        }
    }

    fn of_groups(spec: &AggregateSpec) -> Self {
        match (&spec.window, spec.keys.is_empty()) {
            (Some(_), _) => Self::OpenWindows,
            (None, true) => Self::OneGroup,
            (None, false) => Self::EveryKey,
        }
    }

    fn of_frames(spec: &RowsWindowSpec) -> Self {
        let leaves_keys = |frame: &Frame| matches!(frame, Frame::Range { start: Some(_), .. });
        if spec.functions.iter().all(|function| leaves_keys(&function.frame)) {
            return Self::Frames;
        }
        match spec.functions.iter().all(|function| function.partition_by.is_empty()) {
            true => Self::OneGroup,
            false => Self::EveryKey,
        }
    }

    /// Whether it may grow as long as the stream goes on.
    pub(crate) fn grows(self) -> bool {
        self == Self::EveryKey
    }
}

impl fmt::Display for StateBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenWindows => "bounded by open windows",
            Self::Frames => "bounded by frames",
            Self::OneGroup => "bounded, one group",
            Self::EveryKey => "unbounded, every key",
        })
    }
}
