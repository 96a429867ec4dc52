//! A join of a table with the map of the graph by whose customers it is kept.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullEquality, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, when,
};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::catalog::{stored_table, with_one_id};
use crate::store::{ONE_ID, RECORD};

/// The customer in a map.
const MAP_ONE_ID: &str = "one_id";

/// Reads the customers of a table's rows with the rows, where a query joins them with the map and nothing else.
///
/// `identity => 'customer'`, `order_facts` and joins that are written by hand come to the same: (source, record_id) of the
/// table equal to those of the map, and of the map no more than its `one_id`. The rows then come in the order of customers and
/// by bucket, with neither join nor shuffle nor sort.
#[derive(Debug)]
pub(super) struct KnownCustomers;

impl OptimizerRule for KnownCustomers {
    fn name(&self) -> &str {
        "known_customers"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
        match without_join(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        }
    }
}

fn without_join(join: &Join) -> Result<Option<LogicalPlan>> {
    if join.null_equality != NullEquality::NullEqualsNothing {
        return Ok(None);
    }
    let (rows, map, is_kept) = match join.join_type {
        JoinType::Inner if Map::of(&join.right).is_some() => (&join.left, &join.right, false),
        JoinType::Inner => (&join.right, &join.left, false),
        JoinType::Left => (&join.left, &join.right, true),
        JoinType::Right => (&join.right, &join.left, true),
        _ => return Ok(None),
    };
    let Some(map) = Map::of(map) else { return Ok(None) };
    // Of rows that are kept without a customer, a condition says which customers count: that stays a join.
    let has_conditions = join.filter.is_some() || !map.conditions.is_empty();
    if is_kept && has_conditions {
        return Ok(None);
    }
    let Some([source, record_id]) = map.record(&join.on) else { return Ok(None) };
    let Some(Rows { plan, one_id }) = Rows::of(rows, &map, [&source, &record_id])? else {
        return Ok(None);
    };
    // What the map's columns are now: where the rows have a customer they are those of its record.
    let in_rows = |column: &Column| -> Option<Expr> {
        let of_map = match map.place(column)? {
            "source" => source.clone(),
            "record_id" => record_id.clone(),
            _ => one_id.clone(),
        };
        Some(Expr::Column(of_map))
    };
    let conditions = map.conditions.iter().chain(&join.filter);
    let mut plan = LogicalPlanBuilder::from(plan);
    if !is_kept {
        plan = plan.filter(Expr::Column(one_id.clone()).is_not_null())?;
    }
    for condition in conditions {
        plan = plan.filter(replaced(condition.clone(), in_rows)?)?;
    }
    let known = Expr::Column(one_id.clone()).is_not_null();
    let columns = join.schema.columns().into_iter().map(|column| {
        let Some(of_rows) = in_rows(&column) else { return Ok(Expr::Column(column)) };
        // A row without a customer has nothing of the map.
        let is_one_id = map.place(&column) == Some(MAP_ONE_ID);
        let of_rows = match is_kept && !is_one_id {
            true => when(known.clone(), of_rows).end()?,
            false => of_rows,
        };
        Ok(of_rows.alias_qualified(column.relation, column.name))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let input = Arc::new(plan.build()?);
    let schema = Arc::clone(&join.schema);
    Ok(Some(LogicalPlan::Projection(Projection::try_new_with_schema(columns, input, schema)?)))
}

/// A scan of a map: of its record and customer columns only.
struct Map<'a> {
    /// Columns of the plan and what they are in the map.
    columns: Vec<(Column, String)>,
    /// What is asked of its rows, in terms of the plan's columns.
    conditions: Vec<Expr>,
    scan: &'a TableScan,
}

impl<'a> Map<'a> {
    fn of(plan: &'a LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let columns = scan.projected_schema.columns().into_iter();
                let columns: Vec<(Column, String)> = columns.map(|c| (c.clone(), c.name)).collect();
                let is_needed =
                    |name: &String| RECORD.contains(&name.as_str()) || name == MAP_ONE_ID;
                let is_plain =
                    scan.fetch.is_none() && columns.iter().all(|(_, name)| is_needed(name));
                is_plain.then_some(Self { columns, conditions: vec![], scan })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = Self::of(&alias.input)?;
                let renamed: Vec<Column> = alias.schema.columns();
                let places = alias.input.schema().columns();
                below.seen_as(|column| {
                    Some(renamed[places.iter().position(|place| place == column)?].clone())
                })
            }
            LogicalPlan::Projection(projection) => {
                let below = Self::of(&projection.input)?;
                let names = projection.schema.columns();
                let from: Option<Vec<Column>> = { projection.expr.iter() }
                    .map(|expr| match expr.clone().unalias() {
                        Expr::Column(column) => Some(column),
                        _ => None,
                    })
                    .collect();
                let from = from?;
                below.seen_as(|column| {
                    Some(names[from.iter().position(|place| place == column)?].clone())
                })
            }
            LogicalPlan::Filter(filter) => {
                let mut below = Self::of(&filter.input)?;
                let conditions = split_conjunction(&filter.predicate).into_iter();
                // That a record has a key, where it is joined by its key, says nothing.
                let says_nothing = |expr: &&Expr| matches!(expr, Expr::IsNotNull(of) if matches!(of.as_ref(), Expr::Column(column) if below.place(column).is_some_and(|name| name != MAP_ONE_ID)));
                let conditions: Vec<Expr> =
                    conditions.filter(|expr| !says_nothing(expr)).cloned().collect();
                below.conditions.extend(conditions);
                Some(below)
            }
            _ => None,
        }
    }

    /// The same under other names; columns that have none any more are left out, unless a condition needs them.
    fn seen_as(self, name: impl Fn(&Column) -> Option<Column>) -> Option<Self> {
        let has_name = |condition: &Expr| condition.column_refs().iter().all(|c| name(c).is_some());
        if !self.conditions.iter().all(has_name) {
            return None;
        }
        let renamed = |condition| replaced(condition, |column| name(column).map(Expr::Column)).ok();
        let conditions = self.conditions.into_iter().map(renamed).collect::<Option<_>>()?;
        let columns = self.columns.into_iter();
        let columns = columns.filter_map(|(column, of)| Some((name(&column)?, of))).collect();
        Some(Self { columns, conditions, scan: self.scan })
    }

    /// The source and record id of the other side, when a join is by the record and nothing else.
    fn record(&self, on: &[(Expr, Expr)]) -> Option<[Column; 2]> {
        let mut record = [None, None];
        for pair in on {
            let (Expr::Column(left), Expr::Column(right)) = pair else { return None };
            let (of_map, of_rows) = match self.place(left) {
                Some(place) => (place, right),
                None => (self.place(right)?, left),
            };
            let at = RECORD.iter().position(|name| *name == of_map)?;
            if record[at].replace(of_rows.clone()).is_some() {
                return None;
            }
        }
        let [source, record_id] = record;
        Some([source?, record_id?])
    }

    fn place(&self, column: &Column) -> Option<&str> {
        self.columns.iter().find(|(of, _)| of == column).map(|(_, name)| name.as_str())
    }
}

/// `expr` with other expressions in the place of its columns, where there are some.
fn replaced(expr: Expr, of: impl Fn(&Column) -> Option<Expr>) -> Result<Expr> {
    let replaced = expr.transform(|expr| {
        let other = match &expr {
            Expr::Column(column) => of(column),
            _ => None,
        };
        Ok(other.map_or_else(|| Transformed::no(expr), Transformed::yes))
    })?;
    Ok(replaced.data)
}

/// The rows of a table with their customers.
struct Rows {
    plan: LogicalPlan,
    /// Where those are.
    one_id: Column,
}

impl Rows {
    /// The rows of `plan`, when they are of a table that is kept by the customers of `map` and `record` is its record.
    fn of(plan: &LogicalPlan, map: &Map<'_>, record: [&Column; 2]) -> Result<Option<Self>> {
        let built = match plan {
            LogicalPlan::TableScan(scan) => return Self::of_scan(scan, map, record),
            LogicalPlan::Filter(filter) => {
                let Some(below) = Self::of(&filter.input, map, record)? else { return Ok(None) };
                let filtered = Filter::try_new(filter.predicate.clone(), Arc::new(below.plan))?;
                Self { plan: LogicalPlan::Filter(filtered), one_id: below.one_id }
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let names = alias.schema.columns();
                let places = alias.input.schema().columns();
                let below = |column: &Column| {
                    let at = names.iter().position(|name| name == column)?;
                    places.get(at)
                };
                let (Some(source), Some(record_id)) = (below(record[0]), below(record[1])) else {
                    return Ok(None);
                };
                let Some(below) = Self::of(&alias.input, map, [source, record_id])? else {
                    return Ok(None);
                };
                let seen = SubqueryAlias::try_new(Arc::new(below.plan), alias.alias.clone())?;
                let one_id = Column::new(Some(alias.alias.clone()), below.one_id.name);
                Self { plan: LogicalPlan::SubqueryAlias(seen), one_id }
            }
            LogicalPlan::Projection(projection) => {
                let names = projection.schema.columns();
                let below = |column: &Column| {
                    let at = names.iter().position(|name| name == column)?;
                    match projection.expr[at].clone().unalias() {
                        Expr::Column(column) => Some(column),
                        _ => None,
                    }
                };
                let (Some(source), Some(record_id)) = (below(record[0]), below(record[1])) else {
                    return Ok(None);
                };
                let Some(below) = Self::of(&projection.input, map, [&source, &record_id])? else {
                    return Ok(None);
                };
                let mut exprs = projection.expr.clone();
                exprs.push(Expr::Column(below.one_id.clone()));
                let projected = Projection::try_new(exprs, Arc::new(below.plan))?;
                Self { plan: LogicalPlan::Projection(projected), one_id: below.one_id }
            }
            _ => return Ok(None),
        };
        // Two columns of one name could not be told apart.
        let is_clear =
            built.plan.schema().columns().iter().filter(|c| c.name == ONE_ID).count() == 1;
        Ok(is_clear.then_some(built))
    }

    fn of_scan(scan: &TableScan, map: &Map<'_>, record: [&Column; 2]) -> Result<Option<Self>> {
        let (Ok(table), Ok(of_map)) =
            (source_as_provider(&scan.source), source_as_provider(&map.scan.source))
        else {
            return Ok(None);
        };
        let customers = stored_table(table.as_ref()).and_then(|table| table.customers());
        let (Some(customers), Some(of_map)) = (customers, stored_table(of_map.as_ref())) else {
            return Ok(None);
        };
        let is_theirs = customers.map() == of_map.snapshot();
        let is_by_record = [0, 1].iter().all(|at| record[*at].name == RECORD[*at]);
        let Some(with_one_id) = with_one_id(table.as_ref()) else { return Ok(None) };
        if !is_theirs || !is_by_record || scan.fetch.is_some() {
            return Ok(None);
        }
        let own = scan.source.schema().fields().len();
        let projection: Vec<usize> = match &scan.projection {
            Some(projection) => projection.iter().copied().chain([own]).collect(),
            None => (0..=own).collect(),
        };
        let name: TableReference = scan.table_name.clone();
        let one_id = Column::new(Some(name.clone()), ONE_ID);
        let source = provider_as_source(with_one_id);
        let plan = LogicalPlanBuilder::scan_with_filters(
            name,
            source,
            Some(projection),
            scan.filters.clone(),
        )?;
        Ok(Some(Self { plan: plan.build()?, one_id }))
    }
}
