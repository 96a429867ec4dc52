//! `bgnbd_expected`, `mbgnbd_expected`, `pnbd_expected`, `gg_expected`, `p_alive` and `clv`: what a fit says of one customer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::bgnbd::{self, Variant};
use super::fit::Model;
use super::{gamma_gamma, pnbd};
use crate::BadArgument;

/// Most units of time that a value is discounted over.
const UNITS_MAX: f64 = 1_200.0;

/// How far BG/NBD looks ahead, as a multiple of alpha + t: the series of its answer has more terms the farther it is.
const FURTHEST: f64 = 10_000.0;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prediction {
    /// Purchases within a time to come.
    Expected(Model),
    /// The probability to be alive.
    Alive,
    /// Money within a time to come.
    Value,
}

impl Prediction {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Expected(Model::Bgnbd),
        Self::Expected(Model::Mbgnbd),
        Self::Expected(Model::Pnbd),
        Self::Expected(Model::GammaGamma),
        Self::Alive,
        Self::Value,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Expected(Model::Bgnbd) => "bgnbd_expected",
            Self::Expected(Model::Mbgnbd) => "mbgnbd_expected",
            Self::Expected(Model::Pnbd) => "pnbd_expected",
            Self::Expected(Model::GammaGamma) => "gg_expected",
            Self::Alive => "p_alive",
            Self::Value => "clv",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Expected(Model::GammaGamma) => "gg_expected(fit, x, m)",
            Self::Expected(_) => "(fit, x, t_x, t, horizon), or (fit, horizon) of a new customer",
            Self::Alive => "p_alive(fit, x, t_x, t)",
            Self::Value => "clv(fit, gg_fit, x, t_x, t, m, horizon [, discount a unit of time])",
        }
    }

    /// How many of the first arguments are fits, and how many numbers may follow.
    fn arity(self) -> (usize, &'static [usize]) {
        match self {
            Self::Expected(Model::GammaGamma) => (1, &[2]),
            Self::Expected(_) => (1, &[1, 4]),
            Self::Alive => (1, &[3]),
            Self::Value => (2, &[5, 6]),
        }
    }
}

/// DOUBLE: what the parameters of a fit, as `bgnbd_fit` and its kin give them, say of a customer.
///
/// | function          | meaning                                                                                                  |
/// |-------------------|----------------------------------------------------------------------------------------------------------|
/// | `..._expected`    | purchases expected within `horizon` after `t`; with (fit, horizon) those of a new customer                |
/// | `gg_expected`     | what the customer pays at a time; the mean of all without repeat purchases                                |
/// | `p_alive`         | the probability to be alive, by the model of the fit. In BG/NBD it is 1 without repeat purchases           |
/// | `clv`             | expected purchases times expected payment within `horizon`; with a discount, each unit's at its end         |
///
/// NULL where an argument is NULL. Times are in the unit of the fit.
/// # Errors
/// [`BadArgument`] for what is no fit of the model, and for numbers that no customer has: `x` below 0 or not whole, `t_x` outside of 0 to `t`, a horizon
/// below 0 or, with a discount, above 1,200.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Predict {
    asked: Prediction,
    signature: Signature,
}

impl Predict {
    /// The function, ready to be registered.
    pub fn new(asked: Prediction) -> Self {
        Self { asked, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Predict {
    fn name(&self) -> &str {
        self.asked.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (fits, numbers) = self.asked.arity();
        let is_fit =
            |data_type: &DataType| matches!(data_type, DataType::Struct(_) | DataType::Null);
        let is_number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
        let fits_well = types.len() >= fits
            && numbers.contains(&(types.len() - fits))
            && types[..fits].iter().all(is_fit)
            && types[fits..].iter().all(is_number);
        if !fits_well {
            return Err(BadArgument::err(
                self.asked.name(),
                "arguments",
                format!("what a fit gave and then numbers are needed: {}", self.asked.form()),
            ));
        }
        let coerced = types.iter().enumerate().map(|(at, data_type)| match at < fits {
            true => data_type.clone(),
            false => DataType::Float64,
        });
        Ok(coerced.collect())
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = arrays.first().map_or(0, |array| array.len());
        let (fits, _) = self.asked.arity();
        if arrays[..fits].iter().any(|fit| fit.data_type().is_null()) {
            return Ok(ColumnarValue::Array(Arc::new(Float64Array::new_null(rows))));
        }
        let name = self.asked.name();
        let models = arrays[..fits].iter().map(|fit| Fits::read(name, fit.as_struct()));
        let models = models.collect::<Result<Vec<_>>>()?;
        let numbers: Vec<&Float64Array> =
            arrays[fits..].iter().map(|array| array.as_primitive::<Float64Type>()).collect();
        let mut answers = Float64Array::builder(rows);
        let mut given = Vec::with_capacity(numbers.len());
        for row in 0..rows {
            let is_known = models.iter().all(|model| model.is_known(row))
                && numbers.iter().all(|column| column.is_valid(row));
            if !is_known {
                answers.append_null();
                continue;
            }
            given.clear();
            given.extend(numbers.iter().map(|column| column.value(row)));
            answers.append_value(answer(self.asked, &models, row, &given)?);
        }
        Ok(ColumnarValue::Array(Arc::new(answers.finish())))
    }
}

/// Fits, row by row.
struct Fits {
    models: ArrayRef,
    parameters: Vec<ArrayRef>,
    valid: Option<arrow::buffer::NullBuffer>,
}

/// Parameters of a model of buying, or of spending.
enum Of {
    Bought(Variant, bgnbd::Parameters),
    Pareto(pnbd::Parameters),
    Spent(gamma_gamma::Parameters),
}

impl Fits {
    fn read(function: &'static str, fits: &StructArray) -> Result<Self> {
        let column = |name: &str| -> Option<ArrayRef> { fits.column_by_name(name).map(Arc::clone) };
        let no_fit = || {
            BadArgument::err(
                function,
                "fit",
                "is no record that bgnbd_fit, mbgnbd_fit, pnbd_fit or gg_fit gave".to_owned(),
            )
        };
        let models = column("model").ok_or_else(no_fit)?;
        let models = cast(&models, &DataType::Utf8)?;
        let names = [&Model::Bgnbd, &Model::Pnbd, &Model::GammaGamma]
            .into_iter()
            .map(|model| model.parameters())
            .find(|names| names.iter().all(|name| column(name).is_some()));
        let names = names.ok_or_else(no_fit)?;
        let mut parameters = Vec::new();
        for name in names {
            let values = column(name).ok_or_else(no_fit)?;
            parameters.push(cast(&values, &DataType::Float64)?);
        }
        Ok(Self { models, parameters, valid: fits.nulls().cloned() })
    }

    fn is_known(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.is_valid(row))
            && self.models.is_valid(row)
            && self.parameters.iter().all(|column| column.is_valid(row))
    }

    fn of(&self, function: &'static str, row: usize) -> Result<Of> {
        let value = |at: usize| self.parameters[at].as_primitive::<Float64Type>().value(row);
        let name = self.models.as_string::<i32>().value(row);
        let is_sound =
            (0..self.parameters.len()).all(|at| value(at).is_finite() && value(at) > 0.0);
        let four = || [value(0), value(1), value(2), value(3)];
        let known = Model::ALL.into_iter().find(|model| model.name() == name);
        match (known, self.parameters.len(), is_sound) {
            (Some(Model::Bgnbd), 4, true) => Ok(Of::Bought(Variant::Bg, four())),
            (Some(Model::Mbgnbd), 4, true) => Ok(Of::Bought(Variant::Mbg, four())),
            (Some(Model::Pnbd), 4, true) => Ok(Of::Pareto(four())),
            (Some(Model::GammaGamma), 3, true) => Ok(Of::Spent([value(0), value(1), value(2)])),
            _ => Err(BadArgument::err(
                function,
                "fit",
                format!("is one of model {name:?} with parameters that are not all above 0"),
            )),
        }
    }
}

fn answer(asked: Prediction, models: &[Fits], row: usize, given: &[f64]) -> Result<f64> {
    let name = asked.name();
    let wrong = |argument: &'static str, problem: &str| {
        Err(BadArgument::err(name, argument, problem.to_owned()))
    };
    if given.iter().any(|number| !number.is_finite()) {
        return wrong("arguments", "a value is not a finite number");
    }
    let first = models[0].of(name, row)?;
    let is_count = |x: f64| x >= 0.0 && x.fract() == 0.0;
    let history = |x: f64, t_x: f64, t: f64| match is_count(x) && (0.0..=t).contains(&t_x) {
        true => Ok(()),
        false => {
            wrong("x, t_x, t", "no customer has them: x is a whole number from 0, t_x from 0 to t")
                .map(|_: f64| ())
        }
    };
    match (asked, given) {
        (Prediction::Expected(Model::GammaGamma), &[x, mean]) => match first {
            Of::Spent(parameters) if is_count(x) => Ok(gamma_gamma::expected(&parameters, x, mean)),
            Of::Spent(_) => wrong("x", "is no whole number from 0"),
            _ => wrong("fit", "is not one of gg_fit"),
        },
        (Prediction::Expected(model), &[horizon]) => {
            purchases(name, model, &first, 0.0, 0.0, 0.0, horizon)
        }
        (Prediction::Expected(model), &[x, t_x, t, horizon]) => {
            history(x, t_x, t)?;
            purchases(name, model, &first, x, t_x, t, horizon)
        }
        (Prediction::Alive, &[x, t_x, t]) => {
            history(x, t_x, t)?;
            match first {
                Of::Bought(variant, parameters) => {
                    Ok(bgnbd::p_alive(variant, &parameters, x, t_x, t))
                }
                Of::Pareto(parameters) => Ok(pnbd::p_alive(&parameters, x, t_x, t)),
                Of::Spent(_) => wrong("fit", "is one of gg_fit, which says nothing of being alive"),
            }
        }
        (_, &[x, t_x, t, mean, horizon, ref discount @ ..]) => {
            history(x, t_x, t)?;
            let Of::Spent(spending) = models[1].of(name, row)? else {
                return wrong("gg_fit", "is not one of gg_fit");
            };
            let model = match first {
                Of::Bought(Variant::Bg, _) => Model::Bgnbd,
                Of::Bought(Variant::Mbg, _) => Model::Mbgnbd,
                Of::Pareto(_) => Model::Pnbd,
                Of::Spent(_) => {
                    return wrong("fit", "is one of gg_fit, which says nothing of purchases");
                }
            };
            let payment = gamma_gamma::expected(&spending, x, mean);
            let within = |horizon| purchases(name, model, &first, x, t_x, t, horizon);
            let discount = discount.first().copied().unwrap_or(0.0);
            if discount <= -1.0 {
                return wrong(
                    "discount",
                    "is a share a unit of time, above -1: 0.002 a week is 11 % a year",
                );
            }
            // Who buys nothing pays nothing, whatever the mean of all is.
            if within(horizon)? == 0.0 {
                return Ok(0.0);
            }
            if discount == 0.0 {
                return Ok(within(horizon)? * payment);
            }
            if horizon > UNITS_MAX {
                return wrong("horizon", "with a discount is at most 1200 units of time");
            }
            let (mut value, mut before, mut end) = (0.0, 0.0, 0.0);
            while end < horizon {
                end = (end + 1.0_f64).min(horizon);
                let until = within(end)?;
                value += (until - before) / (1.0 + discount).powf(end);
                before = until;
            }
            Ok(value * payment)
        }
        _ => wrong("arguments", asked.form()),
    }
}

fn purchases(
    name: &'static str,
    model: Model,
    of: &Of,
    x: f64,
    t_x: f64,
    t: f64,
    horizon: f64,
) -> Result<f64> {
    if horizon < 0.0 {
        return Err(BadArgument::err(name, "horizon", "is below 0".to_owned()));
    }
    if horizon == 0.0 {
        return Ok(0.0);
    }
    if let Of::Bought(_, [_, alpha, ..]) = of
        && horizon > FURTHEST * (alpha + t)
    {
        let problem =
            format!("is more than {FURTHEST} times what is known of a customer (alpha + t)");
        return Err(BadArgument::err(name, "horizon", problem));
    }
    match (model, of) {
        (Model::Bgnbd, Of::Bought(variant @ Variant::Bg, parameters))
        | (Model::Mbgnbd, Of::Bought(variant @ Variant::Mbg, parameters)) => {
            Ok(bgnbd::expected(*variant, parameters, x, t_x, t, horizon))
        }
        (Model::Pnbd, Of::Pareto(parameters)) => Ok(pnbd::expected(parameters, x, t_x, t, horizon)),
        _ => Err(BadArgument::err(name, "fit", format!("is not one of {}_fit", model.name()))),
    }
}
