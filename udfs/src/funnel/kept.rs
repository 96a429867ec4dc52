//! `..._state`, `..._merge` and `..._merge_state`: what a function has gathered, kept in a table, and asked later.
//!
//! A state holds the touches of a customer and what was called, as a record that a table can keep. Nothing else would do: a chain
//! may begin on one day and end on another, so the levels of two days do not give that of both.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, StructArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::{kept_rows, types_of};
use super::sequence::{self, Asked, SequenceQuestion};
use super::spec::{self, Answer, FunnelSpec};
use super::state::{Question, Touches, as_times, instants_type, state_fields, times_of};
use crate::BadArgument;
use crate::lists::list_of;
use crate::one_group::{grouped_alone, rows_as_states};

/// The functions whose states can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// `window_funnel`.
    WindowFunnel,
    /// `funnel_path`.
    FunnelPath,
    /// `funnel_attempts`.
    FunnelAttempts,
    /// `sequence_match` and its kin.
    Sequence(Asked),
}

/// Which of the three functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Rows to a state.
    State,
    /// States to the answer.
    Merge,
    /// States to one state.
    MergeState,
}

impl Of {
    /// Every function.
    pub const ALL: [Self; 6] = [
        Self::WindowFunnel,
        Self::FunnelPath,
        Self::FunnelAttempts,
        Self::Sequence(Asked::Match),
        Self::Sequence(Asked::Count),
        Self::Sequence(Asked::Events),
    ];

    fn name(self, part: Part) -> &'static str {
        let [state, merge, merge_state] = match self {
            Self::WindowFunnel => {
                ["window_funnel_state", "window_funnel_merge", "window_funnel_merge_state"]
            }
            Self::FunnelPath => {
                ["funnel_path_state", "funnel_path_merge", "funnel_path_merge_state"]
            }
            Self::FunnelAttempts => {
                ["funnel_attempts_state", "funnel_attempts_merge", "funnel_attempts_merge_state"]
            }
            Self::Sequence(Asked::Match) => {
                ["sequence_match_state", "sequence_match_merge", "sequence_match_merge_state"]
            }
            Self::Sequence(Asked::Count) => {
                ["sequence_count_state", "sequence_count_merge", "sequence_count_merge_state"]
            }
            Self::Sequence(Asked::Events) => [
                "sequence_match_events_state",
                "sequence_match_events_merge",
                "sequence_match_events_merge_state",
            ],
        };
        match part {
            Part::State => state,
            Part::Merge => merge,
            Part::MergeState => merge_state,
        }
    }

    fn answer(self) -> Answer {
        match self {
            Self::FunnelPath => Answer::Path,
            Self::FunnelAttempts => Answer::Attempts,
            Self::WindowFunnel | Self::Sequence(_) => Answer::Level,
        }
    }

    fn answer_type(self, time_type: &DataType) -> DataType {
        match self {
            Self::WindowFunnel => DataType::Int32,
            Self::FunnelPath => spec::path_type(time_type),
            Self::FunnelAttempts => list_of(spec::path_type(time_type)),
            Self::Sequence(asked) => asked.answer_type(time_type),
        }
    }

    fn coerce(self, part: Part, types: &[DataType]) -> Result<Vec<DataType>> {
        match self {
            Self::Sequence(_) => sequence::coerce(self.name(part), types),
            _ => spec::coerce(self.name(part), types),
        }
    }

    fn time_type(self, coerced: &[DataType]) -> DataType {
        match self {
            Self::Sequence(_) => sequence::time_type(coerced).clone(),
            _ => spec::time_type(coerced).clone(),
        }
    }

    /// What a call asks, and the text by which it is asked again.
    fn asked(self, args: &AccumulatorArgs) -> Result<(Arc<dyn Question>, String)> {
        let name = self.name(Part::State);
        Ok(match self {
            Self::Sequence(asked) => {
                let question = SequenceQuestion::from_args(name, asked, args)?;
                let call = question.call();
                (Arc::new(question), call)
            }
            _ => {
                let spec = FunnelSpec::from_args(name, self.answer(), args)?;
                let call = spec.call();
                (Arc::new(spec), call)
            }
        })
    }

    fn again(self, part: Part, call: &str, time_type: &DataType) -> Result<Arc<dyn Question>> {
        let name = self.name(part);
        Ok(match self {
            Self::Sequence(asked) => {
                Arc::new(SequenceQuestion::recalled(name, asked, call, time_type)?)
            }
            _ => Arc::new(FunnelSpec::recalled(name, call, self.answer(), time_type)?),
        })
    }

    /// The call of groups of which no state has come: any will do, for they have no touches.
    fn no_call(self, time_type: &DataType) -> String {
        let unit = spec::unit_of(time_type);
        match self {
            Self::Sequence(_) => format!("1 {unit} exact (?1)"),
            _ => format!("0 {unit} default 1 exact"),
        }
    }
}

/// That what was given is no state of `function`'s.
pub(crate) fn not_a_state(function: &'static str) -> datafusion::error::DataFusionError {
    let problem = format!(
        "is none that {}_state gives",
        function.trim_end_matches("_state").trim_end_matches("_merge")
    );
    BadArgument::err(function, "state", problem)
}

/// A state: what was called, and the touches in parallel lists.
fn state_type(time_type: &DataType) -> DataType {
    DataType::Struct(state_columns(time_type))
}

fn state_columns(time_type: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("call", DataType::Utf8, true),
        Field::new("at", instants_type(time_type), true),
        Field::new("step", list_of(DataType::Int32), true),
        Field::new("row", list_of(DataType::Int32), true),
        Field::new("met", DataType::Int16, true),
    ])
}

/// One of the three functions over the states of another one.
///
/// | call                      | gives                                                                            |
/// |---------------------------|----------------------------------------------------------------------------------|
/// | `f_state(...)`            | a record, for the arguments of `f`: everything that `f` needs of these rows          |
/// | `f_merge(state)`          | what `f` gives for all rows that the states are of, however they were cut into states |
/// | `f_merge_state(state)`    | one state of several                                                              |
///
/// A state keeps what was called, so that merging needs no arguments; its `at` is a list of the type of the time column. A NULL state is skipped.
/// States of the funnels answer each other: `funnel_path_merge` of a `window_funnel_state` is right. Memory is that of `f`.
/// # Errors
/// Those of `f`; [`BadArgument`] for something that is no state, and for states of calls that differ.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kept {
    of: Of,
    part: Part,
    signature: Signature,
    aliases: Vec<String>,
}

impl Kept {
    /// The function, ready to be registered.
    pub fn new(of: Of, part: Part) -> Self {
        let aliases = match of {
            // Nobody else has these, so nobody spells them otherwise.
            Of::FunnelPath | Of::FunnelAttempts => vec![],
            _ => vec![of.name(part).replace('_', "")],
        };
        Self { of, part, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let parts = [Part::State, Part::Merge, Part::MergeState];
        Of::ALL.into_iter().flat_map(move |of| parts.map(|part| Self::new(of, part)))
    }

    fn name(&self) -> &'static str {
        self.of.name(self.part)
    }

    /// The type of the times of a call of these types.
    fn time_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.part, types) {
            (Part::State, _) => Ok(self.of.time_type(&self.of.coerce(self.part, types)?)),
            (_, [DataType::Struct(fields)]) => {
                let at = fields.iter().find(|field| field.name() == "at");
                match at.map(|field| field.data_type()) {
                    Some(DataType::List(item)) => Ok(item.data_type().clone()),
                    _ => Err(not_a_state(self.name())),
                }
            }
            _ => Err(not_a_state(self.name())),
        }
    }
}

impl AggregateUDFImpl for Kept {
    fn name(&self) -> &str {
        self.of.name(self.part)
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if self.part == Part::State {
            return self.of.coerce(self.part, types);
        }
        // A stored record has other names of items and other widths; it is read as it is.
        self.time_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let time_type = self.time_type(types)?;
        Ok(match self.part {
            Part::Merge => self.of.answer_type(&time_type),
            Part::State | Part::MergeState => state_type(&time_type),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if self.part == Part::State {
            return Ok(state_fields(args.name));
        }
        let state = state_type(&self.time_type(&types_of(args.input_fields))?);
        Ok(vec![Arc::new(Field::new(format!("{}[state]", args.name), state, true))])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let time_type = self.time_type(&types_of(args.expr_fields))?;
        if self.part == Part::State {
            let (question, call) = self.of.asked(&args)?;
            let touches = Touches::new(question);
            return Ok(Box::new(Keeping { touches, call, time_type }));
        }
        Ok(Box::new(Merging {
            of: self.of,
            part: self.part,
            time_type,
            is_there: Vec::new(),
            met: None,
        }))
    }
}

/// Lists of the same lengths, of other items in the same places.
fn same_lists(list: &ListArray, items: ArrayRef) -> Result<ArrayRef> {
    let item = Arc::new(Field::new("item", items.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, list.offsets().clone(), items, None)?))
}

/// The states of groups, as records.
fn records(state: Vec<ArrayRef>, call: &str, time_type: &DataType) -> Result<ArrayRef> {
    let lists = |column: &ArrayRef, items| same_lists(column.as_list(), items);
    // No function whose state is kept has texts of rows.
    let [at, step, row, _tags, met] = &state[..] else {
        return internal_err!("the state of touches has {} columns", state.len());
    };
    let number = |column: &ArrayRef| {
        lists(column, cast(column.as_list::<i32>().values(), &DataType::Int32)?)
    };
    let times = as_times(Arc::clone(at.as_list::<i32>().values()), time_type)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![call; at.len()])),
        lists(at, times)?,
        number(step)?,
        number(row)?,
        cast(met, &DataType::Int16)?,
    ];
    Ok(Arc::new(StructArray::try_new(state_columns(time_type), columns, None)?))
}

/// Rows to states.
struct Keeping {
    touches: Touches,
    call: String,
    time_type: DataType,
}

impl GroupsAccumulator for Keeping {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.touches.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        records(self.touches.state(emit_to)?, &self.call, &self.time_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.touches.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.touches.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.touches.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        self.touches.size()
    }
}

/// States to the answer, or to one state.
struct Merging {
    of: Of,
    part: Part,
    time_type: DataType,
    /// Of each group whether a state has come.
    is_there: Vec<bool>,
    /// What the states were called with, and their touches; `None` until one comes.
    met: Option<(String, Touches)>,
}

impl Merging {
    /// A state of `call` has come: the first one says what is asked, and the others ask the same.
    fn meet(&mut self, call: &str) -> Result<()> {
        match &self.met {
            Some((known, _)) if known == call => Ok(()),
            Some((known, _)) => Err(BadArgument::err(
                self.of.name(self.part),
                "state",
                format!("states of two calls are among them: {known:?} and {call:?}"),
            )),
            None => {
                let question = self.of.again(self.part, call, &self.time_type)?;
                self.met = Some((call.to_owned(), Touches::new(question)));
                Ok(())
            }
        }
    }

    fn merge(&mut self, states: &StructArray, groups: &[usize]) -> Result<()> {
        let name = self.of.name(self.part);
        let column = |wanted: &str| states.column_by_name(wanted).ok_or_else(|| not_a_state(name));
        let list = |wanted: &str, item: DataType| {
            cast(column(wanted)?, &list_of(item)).map_err(|_| not_a_state(name))
        };
        let calls = cast(column("call")?, &DataType::Utf8)?;
        let calls = calls.as_string::<i32>();
        let at = list("at", self.time_type.clone())?;
        let at: &ListArray = at.as_list();
        let at = same_lists(at, Arc::new(times_of(at.values())?))?;
        let (step, row) = (list("step", DataType::UInt32)?, list("row", DataType::UInt32)?);
        let tags = arrow::array::new_empty_array(&DataType::Utf8);
        let tags = crate::lists::lists(tags, vec![0; states.len()])?;
        let met: ArrayRef = cast(column("met")?, &DataType::UInt8)?;
        let columns = [at, step, row, tags, met];
        if columns[..3].iter().any(|column| column.null_count() > 0) || !are_parallel(&columns) {
            return Err(not_a_state(name));
        }
        let total = self.is_there.len();
        // Mostly all are of one call; one that differs is an error in any case.
        for call in calls.iter() {
            let Some(call) = call else { return Err(not_a_state(name)) };
            self.meet(call)?;
        }
        let Some((_, touches)) = &mut self.met else { return Ok(()) };
        touches.merge_batch(&columns, groups, total)
    }

    fn emptied(&mut self) -> Result<(String, Touches)> {
        match self.met.take() {
            Some(met) => Ok(met),
            None => {
                let call = self.of.no_call(&self.time_type);
                let question = self.of.again(self.part, &call, &self.time_type)?;
                Ok((call, Touches::new(question)))
            }
        }
    }

    /// The states of groups; NULL for one of which none has come, so that nobody takes it for a call.
    fn records(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (call, mut touches) = self.emptied()?;
        touches.grow(self.is_there.len());
        let records = records(touches.state(emit_to)?, &call, &self.time_type)?;
        let is_there = emit_to.take_needed(&mut self.is_there);
        let is_missing = BooleanArray::from_iter(is_there.iter().map(|is_there| Some(!is_there)));
        // What was called is known from states only.
        self.met = self.is_there.iter().any(|is_there| *is_there).then_some((call, touches));
        Ok(arrow::compute::nullif(&records, &is_missing)?)
    }
}

/// Whether each state has as many steps as times, and as many rows or none.
fn are_parallel(columns: &[ArrayRef]) -> bool {
    let lengths = |at: usize| columns[at].as_list::<i32>().offsets().lengths();
    lengths(0).eq(lengths(1))
        && lengths(0).zip(lengths(2)).all(|(times, rows)| rows == 0 || rows == times)
}

impl GroupsAccumulator for Merging {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.is_there.resize(total_num_groups, false);
        let states = &values[0];
        let kept = kept_rows(states.nulls(), opt_filter);
        let wanted =
            kept.map_or_else(|| BooleanBuffer::new_set(states.len()), |kept| kept.into_inner());
        let wanted = BooleanArray::from(wanted);
        let groups: Vec<usize> =
            wanted.values().set_indices().map(|row| group_indices[row]).collect();
        if groups.is_empty() {
            return Ok(());
        }
        groups.iter().for_each(|group| self.is_there[*group] = true);
        let states = filter(states, &wanted)?;
        self.merge(states.as_struct(), &groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if self.part != Part::Merge {
            return self.records(emit_to);
        }
        // Groups without a state are groups all the same.
        let (call, mut touches) = self.emptied()?;
        touches.grow(self.is_there.len());
        let answer = touches.evaluate(emit_to)?;
        emit_to.take_needed(&mut self.is_there);
        self.met = self.is_there.iter().any(|is_there| *is_there).then_some((call, touches));
        Ok(answer)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.records(emit_to)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        if values.is_empty() {
            self.is_there.resize(total_num_groups, false);
            return Ok(());
        }
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self {
            of: self.of,
            part: self.part,
            time_type: self.time_type.clone(),
            is_there: Vec::new(),
            met: None,
        };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.met.as_ref().map_or(0, |(_, touches)| touches.size())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    const CALLS: [(&str, &str); 8] = [
        ("window_funnel", "INTERVAL '2 seconds', 'default', at, k = 1, k = 2, k = 3"),
        ("window_funnel", "3, 'strict_order,strict_once', at, k <= 2, k = 2, k = 3, k >= 3"),
        ("window_funnel", "'clickhouse', 3, 'strict_increase', at, k = 1, k = 2, k = 3"),
        ("window_funnel", "3, at, 5, ARRAY[k = 1, k = 2]"),
        ("funnel_path", "3, 'fixed', at, k = 1, k = 2, k = 3"),
        ("funnel_attempts", "3, CAST(at AS DATE), k = 1, k = 2, k = 3"),
        ("sequence_match", "'(?1).*(?2)(?t<=1)(?3)', at, k = 1, k = 2, k >= 3"),
        ("sequence_match_events", "'clickhouse', '(?1).*(?2)', at, k = 1, k = 2"),
    ];

    /// Rows cut into states in any way give what they give together; a state of states is one more way.
    #[test]
    fn merged_states_answer_as_all_rows_do() {
        for (function, arguments) in CALLS {
            AggregateCase::new(&format!("{function}({arguments})")).is_merged_by(
                &format!("{function}_state({arguments})"),
                &format!("{function}_merge"),
            );
        }
    }

    #[test]
    fn states_are_states_as_any_other() {
        for (function, arguments) in CALLS {
            // Lists are in the order in which rows came.
            AggregateCase::new(&format!("array_sort({function}_state({arguments})['step'])"))
                .agrees_however_it_is_run();
        }
    }
}
