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
    coerced_condition, coerced_time, coerced_window, constant, gathered, listed, window_in_units_of,
};
use super::chain::{Rules, Touch, best_chain, deepest_step};
use super::modes::Modes;
use super::state::{Customer, Question, instants, instants_type};
use crate::BadArgument;
use crate::lists::lists;
use crate::names::Names;

/// Place of the window, in every form of a call.
const WINDOW: usize = 0;

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

impl Form {
    fn of(types: &[DataType]) -> Self {
        match types {
            [_, _, _, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)] => {
                Self::Gathered
            }
            [_, time, DataType::Boolean, ..] if !is_text(time) => Self::Plain,
            _ => Self::Listed,
        }
    }

    fn time(self) -> usize {
        match self {
            Self::Listed => 2,
            Self::Gathered | Self::Plain => 1,
        }
    }

    fn mode(self) -> Option<usize> {
        match self {
            Self::Listed => Some(1),
            Self::Gathered => Some(2),
            Self::Plain => None,
        }
    }

    /// Place of the first condition, or of all of them.
    fn first_condition(self) -> usize {
        match self {
            Self::Listed | Self::Gathered => 3,
            Self::Plain => 2,
        }
    }

    /// The rows on which each condition holds.
    fn conditions(self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        match self {
            Self::Listed | Self::Plain => listed(&values[self.first_condition()..]),
            Self::Gathered => gathered(values[self.first_condition()].as_list::<i32>()),
        }
    }
}

fn is_text(given: &DataType) -> bool {
    matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

/// What a funnel aggregate was called with.
#[derive(Debug, Clone)]
pub(crate) struct FunnelSpec {
    form: Form,
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
        let types: Vec<DataType> =
            args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let form = Form::of(&types);
        let time_type = types[form.time()].clone();
        let window = constant(function, "window", args, WINDOW)?;
        let window = window_in_units_of(function, "window", &window, &time_type)?;
        let modes = match form.mode() {
            Some(place) => parse_modes(function, &constant(function, "mode", args, place)?)?,
            None => Modes::default(),
        };
        let steps = match form {
            Form::Gathered => 0,
            _ => types.len() - form.first_condition(),
        };
        if answer == Answer::Attempts && steps == 0 {
            return Err(BadArgument::err(
                function,
                "conditions",
                "are an array; they are needed one by one",
            ));
        }
        Ok(Self { form, window, modes, time_type, steps, answer })
    }

    fn rules(&self, touches: &[Touch]) -> Rules {
        let deepest = touches.iter().map(|touch| touch.step).max().unwrap_or(0);
        Rules { steps: deepest as usize, window: self.window, modes: self.modes }
    }
}

/// The type of the time of a call, as [`coerce`] has made it.
pub(crate) fn time_type(types: &[DataType]) -> &DataType {
    &types[Form::of(types).time()]
}

/// Types a call may have; an error names the first argument that cannot be used.
pub(crate) fn coerce(function: &'static str, types: &[DataType]) -> Result<Vec<DataType>> {
    let form = Form::of(types);
    if types.len() <= form.first_condition() {
        return Err(BadArgument::err(
            function,
            "conditions",
            format!(
                "{} arguments given; write {function}(window, 'mode', time, condition, ...) with at least one condition",
                types.len()
            ),
        ));
    }
    let window = coerced_window(function, "window", &types[WINDOW])?;
    let time = coerced_time(function, &types[form.time()])?;
    let mut coerced = vec![window; form.first_condition()];
    coerced[form.time()] = time;
    if let Some(place) = form.mode() {
        coerced[place] = if types[place].is_integer() { DataType::Int64 } else { DataType::Utf8 };
    }
    for (i, condition) in types[form.first_condition()..].iter().enumerate() {
        coerced.push(match condition {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if form == Form::Gathered =>
            {
                let item = coerced_condition(function, i + 1, item.data_type())?;
                DataType::List(Arc::new(Field::new("item", item, true)))
            }
            other => coerced_condition(function, i + 1, other)?,
        });
    }
    Ok(coerced)
}

fn parse_modes(function: &'static str, mode: &ScalarValue) -> Result<Modes> {
    let unknown = |seen: String| {
        let known = format!("known are {}, with commas between", Modes::names());
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
        self.form.time()
    }

    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        self.form.conditions(values)
    }

    fn needs_rows(&self) -> bool {
        self.modes.has(Modes::ONCE)
    }

    fn needs_others(&self) -> bool {
        // A row that is no step may end a chain.
        self.modes.has(Modes::ORDER)
    }

    fn answer(&self, customers: Vec<Customer>, _names: &Names) -> Result<ArrayRef> {
        let each = customers.iter().map(|customer| &customer.touches);
        let each = each.map(|touches| (touches, self.rules(touches)));
        match self.answer {
            Answer::Level => Ok(Arc::new(Int32Array::from_iter_values(
                each.map(|(touches, rules)| deepest_step(touches, &rules) as i32),
            ))),
            Answer::Path => {
                self.paths(each.map(|(touches, rules)| best_chain(touches, &rules)).collect())
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
                for (touches, _) in each {
                    timeline.read(touches, &rules);
                    let found = finder.all(&timeline, timeline.places());
                    lengths.push(found.len());
                    chains.extend(found.iter().map(Attempt::instants));
                }
                lists(self.paths(chains)?, lengths)
            }
        }
    }
}
