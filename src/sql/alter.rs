//! ALTER TABLE: a column more, and by whom rows are kept.

use arrow::datatypes::{DataType, Schema};
use datafusion::sql::planner::SqlToRel;

use super::Outcome;
use super::ddl::{AddColumn, SetIdentity};
use super::execute::{name_of, refuse_reserved};
use crate::error::{Error, Kind, Result};
use crate::identity;
use crate::ingest::model;
use crate::session::Session;
use crate::store::{
    BUCKETS_DEFAULT, Clustering, Generation, Name, ONE_ID, RECORD, TableDef, TableSnapshot,
    refuse_hidden_record, stored_schema,
};

pub(super) async fn add_column(session: &Session, add: &AddColumn, text: &str) -> Result<Outcome> {
    let name = name_of(&add.table)?;
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let def = altered(&newest, &name)?;
    let snapshot = warehouse.snapshot(def).await?;
    let planning = session.planning(text, &[]).await?;
    let added = SqlToRel::new(&planning).build_schema(vec![add.column.clone()])?;
    let added = stored_schema(&added)?;
    let field = &added.fields()[0];
    let tag = || "ALTER TABLE".to_owned();
    if snapshot.schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(field.name())) {
        let notice = format!("column \"{}\" of \"{name}\" already exists", field.name());
        return match add.if_not_exists {
            true => Ok(Outcome::Noticed { tag: tag(), notice: format!("{notice}, skipping") }),
            false => Err(Error::new(Kind::DuplicateColumn, notice)),
        };
    }
    let all = snapshot.schema.fields().iter().chain([field]);
    refuse_hidden_record(all.map(|field| field.name().as_str()))?;
    let mut personal = snapshot.personal.clone();
    if add.is_personal || model::is_personal(field.name()) {
        personal.push(field.name().clone());
    }
    warehouse.add_column(&name, def, field, &personal).await?;
    Ok(Outcome::Done(tag()))
}

/// The table that is altered: one of the user's.
fn altered<'a>(state: &'a Generation, name: &Name) -> Result<&'a TableDef> {
    refuse_reserved(name)?;
    state.refuse_change(name)?;
    state
        .table(name)
        .ok_or_else(|| Error::new(Kind::UndefinedTable, format!("table \"{name}\" does not exist")))
}

/// ALTER TABLE ... SET IDENTITY: from the next compaction on, rows lie by the customers of a graph, then by time.
///
/// # Errors
/// 42P01 for a table and 42704 for a graph that is not there, 42703 for a table without the columns of a record, 42804 where
/// those are not text.
pub(super) async fn set_identity(session: &Session, set: &SetIdentity) -> Result<Outcome> {
    let name = &set.table;
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let def = altered(&newest, name)?;
    let snapshot = warehouse.snapshot(def).await?;
    let tag = || "ALTER TABLE".to_owned();
    let Some(graph) = &set.graph else {
        if snapshot.graph().is_none() {
            let notice = format!("table \"{name}\" is not kept by customers, skipping");
            return Ok(Outcome::Noticed { tag: tag(), notice });
        }
        warehouse.set_identity(name, def, None).await?;
        return Ok(Outcome::Done(tag()));
    };
    identity::must_exist(&newest, graph)?;
    must_have_records(name, &snapshot.schema)?;
    let (time, buckets) = time_and_buckets(&snapshot);
    let by_graph = Clustering::by_graph(graph, time.as_deref(), buckets);
    if snapshot.clustering.as_ref() == Some(&by_graph) {
        let notice = format!("table \"{name}\" is kept by the customers of \"{graph}\" already");
        return Ok(Outcome::Noticed { tag: tag(), notice });
    }
    warehouse.set_identity(name, def, Some(&by_graph)).await?;
    let notice = format!(
        "rows are put by customer with the next compaction: COMPACT TABLE {name}, or a server in its own time"
    );
    Ok(Outcome::Noticed { tag: tag(), notice })
}

fn must_have_records(name: &Name, schema: &Schema) -> Result<()> {
    for column in RECORD {
        let Ok(field) = schema.field_with_name(column) else {
            return Err(Error::new(
                Kind::UndefinedColumn,
                format!("table \"{name}\" has no column \"{column}\""),
            )
            .hint("a graph knows records by source and record_id"));
        };
        if *field.data_type() != DataType::Utf8 {
            return Err(Error::new(
                Kind::DatatypeMismatch,
                format!("column \"{column}\" of \"{name}\" is {}, not text", field.data_type()),
            )
            .hint("the map of a graph has source and record_id as text"));
        }
    }
    match schema.field_with_name(ONE_ID) {
        Ok(_) => Err(Error::new(
            Kind::DuplicateColumn,
            format!("table \"{name}\" has a column \"{ONE_ID}\" of its own"),
        )),
        Err(_) => Ok(()),
    }
}

/// The time that a customer's rows are ordered by, and the number of buckets: as they were, or the model's.
fn time_and_buckets(snapshot: &TableSnapshot) -> (Option<String>, u32) {
    if let Some(clustering) = &snapshot.clustering {
        return (clustering.time().map(str::to_owned), clustering.buckets);
    }
    let is_time = |column: &&str| {
        let field = snapshot.schema.field_with_name(column);
        field.is_ok_and(|field| {
            matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32)
        })
    };
    let time = ["occurred_at", "ordered_at", "given_at"].into_iter().find(is_time);
    (time.map(str::to_owned), BUCKETS_DEFAULT)
}
