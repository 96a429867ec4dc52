//! One version of a table as a stock Parquet scan.
//!
//! The file list comes pinned from the publish log; the node is DataFusion's own `DataSourceExec`, so that every
//! optimizer rule and every tool that knows it keeps working. Nothing is declared about order or partitioning that the
//! files do not have.

mod customers;
mod in_buckets;
mod in_turn;
mod merge;
mod seek;

use std::sync::{Arc, OnceLock};

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, internal_err, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetAccessPlan, ParquetFileReaderFactory,
};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use parquet::arrow::async_reader::AsyncFileReader;

use self::customers::Standing;
use self::in_buckets::InBucketsExec;
use self::in_turn::InTurnExec;
use self::merge::{ClusterMergeExec, merge_sorted};
use crate::store::{
    Clustering, Customers, DATA_URL, FileEntry, Known, ONE_ID, ObjectStore, Place, TableSnapshot,
    checked,
};

/// A table at one version.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: Arc<TableSnapshot>,
    schema: SchemaRef,
    /// Who is who, for a table that is kept by the customers of a graph.
    customers: Option<Arc<Customers>>,
    /// What the files know of them, once somebody asks.
    standing: OnceLock<Standing>,
}

impl SnapshotTable {
    /// The provider of `snapshot`.
    pub fn new(snapshot: Arc<TableSnapshot>) -> Self {
        Self::of_customers(snapshot, None)
    }

    /// The provider of a table with the customers of the graph that it is kept by, as they are now, if it is.
    pub fn of_customers(snapshot: Arc<TableSnapshot>, customers: Option<Arc<Customers>>) -> Self {
        let schema = Arc::new(read_schema(&snapshot.schema));
        Self { snapshot, schema, customers, standing: OnceLock::new() }
    }

    /// What it reads.
    pub fn snapshot(&self) -> &Arc<TableSnapshot> {
        &self.snapshot
    }

    /// Who is who, where the rows are kept by customers.
    pub fn customers(&self) -> Option<&Arc<Customers>> {
        self.customers.as_ref()
    }

    /// The same rows with their customers in a column more, [`ONE_ID`]; NULL for a record that the map has not.
    pub fn with_one_id(&self) -> Option<Self> {
        let customers = Arc::clone(self.customers.as_ref()?);
        Some(Self::of_customers(Arc::new(self.snapshot.with_one_id()), Some(customers)))
    }

    /// What a compaction can say of the customers of the rows that it writes.
    pub fn known(&self) -> Option<Known> {
        self.customers.as_ref()?.known()
    }

    fn standing(&self) -> Option<&Standing> {
        let customers = self.customers.as_ref()?;
        Some(self.standing.get_or_init(|| Standing::of(&self.snapshot, customers)))
    }

    /// Whether a clustered table is as a compaction leaves it: the files of a bucket in order, and at most one of recent rows.
    pub fn is_compact(&self) -> bool {
        self.loose() == (0, 0) && !self.has_suspects()
    }

    /// Whether rows may be under customers that they are not of any more, and are looked up whenever they are read.
    pub fn has_suspects(&self) -> bool {
        self.standing().is_some_and(Standing::has_suspects)
    }

    /// How many files of a clustered table are not yet in their place, and how many rows those have.
    ///
    /// Recent rows are in their place in one file of their own, as long as they are few beside the others.
    pub fn loose(&self) -> (usize, u64) {
        let snapshot = &self.snapshot;
        let Some(clustering) = &snapshot.clustering else { return (0, 0) };
        let standing = self.standing();
        if snapshot.graph().is_some() && self.known().is_none() {
            // Nobody can put them in their place.
            return (0, 0);
        }
        if standing.is_some_and(|standing| standing.has_many_suspects(snapshot.rows())) {
            return (snapshot.files.len(), snapshot.rows());
        }
        let runs = Runs::of(snapshot.files.iter(), clustering);
        let is_loose = |file: &&FileEntry| !runs.as_ref().is_some_and(|runs| runs.has(file));
        let is_lost = |file: &FileEntry| standing.is_some_and(|s| s.loose.contains(file));
        let loose: Vec<&FileEntry> =
            snapshot.files.iter().filter(|file| is_lost(file) || is_loose(file)).collect();
        let recent = self.tails().into_iter().map(|file| file.rows).max().unwrap_or(0);
        let is_settled = self.keeps_recent() && recent * TAIL_SHARE <= snapshot.rows();
        let rows: u64 = loose.iter().map(|file| file.rows).sum();
        match is_settled && recent > 0 {
            true => (loose.len() - 1, rows - recent),
            false => (loose.len(), rows),
        }
    }

    /// Whether a clustered table's recent rows are worth a file of their own: it is large, and its rows have a time.
    pub fn keeps_recent(&self) -> bool {
        /// A table with fewer rows is read whole as fast.
        const ROWS_MIN: u64 = 1_000_000;
        let has_time = self.snapshot.clustering.as_ref().is_some_and(|c| c.time().is_some());
        has_time && self.snapshot.rows() >= ROWS_MIN
    }

    /// The fresh files of a clustered table that are in order by themselves, oldest first.
    pub fn tails(&self) -> Vec<&FileEntry> {
        let Some(clustering) = &self.snapshot.clustering else { return Vec::new() };
        let is_lost = |file: &FileEntry| self.standing().is_some_and(|s| s.loose.contains(file));
        let is_tail = |file: &&FileEntry| {
            let mark = file.mark.as_ref().filter(|mark| mark.holds_for(clustering));
            mark.is_some_and(|mark| matches!(mark.place, Place::Tail { .. })) && !is_lost(file)
        };
        // The log names files newest first.
        self.snapshot.files.iter().rev().filter(is_tail).collect()
    }

    /// The files of a clustered table that are in no order, oldest first: those that were kept in another way before, and of a
    /// table that is kept by customers those whose customers are to be looked up.
    pub fn unsorted(&self) -> Vec<&FileEntry> {
        let Some(clustering) = &self.snapshot.clustering else { return Vec::new() };
        let is_in_order =
            |file: &FileEntry| file.mark.as_ref().is_some_and(|mark| mark.holds_for(clustering));
        match self.standing() {
            Some(standing) => standing.loose.iter().rev().collect(),
            None => self.snapshot.files.iter().rev().filter(|file| !is_in_order(file)).collect(),
        }
    }

    /// All rows of a clustered table, bucket by bucket in order, however its files are.
    pub async fn buckets(&self, state: &dyn Session) -> Result<Buckets> {
        let Some(clustering) = &self.snapshot.clustering else {
            return internal_err!("only clustered tables have buckets");
        };
        let count = clustering.buckets as usize;
        let (keys, ordering) = self.order()?;
        let standing = self.standing();
        let (url, source) = self.source(state)?;
        let files = standing.map_or(&self.snapshot.files, |standing| &standing.settled);
        let runs = Runs::of(files.iter(), clustering);
        let mut marked = Vec::new();
        let mut others = Vec::new();
        // The log names files newest first; equal rows are given oldest first.
        for file in files.iter().rev().filter(|file| !runs.as_ref().is_some_and(|r| r.has(file))) {
            let place = file.mark.as_ref().filter(|mark| mark.holds_for(clustering));
            match place.map(|mark| &mark.place) {
                Some(Place::Run { bucket, .. }) => marked.extend((0..count).map(|b| {
                    let files =
                        if b == *bucket as usize { vec![self.partitioned(file)] } else { vec![] };
                    FileGroup::new(files)
                })),
                Some(Place::Tail { row_groups }) if row_groups.len() == count => {
                    marked.extend(self.parts(file, row_groups, None));
                }
                _ => others.push(self.partitioned(file)),
            }
        }
        let mut sources: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let scan = |groups: Vec<FileGroup>| -> Arc<dyn ExecutionPlan> {
            let unknown = Partitioning::UnknownPartitioning(groups.len());
            let config = FileScanConfigBuilder::new(url.clone(), Arc::clone(&source))
                .with_file_groups(groups)
                .with_output_partitioning(Some(unknown))
                .build();
            DataSourceExec::from_data_source(config)
        };
        if let Some(runs) = runs.filter(|runs| !runs.is_empty()) {
            let (groups, turns) = runs.in_turn(|file| self.partitioned(file));
            let (keys, ordering) = (keys.clone(), ordering.clone());
            sources.push(Arc::new(InTurnExec::try_new(scan(groups), turns, keys, ordering)?));
        }
        if !marked.is_empty() {
            sources.push(scan(marked));
        }
        if let Some(standing) = standing {
            let certain = sources.into_iter().map(|scan| standing.without_suspects(state, scan));
            sources = certain.collect::<Result<Vec<_>>>()?;
        }
        let others: Option<Arc<dyn ExecutionPlan>> = match (standing, &self.customers) {
            (Some(standing), Some(customers)) => {
                let schema = &self.schema;
                standing.looked_up(state, &self.snapshot, customers, schema, &[], false).await?
            }
            _ if others.is_empty() => None,
            _ => {
                let groups = FileGroup::new(others).split_files(state.config().target_partitions());
                let config = FileScanConfigBuilder::new(url, source).with_file_groups(groups);
                Some(DataSourceExec::from_data_source(config.build()))
            }
        };
        if let Some(others) = others {
            let others = InBucketsExec::try_new(others, keys, count, ordering.clone())?;
            sources.push(Arc::new(others));
        }
        Ok(Buckets { sources, count, ordering, schema: Arc::clone(&self.schema) })
    }

    /// The columns that decide on the bucket, and the order of rows within one.
    fn order(&self) -> Result<(Vec<Arc<dyn PhysicalExpr>>, LexOrdering)> {
        let Some(clustering) = &self.snapshot.clustering else {
            return internal_err!("only clustered tables have an order");
        };
        let column = |name: &String| -> Result<Arc<dyn PhysicalExpr>> {
            Ok(Arc::new(Column::new(name, self.schema.index_of(name)?)))
        };
        let columns = clustering.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let keys = columns[..clustering.keys].to_vec();
        match LexOrdering::new(columns.into_iter().map(ascending)) {
            Some(ordering) => Ok((keys, ordering)),
            None => internal_err!("a clustered table has an order"),
        }
    }

    /// The rows with their customers, where those are asked for: in order and by bucket as far as the files are.
    async fn with_customers(
        &self,
        customers: &Customers,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = project_schema(&self.schema, projection)?;
        let Some(standing) = self.standing() else {
            return internal_err!("rows are given with customers where there are some");
        };
        let settled = self.snapshot.only(&standing.settled);
        let settled = Self::new(Arc::new(settled));
        let loose: u64 = standing.loose.iter().map(|file| file.rows).sum();
        let layout = match loose * TAIL_SHARE <= self.snapshot.rows() {
            true => Layout::of(&settled.snapshot, &self.schema, projection),
            false => None,
        };
        let Some(layout) = layout else {
            // As fast, where so much is to be looked up: everything is.
            let rows = Standing::of_none(&self.snapshot)
                .looked_up(state, &self.snapshot, customers, &schema, filters, true)
                .await?;
            return Ok(rows.unwrap_or_else(|| Arc::new(EmptyExec::new(schema))));
        };
        let layout = layout.only(self.bucket_asked(filters));
        let (url, source) = self.source(state)?;
        let rows = settled.clustered(&layout, &url, &source, projection, None)?;
        let rows = standing.without_suspects(state, rows)?;
        let looked_up =
            standing.looked_up(state, &self.snapshot, customers, &schema, filters, true).await?;
        let Some(looked_up) = looked_up else { return Ok(rows) };
        let Some(ordering) = layout.projected_ordering(projection) else {
            return internal_err!("the keys of a clustered scan are projected");
        };
        let (keys, buckets) = (layout.keys_of(&ordering), layout.runs.buckets.len());
        let looked_up = InBucketsExec::try_new(looked_up, keys, buckets, ordering.clone())?;
        Ok(Arc::new(ClusterMergeExec::try_new(rows, Arc::new(looked_up), ordering, None)?))
    }

    /// The parts of a fresh file: the row groups of each bucket, or of one only; none where a bucket has no rows.
    fn parts(&self, file: &FileEntry, row_groups: &[u32], only: Option<usize>) -> Vec<FileGroup> {
        let all = row_groups.iter().sum::<u32>() as usize;
        let mut from = 0;
        let part = |(bucket, count): (usize, &u32)| {
            let to = from + *count as usize;
            let mut access = ParquetAccessPlan::new_none(all);
            (from..to).for_each(|row_group| access.scan(row_group));
            let is_empty = from == to || only.is_some_and(|only| only != bucket);
            from = to;
            let files =
                if is_empty { vec![] } else { vec![self.partitioned(file).with_extension(access)] };
            FileGroup::new(files)
        };
        row_groups.iter().enumerate().map(part).collect()
    }

    /// How files are read: checked, footers kept in memory, filters applied while decoding.
    fn source(&self, state: &dyn Session) -> Result<(ObjectStoreUrl, Arc<dyn FileSource>)> {
        let url = ObjectStoreUrl::parse(DATA_URL)?;
        let global = state.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let readers = CheckedReaders::of(state.runtime_env())?;
        let table_schema: TableSchema = Arc::clone(&self.schema).into();
        let source = ParquetSource::new(table_schema)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(readers));
        Ok((url, Arc::new(source)))
    }

    fn partitioned(&self, file: &FileEntry) -> PartitionedFile {
        PartitionedFile::new(file.path.clone(), file.size)
            .with_statistics(Arc::new(self.statistics_of(file.rows, file.size)))
            .with_extension(file.clone())
    }

    /// Scans that say how their rows are kept: one partition a bucket, in order; fresh files merged in.
    fn clustered(
        &self,
        layout: &Layout<'_>,
        url: &ObjectStoreUrl,
        source: &Arc<dyn FileSource>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = |groups: Vec<FileGroup>,
                    partitioning: Partitioning,
                    files: &[&FileEntry]|
         -> Result<FileScanConfigBuilder> {
            let rows = files.iter().map(|f| f.rows).sum();
            let bytes = files.iter().map(|f| f.size).sum();
            let config = FileScanConfigBuilder::new(url.clone(), Arc::clone(source))
                .with_file_groups(groups)
                .with_statistics(self.statistics_of(rows, bytes))
                .with_output_ordering(vec![layout.ordering.clone()])
                .with_output_partitioning(Some(partitioning))
                .with_projection_indices(projection.cloned())?;
            Ok(config)
        };
        let Some(ordering) = layout.projected_ordering(projection) else {
            return internal_err!("the keys of a clustered scan are projected");
        };
        let has_tail = !layout.tails.is_empty();
        let limit = limit.filter(|_| !has_tail);
        let files: Vec<&FileEntry> = layout.runs.files().collect();
        let run: Arc<dyn ExecutionPlan> = if layout.runs.are_single() {
            let group = |run: &Vec<&FileEntry>| {
                FileGroup::new(run.iter().map(|file| self.partitioned(file)).collect())
            };
            let groups: Vec<FileGroup> = layout.runs.buckets.iter().map(group).collect();
            let buckets = Partitioning::Hash(layout.keys.clone(), groups.len());
            DataSourceExec::from_data_source(
                scan(groups, buckets, &files)?.with_limit(limit).build(),
            )
        } else {
            let (groups, turns) = layout.runs.in_turn(|file| self.partitioned(file));
            let unknown = Partitioning::UnknownPartitioning(groups.len());
            let files = DataSourceExec::from_data_source(scan(groups, unknown, &files)?.build());
            let keys = layout.keys_of(&ordering);
            Arc::new(InTurnExec::try_new(files, turns, keys, ordering.clone())?)
        };
        if !has_tail {
            return Ok(run);
        }
        let parts =
            |(file, row_groups): &(&FileEntry, &[u32])| self.parts(file, row_groups, layout.only);
        let groups: Vec<FileGroup> = layout.tails.iter().flat_map(parts).collect();
        let tails: Vec<&FileEntry> = layout.tails.iter().map(|(file, _)| *file).collect();
        // Saying that nothing is known keeps the groups as they are.
        let unknown = Partitioning::UnknownPartitioning(groups.len());
        let tail = DataSourceExec::from_data_source(scan(groups, unknown, &tails)?.build());
        Ok(Arc::new(ClusterMergeExec::try_new(run, tail, ordering, None)?))
    }

    /// The bucket that has all rows for which these filters hold, when they name one customer.
    fn bucket_asked(&self, filters: &[Expr]) -> Option<usize> {
        let clustering = self.snapshot.clustering.as_ref()?;
        let filters: Vec<&Expr> = filters.iter().flat_map(split_conjunction).collect();
        let value = |key: &String| filters.iter().find_map(|filter| self.equal_to(filter, key));
        let keys = clustering.columns[..clustering.keys].iter().map(value);
        clustering.bucket_of(&keys.collect::<Option<Vec<_>>>()?).ok()
    }

    /// The value that a filter wants a column to have, as the column keeps it.
    fn equal_to(&self, filter: &Expr, column: &str) -> Option<ArrayRef> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
            return None;
        };
        let value = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(c), Expr::Literal(v, _)) | (Expr::Literal(v, _), Expr::Column(c))
                if c.name == column =>
            {
                v
            }
            _ => return None,
        };
        let kept = self.schema.field_with_name(column).ok()?.data_type();
        let is_text =
            |t: &DataType| matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
        let given = value.data_type();
        // Between types that are not the same kind a value may be equal to another one.
        let fits = given == *kept || is_text(&given) && is_text(kept);
        (fits && !value.is_null()).then(|| value.cast_to(kept).ok()?.to_array().ok())?
    }

    /// The files that may have rows of a bucket; all of them without one.
    fn files_of(&self, bucket: Option<usize>) -> Vec<&FileEntry> {
        let files = self.snapshot.files.iter();
        let (Some(bucket), Some(clustering)) = (bucket, &self.snapshot.clustering) else {
            return files.collect();
        };
        let may_have = |file: &&FileEntry| {
            let mark = file.mark.as_ref().filter(|mark| mark.holds_for(clustering));
            match mark.map(|mark| &mark.place) {
                Some(Place::Run { bucket: of, .. }) => *of as usize == bucket,
                Some(Place::Tail { row_groups }) => {
                    row_groups.get(bucket).is_none_or(|row_groups| *row_groups > 0)
                }
                None => true,
            }
        };
        files.filter(may_have).collect()
    }

    fn statistics_of(&self, rows: u64, bytes: u64) -> Statistics {
        Statistics::new_unknown(&self.schema)
            .with_num_rows(Precision::Exact(rows as usize))
            .with_total_byte_size(Precision::Inexact(bytes as usize))
    }
}

/// Stored text is read as views: filters and groups over it then copy no bytes.
fn read_schema(stored: &Schema) -> Schema {
    let field = |f: &Arc<Field>| match f.data_type() {
        DataType::Utf8 => Field::new(f.name(), DataType::Utf8View, f.is_nullable()),
        other => Field::new(f.name(), other.clone(), f.is_nullable()),
    };
    Schema::new(stored.fields().iter().map(field).collect::<Vec<_>>())
}

/// How the files of a clustered table are to be scanned, when every one of them has its mark.
struct Layout<'a> {
    runs: Runs<'a>,
    /// Fresh files, oldest first, with the number of row groups of each bucket.
    tails: Vec<(&'a FileEntry, &'a [u32])>,
    /// Bucket keys, by their place in the table.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    ordering: LexOrdering,
    /// Places of the cluster's columns in the table.
    columns: Vec<usize>,
    /// The only bucket that is read.
    only: Option<usize>,
}

/// The files of a clustered table that are in their place: for each bucket those of one rewrite, in order.
struct Runs<'a> {
    buckets: Vec<Vec<&'a FileEntry>>,
}

impl<'a> Runs<'a> {
    /// `None` when the files of a bucket are of several rewrites: then they are in no order.
    fn of(files: impl Iterator<Item = &'a FileEntry>, clustering: &Clustering) -> Option<Self> {
        let mut parts: Vec<Vec<(u32, &str, &FileEntry)>> =
            vec![Vec::new(); clustering.buckets as usize];
        for file in files {
            let mark = file.mark.as_ref().filter(|mark| mark.holds_for(clustering));
            if let Some(Place::Run { bucket, part, of }) = mark.map(|mark| &mark.place) {
                parts.get_mut(*bucket as usize)?.push((*part, of, file));
            }
        }
        let in_order = |mut parts: Vec<(u32, &str, &'a FileEntry)>| {
            parts.sort_unstable_by_key(|(part, ..)| *part);
            let follows = |pair: &[(u32, &str, &FileEntry)]| {
                pair[0].0 < pair[1].0 && pair[0].1 == pair[1].1 && !pair[0].1.is_empty()
            };
            let is_whole = parts.windows(2).all(follows);
            is_whole.then(|| parts.into_iter().map(|(_, _, file)| file).collect())
        };
        Some(Self { buckets: parts.into_iter().map(in_order).collect::<Option<_>>()? })
    }

    fn files(&self) -> impl Iterator<Item = &'a FileEntry> {
        self.buckets.iter().flatten().copied()
    }

    fn has(&self, file: &FileEntry) -> bool {
        self.files().any(|of| of.path == file.path)
    }

    fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    /// Whether no bucket has more than one file.
    fn are_single(&self) -> bool {
        self.buckets.iter().all(|files| files.len() <= 1)
    }

    /// A group a file, and which groups are a bucket's.
    fn in_turn(
        &self,
        group: impl Fn(&FileEntry) -> PartitionedFile,
    ) -> (Vec<FileGroup>, Vec<Vec<usize>>) {
        let groups = self.files().map(|file| FileGroup::new(vec![group(file)])).collect();
        let mut from = 0;
        let turn = |files: &Vec<&FileEntry>| {
            let turn = (from..from + files.len()).collect();
            from += files.len();
            turn
        };
        (groups, self.buckets.iter().map(turn).collect())
    }
}

/// A tail of more than one row in so many is not merged: then a plain scan is faster, until the table is compacted.
const TAIL_SHARE: u64 = 3;

/// More fresh files than this are not merged either.
const TAIL_FILES_MAX: usize = 64;

impl<'a> Layout<'a> {
    fn of(
        snapshot: &'a TableSnapshot,
        schema: &SchemaRef,
        projection: Option<&Vec<usize>>,
    ) -> Option<Self> {
        let clustering = snapshot.clustering.as_ref()?;
        let columns: Vec<usize> =
            clustering.columns.iter().map(|c| schema.index_of(c).ok()).collect::<Option<_>>()?;
        let is_read = |at: &usize| projection.is_none_or(|projection| projection.contains(at));
        if !columns[..clustering.keys].iter().all(is_read) {
            return None;
        }
        let buckets = clustering.buckets as usize;
        let mut layout = Self {
            runs: Runs::of(snapshot.files.iter(), clustering)?,
            tails: Vec::new(),
            keys: Vec::new(),
            ordering: LexOrdering::new([ascending(Arc::new(Column::new("", 0)))])?,
            columns: Vec::new(),
            only: None,
        };
        let mut fresh_rows = 0;
        for file in &snapshot.files {
            let mark = file.mark.as_ref().filter(|mark| mark.holds_for(clustering))?;
            match &mark.place {
                Place::Run { .. } => {}
                Place::Tail { row_groups } if row_groups.len() == buckets => {
                    fresh_rows += file.rows;
                    layout.tails.push((file, row_groups));
                }
                Place::Tail { .. } => return None,
            }
        }
        let is_fragmented =
            layout.tails.len() > TAIL_FILES_MAX || fresh_rows * TAIL_SHARE > snapshot.rows();
        if is_fragmented {
            return None;
        }
        // The log names files newest first; equal rows are given oldest first.
        layout.tails.reverse();
        let column = |at: &usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(schema.field(*at).name(), *at))
        };
        // An order of which a column is not read ends before it.
        layout.columns = columns.iter().copied().take_while(is_read).collect();
        layout.keys = columns[..clustering.keys].iter().map(column).collect();
        layout.ordering = LexOrdering::new(layout.columns.iter().map(|at| ascending(column(at))))?;
        Some(layout)
    }

    /// The same scan of one bucket; the others stay as partitions without rows.
    fn only(mut self, bucket: Option<usize>) -> Self {
        self.only = bucket;
        if let Some(bucket) = bucket {
            let runs = self.runs.buckets.iter_mut().enumerate();
            runs.filter(|(of, _)| *of != bucket).for_each(|(_, files)| files.clear());
        }
        self
    }

    /// The bucket keys in terms of the columns that `ordering` is of: it begins with them.
    fn keys_of(&self, ordering: &LexOrdering) -> Vec<Arc<dyn PhysicalExpr>> {
        ordering.iter().take(self.keys.len()).map(|sort| Arc::clone(&sort.expr)).collect()
    }

    /// The order in terms of the columns that the scan gives.
    fn projected_ordering(&self, projection: Option<&Vec<usize>>) -> Option<LexOrdering> {
        let mut sorts = Vec::new();
        for (sort, at) in self.ordering.iter().zip(&self.columns) {
            let name = sort.expr.downcast_ref::<Column>()?.name();
            let place = match projection {
                Some(projection) => projection.iter().position(|p| p == at)?,
                None => *at,
            };
            sorts.push(ascending(Arc::new(Column::new(name, place))));
        }
        LexOrdering::new(sorts)
    }
}

fn ascending(expr: Arc<dyn PhysicalExpr>) -> PhysicalSortExpr {
    PhysicalSortExpr::new(expr, SortOptions { descending: false, nulls_first: false })
}

/// All rows of a clustered table, bucket by bucket.
pub struct Buckets {
    /// Each has one partition a bucket, or several times as many.
    sources: Vec<Arc<dyn ExecutionPlan>>,
    count: usize,
    ordering: LexOrdering,
    schema: SchemaRef,
}

impl Buckets {
    /// Number of buckets.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The rows of one bucket, in order.
    pub fn open(
        &self,
        bucket: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut streams = Vec::new();
        for source in &self.sources {
            let partitions = source.properties().partitioning.partition_count();
            for at in (bucket..partitions).step_by(self.count) {
                streams.push(source.execute(at, Arc::clone(&context))?);
            }
        }
        match <[_; 1]>::try_from(streams) {
            Ok([only]) => Ok(only),
            Err(streams) => {
                merge_sorted(streams, Arc::clone(&self.schema), &self.ordering, bucket, &context)
            }
        }
    }
}

/// Readers of data files that compare what the disk gives with what was written, and keep footers in memory.
#[derive(Debug)]
struct CheckedReaders {
    store: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
}

impl CheckedReaders {
    fn of(runtime: &RuntimeEnv) -> Result<Self> {
        Ok(Self {
            store: runtime.object_store(ObjectStoreUrl::parse(DATA_URL)?)?,
            footers: runtime.cache_manager.get_file_metadata_cache(),
        })
    }
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let store = match file.extensions.get::<FileEntry>() {
            Some(entry) => checked(&self.store, entry),
            None => Arc::clone(&self.store),
        };
        CachedParquetFileReaderFactory::new(store, Arc::clone(&self.footers)).create_reader(
            partition,
            file,
            footer_bytes,
            metrics,
        )
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let bytes = self.snapshot.files.iter().map(|f| f.size).sum();
        Some(self.statistics_of(self.snapshot.rows(), bytes))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The physical filter pushdown hands them to the Parquet source, for pruning and late materialisation.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let (Some(customers), Ok(one_id)) = (&self.customers, self.schema.index_of(ONE_ID))
            && projection.is_none_or(|projection| projection.contains(&one_id))
        {
            return self.with_customers(customers, state, projection, filters).await;
        }
        let bucket = self.bucket_asked(filters);
        let read = self.files_of(bucket);
        if read.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let (url, source) = self.source(state)?;
        if let Some(layout) = Layout::of(&self.snapshot, &self.schema, projection) {
            let layout = layout.only(bucket);
            return self.clustered(&layout, &url, &source, projection, limit);
        }
        let (rows, bytes) = read.iter().fold((0, 0), |(r, b), f| (r + f.rows, b + f.size));
        let files = read.iter().map(|file| self.partitioned(file)).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(url, source)
            .with_file_groups(groups)
            .with_statistics(self.statistics_of(rows, bytes))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
