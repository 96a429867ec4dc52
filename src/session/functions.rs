//! Functions that answer from the session or the catalogue rather than from rows.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::settings::{SERVER_VERSION, Settings};
use crate::catalog::pg_catalog::{described, format_type, own_function, relation_oid, type_oid};
use crate::catalog::{DATABASE, DEFAULT_SCHEMA, Pinned};
use crate::error::no_day;
use crate::identity;
use crate::store::FunctionDef;

type Body = Arc<dyn Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync>;

/// A function of any arguments that is computed row by row: catalogues are small.
struct RowFunction {
    name: &'static str,
    returns: DataType,
    signature: Signature,
    body: Body,
}

impl RowFunction {
    fn udf(
        name: &'static str,
        returns: DataType,
        body: impl Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync + 'static,
    ) -> ScalarUDF {
        let any_number = datafusion::logical_expr::TypeSignature::OneOf(vec![
            datafusion::logical_expr::TypeSignature::Nullary,
            datafusion::logical_expr::TypeSignature::VariadicAny,
        ]);
        let signature = Signature::new(any_number, Volatility::Stable);
        ScalarUDF::from(Self { name, returns, signature, body: Arc::new(body) })
    }

    fn text(
        name: &'static str,
        body: impl Fn(&[ScalarValue]) -> Option<String> + Send + Sync + 'static,
    ) -> ScalarUDF {
        Self::udf(name, DataType::Utf8, move |args| Ok(ScalarValue::Utf8(body(args))))
    }

    fn boolean(
        name: &'static str,
        body: impl Fn(&[ScalarValue]) -> bool + Send + Sync + 'static,
    ) -> ScalarUDF {
        Self::udf(name, DataType::Boolean, move |args| Ok(ScalarValue::Boolean(Some(body(args)))))
    }

    fn bigint(
        name: &'static str,
        body: impl Fn(&[ScalarValue]) -> Option<i64> + Send + Sync + 'static,
    ) -> ScalarUDF {
        Self::udf(name, DataType::Int64, move |args| Ok(ScalarValue::Int64(body(args))))
    }
}

// A function is known by its name; the body belongs to one statement, whose plans are not shared.
impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for RowFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let mut answers = Vec::with_capacity(rows);
        for row in 0..rows {
            let values = args.args.iter().map(|arg| match arg {
                ColumnarValue::Scalar(value) => Ok(value.clone()),
                ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
            });
            answers.push((self.body)(&values.collect::<Result<Vec<_>>>()?)?);
        }
        match (is_constant, answers.pop()) {
            (true, Some(answer)) => Ok(ColumnarValue::Scalar(answer)),
            (_, None) => Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns))),
            (false, Some(last)) => {
                answers.push(last);
                Ok(ColumnarValue::Array(ScalarValue::iter_to_array(answers)?))
            }
        }
    }
}

fn text_of(value: Option<&ScalarValue>) -> Option<String> {
    value?.try_as_str().flatten().map(str::to_owned)
}

fn number_of(value: Option<&ScalarValue>) -> Option<i64> {
    let value = value?;
    if let Some(text) = text_of(Some(value)) {
        return text.parse().ok();
    }
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// What PostgreSQL's `version()` would say for the version we answer as.
pub(super) fn version_text() -> String {
    format!(
        "PostgreSQL {SERVER_VERSION} on clientele {}, a columnar warehouse, 64-bit",
        env!("CARGO_PKG_VERSION")
    )
}

/// The functions of one statement.
pub(super) fn session_functions(
    user: &str,
    settings: &Settings,
    pinned: &Arc<Pinned>,
) -> Vec<ScalarUDF> {
    let mut functions = about_session(user, settings);
    functions.extend(about_catalogue(pinned));
    functions
}

/// Functions that answer the same in every session; the engine registers them once.
pub(super) fn fixed_functions() -> Vec<ScalarUDF> {
    let mut functions = about_nothing_here();
    functions.push(RowFunction::text("format_type", |args| {
        Some(format_type(number_of(args.first())?, number_of(args.get(1)).map(|t| t as i32)))
    }));
    functions
        .push(RowFunction::text("pg_size_pretty", |args| number_of(args.first()).map(size_pretty)));
    functions
}

fn about_session(user: &str, settings: &Settings) -> Vec<ScalarUDF> {
    let say = |name, text: String| RowFunction::text(name, move |_| Some(text.clone()));
    let kept = settings.clone();
    vec![
        say("version", version_text()),
        say("current_user", user.to_owned()),
        say("session_user", user.to_owned()),
        say("user", user.to_owned()),
        say("current_role", user.to_owned()),
        say("current_database", DATABASE.to_owned()),
        say("current_catalog", DATABASE.to_owned()),
        say("current_schema", "public".to_owned()),
        RowFunction::udf("current_schemas", list_of_text(), |_| {
            let schemas = ["pg_catalog", "public"].map(ScalarValue::from);
            Ok(ScalarValue::List(ScalarValue::new_list_nullable(&schemas, &DataType::Utf8)))
        }),
        RowFunction::udf("current_setting", DataType::Utf8, move |args| {
            let name = text_of(args.first()).unwrap_or_default();
            match kept.show(&name) {
                Ok((_, value)) => Ok(ScalarValue::Utf8(Some(value))),
                Err(_) if matches!(args.get(1), Some(ScalarValue::Boolean(Some(true)))) => {
                    Ok(ScalarValue::Utf8(None))
                }
                Err(error) => Err(error.into()),
            }
        }),
        day_of_report("report_asof", settings.as_of()),
        day_of_report("report_to", settings.as_of()),
        day_of_report("report_from", settings.report_from()),
        RowFunction::bigint("pg_backend_pid", |_| Some(i64::from(std::process::id()))),
        RowFunction::boolean("pg_is_in_recovery", |_| false),
        RowFunction::bigint("txid_current", |_| Some(1)),
    ]
}

/// The day that a report speaks for, or the first or last one of its period.
fn day_of_report(name: &'static str, day: Option<chrono::NaiveDate>) -> ScalarUDF {
    RowFunction::udf(name, DataType::Date32, move |_| match day {
        Some(day) => {
            Ok(ScalarValue::Date32(Some((day - chrono::NaiveDate::default()).num_days() as i32)))
        }
        None => Err(no_day(name).into()),
    })
}

/// `oneid_hash(type, value, scope)`: what `oneid()` looks for.
pub(super) fn oneid_hash(key: [u8; 32]) -> ScalarUDF {
    RowFunction::bigint("oneid_hash", move |args| {
        let text = |at: usize| {
            let value = args.get(at)?;
            text_of(Some(value)).or_else(|| number_of(Some(value)).map(|n| n.to_string()))
        };
        identity::lookup_hash(&key, &text(0)?, &text(1)?, text(2).as_deref())
    })
}

/// `set_config(name, value, is_local)`: SET as a function, which some drivers call.
pub(super) fn set_config(settings: &Arc<Mutex<Settings>>) -> ScalarUDF {
    let settings = Arc::clone(settings);
    RowFunction::udf("set_config", DataType::Utf8, move |args| {
        let (Some(name), value) = (text_of(args.first()), text_of(args.get(1))) else {
            return Ok(ScalarValue::Utf8(None));
        };
        if name.eq_ignore_ascii_case("transaction_read_only") {
            return Err(crate::error::Error::not_supported(
                "set_config does not set what a transaction is",
            )
            .hint("SET TRANSACTION READ ONLY, or default_transaction_read_only")
            .into());
        }
        let mut settings = settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.set(&name, value.as_deref())?;
        Ok(ScalarValue::Utf8(Some(settings.show(&name)?.1)))
    })
}

fn list_of_text() -> DataType {
    DataType::List(Arc::new(arrow::datatypes::Field::new_list_field(DataType::Utf8, true)))
}

fn about_catalogue(pinned: &Arc<Pinned>) -> Vec<ScalarUDF> {
    let (views, classes, names, sizes) =
        (Arc::clone(pinned), Arc::clone(pinned), Arc::clone(pinned), Arc::clone(pinned));
    let user = pinned.user().to_owned();
    vec![
        RowFunction::text("pg_get_userbyid", move |_| Some(user.clone())),
        RowFunction::text("pg_get_viewdef", move |args| {
            let oid = number_of(args.first());
            let name = text_of(args.first());
            let is_meant = |d: &&crate::catalog::pg_catalog::Described| {
                Some(relation_oid(&d.name)) == oid || name.as_deref() == Some(d.name.table.as_str())
            };
            described(&views)
                .iter()
                .find(is_meant)
                .and_then(|d| d.sql.clone())
                .map(|sql| format!("{sql};"))
        }),
        // 'name'::regclass as a number, and a number's name.
        RowFunction::bigint("regclass_oid", {
            let classes = Arc::clone(&classes);
            move |args| oid_of_relation(&classes, &text_of(args.first())?)
        }),
        RowFunction::bigint("to_regclass", move |args| {
            oid_of_relation(&classes, &text_of(args.first())?)
        }),
        RowFunction::bigint("to_regtype", |args| type_oid(&text_of(args.first())?)),
        // Found without its schema's name; what is not among the relations is of the catalogue, and always is.
        RowFunction::boolean("pg_table_is_visible", {
            let (pinned, hidden) = (Arc::clone(pinned), OnceLock::<HashSet<i64>>::new());
            move |args| {
                let hidden = hidden.get_or_init(|| {
                    let names = pinned.relations().keys();
                    names.filter(|name| name.schema != DEFAULT_SCHEMA).map(relation_oid).collect()
                });
                number_of(args.first()).is_some_and(|oid| !hidden.contains(&oid))
            }
        }),
        RowFunction::text("regclass_name", move |args| {
            let oid = number_of(args.first())?;
            let all = described(&names);
            let found = all.iter().find(|d| relation_oid(&d.name) == oid);
            Some(found.map_or_else(|| oid.to_string(), |d| d.name.to_string()))
        }),
        RowFunction::bigint("pg_table_size", {
            let pinned = Arc::clone(pinned);
            move |args| size_of_relation(&pinned, number_of(args.first()))
        }),
        RowFunction::bigint("pg_total_relation_size", move |args| {
            size_of_relation(&sizes, number_of(args.first()))
        }),
        about_own_function(pinned, "pg_get_function_result", FunctionDef::result_text),
        about_own_function(pinned, "pg_get_function_arguments", FunctionDef::arguments_text),
        about_own_function(
            pinned,
            "pg_get_function_identity_arguments",
            FunctionDef::arguments_text,
        ),
        RowFunction::bigint("pg_database_size", {
            let pinned = Arc::clone(pinned);
            move |_| Some(described(&pinned).iter().map(|d| d.bytes as i64).sum())
        }),
    ]
}

/// The number of a relation by its name, with or without its schema.
fn oid_of_relation(pinned: &Pinned, name: &str) -> Option<i64> {
    if let Ok(oid) = name.parse() {
        return Some(oid);
    }
    let (schema, table) = match name.rsplit_once('.') {
        Some((schema, table)) => (Some(schema.trim_matches('"')), table),
        None => (None, name),
    };
    let table = table.trim_matches('"');
    let all = described(pinned);
    let is_it = |d: &&crate::catalog::pg_catalog::Described| {
        d.name.table == table && schema.is_none_or(|schema| d.name.schema == schema)
    };
    all.iter().find(is_it).map(|d| relation_oid(&d.name))
}

/// What a function that a user wrote says of itself; of ours nothing is said.
fn about_own_function(
    pinned: &Arc<Pinned>,
    name: &'static str,
    say: fn(&FunctionDef) -> String,
) -> ScalarUDF {
    let pinned = Arc::clone(pinned);
    RowFunction::text(name, move |args| own_function(&pinned, number_of(args.first())?).map(say))
}

fn size_of_relation(pinned: &Pinned, oid: Option<i64>) -> Option<i64> {
    described(pinned).iter().find(|d| Some(relation_oid(&d.name)) == oid).map(|d| d.bytes as i64)
}

fn size_pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.abs() < 10_240 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{size} TB")
}

/// Functions that clients call about things that do not exist here: comments, constraints, privileges of others.
fn about_nothing_here() -> Vec<ScalarUDF> {
    let mut functions = Vec::new();
    for name in [
        "obj_description",
        "col_description",
        "shobj_description",
        "pg_get_expr",
        "pg_get_indexdef",
        "pg_get_constraintdef",
        "pg_get_triggerdef",
        "pg_get_ruledef",
        "pg_get_serial_sequence",
        "pg_get_partkeydef",
        "pg_tablespace_location",
        "pg_get_statisticsobjdef_columns",
    ] {
        functions.push(RowFunction::text(name, |_| None));
    }
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_opclass_is_visible",
        "pg_conversion_is_visible",
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_column_privilege",
        "has_any_column_privilege",
        "has_function_privilege",
        "pg_has_role",
    ] {
        functions.push(RowFunction::boolean(name, |_| true));
    }
    for name in ["pg_relation_is_publishable", "pg_is_other_temp_schema"] {
        functions.push(RowFunction::boolean(name, |_| false));
    }
    functions.push(RowFunction::text("pg_encoding_to_char", |_| Some("UTF8".to_owned())));
    functions.push(RowFunction::text("pg_client_encoding", |_| Some("UTF8".to_owned())));
    functions.push(RowFunction::text("pg_advisory_unlock_all", |_| Some(String::new())));
    functions
}
