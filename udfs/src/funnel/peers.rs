//! The funnels of other engines, answers and all: what a query gave there it gives here, also where they are wrong.
//!
//! Each is a pass of its own over a customer's touches, written from what the engine does; nothing of ours depends on them.

mod clickhouse;
mod doris;
mod starrocks;
#[cfg(test)]
mod tests;

use super::chain::{Rules, Touch, deepest_step as best};
use super::dialect::Dialect;

/// The level of a customer by the rules of `dialect`; `touches` are in order of time and step.
pub(super) fn deepest_step(dialect: Dialect, touches: &[Touch], rules: &Rules) -> u32 {
    match dialect {
        // Databend has no modes, and without modes the pass that the others make is exact.
        Dialect::Exact | Dialect::Databend => best(touches, rules),
        Dialect::ClickHouse => clickhouse::deepest_step(touches, rules),
        Dialect::StarRocks => starrocks::deepest_step(touches, rules),
        Dialect::Doris => doris::deepest_step(touches, rules),
    }
}
