//! `__path_edges` and `__path_tops`: the ways that a customer takes through visits.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::events::{Customer, Event, Events, Tale, state_fields};
use super::sessions::{PathRules, paths};
use crate::BadArgument;
use crate::funnel::call::{coerced_window, constant, window_in_units_of};
use crate::lists::{list_of, listed, lists};
use crate::names::Names;
use crate::one_group::grouped_alone;

/// What errors call the functions: their users know the reports.
const NAME: &str = "path";

/// Places of the arguments.
const GAP: usize = 0;
const STEPS: usize = 1;
const REPEATS: usize = 2;
const START: usize = 3;
const END: usize = 4;
const TIME: usize = 5;

/// What is asked about paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// The passages from a node to the next one.
    Edges,
    /// The paths whole.
    Tops,
}

/// The paths of a customer, a list of structs.
///
/// Arguments: `gap` INTERVAL, most nodes BIGINT, whether repeats are nodes BOOLEAN, the names where paths begin and end or NULL TEXT
/// (all constant), `time` TIMESTAMP, `event` TEXT; rows with a NULL in one of the last two are skipped. `__path_edges` gives
/// (step, source, target, seconds, is_first) for each passage of each visit, `__path_tops` (path, sessions, is_first) for each
/// path that the customer took: `is_first` is true for one of them, for counting customers. Events of one instant are in
/// the order of their names. An event takes 16 bytes; time is that of a sort.
/// # Errors
/// [`BadArgument`] for a gap that is negative, in months or not constant.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Paths {
    signature: Signature,
    asked: Asked,
}

impl Paths {
    /// The function that gives what is asked.
    pub fn new(asked: Asked) -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), asked }
    }

    fn item(&self) -> DataType {
        DataType::Struct(match self.asked {
            Asked::Edges => edge_fields(),
            Asked::Tops => top_fields(),
        })
    }
}

fn edge_fields() -> Fields {
    Fields::from(vec![
        Field::new("step", DataType::Int32, false),
        Field::new("source", DataType::Utf8View, true),
        Field::new("target", DataType::Utf8View, true),
        Field::new("seconds", DataType::Float64, false),
        Field::new("is_first", DataType::Boolean, false),
    ])
}

fn top_fields() -> Fields {
    Fields::from(vec![
        Field::new("path", list_of(DataType::Utf8View), false),
        Field::new("sessions", DataType::Int64, false),
        Field::new("is_first", DataType::Boolean, false),
    ])
}

impl AggregateUDFImpl for Paths {
    fn name(&self) -> &str {
        match self.asked {
            Asked::Edges => "__path_edges",
            Asked::Tops => "__path_tops",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != TIME + 2 {
            return Err(BadArgument::err(NAME, "arguments", "seven are needed"));
        }
        let text = DataType::Utf8;
        Ok(vec![
            coerced_window(NAME, "session_gap", &types[GAP])?,
            DataType::Int64,
            DataType::Boolean,
            text.clone(),
            text,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8View,
        ])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(self.item()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name, false))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let gap = constant(NAME, "session_gap", &args, GAP)?;
        let gap = window_in_units_of(NAME, "session_gap", &gap, &time)?;
        let ScalarValue::Int64(Some(steps)) = constant(NAME, "max_steps", &args, STEPS)? else {
            return Err(BadArgument::err(NAME, "max_steps", "is not a number"));
        };
        let keeps_repeats =
            constant(NAME, "repeats", &args, REPEATS)? == ScalarValue::Boolean(Some(true));
        let name = |argument, place| {
            let text = constant(NAME, argument, &args, place).ok();
            text.and_then(|text| text.try_as_str().flatten().map(str::to_owned))
        };
        let (start, end) = (name("start", START), name("end", END));
        let rules = PathRules { gap, steps: steps as usize, keeps_repeats, start: None, end: None };
        Ok(Box::new(Events::new(Arc::new(Ways { asked: self.asked, rules, start, end }))))
    }
}

#[derive(Debug)]
struct Ways {
    asked: Asked,
    /// Without start and end, whose numbers are not known before the names have come.
    rules: PathRules,
    start: Option<String>,
    end: Option<String>,
}

impl Tale for Ways {
    fn time(&self) -> usize {
        TIME
    }

    fn has_deals(&self) -> bool {
        false
    }

    fn answer(&self, customers: &[Customer], names: &mut Names) -> Result<ArrayRef> {
        let number = |name: &Option<String>| name.as_ref().map(|name| names.known(name));
        let rules =
            PathRules { start: number(&self.start), end: number(&self.end), ..self.rules.clone() };
        match self.asked {
            Asked::Edges => edges(customers, names, &rules),
            Asked::Tops => tops(customers, names, &rules),
        }
    }
}

fn edges(customers: &[Customer], names: &Names, rules: &PathRules) -> Result<ArrayRef> {
    let mut steps: Vec<i32> = Vec::new();
    let [mut sources, mut targets] = [const { Vec::<u32>::new() }; 2];
    let (mut seconds, mut is_first) = (Vec::new(), Vec::new());
    let mut lengths = Vec::with_capacity(customers.len());
    let mut passages: Vec<(i32, u32, u32, i64)> = Vec::new();
    for customer in customers {
        passages.clear();
        for path in paths(customer.events(), rules) {
            for (step, pair) in path.windows(2).enumerate() {
                let taken = pair[1].at.saturating_sub(pair[0].at);
                passages.push((step as i32 + 1, pair[0].name, pair[1].name, taken));
            }
        }
        passages.sort_unstable();
        let mut before = None;
        for &(step, source, target, taken) in &passages {
            steps.push(step);
            sources.push(source);
            targets.push(target);
            // Divided, for no double is a millionth.
            seconds.push(taken as f64 / 1_000_000.0);
            is_first.push(before != Some((step, source, target)));
            before = Some((step, source, target));
        }
        lengths.push(passages.len());
    }
    let texts = names.array();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(steps)),
        take(&texts, &UInt32Array::from(sources), None)?,
        take(&texts, &UInt32Array::from(targets), None)?,
        Arc::new(Float64Array::from(seconds)),
        Arc::new(BooleanArray::from(is_first)),
    ];
    listed(edge_fields(), columns, lengths)
}

fn tops(customers: &[Customer], names: &Names, rules: &PathRules) -> Result<ArrayRef> {
    let (mut nodes, mut node_counts) = (Vec::<u32>::new(), Vec::new());
    let (mut sessions, mut is_first) = (Vec::<i64>::new(), Vec::new());
    let mut lengths = Vec::with_capacity(customers.len());
    for customer in customers {
        let of = |path: Vec<Event>| path.iter().map(|event| event.name).collect::<Vec<u32>>();
        let mut taken: Vec<Vec<u32>> = paths(customer.events(), rules).map(of).collect();
        taken.sort_unstable();
        let mut distinct = 0;
        for same in taken.chunk_by(|a, b| a == b) {
            nodes.extend(&same[0]);
            node_counts.push(same[0].len());
            sessions.push(same.len() as i64);
            is_first.push(distinct == 0);
            distinct += 1;
        }
        lengths.push(distinct);
    }
    let texts = take(&names.array(), &UInt32Array::from(nodes), None)?;
    let columns: Vec<ArrayRef> = vec![
        lists(texts, node_counts)?,
        Arc::new(Int64Array::from(sessions)),
        Arc::new(BooleanArray::from(is_first)),
    ];
    listed(top_fields(), columns, lengths)
}
