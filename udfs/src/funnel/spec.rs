//! What the funnel aggregates are called with, and their answers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, StructArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::attempts::{Attempt, AttemptRules, Finder, Timeline};
use super::call::{
    all_items_known, all_known, coerced_condition, coerced_time, coerced_window, constant,
    dialect_of, gathered, listed, types_of, window_in,
};
use super::chain::{Rules, Touch, best_chain};
use super::dialect::Dialect;
use super::kept::not_a_state;
use super::modes::Modes;
use super::peers;
use super::state::{Customer, Question, instants, instants_type};
use crate::BadArgument;
use crate::lists::lists;
use crate::names::Names;

/// How a call names its arguments, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `(window, 'mode', time, condition, ...)`, as Doris has it.
    Listed,
    /// `(window, time, mode, ARRAY[condition, ...])`, as StarRocks has it.
    Gathered,
    /// `(window, time, condition, ...)`, as GaussDB has it, and ClickHouse where no mode is given.
    Plain,
}

/// Where the arguments of a call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    form: Form,
    /// Place of the window; a dialect may stand before it.
    window: usize,
}

impl Layout {
    fn of(types: &[DataType]) -> Self {
        let window = usize::from(has_dialect(types));
        let form = match &types[window..] {
            [_, _, _, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)] => {
                Form::Gathered
            }
            [_, time, DataType::Boolean, ..] if !is_text(time) => Form::Plain,
            _ => Form::Listed,
        };
        Self { form, window }
    }

    fn time(self) -> usize {
        self.window
            + match self.form {
                Form::Listed => 2,
                Form::Gathered | Form::Plain => 1,
            }
    }

    fn mode(self) -> Option<usize> {
        match self.form {
            Form::Listed => Some(self.window + 1),
            Form::Gathered => Some(self.window + 2),
            Form::Plain => None,
        }
    }

    /// Place of the first condition, or of all of them.
    fn first_condition(self) -> usize {
        self.window
            + match self.form {
                Form::Listed | Form::Gathered => 3,
                Form::Plain => 2,
            }
    }

    /// The rows on which each condition holds.
    fn conditions(self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        match self.form {
            Form::Listed | Form::Plain => listed(&values[self.first_condition()..]),
            Form::Gathered => gathered(values[self.first_condition()].as_list::<i32>()),
        }
    }

    /// The rows on which no condition is NULL.
    fn known(self, values: &[ArrayRef]) -> BooleanBuffer {
        match self.form {
            Form::Listed | Form::Plain => all_known(&values[self.first_condition()..]),
            Form::Gathered => all_items_known(values[self.first_condition()].as_list::<i32>()),
        }
    }
}

/// Whether the first argument of a call says whose rules it follows: it is a text, which a window never is.
fn has_dialect(types: &[DataType]) -> bool {
    types.first().is_some_and(DataType::is_string)
}

fn is_text(given: &DataType) -> bool {
    given.is_string() || given.is_null()
}

/// What a funnel aggregate was called with.
#[derive(Debug, Clone)]
pub(crate) struct FunnelSpec {
    layout: Layout,
    dialect: Dialect,
    window: i64,
    modes: Modes,
    time_type: DataType,
    /// How many there are; 0 where they are an array.
    steps: usize,
    answer: Answer,
}

impl FunnelSpec {
    /// Reads the constant arguments of `function` from its call.
    pub(crate) fn from_args(
        function: &'static str,
        answer: Answer,
        args: &AccumulatorArgs,
    ) -> Result<Self> {
        let types = types_of(args.expr_fields);
        let layout = Layout::of(&types);
        let time_type = types[layout.time()].clone();
        let dialect = dialect_of(function, args, layout.window > 0)?;
        let window = constant(function, "window", args, layout.window)?;
        let window = window_in(dialect, function, "window", &window, &time_type)?;
        let modes = match layout.mode() {
            Some(place) => {
                parse_modes(function, dialect, &constant(function, "mode", args, place)?)?
            }
            None => Modes::default(),
        };
        dialect.check_modes(function, modes)?;
        let steps = match layout.form {
            Form::Gathered => 0,
            _ => types.len() - layout.first_condition(),
        };
        Self { layout, dialect, window, modes, time_type, steps, answer }.checked(function)
    }

    fn checked(self, function: &'static str) -> Result<Self> {
        if self.answer != Answer::Level && self.dialect != Dialect::Exact {
            return Err(BadArgument::err(
                function,
                "dialect",
                format!(
                    "is {:?}; no other engine has the function, it is always exact",
                    self.dialect.name()
                ),
            ));
        }
        if self.answer == Answer::Attempts && self.steps == 0 {
            return Err(BadArgument::err(
                function,
                "conditions",
                "are an array; they are needed one by one",
            ));
        }
        Ok(self)
    }

    /// What was called, as a text that a stored state keeps: the window, the modes, the number of steps and the dialect.
    pub(crate) fn call(&self) -> String {
        let modes =
            if self.modes.len() == 0 { "default".to_owned() } else { self.modes.to_string() };
        let unit = unit_of(&self.time_type);
        format!("{} {unit} {modes} {} {}", self.window, self.steps, self.dialect.name())
    }

    /// The spec that wrote this [`Self::call`], for another answer perhaps.
    pub(crate) fn recalled(
        function: &'static str,
        call: &str,
        answer: Answer,
        time_type: &DataType,
    ) -> Result<Self> {
        let read = || {
            let [window, unit, modes, steps, dialect] = call.split(' ').collect::<Vec<_>>()[..]
            else {
                return None;
            };
            // A table of states may have put times of another type among its own.
            if unit != unit_of(time_type) {
                return None;
            }
            Some(Self {
                layout: Layout { form: Form::Listed, window: 0 },
                dialect: Dialect::of(dialect)?,
                window: window.parse().ok()?,
                modes: Modes::of_names(modes).ok()?,
                time_type: time_type.clone(),
                steps: steps.parse().ok()?,
                answer,
            })
        };
        read().ok_or_else(|| not_a_state(function))?.checked(function)
    }

    /// The deepest step of a customer; `None` where the dialect does not know.
    fn level(&self, customer: &Customer) -> Option<i32> {
        if customer.is_unknown() {
            return None;
        }
        let rules = self.rules(&customer.touches);
        let is_timestamp = matches!(self.time_type, DataType::Timestamp(..));
        let level = if self.dialect.counts_seconds() && is_timestamp {
            let second =
                |touch: &Touch| Touch { at: touch.at - touch.at.rem_euclid(1_000_000), ..*touch };
            let mut touches: Vec<Touch> = customer.touches.iter().map(second).collect();
            touches.sort_unstable();
            peers::deepest_step(self.dialect, &touches, &rules)
        } else {
            peers::deepest_step(self.dialect, &customer.touches, &rules)
        };
        Some(level as i32)
    }

    fn rules(&self, touches: &[Touch]) -> Rules {
        let deepest = touches.iter().map(|touch| touch.step).max().unwrap_or(0);
        Rules { steps: deepest as usize, window: self.window, modes: self.modes }
    }
}

/// The type of the time of a call, as [`coerce`] has made it.
pub(crate) fn time_type(types: &[DataType]) -> &DataType {
    &types[Layout::of(types).time()]
}

/// The unit of the window of a call whose arguments are of `types`, where it is a bare number and the time has units that the number
/// does not say; with the place of the window.
pub fn silent_unit(dialect: Dialect, types: &[DataType]) -> Option<(usize, &'static str)> {
    let layout = Layout::of(types);
    let time = types.get(layout.time())?;
    let is_number = types.get(layout.window)?.is_integer();
    Some((layout.window, dialect.silent_unit_of(time)?)).filter(|_| is_number)
}

/// What the unit of times of a type is, in the text of a call.
pub(crate) fn unit_of(time_type: &DataType) -> &'static str {
    match time_type {
        DataType::Timestamp(..) => "us",
        DataType::Date32 => "days",
        _ => "units",
    }
}

/// Types a call may have; an error names the first argument that cannot be used.
pub(crate) fn coerce(function: &'static str, types: &[DataType]) -> Result<Vec<DataType>> {
    let layout = Layout::of(types);
    if types.len() <= layout.first_condition() {
        return Err(BadArgument::err(
            function,
            "conditions",
            format!(
                "{} arguments given; write {function}(window, 'mode', time, condition, ...) with at least one condition",
                types.len()
            ),
        ));
    }
    let window = coerced_window(function, "window", &types[layout.window]).map_err(|error| {
        match layout.window {
            0 => error,
            _ => BadArgument::err(
                function,
                "window",
                format!(
                    "a text comes first, so a dialect ({}) and then a window; a window is INTERVAL '1 hour' or a whole number",
                    Dialect::NAMES.join(", ")
                ),
            ),
        }
    })?;
    let time = coerced_time(function, &types[layout.time()])?;
    // A dialect, where there is one, is in the place that is left.
    let mut coerced = vec![DataType::Utf8; layout.first_condition()];
    coerced[layout.window] = window;
    coerced[layout.time()] = time;
    if let Some(place) = layout.mode() {
        coerced[place] = if types[place].is_integer() { DataType::Int64 } else { DataType::Utf8 };
    }
    for (i, condition) in types[layout.first_condition()..].iter().enumerate() {
        coerced.push(match condition {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if layout.form == Form::Gathered =>
            {
                let item = coerced_condition(function, i + 1, item.data_type())?;
                DataType::List(Arc::new(Field::new("item", item, true)))
            }
            other => coerced_condition(function, i + 1, other)?,
        });
    }
    Ok(coerced)
}

fn parse_modes(function: &'static str, dialect: Dialect, mode: &ScalarValue) -> Result<Modes> {
    let unknown = |seen: String| {
        let known = match dialect.modes() {
            None => format!("known are {}, with commas between", Modes::names()),
            Some(modes) => format!(
                "{} has default{}",
                dialect.name(),
                modes.listed().iter().map(|mode| format!(", {mode}")).collect::<String>()
            ),
        };
        Err(BadArgument::err(function, "mode", format!("{seen} is not a mode; {known}")))
    };
    if let ScalarValue::Int64(Some(number)) = mode {
        return match Modes::of_number(*number) {
            Some(modes) => Ok(modes),
            None => unknown(format!("{number}, which is no sum of 1, 2 and 4,")),
        };
    }
    match mode.try_as_str() {
        Some(Some(names)) => match Modes::of_names(names) {
            Ok(modes) => Ok(modes),
            Err(name) => unknown(format!("{name:?}")),
        },
        _ => unknown(mode.to_string()),
    }
}

/// What the aggregate answers for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The deepest step as INT.
    Level,
    /// A struct of the deepest step and the instants of the winning chain.
    Path,
    /// Such a struct for each attempt.
    Attempts,
}

/// Type of [`Answer::Path`] for a time column of type `time_type`.
pub(crate) fn path_type(time_type: &DataType) -> DataType {
    DataType::Struct(path_fields(time_type))
}

fn path_fields(time_type: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("level", DataType::Int32, false),
        Field::new("times", instants_type(time_type), false),
    ])
}

impl FunnelSpec {
    /// A column of structs of [`path_type`].
    fn paths(&self, chains: Vec<Vec<i64>>) -> Result<ArrayRef> {
        let levels = Int32Array::from_iter_values(chains.iter().map(|c| c.len() as i32));
        let columns: Vec<ArrayRef> = vec![Arc::new(levels), instants(chains, &self.time_type)?];
        Ok(Arc::new(StructArray::try_new(path_fields(&self.time_type), columns, None)?))
    }
}

impl Question for FunnelSpec {
    fn time(&self) -> usize {
        self.layout.time()
    }

    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        self.layout.conditions(values)
    }

    fn seen(&self, values: &[ArrayRef]) -> Option<BooleanBuffer> {
        self.dialect.drops_unknown().then(|| self.layout.known(values))
    }

    fn needs_rows(&self) -> bool {
        self.modes.has(Modes::ONCE) || self.dialect.tells_rows_apart()
    }

    fn needs_others(&self) -> bool {
        // A row that is no step may end a chain.
        self.modes.has(Modes::ORDER)
    }

    fn answer(&self, customers: Vec<Customer>, _names: &Names) -> Result<ArrayRef> {
        match self.answer {
            Answer::Level => {
                Ok(Arc::new(Int32Array::from_iter(customers.iter().map(|c| self.level(c)))))
            }
            Answer::Path => {
                let chain = |c: &Customer| best_chain(&c.touches, &self.rules(&c.touches));
                self.paths(customers.iter().map(chain).collect())
            }
            Answer::Attempts => {
                let rules = AttemptRules {
                    chain: Rules { steps: self.steps, window: self.window, modes: self.modes },
                    optional: vec![false; self.steps],
                    gaps: vec![None; self.steps],
                    exclusions: vec![],
                    is_any_order: false,
                };
                let mut timeline = Timeline::default();
                let mut finder = Finder::new(&rules);
                let (mut chains, mut lengths) = (Vec::new(), Vec::new());
                for customer in &customers {
                    timeline.read(&customer.touches, &rules);
                    let found = finder.all(&timeline, timeline.places());
                    lengths.push(found.len());
                    chains.extend(found.iter().map(Attempt::instants));
                }
                lists(self.paths(chains)?, lengths)
            }
        }
    }
}
