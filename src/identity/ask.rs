//! `oneid_why` and `oneid_preview`: a graph is resolved anew in memory and asked; nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use clientele_udfs::identity::collect::Collected;
use clientele_udfs::identity::graph::{Graph, Limit, Value};
use clientele_udfs::identity::ids::{Event, assign, bytes_to_assign};
use clientele_udfs::identity::records::Keys;

use super::collection::{Asked, Collection, Use};
use super::graph::definition_of;
use super::map::Map;
use super::refresh::{
    LastRun, ids_before, last_run, resolve, said, told_before, type_name, values_told,
};
use super::rules::{Definition, Rule};
use super::source::Source;
use super::statement::RuleChange;
use super::tables::{RUNS, TOLD, Table, schema};
use crate::error::{Error, Kind, Result};
use crate::store::{MAP, Warehouse};
use crate::workspace::{Workspace, in_background};

/// Columns of `oneid_why`.
pub fn why_schema() -> SchemaRef {
    schema(&[
        ("step", &DataType::Int32),
        ("record", &DataType::Utf8),
        ("id_type", &DataType::Utf8),
        ("value", &DataType::Utf8),
        ("next", &DataType::Utf8),
        ("note", &DataType::Utf8),
    ])
}

/// Columns of `oneid_preview`.
pub fn preview_schema() -> SchemaRef {
    schema(&[
        ("event", &DataType::Utf8),
        ("one_id", &DataType::Int64),
        ("other_id", &DataType::Int64),
        ("records", &DataType::Int64),
    ])
}

/// A graph with what it was made from.
struct Resolved {
    source: Source,
    definition: Definition,
    last: LastRun,
    map: Map,
    has_numbered_ids: bool,
    collected: Collected,
    graph: Graph,
}

/// Everything as one refresh left it: a refresh that is published meanwhile gives its records other numbers.
async fn resolved(
    warehouse: &Warehouse,
    name: &str,
    change: RuleChange,
    memory: &Workspace,
) -> Result<Resolved> {
    const TRIES_MAX: u32 = 5;
    for _ in 0..TRIES_MAX {
        definition_of(warehouse.newest().await?.as_ref(), name)?;
        let mut map = Table::open(warehouse, name, MAP).await?;
        let resolved = resolved_with(warehouse, name, change.clone(), &mut map, memory).await;
        if !map.is_outdated().await? {
            return resolved;
        }
        memory.free();
    }
    Err(Error::new(Kind::Serialization, "the graph was refreshed again and again meanwhile")
        .hint("run the statement again"))
}

async fn resolved_with(
    warehouse: &Warehouse,
    name: &str,
    change: RuleChange,
    map: &mut Table<'_>,
    memory: &Workspace,
) -> Result<Resolved> {
    let mut definition = definition_of(warehouse.newest().await?.as_ref(), name)?;
    definition.apply(change);
    definition.check()?;
    let source = Source::open(warehouse, &definition).await?;
    let last = last_run(&mut Table::open(warehouse, name, RUNS).await?).await?;
    let (graph, said) = (name, said(warehouse, name, &definition).await?);
    let asked = Asked {
        warehouse,
        graph,
        definition: &definition,
        source: &source,
        last: &last,
        said: &said,
    };
    let all = asked.collect(map, Use::Seen, memory).await?;
    let Collection { map, has_numbered_ids, collector, .. } = all;
    let (collected, graph) = resolve(collector, map.bytes(), memory).await?;
    Ok(Resolved { source, definition, last, map, has_numbered_ids, collected, graph })
}

/// Why two records, named `source/record_id`, are one customer, step by step, or what they share and are not.
///
/// # Errors
/// 42704 for a graph that is not there, 22023 for a record that it has not, 53200 when it does not fit `memory`.
pub async fn why(
    warehouse: &Warehouse,
    name: &str,
    a: &str,
    b: &str,
    memory: &Workspace,
) -> Result<RecordBatch> {
    let all = resolved(warehouse, name, RuleChange::default(), memory).await?;
    let records = &all.collected.records;
    let number = |key: &str| {
        let found = key.split_once('/').and_then(|(source, id)| records.number(source, id));
        found.ok_or_else(|| {
            Error::new(
                Kind::InvalidParameter,
                format!("graph \"{name}\" has no such record as is asked for"),
            )
            .hint("a record is named source/record_id, as in the graph's map")
        })
    };
    let (first, second) = (number(a)?, number(b)?);
    let key = |record: u32| {
        let (source, id) = records.key(record);
        format!("{source}/{id}")
    };
    let resolution = &all.collected.resolution;
    let path = all.graph.path(resolution, first, second)?;
    let is_one = resolution.roots[first as usize] == resolution.roots[second as usize];
    let shared = if is_one { vec![] } else { all.graph.shared(resolution, first, second)? };
    let of_path = path.iter().filter_map(|step| step.by);
    let identifiers = of_path.chain(shared.iter().copied());
    let known = told_before(&mut Table::open(warehouse, name, TOLD).await?).await?;
    let values =
        values_told(warehouse, &all.source, &all.collected, identifiers, known, &[]).await?;
    let of = |identifier: Option<(u16, Value)>| match identifier {
        Some((kind, value)) => {
            (Some(type_name(&all.collected, kind).to_owned()), values.get(&value).cloned())
        }
        None => (None, None),
    };
    let mut rows: Vec<Row> = Vec::new();
    for step in &path {
        let (id_type, value) = of(step.by);
        let note = if step.by.is_some() { "both have it" } else { "joined by hand" };
        rows.push((Some(key(step.from)), id_type, value, Some(key(step.to)), note.to_owned()));
    }
    if !is_one {
        if all.graph.kept_apart(resolution, first, second) {
            let note = "kept apart by hand".to_owned();
            rows.push((Some(a.to_owned()), None, None, Some(b.to_owned()), note));
        }
        for (kind, value) in shared {
            let (id_type, shown) = of(Some((kind, value)));
            let note = all.why_not(kind, value);
            rows.push((Some(a.to_owned()), id_type, shown, Some(b.to_owned()), note));
        }
        if rows.is_empty() {
            let note = "they share no identifier, directly or through others".to_owned();
            rows.push((Some(a.to_owned()), None, None, Some(b.to_owned()), note));
        }
    } else if rows.is_empty() {
        rows.push((
            Some(a.to_owned()),
            None,
            None,
            Some(b.to_owned()),
            "the same record".to_owned(),
        ));
    }
    let text = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values((1..).take(rows.len()))),
        text(&|row| row.0.clone()),
        text(&|row| row.1.clone()),
        text(&|row| row.2.clone()),
        text(&|row| row.3.clone()),
        text(&|row| Some(row.4.clone())),
    ];
    Ok(RecordBatch::try_new(why_schema(), columns)?)
}

/// Record, type, value, next record, note.
type Row = (Option<String>, Option<String>, Option<String>, Option<String>, String);

impl Resolved {
    /// Why an identifier that two customers share does not join them.
    fn why_not(&self, kind: u16, value: Value) -> String {
        let resolution = &self.collected.resolution;
        let rule = self.definition.rule_of(type_name(&self.collected, kind));
        if let Some(hub) = resolution.hubs.iter().find(|hub| hub.value == value) {
            return format!("a hub: {} records have it, {} may", hub.records, rule.max_records);
        }
        let review =
            resolution.reviews.iter().find(|review| review.identifier == Some((kind, value)));
        match review.map(|review| review.limit) {
            Some(Limit::CannotLink) => {
                "ambiguous: it would join records that were said to be different people".to_owned()
            }
            Some(Limit::Values(limited)) => {
                let id_type = type_name(&self.collected, limited);
                format!("ambiguous: one customer would have too many values of {id_type}")
            }
            Some(Limit::Records) => {
                "ambiguous: one customer would have too many records".to_owned()
            }
            None if rule.reuse_gap_us.is_some() => {
                "it had another owner when the other record was seen with it, or is part of a conflict".to_owned()
            }
            None => "part of a conflict: with others it would break a limit".to_owned(),
        }
    }
}

/// What a change of rules would do to the customers as they are: ids that would be merged, split off, created or retired, with
/// the number of records of the customer that has the id then (of a merged one: of the one it goes to).
///
/// `change` is a list of `type.option=value` and `option=value`, as in `device.max_records=3, max_cluster_records=100`.
///
/// # Errors
/// 42704 for a graph that is not there, 22023 for a change that cannot be read, 53200 when it does not fit `memory`.
pub async fn preview(
    warehouse: &Warehouse,
    name: &str,
    change: &str,
    memory: &Workspace,
) -> Result<RecordBatch> {
    let mut all = resolved(warehouse, name, read_change(change)?, memory).await?;
    let records = &all.collected.records;
    let (before, gone) = match all.has_numbered_ids {
        true => all.map.take_ids(records.len()),
        false => ids_before(&mut Table::open(warehouse, name, MAP).await?, records).await?,
    };
    let run = all.last.run + 1;
    // Which identifiers joined them does not matter any more.
    drop(all.graph);
    let held = all.map.bytes() + all.collected.bytes();
    memory.try_resize(held + bytes_to_assign(all.collected.records.len()))?;
    let assigned = in_background(move || {
        let collected = all.collected;
        assign(&collected.records, &collected.resolution.roots, before, &gone, run)
    })
    .await?;
    let mut sizes: BTreeMap<i64, i64> = BTreeMap::new();
    for (id, _, other) in &assigned.events {
        sizes.extend([(*id, 0), (other.unwrap_or(*id), 0)]);
    }
    for id in &assigned.ids.ids {
        if let Some(size) = sizes.get_mut(id) {
            *size += 1;
        }
    }
    let word = |event: Event| match event {
        Event::Created => "create",
        Event::Split => "split",
        Event::Merged => "merge",
        Event::Retired => "retire",
    };
    let events = &assigned.events;
    let holder = |(id, event, other): &(i64, Event, Option<i64>)| match event {
        Event::Merged => other.unwrap_or(*id),
        _ => *id,
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| word(e.1)))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.0))),
        Arc::new(events.iter().map(|e| e.2).collect::<Int64Array>()),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| sizes[&holder(e)]))),
    ];
    Ok(RecordBatch::try_new(preview_schema(), columns)?)
}

/// `device.max_records=3, max_cluster_records=100` as a change of rules.
fn read_change(text: &str) -> Result<RuleChange> {
    let bad = |part: &str| {
        Error::new(Kind::InvalidParameter, format!("{part:?} is no change of rules"))
            .detail("type.priority=n, type.max_records=n, type.max_per_cluster=n, type.unique=true, type.reuse_gap_days=n, max_cluster_records=n, link_scope=column")
    };
    let mut change = RuleChange::default();
    for part in text.split([',', ';']).map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| bad(part))?;
        let (name, value) = (name.trim(), value.trim());
        let number = || value.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| bad(part));
        let Some((id_type, option)) = name.split_once('.') else {
            match name {
                "max_cluster_records" => change.max_cluster_records = Some(Some(number()?)),
                "link_scope" => {
                    change.link_scope = Some((value != "none").then(|| value.to_owned()));
                }
                _ => return Err(bad(part)),
            }
            continue;
        };
        let mut rule = Rule::default();
        match option {
            "priority" => rule.priority = Some(number()?),
            "max_records" => rule.max_records = Some(number()?),
            "max_per_cluster" => rule.max_per_cluster = Some(number()?),
            "unique" if value == "true" => rule.max_per_cluster = Some(1),
            "reuse_gap_days" => rule.reuse_gap_days = Some(number()?),
            _ => return Err(bad(part)),
        }
        change.types.push((id_type.to_owned(), rule));
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_mistakes_are_told() {
        let change =
            read_change("device.max_records=3, id_card.unique=true; max_cluster_records = 9")
                .unwrap();
        assert_eq!(change.types[0].1.max_records, Some(3));
        assert_eq!(change.types[1].1.max_per_cluster, Some(1));
        assert_eq!(change.max_cluster_records, Some(Some(9)));
        for bad in ["device", "device.max=3", "device.max_records=0", "x=1"] {
            assert_eq!(read_change(bad).unwrap_err().sqlstate(), "22023", "{bad}");
        }
    }
}
