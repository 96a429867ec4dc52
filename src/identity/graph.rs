//! A graph as stored: its definition and its tables, changed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Answer;
use super::resolve::{Resolved, Resolver};
use super::statement::{Definition, GraphStatement};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, GraphDef, Group, Name, Relation, TableChange, Warehouse};

/// The relation that holds a graph's definition, within the graph's schema.
const DEFINITION: &str = "graph";

/// Tables of a graph: name and columns.
fn tables() -> [(&'static str, SchemaRef); 3] {
    let schema = |columns: &[(&str, DataType)]| {
        Arc::new(Schema::new(
            columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>(),
        ))
    };
    let text = || DataType::Utf8;
    [
        ("map", schema(&[("source", text()), ("record_id", text()), ("one_id", DataType::Int64)])),
        (
            "hubs",
            schema(&[
                ("id_type", text()),
                ("records", DataType::Int32),
                ("max_records", DataType::Int32),
            ]),
        ),
        (
            "rejected",
            schema(&[
                ("source", text()),
                ("record_id", text()),
                ("id_type", text()),
                ("reason", text()),
            ]),
        ),
    ]
}

/// Runs a graph statement.
pub async fn execute(warehouse: &Warehouse, statement: &GraphStatement) -> Result<Answer> {
    match statement {
        GraphStatement::Create { name, if_not_exists, definition } => {
            create(warehouse, name, *if_not_exists, definition).await
        }
        GraphStatement::Refresh(name) => refresh(warehouse, name).await,
        GraphStatement::Drop { name, if_exists } => drop_graph(warehouse, name, *if_exists).await,
    }
}

/// The table that a graph reads.
pub fn relation_of(graph: &GraphDef) -> Option<Name> {
    let definition: Definition = serde_json::from_value(graph.definition.clone()).ok()?;
    Some(definition.relation())
}

async fn create(
    warehouse: &Warehouse,
    name: &str,
    if_not_exists: bool,
    definition: &Definition,
) -> Result<Answer> {
    let tag = "CREATE IDENTITY GRAPH".to_owned();
    if ["public", "system", "information_schema", "reports", "cron"].contains(&name)
        || name.starts_with("pg_")
    {
        return Err(Error::new(
            Kind::NotAllowed,
            format!("a graph cannot be named {name}: that schema is taken"),
        ));
    }
    let newest = warehouse.newest().await?;
    if newest.relations.contains_key(&Name::new(name, DEFINITION)) {
        if if_not_exists {
            let notice = Some(format!("identity graph \"{name}\" already exists, skipping"));
            return Ok(Answer { tag, notice });
        }
        return Err(Error::new(
            Kind::DuplicateObject,
            format!("identity graph \"{name}\" already exists"),
        ));
    }
    source_of(warehouse, definition).await?;
    let mut group = Group::default();
    for (table, schema) in tables() {
        let relation = Name::new(name, table);
        if newest.relations.contains_key(&relation) {
            return Err(Error::new(
                Kind::DuplicateTable,
                format!("relation \"{relation}\" already exists"),
            ));
        }
        let path = warehouse.prepare_table(&relation, &schema, &[], None).await?;
        group.tables.push(TableChange::create(relation, path, vec![]));
    }
    let stored = GraphDef { definition: serde_json::to_value(definition)? };
    group.names.insert(Name::new(name, DEFINITION), Change::Set(Relation::Graph(stored)));
    warehouse.publish(group).await?;
    Ok(Answer { tag, notice: None })
}

/// The table that a graph reads; its columns are checked.
async fn source_of(
    warehouse: &Warehouse,
    definition: &Definition,
) -> Result<Arc<crate::store::TableSnapshot>> {
    let relation = definition.relation();
    let newest = warehouse.newest().await?;
    let def = match newest.relations.get(&relation) {
        Some(Relation::Table(def)) => def,
        Some(_) => {
            return Err(Error::new(
                Kind::WrongObjectType,
                format!("\"{relation}\" is not a table; a graph reads a table"),
            )
            .hint("CREATE TABLE ... AS SELECT keeps a view's rows"));
        }
        None => {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("relation \"{relation}\" does not exist"),
            ));
        }
    };
    let snapshot = warehouse.snapshot(&def.path, def.version).await?;
    for column in &definition.columns {
        match snapshot.schema.field_with_name(column) {
            Ok(field) if field.data_type() == &DataType::Utf8 => {}
            Ok(field) => {
                return Err(Error::new(
                    Kind::DatatypeMismatch,
                    format!(
                        "column \"{column}\" of \"{relation}\" is {}; identifiers are text",
                        field.data_type()
                    ),
                ));
            }
            Err(_) => {
                return Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("column \"{column}\" of \"{relation}\" does not exist"),
                ));
            }
        }
    }
    Ok(snapshot)
}

async fn refresh(warehouse: &Warehouse, name: &str) -> Result<Answer> {
    let newest = warehouse.newest().await?;
    let Some(Relation::Graph(graph)) = newest.relations.get(&Name::new(name, DEFINITION)) else {
        return Err(unknown(name));
    };
    let definition: Definition = serde_json::from_value(graph.definition.clone())?;
    let snapshot = source_of(warehouse, &definition).await?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    warehouse.read_columns(&snapshot, &definition.columns, |batch| batches.push(batch)).await?;
    let key = *warehouse.key();
    let resolved = tokio::task::spawn_blocking(move || resolve(&batches, &definition, &key));
    let resolved =
        resolved.await.map_err(|_| Error::internal("identity resolution stopped unexpectedly"))?;
    let notice = format!(
        "{} records are {} customers; {} identifiers rejected, {} {}",
        resolved.map.len(),
        resolved.clusters,
        resolved.rejected.len(),
        resolved.hubs.len(),
        if resolved.hubs.len() == 1 { "hub" } else { "hubs" }
    );
    let mut group = Group::default();
    for ((table, schema), batch) in tables().into_iter().zip(batches_of(&resolved)?) {
        let relation = Name::new(name, table);
        let Some(def) = newest.table(&relation) else {
            return Err(unknown(name));
        };
        let mut writer = warehouse.writer(&def.path, schema, &[], None).await?;
        writer.write(&batch).await?;
        let files = writer.finish().await?;
        let path = def.path.clone();
        group.tables.push(TableChange::replace(relation, path, files));
    }
    warehouse.publish(group).await?;
    Ok(Answer { tag: "REFRESH IDENTITY GRAPH".to_owned(), notice: Some(notice) })
}

fn resolve(batches: &[RecordBatch], definition: &Definition, key: &[u8; 32]) -> Resolved {
    let mut resolver = Resolver::new(&definition.rules, key);
    for batch in batches {
        let column = |i: usize| batch.column(i).as_string::<i32>();
        let (sources, records, types, values) = (column(0), column(1), column(2), column(3));
        for (((source, record), id_type), value) in
            sources.iter().zip(records).zip(types).zip(values)
        {
            // A row without a key or a type says nothing about anybody.
            if let (Some(source), Some(record), Some(id_type)) = (source, record, id_type) {
                resolver.add(source, record, id_type, value);
            }
        }
    }
    resolver.resolve()
}

/// One batch a table, in the order of [`tables`].
fn batches_of(resolved: &Resolved) -> Result<[RecordBatch; 3]> {
    fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }
    let map: Vec<ArrayRef> = vec![
        texts(resolved.map.iter().map(|(key, _)| key.0.as_str())),
        texts(resolved.map.iter().map(|(key, _)| key.1.as_str())),
        Arc::new(Int64Array::from_iter_values(resolved.map.iter().map(|(_, id)| *id))),
    ];
    let hubs: Vec<ArrayRef> = vec![
        texts(resolved.hubs.iter().map(|h| h.id_type.as_str())),
        Arc::new(Int32Array::from_iter_values(resolved.hubs.iter().map(|h| h.records as i32))),
        Arc::new(Int32Array::from_iter_values(resolved.hubs.iter().map(|h| h.max_records as i32))),
    ];
    let rejected: Vec<ArrayRef> = vec![
        texts(resolved.rejected.iter().map(|r| r.source.as_str())),
        texts(resolved.rejected.iter().map(|r| r.record_id.as_str())),
        texts(resolved.rejected.iter().map(|r| r.id_type.as_str())),
        texts(resolved.rejected.iter().map(|r| r.reason)),
    ];
    let [a, b, c] = tables();
    Ok([
        RecordBatch::try_new(a.1, map)?,
        RecordBatch::try_new(b.1, hubs)?,
        RecordBatch::try_new(c.1, rejected)?,
    ])
}

async fn drop_graph(warehouse: &Warehouse, name: &str, if_exists: bool) -> Result<Answer> {
    let tag = "DROP IDENTITY GRAPH".to_owned();
    let mut was_there = false;
    warehouse
        .publish_names(|state| {
            let definition = Name::new(name, DEFINITION);
            was_there = state.relations.contains_key(&definition);
            if !was_there {
                return if if_exists { Ok(BTreeMap::new()) } else { Err(unknown(name)) };
            }
            let mut changes = BTreeMap::from([(definition, Change::Dropped)]);
            for (table, _) in tables() {
                let relation = Name::new(name, table);
                if state.table(&relation).is_some() {
                    changes.insert(relation, Change::Dropped);
                }
            }
            Ok(changes)
        })
        .await?;
    let notice =
        (!was_there).then(|| format!("identity graph \"{name}\" does not exist, skipping"));
    Ok(Answer { tag, notice })
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::UndefinedObject, format!("identity graph \"{name}\" does not exist"))
}
