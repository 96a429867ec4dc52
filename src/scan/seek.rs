//! Rows that have one of a few numbers in a column, found without a plan: of each file the pages are read whose bounds have one.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::*;
use crate::store::bounds_of;

/// Smallest and largest number, where they are known.
type Bounds = Option<(i64, i64)>;

/// Numbers that are looked for, in order.
#[derive(Clone, Copy)]
struct Sought<'a>(&'a [i64]);

impl Sought<'_> {
    /// Whether one of them can be within bounds.
    fn may_be_in(self, bounds: Bounds) -> bool {
        let Some((low, high)) = bounds else { return !self.0.is_empty() };
        let next = self.0.partition_point(|number| *number < low);
        self.0.get(next).is_some_and(|number| *number <= high)
    }

    /// The rows whose number is one of them.
    fn among(self, batch: &RecordBatch, column: &str) -> Result<RecordBatch> {
        let Some(numbers) = batch.column_by_name(column) else {
            return internal_err!("a column that is looked into is not read");
        };
        let numbers = cast(numbers, &DataType::Int64)?;
        let is_one = |number: Option<i64>| {
            Some(number.is_some_and(|number| self.0.binary_search(&number).is_ok()))
        };
        let found: BooleanArray = numbers.as_primitive::<Int64Type>().iter().map(is_one).collect();
        Ok(filter_record_batch(batch, &found)?)
    }
}

impl SnapshotTable {
    /// The rows whose `column`, of whole numbers, is one of `numbers`: these `columns` of them, the first of which it is.
    pub async fn seek(
        &self,
        runtime: &RuntimeEnv,
        numbers: &[i64],
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>> {
        let Some(column) = columns.first() else { return Ok(Vec::new()) };
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        let sought = Sought(&numbers);
        let readers = CheckedReaders::of(runtime)?;
        let mut found = Vec::new();
        for file in &self.snapshot.files {
            let bounds = file.bounds.get(*column);
            if sought.may_be_in(bounds.and_then(|(low, high)| low.as_i64().zip(high.as_i64()))) {
                found.extend(self.seek_in(&readers, file, sought, columns).await?);
            }
        }
        Ok(found)
    }

    async fn seek_in(
        &self,
        readers: &CheckedReaders,
        file: &FileEntry,
        sought: Sought<'_>,
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>> {
        let metrics = ExecutionPlanMetricsSet::new();
        let mut reader: Box<dyn AsyncFileReader> =
            readers.create_reader(0, self.partitioned(file), None, &metrics)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let known = reader.get_metadata(Some(&options)).await?;
        let known = ArrowReaderMetadata::try_new(known, options)?;
        let fields = known.parquet_schema().root_schema().get_fields();
        let place = |name: &&str| fields.iter().position(|field| field.name() == *name);
        let Some(places) = columns.iter().map(place).collect::<Option<Vec<_>>>() else {
            return internal_err!("a column that is looked into is not in a file");
        };
        let (row_groups, rows) = rows_of(known.metadata(), places[0], sought);
        let mask = ProjectionMask::roots(known.parquet_schema(), places);
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, known)
            .with_row_groups(row_groups)
            .with_row_selection(rows)
            .with_projection(mask)
            .build()?;
        let read: Vec<RecordBatch> = batches.try_collect().await?;
        let found = read.iter().map(|batch| {
            let found = sought.among(batch, columns[0])?;
            let order = columns.iter().map(|name| Ok(found.schema().index_of(name)?));
            Ok(found.project(&order.collect::<Result<Vec<_>>>()?)?)
        });
        found.filter(|found| found.as_ref().map_or(true, |found| found.num_rows() > 0)).collect()
    }
}

/// The row groups that can have one of the numbers in a column, and of their rows those of pages that can.
fn rows_of(
    file: &ParquetMetaData,
    column: usize,
    sought: Sought<'_>,
) -> (Vec<usize>, RowSelection) {
    let (mut row_groups, mut rows) = (Vec::new(), Vec::new());
    for (at, row_group) in file.row_groups().iter().enumerate() {
        if !sought.may_be_in(row_group.column(column).statistics().and_then(bounds_of)) {
            continue;
        }
        row_groups.push(at);
        let all = row_group.num_rows().max(0) as usize;
        let bounds = file.column_index().map(|index| &index[at][column]);
        let pages = file.offset_index().map_or(&[][..], |index| index[at][column].page_locations());
        if pages.is_empty() {
            rows.push(RowSelector::select(all));
        }
        let begins = pages.iter().map(|page| page.first_row_index.max(0) as usize);
        let ends = begins.clone().skip(1).chain([all]);
        for (page, (begin, end)) in begins.zip(ends).enumerate() {
            let bounds = bounds.and_then(|bounds| bounds_of_page(bounds, page));
            rows.push(match sought.may_be_in(bounds) {
                true => RowSelector::select(end - begin),
                false => RowSelector::skip(end - begin),
            });
        }
    }
    (row_groups, rows.into())
}

fn bounds_of_page(index: &ColumnIndexMetaData, page: usize) -> Bounds {
    match index {
        ColumnIndexMetaData::INT32(of) => {
            let number = |number: Option<&i32>| number.copied().map(i64::from);
            number(of.min_value(page)).zip(number(of.max_value(page)))
        }
        ColumnIndexMetaData::INT64(of) => {
            of.min_value(page).copied().zip(of.max_value(page).copied())
        }
        _ => None,
    }
}
