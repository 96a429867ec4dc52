//! Runs one aggregate every way the engine can, and demands one answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

/// An aggregate over the columns `k` INT (1 to 5, or NULL) and `at` TIMESTAMP of random customers.
pub(crate) struct AggregateCase {
    aggregate: String,
}

/// One way to run the query.
struct Way {
    partitions: usize,
    batch_rows: usize,
    reversed: bool,
}

impl AggregateCase {
    pub(crate) fn new(aggregate: &str) -> Self {
        Self { aggregate: aggregate.to_owned() }
    }

    /// Whole, in batches, merged from partitions, shuffled, filtered, and ungrouped.
    pub(crate) fn agrees_however_it_is_run(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let grouped = format!(
            "SELECT customer, {agg} AS a, {agg} FILTER (WHERE kept) AS f FROM t GROUP BY customer ORDER BY customer",
            agg = self.aggregate
        );
        let expected = runtime
            .block_on(run(&grouped, &Way { partitions: 1, batch_rows: 100_000, reversed: false }));
        for (partitions, batch_rows) in [(1, 1), (1, 7), (2, 3), (7, 64), (64, 2)] {
            for reversed in [false, true] {
                let way = Way { partitions, batch_rows, reversed };
                assert_eq!(
                    runtime.block_on(run(&grouped, &way)),
                    expected,
                    "{} with {partitions} partitions of batches of {batch_rows}, reversed: {reversed}",
                    self.aggregate
                );
            }
        }
        self.runs_along(&runtime, &grouped);
        let one = |customer: i32| {
            format!(
                "SELECT {customer} AS customer, {} AS a FROM t WHERE customer = {customer}",
                self.aggregate
            )
        };
        let way = Way { partitions: 3, batch_rows: 5, reversed: false };
        for customer in 0..5 {
            let grouped =
                format!("SELECT customer, a FROM ({grouped}) WHERE customer = {customer}");
            let expected = runtime.block_on(run(&grouped, &way));
            assert_eq!(
                runtime.block_on(run(&one(customer), &way)),
                expected,
                "ungrouped, customer {customer}"
            );
        }
        // A customer without rows has an answer too.
        runtime.block_on(run(&one(-1), &way));
    }

    /// As a window that is asked after every row the aggregate says at last what it says of all.
    fn runs_along(&self, runtime: &tokio::runtime::Runtime, grouped: &str) {
        // A function of an aggregate is none.
        let name = self.aggregate.split('(').next().unwrap_or_default();
        if !crate::all_udafs().iter().any(|aggregate| aggregate.name() == name) {
            return;
        }
        let running = format!(
            "SELECT customer, a FROM (SELECT customer, {} OVER w AS a, row_number() OVER w AS n, count(*) OVER (PARTITION BY customer) AS c \
             FROM t WINDOW w AS (PARTITION BY customer ORDER BY at, k ROWS UNBOUNDED PRECEDING)) WHERE n = c ORDER BY customer",
            self.aggregate
        );
        let way = Way { partitions: 1, batch_rows: 100_000, reversed: false };
        let expected = format!("SELECT customer, a FROM ({grouped}) ORDER BY customer");
        assert_eq!(
            runtime.block_on(run(&running, &way)),
            runtime.block_on(run(&expected, &way)),
            "{} as a window",
            self.aggregate
        );
    }

    /// The aggregate's answer is what `merge` makes of the `state`s of any parts of the rows, and of states of states.
    pub(crate) fn is_merged_by(&self, state: &str, merge: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let direct = format!("SELECT customer, {} AS a FROM t GROUP BY customer", self.aggregate);
        let states = |by: &str| {
            format!("SELECT customer, {by} AS part, {state} AS s FROM t GROUP BY customer, {by}")
        };
        let merged = |states: &str, by: &str, merge: &str, name: &str| {
            format!(
                "SELECT customer, {by} {merge}(s) AS {name} FROM ({states}) GROUP BY customer {}",
                if by.is_empty() { "" } else { ", part % 2" }
            )
        };
        let each = states("k");
        let ways = [
            merged(&states("kept"), "", merge, "a"),
            merged(&each, "", merge, "a"),
            merged(
                &merged(&each, "part % 2 AS part,", &format!("{merge}_state"), "s"),
                "",
                merge,
                "a",
            ),
        ];
        for (partitions, batch_rows) in [(1, 100_000), (3, 7), (16, 2)] {
            let way = Way { partitions, batch_rows, reversed: false };
            let sorted = |sql: &str| format!("SELECT * FROM ({sql}) ORDER BY customer");
            let expected = runtime.block_on(run(&sorted(&direct), &way));
            for merged in &ways {
                assert_eq!(runtime.block_on(run(&sorted(merged), &way)), expected, "{merged}");
            }
        }
        // No state is no row.
        let none = format!("SELECT {merge}(s) AS a FROM ({each}) WHERE customer < 0");
        let no_row = format!("SELECT {} AS a FROM t WHERE customer < 0", self.aggregate);
        let way = Way { partitions: 2, batch_rows: 9, reversed: false };
        assert_eq!(
            runtime.block_on(run(&none, &way)),
            runtime.block_on(run(&no_row, &way)),
            "{none}"
        );
    }
}

async fn run(sql: &str, way: &Way) -> String {
    let config = SessionConfig::new()
        .with_target_partitions(way.partitions)
        .with_batch_size(way.batch_rows.max(2));
    let ctx = SessionContext::new_with_config(config);
    crate::register_all(&ctx);
    let batches = rows(way);
    let schema = batches[0].schema();
    let mut partitions = vec![Vec::new(); way.partitions];
    for (i, batch) in batches.into_iter().enumerate() {
        partitions[i % way.partitions].push(batch);
    }
    #[expect(clippy::disallowed_methods, reason = "a test has no catalog")]
    ctx.register_table("t", Arc::new(MemTable::try_new(schema, partitions).unwrap())).unwrap();
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// 600 rows of 40 customers from a fixed generator, cut into batches.
fn rows(way: &Way) -> Vec<RecordBatch> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut rows: Vec<(i32, Option<i32>, Option<i64>, bool)> = (0..600)
        .map(|_| {
            let k = (next(10) > 0).then(|| next(5) as i32 + 1);
            let at = (next(20) > 0).then(|| next(8) as i64 * 500_000);
            (next(40) as i32, k, at, next(3) > 0)
        })
        .collect();
    if way.reversed {
        rows.reverse();
    }
    rows.chunks(way.batch_rows).map(batch).collect()
}

fn batch(rows: &[(i32, Option<i32>, Option<i64>, bool)]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![
        Field::new("customer", DataType::Int32, false),
        Field::new("k", DataType::Int32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("kept", DataType::Boolean, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(rows.iter().map(|r| r.1).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|r| r.2).collect::<TimestampMicrosecondArray>()),
        Arc::new(arrow::array::BooleanArray::from_iter(rows.iter().map(|r| Some(r.3)))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}
