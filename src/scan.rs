//! One version of a table as a stock Parquet scan.
//!
//! The file list comes pinned from the publish log; the node is DataFusion's own `DataSourceExec`, so that every
//! optimizer rule and every tool that knows it keeps working. Nothing is declared about order or partitioning that the
//! files do not have.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use crate::store::{DATA_URL, TableSnapshot};

/// A table at one version.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: Arc<TableSnapshot>,
    schema: SchemaRef,
}

impl SnapshotTable {
    /// The provider of `snapshot`.
    pub fn new(snapshot: Arc<TableSnapshot>) -> Self {
        let schema = Arc::new(read_schema(&snapshot.schema));
        Self { snapshot, schema }
    }

    /// What it reads.
    pub fn snapshot(&self) -> &Arc<TableSnapshot> {
        &self.snapshot
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
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.snapshot.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let url = ObjectStoreUrl::parse(DATA_URL)?;
        let global = state.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let runtime = state.runtime_env();
        let footers = CachedParquetFileReaderFactory::new(
            runtime.object_store(&url)?,
            runtime.cache_manager.get_file_metadata_cache(),
        );
        let table_schema: TableSchema = Arc::clone(&self.schema).into();
        let source = ParquetSource::new(table_schema)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(footers));
        let files: Vec<PartitionedFile> = self
            .snapshot
            .files
            .iter()
            .map(|file| {
                let statistics = self.statistics_of(file.rows, file.size);
                PartitionedFile::new(file.path.clone(), file.size)
                    .with_statistics(Arc::new(statistics))
            })
            .collect();
        let bytes = self.snapshot.files.iter().map(|f| f.size).sum();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(self.statistics_of(self.snapshot.rows(), bytes))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
