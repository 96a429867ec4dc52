//! SQL type names as PostgreSQL means them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo};

/// Types that DataFusion reads otherwise or not at all.
///
/// Timestamps are microseconds: nanoseconds end in 2262 and nothing stored here has them. Names of texts are text; oid and
/// its kin are numbers.
#[derive(Debug)]
pub(super) struct PgTypes;

impl TypePlanner for PgTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let utc = || Some("UTC".into());
        let data_type = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
                DataType::Timestamp(TimeUnit::Microsecond, utc())
            }
            SqlType::Datetime(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::CharacterVarying(_)
            | SqlType::Character(_)
            | SqlType::Uuid
            | SqlType::JSON
            | SqlType::JSONB => DataType::Utf8View,
            SqlType::Regclass => DataType::Utf8View,
            // FLOAT(p) counts bits; without them it is of double precision.
            SqlType::Float(ExactNumberInfo::Precision(bits)) if *bits <= 24 => DataType::Float32,
            SqlType::Float(_) => DataType::Float64,
            SqlType::Custom(name, _) => {
                let name =
                    name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.to_lowercase());
                match name.as_deref() {
                    Some("oid" | "xid" | "regproc") => DataType::Int64,
                    Some(
                        "name" | "citext" | "regtype" | "regnamespace" | "bpchar" | "text"
                        | "jsonpath",
                    ) => DataType::Utf8View,
                    Some("int2") => DataType::Int16,
                    Some("int4") => DataType::Int32,
                    Some("int8") => DataType::Int64,
                    Some("bool") => DataType::Boolean,
                    Some("float8") => DataType::Float64,
                    Some("timestamptz") => DataType::Timestamp(TimeUnit::Microsecond, utc()),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
