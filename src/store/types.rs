//! Which Arrow types a table can keep, and what becomes of the others.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::cluster::ONE_ID;
use super::erased::RECORD;
use crate::error::{Error, Kind, Result};

/// The stored form of a type: instants in UTC microseconds, text as text, unsigned numbers widened to signed ones.
fn stored_type(column: &str, arrow: &DataType) -> Result<DataType> {
    let nested = |field: &FieldRef, name: &str| -> Result<FieldRef> {
        Ok(Arc::new(Field::new(name, stored_type(column, field.data_type())?, true)))
    };
    Ok(match arrow {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            DataType::Utf8
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Boolean => DataType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => DataType::Int16,
        DataType::Int32 | DataType::UInt16 => DataType::Int32,
        DataType::Int64 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 | DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
            if *s >= 0 =>
        {
            DataType::Decimal128(*p, *s)
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Dictionary(_, value) => stored_type(column, value)?,
        // "element" is Delta's name for the items of a list.
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f) => DataType::List(nested(f, "element")?),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|f| nested(f, f.name())).collect::<Result<_>>()?)
        }
        other => {
            return Err(Error::new(
                Kind::NotSupported,
                format!("column {column:?} has the type {other}, which a table cannot keep"),
            )
            .hint("cast it to text, a number, a date or a timestamp"));
        }
    })
}

/// The stored form of a schema: every column nullable, no metadata.
pub fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let field =
        |f: &FieldRef| Ok(Field::new(f.name(), stored_type(f.name(), f.data_type())?, true));
    let fields = schema.fields().iter().map(field).collect::<Result<Vec<_>>>()?;
    let mut seen = std::collections::HashSet::new();
    for field in &fields {
        if field.name().eq_ignore_ascii_case(ONE_ID) {
            return Err(Error::new(
                Kind::DuplicateColumn,
                format!("column \"{ONE_ID}\" is the warehouse's own, in tables that are kept by customer"),
            )
            .hint("give it another name: one_id"));
        }
        if !seen.insert(field.name().to_lowercase()) {
            return Err(Error::new(
                Kind::DuplicateColumn,
                format!("column {:?} is named twice", field.name()),
            )
            .detail("names that differ only in case count as one"));
        }
    }
    refuse_hidden_record(fields.iter().map(|field| field.name().as_str()))?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses columns that name a record in another case than that in which erasures and identities look for them.
pub fn refuse_hidden_record<'a>(columns: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let like = |known: &str| columns.clone().find(|name| name.eq_ignore_ascii_case(known));
    let [Some(source), Some(record)] = RECORD.map(like) else { return Ok(()) };
    let names = [source, record];
    if names == RECORD {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidParameter,
        format!("columns {:?} and {:?} name a record, in capitals", names[0], names[1]),
    )
    .detail("an erasure would not find its rows")
    .hint("call them source and record_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_what_a_table_keeps() {
        let stored = |t| stored_type("c", &t).unwrap();
        assert_eq!(stored(DataType::UInt64), DataType::Decimal128(20, 0));
        assert_eq!(
            stored(DataType::Timestamp(TimeUnit::Nanosecond, Some("+08:00".into()))),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
        assert_eq!(
            stored(DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8))),
            DataType::Utf8
        );
        let error = stored_type("t", &DataType::Duration(TimeUnit::Second)).unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
    }

    #[test]
    fn names_that_differ_in_case_are_one_column() {
        let field = |name| Field::new(name, DataType::Int64, true);
        let error = stored_schema(&Schema::new(vec![field(ONE_ID)])).unwrap_err();
        assert_eq!(error.sqlstate(), "42701");
        let error = stored_schema(&Schema::new(vec![field("id"), field("ID")])).unwrap_err();
        assert_eq!(error.sqlstate(), "42701");
        let record = |source, id| stored_schema(&Schema::new(vec![field(source), field(id)]));
        assert!(record("source", "record_id").is_ok() && record("Source", "n").is_ok());
        assert_eq!(record("source", "Record_ID").unwrap_err().sqlstate(), "22023");
    }
}
