//! Parquet files, cast to the table's types.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, RecordBatch, StringArray,
    new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc::Sender;

use super::convert::{BadRow, column_of_texts};
use super::{BATCH_ROWS, Chunk, Wanted};
use crate::error::{Error, Kind, Result};

/// The Arrow schema of a Parquet file.
///
/// # Errors
/// 0A000 for a column of records.
pub(super) fn schema_of(file: File) -> Result<SchemaRef> {
    let schema = Arc::clone(ParquetRecordBatchReaderBuilder::try_new(file)?.schema());
    let is_record =
        |of: &DataType| matches!(of, DataType::Struct(_) | DataType::Map(..) | DataType::Union(..));
    match schema.fields().iter().find(|field| is_record(field.data_type())) {
        None => Ok(schema),
        Some(field) => Err(Error::new(
            Kind::NotSupported,
            format!("column \"{}\" holds records, which a load cannot take", field.name()),
        )
        .hint("give each field a column of its own, or write it as JSON text")),
    }
}

/// Reads a Parquet file and sends the rows that are wanted. A column that is missing is NULL.
pub(super) fn read(file: File, wanted: &Wanted, sender: &Sender<Result<Chunk>>) {
    if let Err(error) = read_batches(file, wanted, sender) {
        let _ = sender.blocking_send(Err(error));
    }
}

fn read_batches(file: File, wanted: &Wanted, sender: &Sender<Result<Chunk>>) -> Result<()> {
    let bytes = file.metadata()?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS);
    let rows_total = builder.metadata().file_metadata().num_rows().max(1) as u64;
    let names = builder.schema().fields().iter().map(|field| field.name().clone());
    let places = wanted.places(&names.collect::<Vec<_>>())?;
    let mut rows_read = 0u64;
    for batch in builder.build()? {
        let batch = batch?;
        let first_row = rows_read + 1;
        rows_read += batch.num_rows() as u64;
        let (rows, bad) = fitted(&batch, &wanted.schema, &places, first_row)?;
        let bytes_read = bytes * rows_read.min(rows_total) / rows_total;
        let chunk = Chunk { rows, bad, bytes_read };
        sender
            .blocking_send(Ok(chunk))
            .map_err(|_| Error::new(Kind::Cancelled, "the load was given up"))?;
    }
    Ok(())
}

/// The rows of `batch` in the table's types, and those that have a value which does not convert.
fn fitted(
    batch: &RecordBatch,
    schema: &SchemaRef,
    places: &[Option<usize>],
    first_row: u64,
) -> Result<(RecordBatch, Vec<BadRow>)> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let mut bad: Vec<Option<BadRow>> = Vec::new();
    for (field, place) in schema.fields().iter().zip(places) {
        let Some(array) = place.map(|place| batch.column(place)) else {
            columns.push(new_null_array(field.data_type(), batch.num_rows()));
            continue;
        };
        let (column, lost) = converted(array, field)?;
        if !lost.is_empty() {
            bad.resize(batch.num_rows(), None);
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            for (row, reason) in lost {
                let line = first_row + row as u64;
                bad[row].get_or_insert_with(|| BadRow {
                    line,
                    column: field.name().clone(),
                    value: formatter.value(row).to_string(),
                    reason,
                });
            }
        }
        columns.push(column);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::clone(schema)), columns)?;
    if bad.is_empty() {
        return Ok((batch, Vec::new()));
    }
    let keep: BooleanArray = bad.iter().map(|b| Some(b.is_none())).collect();
    Ok((filter_record_batch(&batch, &keep)?, bad.into_iter().flatten().collect()))
}

/// A column of the file in the table's type, and rows whose values do not fit it, each with the reason.
type Converted = (ArrayRef, Vec<(usize, String)>);

/// A value is what it was, or it does not fit: nothing is cut off or rounded but the last digits of a float, and fractions of a
/// microsecond.
fn converted(array: &ArrayRef, field: &Field) -> Result<Converted> {
    let to = field.data_type();
    let from = match array.data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    let clash = || {
        Error::new(
            Kind::DatatypeMismatch,
            format!("column \"{}\" is {from} in the file and {to} in the table", field.name()),
        )
    };
    if *from == DataType::Null {
        return Ok((new_null_array(to, array.len()), Vec::new()));
    }
    if !is_kin(from, to) {
        return Err(clash());
    }
    // What a float is written as says what it was meant to be, digit by digit.
    let is_exact = to.is_integer() || to.is_decimal();
    if from.is_string() && !to.is_string() || from.is_floating() && is_exact {
        let texts: StringArray = match from {
            DataType::Float16 | DataType::Float32 => written::<Float32Type>(array)?,
            DataType::Float64 => written::<Float64Type>(array)?,
            _ => cast_with_options(array, &DataType::Utf8, &CAST)?.as_string::<i32>().clone(),
        };
        return column_of_texts(field.name(), to, &texts);
    }
    let cast = cast_with_options(array, to, &CAST).map_err(|_| clash())?;
    let mut lost = Vec::new();
    if cast.null_count() > array.logical_null_count() {
        let nulls = array.logical_nulls();
        let had_value = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
        let gone = (0..cast.len()).filter(had_value).filter(|row| cast.is_null(*row));
        lost.extend(gone.map(|row| (row, too_large(to))));
    }
    if *to == DataType::Float32 && from.is_numeric() {
        let back = cast_with_options(array, &DataType::Float64, &CAST)?;
        let (floats, exact) =
            (cast.as_primitive::<Float32Type>(), back.as_primitive::<Float64Type>());
        let is_lost = |row: &usize| {
            cast.is_valid(*row) && floats.value(*row).is_infinite() && exact.value(*row).is_finite()
        };
        lost.extend((0..cast.len()).filter(is_lost).map(|row| (row, too_large(to))));
    }
    if let Some(reason) = narrowed(from, to) {
        // What comes back as something else was not taken as it is.
        let back = cast_with_options(&cast, array.data_type(), &CAST)?;
        let is_same = not_distinct(&back, array)?;
        let changed = (0..cast.len()).filter(|row| cast.is_valid(*row) && !is_same.value(*row));
        lost.extend(changed.map(|row| (row, reason.clone())));
    }
    Ok((cast, lost))
}

/// Floats as the shortest texts that mean them.
fn written<T>(array: &ArrayRef) -> Result<StringArray>
where
    T: ArrowPrimitiveType<Native: std::fmt::Display>,
{
    let floats = cast_with_options(array, &T::DATA_TYPE, &CAST)?;
    let floats = floats.as_primitive::<T>().iter();
    Ok(floats.map(|float| float.map(|float| float.to_string())).collect())
}

const CAST: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// Whether values of one type mean the same in another.
fn is_kin(from: &DataType, to: &DataType) -> bool {
    let is_bytes = |of: &DataType| of.is_binary() || matches!(of, DataType::FixedSizeBinary(_));
    let item = |of: &DataType| match of {
        DataType::List(item) | DataType::LargeList(item) => Some(item.data_type().clone()),
        _ => None,
    };
    match to {
        // Of a list's values none could be told of by itself.
        _ if item(to).is_some() || from.is_nested() => match (item(from), item(to)) {
            (Some(from), Some(to)) => from == to || from.is_string() && to.is_string(),
            _ => false,
        },
        _ if from.is_string() => true,
        DataType::Boolean => *from == DataType::Boolean,
        to if to.is_numeric() => from.is_numeric(),
        DataType::Date32 | DataType::Timestamp(..) => {
            matches!(from, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
        }
        to if is_bytes(to) => is_bytes(from),
        _ => true,
    }
}

/// Why a value is not taken as it is by a type that holds less, when it is one.
fn narrowed(from: &DataType, to: &DataType) -> Option<String> {
    match to {
        to if to.is_integer() && from.is_decimal() => Some("is not a whole number".to_owned()),
        DataType::Decimal128(_, scale) if from.is_decimal() => {
            Some(format!("has more than {scale} decimals"))
        }
        DataType::Date32 if !matches!(from, DataType::Date32) => {
            Some("has a time of day".to_owned())
        }
        _ => None,
    }
}

fn too_large(to: &DataType) -> String {
    match to {
        DataType::Int16 => format!("is outside {} to {}", i16::MIN, i16::MAX),
        DataType::Int32 => format!("is outside {} to {}", i32::MIN, i32::MAX),
        DataType::Int64 => format!("is outside {} to {}", i64::MIN, i64::MAX),
        DataType::Decimal128(precision, _) => format!("has more than {precision} digits"),
        _ => "is outside of what the type holds".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Decimal128Array, Float64Array, Int64Array, TimestampNanosecondArray,
    };
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn lost(array: ArrayRef, to: DataType) -> std::result::Result<Vec<(usize, String)>, String> {
        let field = Field::new("c", to, true);
        converted(&array, &field).map(|(_, lost)| lost).map_err(|e| e.sqlstate().to_owned())
    }

    /// Nothing is cut off, rounded or taken for something else without a word.
    #[test]
    fn values_are_taken_as_they_are_or_told() {
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(2.0), Some(1.9), None, Some(1e30)]));
        let told = |rows: &[(usize, &str)]| {
            Ok(rows.iter().map(|(row, why)| (*row, (*why).to_owned())).collect())
        };
        let outside = format!("is outside {} to {}", i32::MIN, i32::MAX);
        assert_eq!(
            lost(Arc::clone(&floats), DataType::Int32),
            told(&[(1, "is not a whole number"), (3, outside.as_str())])
        );
        assert_eq!(lost(floats, DataType::Float32), told(&[]));
        let far: ArrayRef = Arc::new(Float64Array::from(vec![1e300, -0.0, f64::NAN]));
        assert_eq!(lost(Arc::clone(&far), DataType::Float32).unwrap().len(), 1);
        assert_eq!(lost(far, DataType::Int64).unwrap().len(), 2);
        let exact = |values: Vec<f64>, scale: i8| {
            let field = Field::new("c", DataType::Decimal128(38, scale), true);
            let array: ArrayRef = Arc::new(Float64Array::from(values));
            let (column, lost) = converted(&array, &field).unwrap();
            assert!(lost.is_empty());
            let decimals = column.as_primitive::<arrow::datatypes::Decimal128Type>().clone();
            (0..decimals.len()).map(|row| decimals.value_as_string(row)).collect::<Vec<_>>()
        };
        assert_eq!(
            exact(vec![9.3e18, 0.1], 10),
            ["9300000000000000000.0000000000", "0.1000000000"]
        );
        let prices: ArrayRef = Arc::new(Float64Array::from(vec![19.99, 1.555]));
        let money = DataType::Decimal128(10, 2);
        assert_eq!(lost(prices, money.clone()), told(&[(1, "has more than 2 decimals")]));
        let exact =
            Decimal128Array::from(vec![1555, 1550]).with_precision_and_scale(10, 3).unwrap();
        assert_eq!(lost(Arc::new(exact), money), told(&[(0, "has more than 2 decimals")]));
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![
            86_400_000_000_000,
            86_400_000_000_001,
            86_400_000_500_000,
        ]));
        assert_eq!(lost(Arc::clone(&times), DataType::Date32).unwrap().len(), 2);
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Option::Some("UTC".into()));
        assert_eq!(lost(times, micros.clone()), told(&[]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["7", "1.9", "", "2011/12/09 12:00"]));
        assert_eq!(lost(Arc::clone(&texts), DataType::Int32).unwrap().len(), 2);
        assert_eq!(lost(texts, micros.clone()).unwrap().len(), 2);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![19_723]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![20_240_101]));
        assert_eq!(lost(Arc::clone(&days), micros.clone()), told(&[]));
        let nothing = new_null_array(&DataType::Null, 2);
        assert_eq!(lost(nothing, DataType::Date32), told(&[]));
        let item = |to: DataType| DataType::List(Arc::new(Field::new_list_field(to, true)));
        let lists = new_null_array(&item(DataType::Int64), 1);
        assert_eq!(lost(Arc::clone(&lists), item(DataType::Int64)), told(&[]));
        for (array, to) in [
            (Arc::clone(&lists), item(DataType::Date32)),
            (lists, DataType::Utf8),
            (Arc::clone(&numbers), item(DataType::Int64)),
            (days, DataType::Int64),
            (Arc::clone(&numbers), DataType::Date32),
            (Arc::clone(&numbers), micros),
            (Arc::clone(&numbers), DataType::Boolean),
        ] {
            assert_eq!(lost(array, to), Err("42804".to_owned()));
        }
        assert_eq!(lost(numbers, DataType::Float64), told(&[]));
    }
}
