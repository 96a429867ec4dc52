//! `__credits` and `__attribution`: the credit that channels get for conversions, by customer and in all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int8Array, StringArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Fields, Float64Type, Int8Type, TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};

use super::credit::{Credit, CreditRules, MODELS, Model, Piece, UNIT, divide};
use super::events::{Customer, Events, MONEY, Tale, state_fields};
use super::markov::{Journeys, STATES_MAX};
use crate::BadArgument;
use crate::funnel::call::{coerced_window, constant, window_in_units_of};
use crate::lists::{list_of, listed, lists};
use crate::names::{NO_NAME, Names};
use crate::one_group::grouped_alone;

const NAME: &str = "attribution_report";

/// Places of the arguments of `__credits`.
const MODEL: usize = 0;
const LOOKBACK: usize = 1;
const HALF_LIFE: usize = 2;
const WEIGHTS: usize = 3;
const ORDER: usize = 4;
const KEYED: usize = 5;
const DIRECT: usize = 6;
const SINCE: usize = 7;
const TIME: usize = 8;

/// Precision and scale of credit.
const PARTS: (u8, i8) = (38, 12);

/// The names of the models.
pub fn model_names() -> [&'static str; MODELS.len()] {
    MODELS.map(|(_, name)| name)
}

/// What the channels get for a customer's conversions, a list of structs for [`Attribution`].
///
/// Arguments: `model`s TEXT with commas between, `lookback` and `half_life` INTERVAL (NULL: a quarter of the lookback), `weights`
/// DOUBLE[], the order of the Markov chain BIGINT, whether deals have keys BOOLEAN, direct channels TEXT[], since when
/// touches that led to nothing are told of TIMESTAMP (all constant), `time` TIMESTAMP,
/// `channel` TEXT or NULL for what is no touch, `kind` (1 a conversion, 2 a refund, 3 a conversion that is not asked about), `key`
/// TEXT, `value` DECIMAL(38,6). An event takes 16 bytes and a deal 64; time is that of a sort and of all journeys.
/// # Errors
/// [`BadArgument`] for a lookback or half-life that is not positive.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Credits {
    signature: Signature,
}

impl Credits {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Credits {
    fn default() -> Self {
        Self::new()
    }
}

fn piece_fields() -> Fields {
    let parts = DataType::Decimal128(PARTS.0, PARTS.1);
    Fields::from(vec![
        Field::new("model", DataType::Int8, false),
        Field::new("outcome", DataType::Int8, false),
        Field::new("channels", list_of(DataType::Utf8View), false),
        Field::new("conversions", parts.clone(), false),
        Field::new("value", parts, false),
    ])
}

fn answer_fields() -> Fields {
    Fields::from(vec![
        Field::new("channel", DataType::Utf8, true),
        Field::new("model", DataType::Utf8, false),
        Field::new("conversions", DataType::Float64, false),
        Field::new("value", DataType::Decimal128(MONEY.0, MONEY.1), false),
        Field::new("share", DataType::Float64, true),
        Field::new("removal_effect", DataType::Float64, true),
    ])
}

impl AggregateUDFImpl for Credits {
    fn name(&self) -> &str {
        "__credits"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != TIME + 5 {
            return Err(BadArgument::err(NAME, "arguments", "thirteen are needed"));
        }
        Ok(vec![
            DataType::Utf8,
            coerced_window(NAME, "lookback", &types[LOOKBACK])?,
            coerced_window(NAME, "half_life", &types[HALF_LIFE])?,
            list_of(DataType::Float64),
            DataType::Int64,
            DataType::Boolean,
            list_of(DataType::Utf8),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8View,
            DataType::Int8,
            DataType::Utf8View,
            DataType::Decimal128(MONEY.0, MONEY.1),
        ])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(piece_fields())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name, true))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let span = |argument: &'static str, place: usize| {
            let span = constant(NAME, argument, &args, place)?;
            match window_in_units_of(NAME, argument, &span, &time)? {
                0 => Err(BadArgument::err(NAME, argument, "is zero; it must be more")),
                span => Ok(span),
            }
        };
        let lookback = span("lookback", LOOKBACK)?;
        let is_given = constant(NAME, "half_life", &args, HALF_LIFE).is_ok();
        let half_life =
            if is_given { span("half_life", HALF_LIFE)? } else { (lookback / 4).max(1) };
        let models = constant(NAME, "model", &args, MODEL)?;
        let models = models.try_as_str().flatten().unwrap_or_default();
        let named = |name: &str| MODELS.iter().find(|(_, known)| *known == name).map(|m| m.0);
        let elements = |place: usize| match constant(NAME, "weights", &args, place) {
            Ok(ScalarValue::List(list)) => Some(list.value(0)),
            _ => None,
        };
        let weights = elements(WEIGHTS).map(|w| w.as_primitive::<Float64Type>().values().to_vec());
        let direct = elements(DIRECT).map_or_else(Vec::new, |direct| {
            direct.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
        });
        let order = match constant(NAME, "markov_order", &args, ORDER)? {
            ScalarValue::Int64(Some(order)) => order as usize,
            _ => 1,
        };
        let since = match constant(NAME, "from", &args, SINCE) {
            Ok(ScalarValue::TimestampMicrosecond(Some(since), _)) => since,
            _ => i64::MIN,
        };
        let rules = CreditRules {
            since,
            models: models.split(',').filter_map(named).collect(),
            lookback,
            half_life,
            weights: weights.and_then(|w| w.try_into().ok()).unwrap_or([1.0; 3]),
            order,
            is_keyed: constant(NAME, "key", &args, KEYED)? == ScalarValue::Boolean(Some(true)),
        };
        Ok(Box::new(Events::new(Arc::new(Division { rules, direct }))))
    }
}

#[derive(Debug)]
struct Division {
    rules: CreditRules,
    direct: Vec<String>,
}

impl Tale for Division {
    fn time(&self) -> usize {
        TIME
    }

    fn has_deals(&self) -> bool {
        true
    }

    fn answer(&self, customers: &[Customer], names: &mut Names) -> Result<ArrayRef> {
        let direct: BTreeSet<u32> = self.direct.iter().filter_map(|d| names.known(d)).collect();
        let each = customers.iter().map(|customer| {
            let is_direct = |channel| direct.contains(&channel);
            let in_order = |a: &u32, b: &u32| names.text(*a).cmp(&names.text(*b));
            divide(customer.events(), customer.deals(), &self.rules, is_direct, in_order)
        });
        pieces_array(each, names)
    }
}

/// What a piece is in a column: the model, what it tells, and channels.
fn columns_of(piece: &Piece) -> (i8, i8, Vec<u32>) {
    let number = |model: &Model| MODELS.iter().position(|(m, _)| m == model).unwrap_or(0) as i8;
    let markov = number(&Model::Markov);
    match piece {
        Piece::Channel(model, NO_NAME) => (number(model), 0, vec![]),
        Piece::Channel(model, channel) => (number(model), 0, vec![*channel]),
        Piece::Step(from, next) => (markov, 1, [from.as_slice(), &[*next]].concat()),
        Piece::Converted(from) => (markov, 2, from.clone()),
        Piece::Lost(from) => (markov, 3, from.clone()),
        Piece::Touched => (markov, 4, vec![]),
    }
}

/// What [`columns_of`] made columns of.
fn piece_of(model: i8, outcome: i8, mut channels: Vec<u32>) -> Piece {
    match outcome {
        1 => {
            let next = channels.pop().unwrap_or(NO_NAME);
            Piece::Step(channels, next)
        }
        2 => Piece::Converted(channels),
        3 => Piece::Lost(channels),
        4 => Piece::Touched,
        _ => {
            let channel = channels.first().copied().unwrap_or(NO_NAME);
            Piece::Channel(MODELS[model as usize].0, channel)
        }
    }
}

/// A list of pieces for each of several customers.
fn pieces_array(
    customers: impl Iterator<Item = BTreeMap<Piece, Credit>>,
    names: &Names,
) -> Result<ArrayRef> {
    let (mut models, mut outcomes) = (Vec::new(), Vec::new());
    let (mut channels, mut counts) = (Vec::<u32>::new(), Vec::new());
    let (mut conversions, mut values) = (Vec::new(), Vec::new());
    let mut lengths = Vec::new();
    for pieces in customers {
        lengths.push(pieces.len());
        for (piece, credit) in pieces {
            let (model, outcome, of) = columns_of(&piece);
            models.push(model);
            outcomes.push(outcome);
            counts.push(of.len());
            channels.extend(of);
            conversions.push(credit.conversions);
            values.push(credit.value);
        }
    }
    let texts = take(&names.array(), &UInt32Array::from(channels), None)?;
    let channels = lists(texts, counts)?;
    let decimal =
        |parts: Vec<i128>| Decimal128Array::from(parts).with_precision_and_scale(PARTS.0, PARTS.1);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int8Array::from(models)),
        Arc::new(Int8Array::from(outcomes)),
        channels,
        Arc::new(decimal(conversions)?),
        Arc::new(decimal(values)?),
    ];
    listed(piece_fields(), columns, lengths)
}

/// What the channels get for all conversions: a list of (channel, model, conversions, value, share, removal_effect), a struct
/// for each model and each channel that was met, and one with a NULL channel for conversions without a touch.
///
/// Arguments: the order of the Markov chain BIGINT, constant; what [`Credits`] gave for customers. Credits are added as whole
/// numbers, so no order of customers changes the answer.
/// # Errors
/// [`BadArgument`] for a Markov chain of more than a thousand states.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Attribution {
    signature: Signature,
}

impl Attribution {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let types = vec![DataType::Int64, list_of(DataType::Struct(piece_fields()))];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for Attribution {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Attribution {
    fn name(&self) -> &str {
        "__attribution"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(answer_fields())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let pieces = list_of(DataType::Struct(piece_fields()));
        Ok(vec![Arc::new(Field::new(format!("{}[pieces]", args.name), pieces, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let order = match constant(NAME, "markov_order", &args, 0)? {
            ScalarValue::Int64(Some(order)) => order as usize,
            _ => 1,
        };
        Ok(Box::new(All { order, names: Names::default(), pieces: BTreeMap::new() }))
    }
}

/// A row of the answer.
struct Line<'a> {
    channel: Option<&'a str>,
    model: &'a str,
    /// In parts.
    conversions: i128,
    /// In millionths.
    value: i128,
    share: Option<f64>,
    effect: Option<f64>,
}

/// The sums of all customers' pieces.
#[derive(Debug)]
struct All {
    order: usize,
    names: Names,
    pieces: BTreeMap<Piece, Credit>,
}

impl All {
    fn add(&mut self, lists: &ArrayRef) {
        let lists = lists.as_list::<i32>();
        for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
            let list = lists.value(row);
            let pieces = list.as_struct();
            let [models, outcomes, channels, conversions, values] = pieces.columns() else {
                continue;
            };
            let models = models.as_primitive::<Int8Type>();
            let outcomes = outcomes.as_primitive::<Int8Type>();
            let conversions = conversions.as_primitive::<Decimal128Type>();
            let values = values.as_primitive::<Decimal128Type>();
            for i in 0..pieces.len() {
                let texts = channels.as_list::<i32>().value(i);
                let texts = texts.as_string_view();
                let of = (0..texts.len()).map(|at| self.names.number_at(texts, at)).collect();
                let piece = piece_of(models.value(i), outcomes.value(i), of);
                let credit = Credit { conversions: conversions.value(i), value: values.value(i) };
                *self.pieces.entry(piece).or_default() += credit;
            }
        }
    }

    fn credit(&self, piece: &Piece) -> Credit {
        self.pieces.get(piece).copied().unwrap_or_default()
    }

    /// Gives what the Markov chain says to its channels; what a channel would take with it is its effect.
    fn settle_markov(&mut self) -> Result<BTreeMap<u32, f64>> {
        let mut journeys = Journeys { order: self.order, ..Journeys::default() };
        let touched = self.credit(&Piece::Touched);
        // States in the order of names, so that numbers add up alike however the names were numbered.
        let places = self.names.places();
        let place = |name: &u32| places[*name as usize];
        let state = |names: &[u32]| names.iter().map(place).collect::<Vec<u32>>();
        for (piece, credit) in &self.pieces {
            let times = credit.conversions as f64 / UNIT as f64;
            match piece {
                Piece::Step(from, next) => {
                    journeys.steps.insert((state(from), place(next)), times);
                }
                Piece::Converted(from) => {
                    journeys.converted.insert(state(from), times);
                }
                Piece::Lost(from) => {
                    journeys.lost.insert(state(from), times);
                }
                Piece::Touched | Piece::Channel(..) => {}
            }
        }
        let effects = journeys.removal_effects().map_err(|states| {
            BadArgument::err(
                NAME,
                "markov_order",
                format!(
                    "gives {states} states, of {STATES_MAX} at most; a lower order or fewer channels are needed"
                ),
            )
        })?;
        let total: f64 = effects.values().sum();
        let named = |name: u32| effects.get(&place(&name)).map(|effect| (name, *effect));
        let effects: BTreeMap<u32, f64> = (0..places.len() as u32).filter_map(named).collect();
        if total > 0.0 {
            let share = |of: i128, effect: f64| (of as f64 * (effect / total)).round() as i128;
            for (channel, effect) in &effects {
                let credit = Credit {
                    conversions: share(touched.conversions, *effect),
                    value: share(touched.value, *effect),
                };
                self.pieces.insert(Piece::Channel(Model::Markov, *channel), credit);
            }
        }
        Ok(effects)
    }
}

impl Accumulator for All {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[1]);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(&states[0]);
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let pieces = std::mem::take(&mut self.pieces);
        let array = pieces_array(std::iter::once(pieces), &self.names)?;
        Ok(vec![ScalarValue::try_from_array(&array, 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let effects = self.settle_markov()?;
        let mut channels: BTreeMap<Option<&str>, u32> = BTreeMap::new();
        let mut models: BTreeSet<Model> = BTreeSet::new();
        for piece in self.pieces.keys() {
            if let Piece::Channel(model, channel) = piece {
                models.insert(*model);
                channels.insert(self.names.text(*channel), *channel);
            }
        }
        let mut rows: Vec<Line<'_>> = Vec::new();
        let touched = self.credit(&Piece::Touched).conversions;
        for (model, name) in MODELS.iter().filter(|(model, _)| models.contains(model)) {
            let untouched = self.credit(&Piece::Channel(*model, NO_NAME)).conversions;
            let all = touched + untouched;
            // Rounded together, so that the money of all channels is the money of all conversions.
            let mut before = 0;
            for (text, channel) in &channels {
                let credit = self.credit(&Piece::Channel(*model, *channel));
                let share = (all > 0).then(|| credit.conversions as f64 / all as f64);
                let value = rounded(before + credit.value) - rounded(before);
                before += credit.value;
                let effect = match model {
                    Model::Markov => effects.get(channel).copied(),
                    _ => None,
                };
                rows.push(Line {
                    channel: *text,
                    model: name,
                    conversions: credit.conversions,
                    value,
                    share,
                    effect,
                });
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.channel).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| Some(r.model)).collect::<StringArray>()),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|r| conversions(r.conversions)),
            )),
            Arc::new(
                Decimal128Array::from_iter_values(rows.iter().map(|r| r.value))
                    .with_precision_and_scale(MONEY.0, MONEY.1)?,
            ),
            Arc::new(rows.iter().map(|r| r.share).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|r| r.effect).collect::<Float64Array>()),
        ];
        let list = listed(answer_fields(), columns, [rows.len()])?;
        ScalarValue::try_from_array(&list, 0)
    }

    fn size(&self) -> usize {
        let piece = size_of::<(Piece, Credit)>() + 2 * size_of::<u32>();
        size_of_val(self) + self.names.bytes() + self.pieces.len() * piece
    }
}

/// Parts of credit as conversions. What division has left to a last touch is not shown.
fn conversions(parts: i128) -> f64 {
    const SHOWN: i128 = 1_000_000_000;
    let to = UNIT / SHOWN;
    ((parts + to / 2) / to) as f64 / SHOWN as f64
}

/// Parts of credit as millionths, halves away from zero.
fn rounded(parts: i128) -> i128 {
    let to = UNIT / 1_000_000;
    (parts.abs() + to / 2) / to * parts.signum()
}
