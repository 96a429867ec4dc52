//! A graph as stored: its definition and its tables, changed together.

use std::collections::BTreeMap;

use super::Answer;
use super::refresh::refresh;
use super::rules::Definition;
use super::source::Source;
use super::statement::{GraphStatement, RuleChange};
use super::tables::{self, DEFINITION, EARLIER};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Generation, GraphDef, Group, Name, Relation, TableChange, Warehouse};
use crate::workspace::Workspace;

/// Runs a graph statement; a refresh within `memory`.
pub async fn execute(
    warehouse: &Warehouse,
    statement: &GraphStatement,
    memory: &Workspace,
) -> Result<Answer> {
    match statement {
        GraphStatement::Create { name, if_not_exists, definition } => {
            create(warehouse, name, *if_not_exists, definition).await
        }
        GraphStatement::Alter { name, change } => alter(warehouse, name, change).await,
        GraphStatement::Refresh { name, full } => {
            Box::pin(refresh(warehouse, name, *full, memory)).await
        }
        GraphStatement::Drop { name, if_exists } => drop_graph(warehouse, name, *if_exists).await,
    }
}

/// The table that a graph reads.
pub fn relation_of(graph: &GraphDef) -> Option<Name> {
    let definition: Definition = serde_json::from_value(graph.definition.clone()).ok()?;
    Some(definition.relation())
}

/// The definition of graph `name` in a published state.
pub(super) fn definition_of(state: &Generation, name: &str) -> Result<Definition> {
    match state.relations.get(&Name::new(name, DEFINITION)) {
        Some(Relation::Graph(graph)) => Ok(serde_json::from_value(graph.definition.clone())?),
        _ => Err(unknown(name)),
    }
}

async fn create(
    warehouse: &Warehouse,
    name: &str,
    if_not_exists: bool,
    definition: &Definition,
) -> Result<Answer> {
    let tag = "CREATE IDENTITY GRAPH".to_owned();
    if name == "public" || Name::new(name, DEFINITION).is_reserved() {
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
    Source::open(warehouse, definition).await?;
    let mut group = Group::default();
    for (table, schema) in tables::all() {
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
    group.names.insert(Name::new(name, DEFINITION), stored(definition)?);
    warehouse.publish(group).await?;
    Ok(Answer { tag, notice: None })
}

fn stored(definition: &Definition) -> Result<Change> {
    let definition = serde_json::to_value(definition)?;
    Ok(Change::Set(Relation::Graph(GraphDef { definition })))
}

async fn alter(warehouse: &Warehouse, name: &str, change: &RuleChange) -> Result<Answer> {
    let mut changed = definition_of(warehouse.newest().await?.as_ref(), name)?;
    let had_all = changed.rules.is_empty();
    changed.apply(change.clone());
    changed.check()?;
    Source::open(warehouse, &changed).await?;
    warehouse
        .publish_names(|state| {
            let mut definition = definition_of(state, name)?;
            definition.apply(change.clone());
            Ok(BTreeMap::from([(Name::new(name, DEFINITION), stored(&definition)?)]))
        })
        .await?;
    let mut notice =
        "the rules apply from the next REFRESH on, to all that was ever loaded".to_owned();
    if had_all && !changed.rules.is_empty() {
        notice.push_str("; so far every type of identifier had its usual rule, from then on those join that are listed: name the others too, as in SET (phone (max_records 9), email)");
    }
    Ok(Answer { tag: "ALTER IDENTITY GRAPH".to_owned(), notice: Some(notice) })
}

async fn drop_graph(warehouse: &Warehouse, name: &str, if_exists: bool) -> Result<Answer> {
    let tag = "DROP IDENTITY GRAPH".to_owned();
    must_keep_nothing(warehouse, name).await?;
    let mut was_there = false;
    warehouse
        .publish_names(|state| {
            let definition = Name::new(name, DEFINITION);
            was_there = state.relations.contains_key(&definition);
            if !was_there {
                return if if_exists { Ok(BTreeMap::new()) } else { Err(unknown(name)) };
            }
            let mut changes = BTreeMap::from([(definition, Change::Dropped)]);
            let all = tables::all().into_iter().map(|(table, _)| table);
            for table in all.chain(EARLIER) {
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

/// A graph by whose customers a table's rows are kept stays.
async fn must_keep_nothing(warehouse: &Warehouse, name: &str) -> Result<()> {
    for (table, relation) in &warehouse.newest().await?.relations {
        let Relation::Table(def) = relation else { continue };
        let snapshot = warehouse.snapshot(def).await?;
        if snapshot.graph() == Some(name) {
            return Err(Error::new(
                Kind::DependentObjects,
                format!("the rows of table \"{table}\" are kept by the customers of \"{name}\""),
            )
            .hint(format!("ALTER TABLE {table} SET IDENTITY NONE lets them go")));
        }
    }
    Ok(())
}

/// Refuses the name of a graph that is not there.
pub fn must_exist(state: &Generation, name: &str) -> Result<()> {
    match state.relations.get(&Name::new(name, DEFINITION)) {
        Some(Relation::Graph(_)) => Ok(()),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::UndefinedObject, format!("identity graph \"{name}\" does not exist"))
}
