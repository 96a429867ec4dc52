//! `bgnbd_fit`, `mbgnbd_fit`, `pnbd_fit` and `gg_fit`: the parameters under which what customers did is most likely.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use hashbrown::HashMap;

use super::bgnbd::{self, Variant};
use super::gamma_gamma::{self, Spending};
use super::{Alike, pnbd};
use crate::BadArgument;
use crate::funnel::call::true_rows;
use crate::lists::{list_of, lists};
use crate::one_group::{grouped_alone, rows_as_states};

/// Which model is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// BG/NBD.
    Bgnbd,
    /// MBG/NBD.
    Mbgnbd,
    /// Pareto/NBD.
    Pnbd,
    /// Gamma-gamma.
    GammaGamma,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bgnbd, Self::Mbgnbd, Self::Pnbd, Self::GammaGamma];

    /// Its name, which a fit carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bgnbd => "bgnbd",
            Self::Mbgnbd => "mbgnbd",
            Self::Pnbd => "pnbd",
            Self::GammaGamma => "gg",
        }
    }

    fn function(self) -> &'static str {
        match self {
            Self::Bgnbd => "bgnbd_fit",
            Self::Mbgnbd => "mbgnbd_fit",
            Self::Pnbd => "pnbd_fit",
            Self::GammaGamma => "gg_fit",
        }
    }

    /// Names of its parameters.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Bgnbd | Self::Mbgnbd => &["r", "alpha", "a", "b"],
            Self::Pnbd => &["r", "alpha", "s", "beta"],
            Self::GammaGamma => &["p", "q", "gamma"],
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::GammaGamma => &["x", "m"],
            _ => &["x", "t_x", "t"],
        }
    }

    fn fields(self) -> Fields {
        let mut fields = vec![Field::new("model", DataType::Utf8, true)];
        let number = |name: &&str| Field::new(*name, DataType::Float64, true);
        fields.extend(self.parameters().iter().map(number));
        fields.push(Field::new("log_likelihood", DataType::Float64, true));
        fields.push(Field::new("customers", DataType::Int64, true));
        fields.push(Field::new("iterations", DataType::Int32, true));
        fields.push(Field::new("converged", DataType::Boolean, true));
        fields.into()
    }
}

/// A record: model TEXT, the parameters DOUBLE, log_likelihood DOUBLE, customers BIGINT, iterations INT, converged BOOLEAN.
///
/// | function                                | arguments                                                             |
/// |-----------------------------------------|-----------------------------------------------------------------------|
/// | `bgnbd_fit`, `mbgnbd_fit`, `pnbd_fit`   | `x` repeat purchases, `t_x` time of the last after the first, `t` time watched since the first; in one unit |
/// | `gg_fit`                                | `x` repeat purchases, `m` the mean of what they cost                   |
///
/// Rows with a NULL are left out, of `gg_fit` also those with `x` = 0 or `m` <= 0, of whom the model says nothing. NULL without rows.
/// Customers who are alike are counted and computed once; sums are made in one order, so that no partitioning changes a digit. Memory
/// is 32 bytes for each distinct row.
/// # Errors
/// [`BadArgument`] for `x` that is below 0 or not whole, `t_x` outside of 0 to `t`, and what is no finite number.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ModelFit {
    model: Model,
    signature: Signature,
}

impl ModelFit {
    /// The function, ready to be registered.
    pub fn new(model: Model) -> Self {
        Self { model, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ModelFit {
    fn name(&self) -> &str {
        self.model.function()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let names = self.model.arguments();
        if types.len() != names.len() {
            return Err(BadArgument::err(
                self.model.function(),
                "arguments",
                format!("{} are needed: {}", names.len(), names.join(", ")),
            ));
        }
        for (data_type, name) in types.iter().zip(names) {
            if !(data_type.is_numeric() || data_type.is_null()) {
                let problem = format!("is {data_type}; a number is needed");
                return Err(BadArgument::err(self.model.function(), name, problem));
            }
        }
        Ok(vec![DataType::Float64; names.len()])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.model.fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let numbers = self.model.arguments().iter().map(|name| {
            let name = format!("{}[{name}]", args.name);
            Arc::new(Field::new(name, list_of(DataType::Float64), true))
        });
        let counts = format!("{}[customers]", args.name);
        let counts = Arc::new(Field::new(counts, list_of(DataType::Int64), true));
        Ok(numbers.chain([counts]).collect())
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        _args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Counted::new(self.model)))
    }
}

/// A row as bits, by which it is counted.
type Row = [u64; 3];

/// How often each row was seen, by group.
struct Counted {
    model: Model,
    groups: Vec<HashMap<Row, i64>>,
    rows: usize,
}

impl Counted {
    fn new(model: Model) -> Self {
        Self { model, groups: Vec::new(), rows: 0 }
    }

    fn count(&mut self, group: usize, row: Row, customers: i64) {
        let known = self.groups[group].entry(row);
        if let hashbrown::hash_map::Entry::Vacant(_) = known {
            self.rows += 1;
        }
        *known.or_insert(0) += customers;
    }

    /// The row that the model counts; `None` for one that says nothing.
    fn row(&self, values: &[f64]) -> Result<Option<Row>> {
        let wrong = |argument: &'static str, problem: &str| {
            Err(BadArgument::err(self.model.function(), argument, problem.to_owned()))
        };
        if values.iter().any(|value| !value.is_finite()) {
            return wrong("arguments", "a value is not a finite number");
        }
        let x = values[0];
        if x < 0.0 || x.fract() != 0.0 {
            return wrong("x", "is the number of repeat purchases: a whole number from 0");
        }
        if self.model == Model::GammaGamma {
            let is_told = x > 0.0 && values[1] > 0.0;
            return Ok(is_told.then(|| [x.to_bits(), values[1].to_bits(), 0]));
        }
        let (t_x, t) = (values[1], values[2]);
        if !(0.0..=t).contains(&t_x) {
            return wrong("t_x", "is the time from the first purchase to the last: from 0 to t");
        }
        // Who never bought again has no last purchase.
        let t_x = if x == 0.0 { 0.0 } else { t_x };
        Ok(Some([x.to_bits(), (t_x + 0.0).to_bits(), (t + 0.0).to_bits()]))
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<(Row, i64)>> {
        let groups = emit_to.take_needed(&mut self.groups);
        self.rows -= groups.iter().map(HashMap::len).sum::<usize>();
        let sorted = |group: HashMap<Row, i64>| {
            // Numbers that are not below zero are ordered as their bits are.
            let mut rows: Vec<(Row, i64)> = group.into_iter().collect();
            rows.sort_unstable();
            rows
        };
        groups.into_iter().map(sorted).collect()
    }
}

/// What was found for a group.
struct Found {
    parameters: Vec<f64>,
    log_likelihood: f64,
    customers: i64,
    iterations: u32,
    converged: bool,
}

fn found<const N: usize>(fit: super::Fit<N>, customers: i64) -> Found {
    let super::Fit { parameters, log_likelihood, iterations, converged } = fit;
    Found { parameters: parameters.to_vec(), log_likelihood, customers, iterations, converged }
}

fn fitted(model: Model, rows: &[(Row, i64)]) -> Option<Found> {
    let customers = rows.iter().map(|(_, count)| count).sum();
    let alike = |(row, count): &(Row, i64)| Alike {
        x: f64::from_bits(row[0]),
        t_x: f64::from_bits(row[1]),
        t: f64::from_bits(row[2]),
        customers: *count as f64,
    };
    let all = || rows.iter().map(alike).collect::<Vec<_>>();
    match model {
        Model::Bgnbd => bgnbd::fit(Variant::Bg, &all()).map(|fit| found(fit, customers)),
        Model::Mbgnbd => bgnbd::fit(Variant::Mbg, &all()).map(|fit| found(fit, customers)),
        Model::Pnbd => pnbd::fit(&all()).map(|fit| found(fit, customers)),
        Model::GammaGamma => {
            let spending = |(row, count): &(Row, i64)| Spending {
                x: f64::from_bits(row[0]),
                mean: f64::from_bits(row[1]),
                customers: *count as f64,
            };
            let all: Vec<Spending> = rows.iter().map(spending).collect();
            gamma_gamma::fit(&all).map(|fit| found(fit, customers))
        }
    }
}

impl GroupsAccumulator for Counted {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, HashMap::new);
        let columns: Vec<&Float64Array> =
            values.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let kept = opt_filter.map(true_rows);
        let mut numbers = Vec::with_capacity(columns.len());
        for (at, &group) in group_indices.iter().enumerate() {
            let is_known = columns.iter().all(|column| column.is_valid(at));
            if !is_known || kept.as_ref().is_some_and(|kept| !kept.value(at)) {
                continue;
            }
            numbers.clear();
            numbers.extend(columns.iter().map(|column| column.value(at)));
            if let Some(row) = self.row(&numbers)? {
                self.count(group, row, 1);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let model = self.model;
        let all: Vec<Option<Found>> =
            self.take(emit_to).iter().map(|rows| fitted(model, rows)).collect();
        let names = all.iter().map(|fit| fit.as_ref().map(|_| model.name()));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(names.collect::<StringArray>())];
        for at in 0..model.parameters().len() {
            let values = all.iter().map(|fit| fit.as_ref().map(|fit| fit.parameters[at]));
            columns.push(Arc::new(values.collect::<Float64Array>()));
        }
        let ln = all.iter().map(|fit| fit.as_ref().map(|fit| fit.log_likelihood));
        columns.push(Arc::new(ln.collect::<Float64Array>()));
        let customers = all.iter().map(|fit| fit.as_ref().map(|fit| fit.customers));
        columns.push(Arc::new(customers.collect::<Int64Array>()));
        let steps = all.iter().map(|fit| fit.as_ref().map(|fit| fit.iterations as i32));
        columns.push(Arc::new(steps.collect::<Int32Array>()));
        let converged = all.iter().map(|fit| fit.as_ref().map(|fit| fit.converged));
        columns.push(Arc::new(converged.collect::<BooleanArray>()));
        let valid: Vec<bool> = all.iter().map(Option::is_some).collect();
        Ok(Arc::new(StructArray::try_new(model.fields(), columns, Some(valid.into()))?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let lengths = || groups.iter().map(Vec::len);
        let rows = || groups.iter().flatten();
        let mut columns = Vec::new();
        for at in 0..self.model.arguments().len() {
            let numbers = rows().map(|(row, _)| f64::from_bits(row[at]));
            columns.push(lists(Arc::new(Float64Array::from_iter_values(numbers)), lengths())?);
        }
        let counts = rows().map(|(_, count)| *count);
        columns.push(lists(Arc::new(Int64Array::from_iter_values(counts)), lengths())?);
        Ok(columns)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, HashMap::new);
        for (at, &group) in group_indices.iter().enumerate() {
            let lists: Vec<ArrayRef> =
                values.iter().map(|column| column.as_list::<i32>().value(at)).collect();
            let Some((counts, numbers)) = lists.split_last() else { continue };
            let counts = counts.as_primitive::<Int64Type>();
            for item in 0..counts.len() {
                let mut row = [0; 3];
                for (place, column) in row.iter_mut().zip(numbers) {
                    *place = column.as_primitive::<Float64Type>().value(item).to_bits();
                }
                self.count(group, row, counts.value(item));
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        rows_as_states(Self::new(self.model), values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<HashMap<Row, i64>>()
            // A map keeps an eighth of its places free, and doubles.
            + self.rows * 2 * size_of::<(Row, i64)>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    /// The same digits however rows are split, ordered, merged and filtered.
    #[test]
    fn a_fit_is_the_same_however_it_is_run() {
        for fit in ["bgnbd_fit(k - 1, 2.0 * (k - 1), 10.0 + k)", "gg_fit(k, 10.0 + k)"] {
            AggregateCase::new(fit).agrees_however_it_is_run();
        }
    }
}
