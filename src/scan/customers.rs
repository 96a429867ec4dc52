//! The rows of a table with the customers of their records.
//!
//! Files of a table that is kept by the customers of a graph have each row's `one_id`, as the map was when they were written.
//! Most of it stays true from refresh to refresh. What may not is known: rows of customers that have lost records since, rows
//! whose record the map did not have, and rows that came after. Those are looked up in the map and put among the others, so
//! that the result is that of a join with the map, whatever state the files are in.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, JoinType, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;

use super::SnapshotTable;
use crate::store::{Customers, FileEntry, ONE_ID, RECORD, TableSnapshot};

/// Rows of so many customers are looked up apart; when more have changed, all rows are.
const MOVED_MAX: usize = 100_000;

/// From so many on a compaction is worth its cost.
const MOVED_MANY: usize = 10_000;

/// What the files of a table know of customers.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Files whose customers are true, but for the suspects.
    pub(super) settled: Vec<FileEntry>,
    /// Files of whose rows nothing is known.
    pub(super) loose: Vec<FileEntry>,
    /// Customers whose rows may have another by now, in order.
    moved: Vec<i64>,
    /// Rows without a customer that may have one by now.
    unknown: u64,
}

impl Standing {
    pub(super) fn of(snapshot: &TableSnapshot, customers: &Customers) -> Self {
        let mut standing = Self::default();
        let run = customers.known().map_or(0, |known| known.run);
        for file in &snapshot.files {
            let mark = file.mark.as_ref();
            let mark =
                mark.filter(|m| snapshot.clustering.as_ref().is_some_and(|c| m.holds_for(c)));
            let known = mark.and_then(|mark| mark.known.as_ref());
            let moved = known.and_then(|known| Some((known, customers.moved_since(known)?)));
            match moved {
                Some((known, moved)) if moved.len() <= MOVED_MAX => {
                    if known.run < run {
                        standing.unknown += known.unknown;
                    }
                    // Of two files the one from longer ago has seen all that the other has.
                    if moved.len() > standing.moved.len() {
                        standing.moved = moved;
                    }
                    standing.settled.push(file.clone());
                }
                _ => standing.loose.push(file.clone()),
            }
        }
        standing
    }

    /// As if no file said anything.
    pub(super) fn of_none(snapshot: &TableSnapshot) -> Self {
        Self { loose: snapshot.files.clone(), ..Self::default() }
    }

    pub(super) fn has_suspects(&self) -> bool {
        !self.moved.is_empty() || self.unknown > 0
    }

    /// Whether so many rows are suspect, of so many, that they are worth being written anew.
    pub(super) fn has_many_suspects(&self, rows: u64) -> bool {
        const SHARE: u64 = 10;
        self.moved.len() > MOVED_MANY || self.unknown * SHARE > rows
    }

    /// The rows of settled files whose customer may be another by now; `None` when there are none.
    fn suspects(&self) -> Option<Expr> {
        let one_id = || Expr::Column(Column::from_name(ONE_ID));
        let ids = self.moved.iter().map(|id| lit(*id)).collect::<Vec<_>>();
        let moved = (!ids.is_empty()).then(|| one_id().in_list(ids, false));
        let unknown = (self.unknown > 0).then(|| one_id().is_null());
        match (moved, unknown) {
            (Some(moved), Some(unknown)) => Some(moved.or(unknown)),
            (moved, unknown) => moved.or(unknown),
        }
    }

    /// `plan`, of settled files, without the suspects.
    pub(super) fn without_suspects(
        &self,
        state: &dyn Session,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(suspects) = self.suspects() else { return Ok(plan) };
        let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
        let keeps = state.create_physical_expr(suspects.is_not_true(), &schema)?;
        Ok(Arc::new(FilterExec::try_new(keeps, plan)?))
    }

    /// The rows that have to be looked up, with the customers that the map has for them now; `schema` names the columns. As a
    /// plan by itself, or as a part of one.
    pub(super) async fn looked_up(
        &self,
        state: &dyn Session,
        snapshot: &TableSnapshot,
        customers: &Customers,
        schema: &Schema,
        filters: &[Expr],
        is_part: bool,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let wanted: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let own = || wanted.iter().copied().filter(|name| *name != ONE_ID);
        let read: Vec<&str> =
            own().chain(RECORD.into_iter().filter(|name| !wanted.contains(name))).collect();
        let scan = |files: TableSnapshot, filter: Option<Expr>| -> Result<LogicalPlan> {
            let table = provider_as_source(Arc::new(SnapshotTable::new(Arc::new(files))));
            let mut plan = LogicalPlanBuilder::scan("rows", table, None)?;
            if let Some(filter) = filter {
                plan = plan.filter(filter)?;
            }
            plan.project(read.iter().map(|name| of("rows", name)))?.build()
        };
        let mut parts = Vec::new();
        if let (Some(suspects), false) = (self.suspects(), self.settled.is_empty()) {
            parts.push(scan(snapshot.with_one_id().only(&self.settled), Some(suspects))?);
        }
        if !self.loose.is_empty() {
            parts.push(scan(snapshot.without_one_id().only(&self.loose), None)?);
        }
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Ok(None) };
        let mut rows = LogicalPlanBuilder::from(first);
        for part in parts {
            rows = rows.union(part)?;
        }
        let map = SnapshotTable::new(Arc::clone(customers.map()));
        let map = LogicalPlanBuilder::scan("map", provider_as_source(Arc::new(map)), None)?
            .project(RECORD.into_iter().chain(["one_id"]).map(|name| of("map", name)))?
            .build()?;
        let on = |table: &str| RECORD.map(|name| Column::new(Some(table), name)).to_vec();
        let columns = wanted.iter().map(|name| match *name {
            ONE_ID => of("map", "one_id").alias(ONE_ID),
            own => of("rows", own).alias(own),
        });
        let joined =
            rows.alias("rows")?.join(map, JoinType::Left, (on("rows"), on("map")), None)?;
        let mut plan = joined.project(columns)?;
        for filter in filters {
            if filter.column_refs().iter().all(|column| wanted.contains(&column.name.as_str())) {
                plan = plan.filter(filter.clone())?;
            }
        }
        let plan = plan.build()?;
        let Some(state) = state.as_any().downcast_ref::<SessionState>() else {
            return internal_err!("tables are read in a session of the engine");
        };
        let mut own = SessionStateBuilder::new_from_existing(state.clone());
        if is_too_large(customers.map(), state) {
            // Rows and map are sorted to be joined.
            let mut config = state.config().clone();
            config.options_mut().optimizer.prefer_hash_join = false;
            own = own.with_config(config);
        }
        if is_part {
            // The plan that this becomes a part of is optimized as a whole; optimizing it twice is an error.
            own = own.with_physical_optimizer_rules(vec![]);
        }
        Ok(Some(own.build().create_physical_plan(&plan).await?))
    }
}

/// Column `name` of `table`, whatever letters it has.
fn of(table: &str, name: &str) -> Expr {
    Expr::Column(Column::new(Some(table), name))
}

/// Whether a map had better not be held in memory.
fn is_too_large(map: &TableSnapshot, state: &SessionState) -> bool {
    /// Source, record and id, as a table by hash has them.
    const BYTES_A_RECORD: u64 = 96;
    let limit = match state.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes as u64,
        MemoryLimit::Infinite | MemoryLimit::Unknown => u64::MAX,
    };
    map.rows().saturating_mul(BYTES_A_RECORD) > limit / 4
}
