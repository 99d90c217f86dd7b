//! The windows of which a row may be in several, or that only other rows delimit: `hop(ts, slide, size [, offset])`,
//! `cumulate(ts, step, size [, offset])` and `session(ts, gap [, keys …])`.
//!
//! As functions they stand for a window's start and have no value of their own: where a query groups by one, or takes
//! it from a window table function, the plan is rewritten, so that each row meets all of its windows.
//! `session(ts, gap)` goes by the other keys of its GROUP BY; with keys, by those; with a constant, by none.

use std::sync::Arc;

use arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::operator::{WindowShape, round_down};

use super::functions::{not_constant, parameter_type, time_type};
use super::interval::{interval_ticks, window_ticks};
use super::refuse;

/// In how many windows one time may be: those of a second that are as long as eleven days.
const MAX_WINDOWS_OF_A_TIME: i64 = 1_000_000;

/// The functions, for a session to register.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |kind| Arc::new(ScalarUDF::new_from_impl(Overlapping::new(kind)));
    vec![function(Kind::Hop), function(Kind::Cumulate), function(Kind::Session)]
}

/// Whether an expression is a call of one of them.
pub(super) fn is_overlapping(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if kind(call).is_some())
}

/// Whether a call stands for sessions.
pub(super) fn is_session(call: &ScalarFunction) -> bool {
    kind(call) == Some(Kind::Session)
}

/// Whether sessions are called for in an expression.
pub(super) fn calls_session(expr: &Expr) -> bool {
    let is_call = |part: &Expr| matches!(part, Expr::ScalarFunction(call) if is_session(call));
    expr.exists(|part| Ok(is_call(part))).unwrap_or(false)
}

fn kind(call: &ScalarFunction) -> Option<Kind> {
    let function: &dyn std::any::Any = call.func.inner().as_ref();
    function.downcast_ref::<Overlapping>().map(|function| function.kind)
}

/// What is wrong with a call that stands where no query groups by it.
pub(super) fn as_value(call: &ScalarFunction) -> Error {
    let usage = kind(call).map_or("", Kind::usage);
    refuse::window_as_value(call.name(), usage, refuse::place_of(&call.args))
}

/// The windows of a call over a column of type `time`; none if it is no such call.
///
/// # Errors
/// Lengths that are no constants or do not fit each other.
pub(super) fn shape(call: &ScalarFunction, time: &DataType) -> Result<Option<WindowShape>> {
    let Some(kind) = kind(call) else { return Ok(None) };
    let length = |index: usize| match call.args.get(index) {
        Some(Expr::Literal(value, _)) => window_ticks(value, time),
        _ => Err(not_constant().into()),
    };
    let offset = || match call.args.get(3) {
        None => Ok(0),
        Some(Expr::Literal(value, _)) => interval_ticks(value, time),
        Some(_) => Err(not_constant().into()),
    };
    Ok(Some(match kind {
        Kind::Session => WindowShape::Session { gap: length(1)?, wait: 0 },
        Kind::Hop => {
            let (slide, size) = (length(1)?, length(2)?);
            check_count(size / slide)?;
            WindowShape::Hop { slide, size, offset: offset()?.rem_euclid(slide) }
        }
        Kind::Cumulate => {
            let (step, size) = (length(1)?, length(2)?);
            if size % step != 0 {
                return Err(Error::sql("the size of a cumulating window must be a multiple of its step")
                    .help("cumulate(ts, INTERVAL '10 minutes', INTERVAL '1 hour')")
                    .into());
            }
            check_count(size / step)?;
            WindowShape::Cumulate { step, size, offset: offset()?.rem_euclid(size) }
        }
    }))
}

/// A time may be in many windows, but each of them is a row of the answer.
fn check_count(windows: i64) -> Result<()> {
    if windows <= MAX_WINDOWS_OF_A_TIME {
        return Ok(());
    }
    Err(Error::refused(
        format!("a window in which each row would be {windows} times"),
        format!("each window is a row of the answer, and {MAX_WINDOWS_OF_A_TIME} are the most"),
        "a longer slide or step: hop(ts, INTERVAL '5 minutes', INTERVAL '1 hour')",
    )
    .into())
}

/// What a session goes by: none for the other keys of its GROUP BY.
pub(super) fn session_keys(call: &ScalarFunction) -> Option<Vec<Expr>> {
    let keys = call.args.get(2..).filter(|keys| !keys.is_empty())?;
    Some(keys.iter().filter(|key| !matches!(key, Expr::Literal(_, _))).cloned().collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    fn usage(self) -> &'static str {
        match self {
            Self::Hop => "hop(ts, INTERVAL '5 minutes', INTERVAL '1 hour')",
            Self::Cumulate => "cumulate(ts, INTERVAL '10 minutes', INTERVAL '1 hour')",
            Self::Session => "session(ts, INTERVAL '30 minutes')",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Overlapping {
    kind: Kind,
    signature: Signature,
}

impl Overlapping {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn coerced(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let (intervals, arguments) = match self.kind {
            Kind::Hop => (2..=3, "a time column, a slide, a size and maybe an offset"),
            Kind::Cumulate => (2..=3, "a time column, a step, a size and maybe an offset"),
            Kind::Session => (1..=1, "a time column, a gap and maybe keys"),
        };
        let usage = |message: String| Error::sql(message).help(self.kind.usage());
        let parameters = match arg_types {
            [_, gap, ..] if self.kind == Kind::Session => std::slice::from_ref(gap),
            [_, parameters @ ..] if intervals.contains(&parameters.len()) => parameters,
            _ => return Err(usage(format!("{} takes {arguments}", self.name())).into()),
        };
        let mut types = vec![time_type(&arg_types[0], self.name())?];
        for parameter in parameters {
            let coerced = parameter_type(parameter).filter(|coerced| !coerced.is_string());
            let wrong = || usage(format!("the lengths of a window are intervals, not {parameter}"));
            types.push(coerced.ok_or_else(wrong)?);
        }
        types.extend_from_slice(&arg_types[types.len()..]);
        Ok(types)
    }
}

impl ScalarUDFImpl for Overlapping {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Hop => "hop",
            Kind::Cumulate => "cumulate",
            Kind::Session => "session",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        // Wrong ones stay: `return_type` refuses them, and unlike here its error reaches the user as it is.
        Ok(self.coerced(arg_types).unwrap_or_else(|_| arg_types.to_vec()))
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.coerced(arg_types).map(|mut types| types.swap_remove(0))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(refuse::window_as_value(self.name(), self.kind.usage(), None).into())
    }
}

/// `windows_of(time)`: a list of the windows that hold a time, each a struct of `start` and `end`.
pub(super) fn windows_of(shape: WindowShape, time: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::new_from_impl(WindowsOf { shape, signature }).call(vec![time])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowsOf {
    shape: WindowShape,
    signature: Signature,
}

fn bounds(time: &DataType) -> Fields {
    ["start", "end"].map(|name| Field::new(name, time.clone(), true)).into_iter().collect()
}

impl ScalarUDFImpl for WindowsOf {
    fn name(&self) -> &str {
        "windows_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let time = arg_types.first().ok_or_else(|| internal_datafusion_err!("windows of nothing"))?;
        Ok(DataType::new_list(DataType::Struct(bounds(time)), true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let times = args.args.into_iter().next().ok_or_else(|| internal_datafusion_err!("windows of nothing"))?;
        let is_scalar = matches!(times, ColumnarValue::Scalar(_));
        let times = times.into_array(if is_scalar { 1 } else { rows })?;
        let lists = match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self.lists::<TimestampSecondType>(&times)?,
            DataType::Timestamp(TimeUnit::Millisecond, _) => self.lists::<TimestampMillisecondType>(&times)?,
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.lists::<TimestampMicrosecondType>(&times)?,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => self.lists::<TimestampNanosecondType>(&times)?,
            other => return Err(internal_datafusion_err!("a window over {other}")),
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?),
            false => ColumnarValue::Array(Arc::new(lists)),
        })
    }
}

impl WindowsOf {
    fn lists<T: ArrowTimestampType>(&self, times: &ArrayRef) -> Result<ListArray> {
        let times = times.as_primitive::<T>();
        let (mut starts, mut ends, mut lengths) = (vec![], vec![], vec![]);
        for time in times {
            let before = starts.len();
            match time {
                Some(time) => self.windows(time, |start, end| {
                    starts.push(Some(start));
                    ends.push(Some(end));
                }),
                // A row without a time is in one window without bounds.
                None => {
                    starts.push(None);
                    ends.push(None);
                }
            }
            lengths.push(starts.len() - before);
        }
        let column = |bounds: Vec<Option<i64>>| {
            Arc::new(PrimitiveArray::<T>::from_iter(bounds).with_timezone_opt(times.timezone())) as ArrayRef
        };
        let fields = bounds(times.data_type());
        let windows = StructArray::try_new(fields.clone(), vec![column(starts), column(ends)], None)?;
        let field = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        Ok(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(windows), None)?)
    }

    fn windows(&self, time: i64, mut give: impl FnMut(i64, i64)) {
        let offset = match self.shape {
            WindowShape::Hop { offset, .. } | WindowShape::Cumulate { offset, .. } => offset,
            _ => 0,
        };
        let width = self.shape.pane().unwrap_or(1);
        let pane = round_down(i128::from(time), width, offset).max(i128::from(i64::MIN)) as i64;
        let mut above = i64::MIN;
        while let Some(end) = self.shape.next_end(pane, above) {
            give(self.shape.start(pane, end), end);
            above = end;
        }
    }
}
