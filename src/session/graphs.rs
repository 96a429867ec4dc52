//! `oneid_why(graph, record, record)` and `oneid_preview(graph, change)`: relations that a graph computes when they are read.

use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::stop::Stop;
use crate::error::{Error, Kind};
use crate::identity;
use crate::store::Warehouse;
use crate::workspace::Workspace;

/// Makes the functions known.
pub(super) fn register(state: &mut SessionState, warehouse: &Arc<Warehouse>) {
    for question in [Question::Why, Question::Preview] {
        let function = Asked { question, warehouse: Arc::downgrade(warehouse) };
        state.register_udtf(question.name(), Arc::new(function));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Why,
    Preview,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Why => "oneid_why",
            Self::Preview => "oneid_preview",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Why => "oneid_why('graph', 'source/record', 'source/record')",
            Self::Preview => "oneid_preview('graph', 'device.max_records=3')",
        }
    }

    fn arguments(self) -> usize {
        match self {
            Self::Why => 3,
            Self::Preview => 2,
        }
    }
}

/// A function: what it asks, and of whom.
#[derive(Debug)]
struct Asked {
    question: Question,
    warehouse: Weak<Warehouse>,
}

impl TableFunctionImpl for Asked {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let text = |expr: &Expr| match expr {
            Expr::Literal(
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)),
                _,
            ) => Some(text.clone()),
            // A parameter whose value is not known yet: the columns are the same for all.
            Expr::Placeholder(_) => Some(String::new()),
            _ => None,
        };
        let given = args.exprs().iter().map(text).collect::<Option<Vec<_>>>();
        match given.filter(|given| given.len() == self.question.arguments()) {
            Some(given) => Ok(Arc::new(Answer {
                question: self.question,
                warehouse: Weak::clone(&self.warehouse),
                given,
            })),
            None => Err(DataFusionError::from(
                Error::new(Kind::InvalidParameter, format!("{} takes texts", self.question.name()))
                    .hint(self.question.usage()),
            )),
        }
    }
}

/// The answer, computed when it is scanned.
#[derive(Debug)]
struct Answer {
    question: Question,
    warehouse: Weak<Warehouse>,
    given: Vec<String>,
}

impl Answer {
    async fn compute(&self, workspace: &Workspace) -> crate::error::Result<RecordBatch> {
        let Some(warehouse) = self.warehouse.upgrade() else {
            return Err(Error::internal("the warehouse is closed"));
        };
        match self.question {
            Question::Why => {
                let [graph, a, b] = [0, 1, 2].map(|at| self.given[at].as_str());
                identity::why(&warehouse, graph, a, b, workspace).await
            }
            Question::Preview => {
                Box::pin(identity::preview(&warehouse, &self.given[0], &self.given[1], workspace))
                    .await
            }
        }
    }
}

#[async_trait]
impl TableProvider for Answer {
    fn schema(&self) -> SchemaRef {
        match self.question {
            Question::Why => identity::why_schema(),
            Question::Preview => identity::preview_schema(),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let runtime = state.runtime_env();
        let pool = Stop::current().memory(&runtime.memory_pool);
        let memory = MemoryConsumer::new(self.question.name()).register(&pool);
        let workspace = Workspace::new(memory, Arc::clone(&runtime.disk_manager));
        let batch = Box::pin(self.compute(&workspace)).await.map_err(DataFusionError::from)?;
        let rows = MemTable::try_new(self.schema(), vec![vec![batch]])?;
        rows.scan(state, projection, filters, limit).await
    }
}
