//! The seam through which a role sees a stored table.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Constraints, Statistics};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TableProviderFilterPushDown, TableType, Volatility,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::store::Erased;

/// A table as one role may see it.
///
/// Every stored table is handed out inside one, so that a row filter or a column mask has a single place to live and no
/// path around it. No role has a policy yet; rows of erased records are nobody's to see.
#[derive(Debug)]
pub struct PolicyTable {
    inner: Arc<dyn TableProvider>,
    role: String,
    /// Records whose rows are in the files and must not be seen.
    hidden: Option<(Arc<Erased>, [usize; 2])>,
}

impl PolicyTable {
    /// `inner` as `role` sees it.
    pub fn new(inner: Arc<dyn TableProvider>, role: &str) -> Self {
        Self { inner, role: role.to_owned(), hidden: None }
    }

    /// The same view of the same rows, with columns more.
    pub fn over(&self, inner: Arc<dyn TableProvider>) -> Self {
        Self { inner, role: self.role.clone(), hidden: self.hidden.clone() }
    }

    /// What is seen.
    pub fn inner(&self) -> &dyn TableProvider {
        self.inner.as_ref()
    }

    /// The table without the rows of erased records; one whose rows are nobody's stays as it is.
    pub fn without(mut self, erased: &Arc<Erased>) -> Self {
        let key = Erased::key_columns(&self.inner.schema());
        self.hidden = key.map(|key| (Arc::clone(erased), key));
        self
    }

    /// Whose view of the table it is.
    pub fn role(&self) -> &str {
        &self.role
    }
}

#[async_trait]
impl TableProvider for PolicyTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.inner.constraints()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.inner.get_logical_plan()
    }

    fn statistics(&self) -> Option<Statistics> {
        match self.hidden {
            None => self.inner.statistics(),
            Some(_) => None,
        }
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some((erased, key)) = &self.hidden else {
            return self.inner.scan(state, projection, filters, limit).await;
        };
        let schema = self.inner.schema();
        let wanted: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut read = wanted.clone();
        read.extend(key.iter().filter(|at| !wanted.contains(at)));
        let scan = self.inner.scan(state, Some(&read), filters, None).await?;
        let column = |place: usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(schema.field(read[place]).name(), place))
        };
        let arguments =
            key.iter().filter_map(|at| read.iter().position(|r| r == at)).map(column).collect();
        let keeps = ScalarFunctionExpr::try_new(
            Arc::new(ScalarUDF::new_from_impl(NotErased::new(Arc::clone(erased)))),
            arguments,
            &scan.schema(),
            Arc::new(state.config_options().clone()),
        )?;
        let kept: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(Arc::new(keeps), scan)?);
        if read.len() == wanted.len() {
            return Ok(kept);
        }
        let given = (0..wanted.len()).map(|place| ProjectionExpr {
            expr: column(place),
            alias: schema.field(wanted[place]).name().clone(),
        });
        Ok(Arc::new(ProjectionExec::try_new(given.collect::<Vec<_>>(), kept)?))
    }
}

/// `not_erased(source, record_id)`: whether a row is of a record that may be seen.
#[derive(Debug)]
struct NotErased {
    erased: Arc<Erased>,
    signature: Signature,
}

impl NotErased {
    fn new(erased: Arc<Erased>) -> Self {
        Self { erased, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl PartialEq for NotErased {
    fn eq(&self, other: &Self) -> bool {
        self.erased.version() == other.erased.version()
    }
}

impl Eq for NotErased {}

impl Hash for NotErased {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.erased.version().hash(state);
    }
}

impl ScalarUDFImpl for NotErased {
    fn name(&self) -> &'static str {
        "not_erased"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let key = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(Arc::new(self.erased.keeps(&key[0], &key[1])?)))
    }
}
