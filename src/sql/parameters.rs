//! `$1`, `$2`, ...: their types, and their values as literals.
//!
//! A statement is planned twice: with placeholders, to describe it, and again when values are bound, with the values in
//! their places. The second plan can then depend on a value (a funnel's steps, a LIMIT), and nothing is cast behind the
//! user's back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use clientele_tree::{Node, NodeMut, Tree};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Array as SqlArray, ArrayElemTypeDef, CastKind, DataType as SqlType, ExactNumberInfo, Expr,
    FunctionArg, FunctionArgExpr, LimitClause, Query, TableFactor, TimezoneInfo, Value,
};

use super::OutputColumn;
use crate::catalog::pg_catalog::PG_TYPE;
use crate::error::{Error, Kind, Result};

/// What a statement takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<DataType>,
    /// Columns, when it gives rows.
    pub columns: Option<Vec<OutputColumn>>,
}

/// Most parameters of a statement, as in PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;

/// Types that the text of a statement tells, and how many parameters there are.
pub(super) fn hinted(
    statement: &impl Tree,
    declared: &[Option<DataType>],
) -> Result<Vec<Option<DataType>>> {
    let mut finder = Finder { types: BTreeMap::new(), problem: None };
    statement.each(|node| match node {
        Node::Expr(expr) => finder.note_expr(expr),
        Node::Query(query) => finder.note_limit(query),
        Node::Factor(factor) => finder.note_arguments(factor),
        Node::Relation(_) => {}
    });
    if let Some(problem) = finder.problem {
        return Err(problem);
    }
    let count = finder.types.keys().max().map_or(0, |n| n + 1).max(declared.len());
    let hint = |i: usize| {
        declared.get(i).cloned().flatten().or_else(|| finder.types.get(&i).cloned().flatten())
    };
    Ok((0..count).map(hint).collect())
}

struct Finder {
    /// By position from 0; the type where the text tells one.
    types: BTreeMap<usize, Option<DataType>>,
    problem: Option<Error>,
}

impl Finder {
    fn note(&mut self, expr: &Expr, data_type: Option<DataType>) {
        let Expr::Value(value) = expr else { return };
        let Value::Placeholder(name) = &value.value else { return };
        match position(name) {
            Ok(at) => {
                let known = self.types.entry(at).or_default();
                if known.is_none() {
                    *known = data_type;
                }
            }
            Err(error) => self.problem = Some(error),
        }
    }

    fn note_expr(&mut self, expr: &Expr) {
        if let Expr::Cast { expr, data_type, .. } = expr {
            self.note(expr, arrow_type(data_type));
        }
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr {
            self.note(right, Some(list_of(DataType::Utf8)));
        }
        self.note(expr, None);
    }

    fn note_limit(&mut self, query: &Query) {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
            for expr in limit.iter().chain(offset.iter().map(|o| &o.value)) {
                self.note(expr, Some(DataType::Int64));
            }
        }
    }

    fn note_arguments(&mut self, factor: &TableFactor) {
        if let TableFactor::Table { args: Some(args), .. } = factor {
            for arg in &args.args {
                if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } = arg {
                    self.note(expr, Some(argument_type(&name.value.to_lowercase())));
                }
            }
        }
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// Types of the named arguments of our table functions.
fn argument_type(name: &str) -> DataType {
    match name {
        "steps" | "cancelled" => list_of(DataType::Utf8),
        "window_days" | "bins" | "periods" => DataType::Int64,
        "as_of" | "from" | "to" => DataType::Date32,
        "window" => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => DataType::Utf8,
    }
}

fn position(name: &str) -> Result<usize> {
    match name.trim_start_matches('$').parse::<usize>() {
        Ok(n @ 1..=PARAMETERS_MAX) => Ok(n - 1),
        _ => Err(Error::new(Kind::Syntax, format!("there is no parameter {name}"))
            .detail(format!("parameters are $1 to ${PARAMETERS_MAX}"))),
    }
}

/// The fields under which the planner is told of declared types.
pub(super) fn fields(types: &[Option<DataType>]) -> Vec<Option<FieldRef>> {
    types.iter().map(|t| t.clone().map(|t| Arc::new(Field::new("", t, true)) as FieldRef)).collect()
}

/// Puts values into the places of the parameters.
pub(super) fn bind(statement: &mut impl Tree, values: &[Expr]) -> Result<()> {
    statement.change(|node| {
        let NodeMut::Expr(expr) = node else { return Ok(()) };
        let Expr::Value(value) = expr else { return Ok(()) };
        let Value::Placeholder(name) = &value.value else { return Ok(()) };
        let at = position(name)?;
        let Some(value) = values.get(at) else {
            return Err(Error::new(Kind::Protocol, format!("parameter ${} has no value", at + 1)));
        };
        *expr = value.clone();
        Ok(())
    })
}

/// The type that PREPARE declares a parameter with; `unknown` leaves it to the statement.
pub fn declared_type(text: &str) -> Result<Option<DataType>> {
    if text.trim().eq_ignore_ascii_case("unknown") {
        return Ok(None);
    }
    let bad =
        || Error::new(Kind::UndefinedObject, format!("type \"{}\" does not exist", text.trim()));
    let cast = crate::dialect::parse_expression(&format!("CAST(NULL AS {text})"));
    match cast.map_err(|_| bad())? {
        Expr::Cast { data_type, .. } => arrow_type(&data_type).map(Some).ok_or_else(bad),
        _ => Err(bad()),
    }
}

/// A value that has the type of its parameter.
pub fn typed(value: Expr, data_type: &DataType) -> Expr {
    match sql_type(data_type) {
        Some(sql_type) => cast(value, sql_type),
        None => value,
    }
}

/// A value as the literal that means it, type included.
pub fn literal_of(value: &ScalarValue) -> Result<Expr> {
    let text = |text: String| Expr::Value(Value::SingleQuotedString(text).into());
    let number = |digits: String| {
        let negative = digits.strip_prefix('-').map(str::to_owned);
        let positive = Expr::Value(Value::Number(negative.clone().unwrap_or(digits), false).into());
        match negative {
            Some(_) => Expr::Nested(Box::new(Expr::UnaryOp {
                op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus,
                expr: Box::new(positive),
            })),
            None => positive,
        }
    };
    if value.is_null() {
        let null = Expr::Value(Value::Null.into());
        return Ok(match sql_type(&value.data_type()) {
            Some(data_type) => cast(null, data_type),
            None => null,
        });
    }
    Ok(match value {
        ScalarValue::Boolean(Some(b)) => Expr::Value(Value::Boolean(*b).into()),
        // i64::MIN has no positive twin, so it goes through text.
        ScalarValue::Int64(Some(n)) if *n == i64::MIN => {
            cast(text(n.to_string()), SqlType::BigInt(None))
        }
        ScalarValue::Int16(Some(n)) => cast(number(n.to_string()), SqlType::SmallInt(None)),
        ScalarValue::Int32(Some(n)) => cast(number(n.to_string()), SqlType::Integer(None)),
        ScalarValue::Int64(Some(n)) => number(n.to_string()),
        ScalarValue::Float32(Some(_)) | ScalarValue::Float64(Some(_)) => {
            cast(text(value.to_string()), SqlType::DoublePrecision)
        }
        ScalarValue::Decimal128(Some(_), _, _) => number(decimal_text(value)),
        ScalarValue::Utf8(Some(s))
        | ScalarValue::Utf8View(Some(s))
        | ScalarValue::LargeUtf8(Some(s)) => text(s.clone()),
        ScalarValue::Binary(Some(b)) => Expr::Value(
            Value::HexStringLiteral(b.iter().map(|byte| format!("{byte:02x}")).collect()).into(),
        ),
        ScalarValue::List(list) => {
            let elements = list.value(0);
            let element = |row| literal_of(&ScalarValue::try_from_array(&elements, row)?);
            let elem = (0..elements.len()).map(element).collect::<Result<Vec<_>>>()?;
            Expr::Array(SqlArray { elem, named: true })
        }
        ScalarValue::Date32(_)
        | ScalarValue::TimestampMicrosecond(..)
        | ScalarValue::IntervalMonthDayNano(_) => {
            let Some(data_type) = sql_type(&value.data_type()) else {
                return Err(Error::internal("a time has a type"));
            };
            cast(text(time_text(value)?), data_type)
        }
        other => {
            return Err(Error::not_supported(format!(
                "a parameter of type {} is not supported",
                other.data_type()
            )));
        }
    })
}

fn decimal_text(value: &ScalarValue) -> String {
    value
        .to_array()
        .ok()
        .and_then(|a| arrow::util::display::array_value_to_string(&a, 0).ok())
        .unwrap_or_default()
}

fn time_text(value: &ScalarValue) -> Result<String> {
    if let ScalarValue::IntervalMonthDayNano(Some(i)) = value {
        return Ok(format!(
            "{} months {} days {} microseconds",
            i.months,
            i.days,
            i.nanoseconds / 1000
        ));
    }
    let array = value.to_array()?;
    Ok(arrow::util::display::array_value_to_string(&array, 0)?)
}

fn cast(expr: Expr, data_type: SqlType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, format: None, array: false }
}

fn sql_type(data_type: &DataType) -> Option<SqlType> {
    Some(match data_type {
        DataType::Boolean => SqlType::Boolean,
        DataType::Int16 => SqlType::SmallInt(None),
        DataType::Int32 => SqlType::Integer(None),
        DataType::Int64 => SqlType::BigInt(None),
        DataType::Float32 => SqlType::Real,
        DataType::Float64 => SqlType::DoublePrecision,
        DataType::Utf8 | DataType::Utf8View => SqlType::Text,
        DataType::Decimal128(p, s) => {
            SqlType::Decimal(ExactNumberInfo::PrecisionAndScale(u64::from(*p), i64::from(*s)))
        }
        DataType::Date32 => SqlType::Date,
        DataType::Timestamp(_, None) => SqlType::Timestamp(None, TimezoneInfo::WithoutTimeZone),
        DataType::Timestamp(_, Some(_)) => SqlType::Timestamp(None, TimezoneInfo::WithTimeZone),
        DataType::Interval(_) => SqlType::Interval { fields: None, precision: None },
        _ => return None,
    })
}

/// The engine's type of a type in the text, for the types that parameters are cast to.
fn arrow_type(sql_type: &SqlType) -> Option<DataType> {
    let micros = |zone| Some(DataType::Timestamp(TimeUnit::Microsecond, zone));
    match sql_type {
        SqlType::SmallInt(_) | SqlType::Int2(_) => Some(DataType::Int16),
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => Some(DataType::Int32),
        SqlType::BigInt(_) | SqlType::Int8(_) => Some(DataType::Int64),
        SqlType::Text | SqlType::Varchar(_) | SqlType::CharacterVarying(_) | SqlType::Char(_) => {
            Some(DataType::Utf8)
        }
        SqlType::Boolean | SqlType::Bool => Some(DataType::Boolean),
        SqlType::Date => Some(DataType::Date32),
        SqlType::Interval { .. } => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
        SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => micros(None),
        SqlType::Timestamp(_, _) => micros(Some("UTC".into())),
        SqlType::Real | SqlType::Float4 => Some(DataType::Float32),
        SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float(_) | SqlType::Double(_) => {
            Some(DataType::Float64)
        }
        SqlType::Numeric(_) | SqlType::Decimal(_) => Some(DataType::Decimal128(38, 10)),
        SqlType::Array(
            ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item),
        ) if item.to_string().eq_ignore_ascii_case("oid") => {
            // Drivers know the ids of these before they know of any other array.
            let item = Field::new_list_field(DataType::Int64, true);
            let named = [(PG_TYPE.to_owned(), "oid".to_owned())];
            Some(DataType::List(Arc::new(item.with_metadata(named.into()))))
        }
        SqlType::Array(
            ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item),
        ) => Some(list_of(arrow_type(item)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{parse_statement, tokenize};

    #[test]
    fn values_become_literals_that_mean_them() {
        let text = |v: ScalarValue| literal_of(&v).unwrap().to_string();
        assert_eq!(text(ScalarValue::Int64(Some(-5))), "(-5)");
        assert_eq!(text(ScalarValue::Utf8(Some("it's".into()))), "'it''s'");
        assert_eq!(text(ScalarValue::Int64(None)), "CAST(NULL AS BIGINT)");
        assert_eq!(text(ScalarValue::Date32(Some(0))), "CAST('1970-01-01' AS DATE)");
        assert_eq!(text(ScalarValue::Decimal128(Some(-150), 10, 2)), "(-1.50)");
    }

    #[test]
    fn the_text_tells_types_and_values_take_their_places() {
        let sql = "SELECT $2::int, x FROM f(t, steps => $3) WHERE x = $1 LIMIT $4";
        let mut statement = parse_statement(tokenize(sql).unwrap()).unwrap();
        let types = hinted(&statement, &[Some(DataType::Utf8)]).unwrap();
        assert_eq!(types[0], Some(DataType::Utf8));
        assert_eq!(types[1], Some(DataType::Int32));
        assert!(matches!(types[2], Some(DataType::List(_))));
        assert_eq!(types[3], Some(DataType::Int64));
        let one = || literal_of(&ScalarValue::Int64(Some(1))).unwrap();
        assert_eq!(bind(&mut statement.clone(), &[one()]).unwrap_err().sqlstate(), "08P01");
        bind(&mut statement, &[one(), one(), one(), one()]).unwrap();
        assert!(!statement.to_string().contains('$'), "{statement}");
    }
}
