//! Clustered tables: rows kept by customer and time, in buckets of customers.
//!
//! The bucket of a row is what the engine's own repartitioning would choose, so that a join or a union may take our buckets
//! for its partitions. That hash is not promised to stay the same from version to version; its fingerprint is kept with
//! every file, and files of another fingerprint are read as any others: slower, never wrong.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{
    SortColumn, SortOptions, cast, concat, lexsort_to_indices, partition, take_record_batch,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::hash_utils::create_hashes;
use datafusion::physical_plan::repartition::REPARTITION_RANDOM_STATE;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Buckets of a table that does not say.
pub const BUCKETS_DEFAULT: u32 = 4;

/// Most buckets: each is a stream of its own in every scan.
const BUCKETS_MAX: u32 = 64;

/// Column in the files of a table that is kept by customers of an identity graph: the `one_id` of the row's record. It is no
/// column of the table, because a refresh of the graph may change it.
pub const ONE_ID: &str = "__one_id";

/// How a table is clustered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clustering {
    /// Columns that rows are ordered by within a bucket.
    pub columns: Vec<String>,
    /// How many of them, from the first, decide on the bucket.
    pub keys: usize,
    /// Number of buckets.
    pub buckets: u32,
    /// The identity graph whose customers the rows are kept by; the first column is [`ONE_ID`] then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
}

/// Of which map of a graph the customers in a file are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Folder of the map: a graph that was dropped and made again has another one.
    pub map: String,
    /// The refresh that wrote the map.
    pub run: u32,
    /// Rows whose record the map did not have.
    #[serde(default)]
    pub unknown: u64,
}

/// What a file of a clustered table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// All rows are of one bucket, in order, and come after those of the parts before, with none of a customer in both.
    Run {
        /// The bucket.
        bucket: u32,
        /// Which of the bucket's files it is.
        #[serde(default)]
        part: u32,
        /// The rewrite that made it: parts of different ones are in no order. Files from before are alone in their bucket.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        of: String,
    },
    /// Row groups of one bucket after the other, the rows of each bucket in order.
    Tail {
        /// Row groups of each bucket.
        row_groups: Vec<u32>,
    },
}

/// A file's place, and the hash that it was placed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Where its rows belong.
    pub place: Place,
    clustering: Clustering,
    fingerprint: String,
    /// Whose customers it is kept by, in a table that is kept by those of a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

impl Mark {
    pub(super) fn new(place: Place, clustering: &Clustering, known: Option<Known>) -> Self {
        let clustering = clustering.clone();
        Self { place, clustering, fingerprint: fingerprint().to_owned(), known }
    }

    /// Whether it holds for `clustering` and the hash of this program.
    pub fn holds_for(&self, clustering: &Clustering) -> bool {
        self.clustering == *clustering && self.fingerprint == fingerprint()
    }
}

impl Clustering {
    /// Rows ordered by `columns`, in buckets of those before the first time among them.
    ///
    /// # Errors
    /// 42703 for a column that is not there, 0A000 for one that cannot be ordered by, 22023 for a number of buckets that is
    /// none.
    pub fn new(schema: &Schema, columns: Vec<String>, buckets: Option<u32>) -> Result<Self> {
        let mut keys = columns.len();
        for (i, name) in columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(name) else {
                return Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("column \"{name}\" named in CLUSTER BY does not exist"),
                ));
            };
            match field.data_type() {
                DataType::Timestamp(..) | DataType::Date32 => keys = keys.min(i),
                DataType::Utf8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {}
                other => {
                    return Err(Error::not_supported(format!(
                        "column \"{name}\" is {other}; CLUSTER BY takes text, integers, dates and timestamps"
                    )));
                }
            }
        }
        if keys == 0 {
            return Err(Error::new(
                Kind::InvalidParameter,
                "CLUSTER BY begins with the columns that tell one customer from another",
            )
            .hint("CLUSTER BY (source, record_id, occurred_at)"));
        }
        if let Some(twice) = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c)) {
            return Err(Error::new(
                Kind::DuplicateColumn,
                format!("column \"{}\" is named twice in CLUSTER BY", twice.1),
            ));
        }
        let buckets = buckets.unwrap_or(BUCKETS_DEFAULT);
        if !(1..=BUCKETS_MAX).contains(&buckets) {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("BUCKETS {buckets}: a number from 1 to {BUCKETS_MAX} is needed"),
            ));
        }
        Ok(Self { columns, keys, buckets, graph: None })
    }

    /// Rows ordered by the customer that `graph` knows them under, then by `time`.
    pub fn by_graph(graph: &str, time: Option<&str>, buckets: u32) -> Self {
        let columns = std::iter::once(ONE_ID).chain(time).map(str::to_owned).collect();
        Self { columns, keys: 1, buckets, graph: Some(graph.to_owned()) }
    }

    /// The time that a customer's rows are ordered by, when there is one.
    pub fn time(&self) -> Option<&str> {
        self.columns.get(self.keys).map(String::as_str)
    }

    /// The rows of each bucket, in order; every bucket once.
    pub(super) fn arrange(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let column = |name: &String| -> Result<ArrayRef> {
            Ok(Arc::clone(batch.column(batch.schema().index_of(name)?)))
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let bucket: ArrayRef = Arc::new(self.buckets_of(&columns[..self.keys])?);
        let options = Some(SortOptions { descending: false, nulls_first: false });
        let by = std::iter::once(&bucket)
            .chain(&columns)
            .map(|values| SortColumn { values: Arc::clone(values), options })
            .collect::<Vec<_>>();
        let order = lexsort_to_indices(&by, None)?;
        let sorted = take_record_batch(batch, &order)?;
        let bucket = arrow::compute::take(&bucket, &order, None)?;
        let mut arranged = vec![RecordBatch::new_empty(batch.schema()); self.buckets as usize];
        if sorted.num_rows() > 0 {
            for range in partition(std::slice::from_ref(&bucket))?.ranges() {
                let at = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt32Type>(
                    bucket.as_ref(),
                )
                .value(range.start) as usize;
                arranged[at] = sorted.slice(range.start, range.len());
            }
        }
        Ok(arranged)
    }

    /// The first row of `batch` that is of another customer than the row before it; the first row of all is compared with the
    /// last one of `before`.
    pub(super) fn border(
        &self,
        before: &RecordBatch,
        batch: &RecordBatch,
    ) -> Result<Option<usize>> {
        let last = before.slice(before.num_rows() - 1, 1);
        let keys = self.columns[..self.keys].iter().map(|name| -> Result<ArrayRef> {
            let of = |batch: &RecordBatch| -> Result<ArrayRef> {
                Ok(Arc::clone(batch.column(batch.schema().index_of(name)?)))
            };
            Ok(concat(&[&of(&last)?, &of(batch)?])?)
        });
        let customers = partition(&keys.collect::<Result<Vec<_>>>()?)?.ranges();
        Ok(customers.get(1).map(|second| second.start - 1))
    }

    /// The bucket of rows whose keys have these values, one row each.
    pub fn bucket_of(&self, keys: &[ArrayRef]) -> Result<usize> {
        Ok(self.buckets_of(keys)?.value(0) as usize)
    }

    fn buckets_of(&self, keys: &[ArrayRef]) -> Result<UInt32Array> {
        let mut hashes = vec![0u64; keys[0].len()];
        hash_into(keys, &mut hashes)?;
        let buckets = u64::from(self.buckets);
        Ok(hashes.into_iter().map(|hash| (hash % buckets) as u32).collect::<Vec<_>>().into())
    }
}

/// The columns of the files of a table that is kept by customers: its own, and theirs.
pub(super) fn with_one_id(schema: &Schema) -> SchemaRef {
    let one_id = Arc::new(Field::new(ONE_ID, DataType::Int64, true));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([one_id]).collect::<Vec<_>>()))
}

/// The engine's hash, over the types in which scans read columns: text as views.
fn hash_into(keys: &[ArrayRef], hashes: &mut [u64]) -> Result<()> {
    let read = keys.iter().map(|key| match key.data_type() {
        DataType::Utf8 => cast(key, &DataType::Utf8View),
        _ => Ok(Arc::clone(key)),
    });
    let read = read.collect::<std::result::Result<Vec<_>, _>>()?;
    create_hashes(&read, REPARTITION_RANDOM_STATE.random_state(), hashes)?;
    Ok(())
}

/// The hash's values for a few fixed rows: two programs with the same ones choose the same buckets.
fn fingerprint() -> &'static str {
    static FINGERPRINT: OnceLock<String> = OnceLock::new();
    FINGERPRINT.get_or_init(|| {
        let texts = ["", "a", "twelve bytes", "thirteen byte", "客户一二三四五六七八", "x"];
        let texts = texts.into_iter().map(Some).chain([None]);
        let texts: ArrayRef = Arc::new(texts.collect::<StringViewArray>());
        let numbers: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter(
            (0..7).map(|n| (n != 3).then_some(n - 2)),
        ));
        let mut all = Vec::new();
        for keys in [vec![Arc::clone(&texts)], vec![Arc::clone(&numbers)], vec![texts, numbers]] {
            let mut hashes = vec![0u64; 7];
            // Text and numbers can always be hashed.
            if hash_into(&keys, &mut hashes).is_ok() {
                all.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
            }
        }
        blake3::hash(&all).to_hex()[..16].to_owned()
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type};
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};
    use datafusion::physical_plan::repartition::BatchPartitioner;

    use super::*;

    fn batch(n: i64) -> RecordBatch {
        let source: ArrayRef = Arc::new(
            (0..n).map(|i| (i % 11 != 0).then(|| format!("s{}", i % 3))).collect::<StringArray>(),
        );
        let id: ArrayRef = Arc::new(
            (0..n)
                .map(|i| Some(format!("customer number {}", i * 7 % 101)))
                .collect::<StringArray>(),
        );
        let at: ArrayRef = Arc::new(Int64Array::from_iter_values((0..n).map(|i| i * 31 % 97)));
        let field = |name, t| Field::new(name, t, true);
        let schema = Schema::new(vec![
            field("source", DataType::Utf8),
            field("id", DataType::Utf8),
            field("at", DataType::Int64),
        ]);
        RecordBatch::try_new(Arc::new(schema), vec![source, id, at]).unwrap()
    }

    /// The buckets are the partitions that the engine itself would choose, over views and with NULLs.
    #[test]
    fn buckets_are_the_engines_partitions() {
        let rows = batch(500);
        let clustering = Clustering {
            columns: vec!["source".into(), "id".into(), "at".into()],
            keys: 2,
            buckets: 5,
            graph: None,
        };
        let arranged = clustering.arrange(&rows).unwrap();
        assert_eq!(arranged.iter().map(RecordBatch::num_rows).sum::<usize>(), 500);
        let views =
            |t: &DataType| if *t == DataType::Utf8 { DataType::Utf8View } else { t.clone() };
        let read: Vec<ArrayRef> =
            rows.columns().iter().map(|c| cast(c, &views(c.data_type())).unwrap()).collect();
        let fields: Vec<Field> = rows
            .schema()
            .fields()
            .iter()
            .map(|f| Field::new(f.name(), views(f.data_type()), true))
            .collect();
        let read = RecordBatch::try_new(Arc::new(Schema::new(fields)), read).unwrap();
        let keys: Vec<Arc<dyn PhysicalExpr>> =
            ["source", "id"].iter().map(|k| col(k, &read.schema()).unwrap()).collect();
        let metrics = ExecutionPlanMetricsSet::new();
        let time = MetricBuilder::new(&metrics).subset_time("t", 0);
        let mut engine = BatchPartitioner::new_hash_partitioner(keys, 5, time).unwrap();
        engine
            .partition(read, |bucket, rows| {
                assert_eq!(arranged[bucket].num_rows(), rows.num_rows(), "bucket {bucket}");
                Ok(())
            })
            .unwrap();
        for bucket in &arranged {
            let text = |c: usize, r: usize| {
                let c = bucket.column(c).as_string::<i32>();
                (c.is_null(r), c.is_valid(r).then(|| c.value(r).to_owned()))
            };
            let at = bucket.column(2).as_primitive::<Int64Type>();
            for row in 1..bucket.num_rows() {
                let key = |r| (text(0, r), text(1, r), at.value(r));
                assert!(key(row - 1) <= key(row));
            }
        }
    }

    #[test]
    fn a_time_ends_the_key_and_mistakes_are_named() {
        let schema = batch(1).schema();
        let columns = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let all = Clustering::new(&schema, columns(&["source", "id", "at"]), None).unwrap();
        assert_eq!((all.keys, all.buckets), (3, BUCKETS_DEFAULT));
        let error = Clustering::new(&schema, columns(&["nosuch"]), None).unwrap_err();
        assert_eq!(error.sqlstate(), "42703");
        let error = Clustering::new(&schema, columns(&["id"]), Some(0)).unwrap_err();
        assert_eq!(error.sqlstate(), "22023");
    }
}
