//! `SELECT * FROM self_check()`: published numbers, computed again in this installation.

use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use clientele_udfs::value::lifetime::self_check::{Check, checks};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;

use crate::error::{Error, Kind};

/// The function.
#[derive(Debug)]
pub(super) struct SelfCheck;

impl TableFunctionImpl for SelfCheck {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        if !args.exprs().is_empty() {
            return Err(Error::new(Kind::InvalidParameter, "self_check takes no arguments").into());
        }
        let all = checks();
        let text = |value: fn(&Check) -> &str| {
            Arc::new(StringArray::from_iter_values(all.iter().map(value)))
        };
        let number = |value: fn(&Check) -> f64| {
            Arc::new(Float64Array::from_iter_values(all.iter().map(value)))
        };
        let column = |name, data_type| Field::new(name, data_type, true);
        let schema = Arc::new(Schema::new(vec![
            column("name", DataType::Utf8),
            column("published", DataType::Float64),
            column("computed", DataType::Float64),
            column("tolerance", DataType::Float64),
            column("holds", DataType::Boolean),
            column("source", DataType::Utf8),
        ]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                text(|check| &check.name),
                number(|check| check.published),
                number(|check| check.computed),
                number(|check| check.tolerance),
                Arc::new(BooleanArray::from_iter(all.iter().map(|check| Some(check.holds())))),
                text(|check| check.source),
            ],
        )?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}
