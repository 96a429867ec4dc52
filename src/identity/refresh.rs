//! REFRESH: who is who, and what changed since the last time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, Int64Type};
use clientele_udfs::identity::collect::{Collected, Collector, Rejected, value_of};
use clientele_udfs::identity::graph::{Exception, Graph, Limit, Review, Value};
use clientele_udfs::identity::ids::{Assigned, Changes, Event, Ids, bytes_to_find};
use clientele_udfs::identity::records::{Keys, Records};
use futures::StreamExt;

use super::Answer;
use super::collection::{Asked, Collection, Extent, Use};
use super::columns::{key_columns, numbers, small, text};
use super::findings::{self, Files};
use super::graph::definition_of;
use super::lookup;
use super::map::Map;
use super::mask::masked;
use super::rules::Definition;
use super::source::Source;
use super::tables::{
    ALIAS, APART, BATCH_ROWS, EARLIER, FILES, HISTORY, HUBS, OWNERS, REJECTED, REVIEW, RUNS, TOLD,
    TYPES, Table,
};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, FileEntry, Group, MAP, MOVED, Name, OVERRIDES, TableChange, Warehouse};
use crate::workspace::{Workspace, in_background};

/// Records of a review item that are named; of more only the number is told.
const RECORDS_NAMED: usize = 20;

/// Counts up with every change of cleaning, hashing or joining: then the same rows can give other customers.
const HOW: u32 = 4;

/// REFRESH IDENTITY GRAPH.
///
/// Those of one process wait for each other; of two processes the later one begins again, from what the earlier one has
/// published.
pub(super) async fn refresh(
    warehouse: &Warehouse,
    name: &str,
    full: bool,
    memory: &Workspace,
) -> Result<Answer> {
    const TRIES_MAX: u32 = 5;
    let _turn = warehouse.turn_to_refresh().await;
    for _ in 0..TRIES_MAX {
        match Box::pin(run(warehouse, name, full, memory)).await {
            Err(error) if error.kind() == Kind::StaleBase => memory.free(),
            ended => return ended,
        };
    }
    Err(Error::new(Kind::Serialization, "others refreshed the graph, and were faster every time")
        .hint("run the statement again"))
}

async fn run(warehouse: &Warehouse, name: &str, full: bool, memory: &Workspace) -> Result<Answer> {
    definition_of(warehouse.newest().await?.as_ref(), name)?;
    // The map comes first: if another refresh has taken its place meanwhile, nothing of this one is published, whatever of the
    // other was read.
    let mut map = Table::open(warehouse, name, MAP).await?;
    let definition = definition_of(warehouse.newest().await?.as_ref(), name)?;
    let source = Source::open(warehouse, &definition).await?;
    let said = said(warehouse, name, &definition).await?;
    let made_of = word(&format!("{} {}", source.state(), said.all));
    let last = last_run(&mut Table::open(warehouse, name, RUNS).await?).await?;
    if !full && last.made_of.as_ref() == Some(&made_of) {
        let notice = format!("nothing has changed since run {}", last.run);
        return Ok(Answer { tag: "REFRESH IDENTITY GRAPH".to_owned(), notice: Some(notice) });
    }
    let asked = Asked {
        warehouse,
        graph: name,
        definition: &definition,
        source: &source,
        last: &last,
        said: &said,
    };
    let how = if full { Use::Anew } else { Use::Kept };
    let settled = async {
        let all = asked.collect(&mut map, how, memory).await?;
        Box::pin(settle(&asked, all, &mut map, memory)).await
    };
    let (settled, found) = match settled.await {
        // What was read may be of two refreshes.
        Err(_) if map.is_outdated().await? => {
            return Err(Error::new(Kind::StaleBase, "the graph was refreshed meanwhile"));
        }
        settled => settled?,
    };
    memory.try_resize(settled.bytes())?;
    let (mut group, reviews) = write(&asked, &settled, map, full).await?;
    group.tables.push(match settled.extent {
        Extent::Anew => found.replaced().await?,
        Extent::Added | Extent::Rules | Extent::Day => found.appended().await?,
    });
    let mut runs = Table::open(warehouse, name, RUNS).await?;
    let mut row = run_row(&settled.collected, &settled.assigned, settled.run, reviews, &made_of);
    row.push(("said", text(std::iter::once(said.all.as_str()))));
    row.push(("said_of_types", text(std::iter::once(said.of_types.as_str()))));
    row.push(("types", text(std::iter::once(serde_json::to_string(&settled.types)?))));
    runs.write(row).await?;
    group.tables.push(runs.appended().await?);
    // What has no new rows stays as it is; but the map says that nobody else was here.
    let is_new = |(at, change): &(usize, TableChange)| {
        *at == 0 || change.replace || !change.files.is_empty()
    };
    let tables = std::mem::take(&mut group.tables).into_iter().enumerate().filter(is_new);
    group.tables = tables.map(|(_, change)| change).collect();
    let newest = warehouse.newest().await?;
    let earlier = EARLIER.map(|table| Name::new(name, table)).into_iter();
    let are_there = earlier.filter(|table| newest.table(table).is_some());
    group.names.extend(are_there.map(|table| (table, Change::Dropped)));
    warehouse.publish(group).await?;
    Ok(settled.answer(reviews))
}

/// What a refresh has found out, to be written.
struct Settled {
    run: u32,
    extent: Extent,
    collected: Collected,
    assigned: Assigned,
    /// Identifiers that are not simply of the customers whose records have them.
    exceptions: Vec<Exception>,
    /// The map as it was.
    as_read: Map,
    files: Files,
    types: Vec<String>,
    read: Vec<String>,
    unknown: Vec<(String, String)>,
}

impl Settled {
    /// Bytes that are held.
    fn bytes(&self) -> usize {
        let exceptions = self.exceptions.capacity() * size_of::<Exception>();
        self.collected.bytes() + self.assigned.bytes() + self.as_read.bytes() + exceptions
    }

    fn answer(&self, reviews: usize) -> Answer {
        let count =
            |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let mut notice = format!(
            "{} records are {} customers; {} identifiers rejected, {}, {}",
            self.collected.records.len(),
            self.assigned.customers,
            self.collected.rejected.len(),
            count(self.collected.resolution.hubs.len(), "hub", "hubs"),
            count(reviews, "item for review", "items for review"),
        );
        let without_key = self.files.without_key();
        if without_key > 0 {
            notice.push_str(&format!(
                "; {without_key} rows without a source or a record were left out"
            ));
        }
        Answer { tag: "REFRESH IDENTITY GRAPH".to_owned(), notice: Some(notice) }
    }
}

/// Who is who, and which ids they have. Gives the table of findings too, with those that are new.
async fn settle<'a>(
    asked: &Asked<'a>,
    all: Collection,
    map: &mut Table<'_>,
    memory: &Workspace,
) -> Result<(Settled, Table<'a>)> {
    let Asked { warehouse, graph: name, last, .. } = *asked;
    let held = all.map.bytes();
    let Collection { extent, has_numbered_ids, files, mut types, members, .. } = all;
    let (mut as_read, read, unknown) = (all.map, all.read, all.unknown);
    if extent == Extent::Anew {
        // Everything is numbered as it came.
        as_read.forget_places();
    }
    let mut collector = all.collector;
    let to_sort = collector.bytes_to_sort();
    memory.fit(&mut collector, held + to_sort)?;
    let collector = in_background(move || {
        collector.sort();
        collector
    })
    .await?;
    let mut found = findings::table(warehouse, name).await?;
    let collector =
        findings::write(&mut found, &files, &as_read.numbers, &mut types, collector).await?;
    let (mut collected, graph) = resolve(collector, held, memory).await?;
    let (before, gone) = match has_numbered_ids {
        true => as_read.take_ids(collected.records.len()),
        false => ids_before(map, &collected.records).await?,
    };
    collected.records.end_search();
    // What joined the records is known, and its memory is free.
    let (exceptions, members, collected, before) = in_background(move || {
        let exceptions =
            exceptions(&graph, &collected.resolution.roots, &before, members.as_deref())?;
        Ok::<_, Error>((exceptions, members, collected, before))
    })
    .await??;
    memory.try_resize(held + collected.bytes() + bytes_to_find(collected.records.len()))?;
    let customers = last.customers.filter(|_| extent != Extent::Anew);
    let (mut collected, before, gone, changes) = in_background(move || {
        let roots = &collected.resolution.roots;
        let changes = match (members, customers) {
            (Some(members), Some(customers)) => Changes::among(members, roots, &before, customers),
            _ => Changes::find(roots, &before, &gone, customers),
        };
        (collected, before, gone, changes)
    })
    .await?;
    let of_reviews = collected.resolution.reviews.iter().flat_map(|r| r.records.iter().copied());
    let needed = changes.keys_needed().chain(of_reviews);
    let needed = needed.chain(collected.resolution.apart.iter().copied());
    let mut wanted: Vec<u32> = needed.filter(|at| !collected.records.knows(*at)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let records = &mut collected.records;
    let tell = |number, source: &str, record_id: &str| records.tell(number, source, record_id);
    as_read.keys_of(map, &wanted, tell).await?;
    let others = held + collected.bytes() + bytes_to_find(collected.records.len());
    memory.try_resize(others + changes.bytes_to_assign(collected.records.len()))?;
    let run = last.run + 1;
    let (collected, assigned) = in_background(move || {
        let roots = &collected.resolution.roots;
        let assigned = changes.assign(&collected.records, roots, before, &gone, run);
        (collected, assigned)
    })
    .await?;
    let settled = Settled {
        run,
        extent,
        collected,
        assigned,
        exceptions,
        as_read,
        files,
        types,
        read,
        unknown,
    };
    Ok((settled, found))
}

/// Identifiers that are not simply of the customers whose records have them. Where only `members` were resolved, other records are of the
/// customers that they were of.
fn exceptions(
    graph: &Graph,
    roots: &[u32],
    before: &Ids,
    members: Option<&[u32]>,
) -> Result<Vec<Exception>> {
    #[derive(PartialEq)]
    enum Customer {
        Resolved(u32),
        AsBefore(i64),
    }
    let customer_of = |record: u32| match members {
        Some(members) if members.binary_search(&record).is_err() => {
            Customer::AsBefore(before.ids[record as usize])
        }
        _ => Customer::Resolved(roots[record as usize]),
    };
    Ok(graph.exceptions(customer_of)?)
}

/// Writes what is to be published, the map first; gives the number of items for review too.
async fn write(
    asked: &Asked<'_>,
    settled: &Settled,
    mut map: Table<'_>,
    full: bool,
) -> Result<(Group, usize)> {
    let Asked { warehouse, graph: name, definition, source, .. } = *asked;
    let Settled { run, extent, collected, assigned, as_read, files, .. } = settled;
    // Each is written by a task of its own.
    let mut rejected = Table::open(warehouse, name, REJECTED).await?;
    let rejections = match extent {
        Extent::Day | Extent::Rules => &collected.newly_rejected,
        Extent::Anew | Extent::Added => &collected.rejected,
    };
    let write_map = async {
        let outdated = as_read.write_changed(&mut map, &assigned.changed, &assigned.ids).await?;
        as_read.write_new(&mut map, &collected.records, &assigned.ids).await?;
        Ok(outdated)
    };
    let (outdated, ()) =
        tokio::try_join!(write_map, write_rejected(&mut rejected, collected, rejections))?;
    let of_reviews = collected.resolution.reviews.iter().filter_map(|review| review.identifier);
    let of_hubs = collected.resolution.hubs.iter().map(|hub| (hub.kind, hub.value));
    let mut told = Table::open(warehouse, name, TOLD).await?;
    let told_then = if full { HashMap::new() } else { told_before(&mut told).await? };
    let of = of_reviews.chain(of_hubs);
    let values = values_told(warehouse, source, collected, of, told_then, &settled.read).await?;

    let mut group = Group::default();
    group.tables.push(match extent {
        Extent::Anew => map.replaced_as_read().await?,
        Extent::Added | Extent::Rules | Extent::Day => map.replaced_in(outdated).await?,
    });
    let mut owners = Table::open(warehouse, name, OWNERS).await?;
    owners.write(lookup::owners_rows(&settled.exceptions, &assigned.ids)).await?;
    group.tables.push(owners.replaced().await?);
    let mut apart = Table::open(warehouse, name, APART).await?;
    for part in collected.resolution.apart.chunks(BATCH_ROWS) {
        let numbers = part.iter().map(|record| as_read.numbers.on_disk(*record));
        let [sources, record_ids] = key_columns(&collected.records, part.iter().copied());
        let columns = [("record", small(numbers)), ("source", sources), ("record_id", record_ids)];
        apart.write(columns.into()).await?;
    }
    group.tables.push(apart.replaced().await?);
    let mut types = Table::open(warehouse, name, TYPES).await?;
    let joins = |name: &str| {
        (0..collected.names.len()).any(|kind| type_name(collected, kind as u16) == name)
    };
    types.write(lookup::types_rows(&settled.types, joins)).await?;
    group.tables.push(types.replaced().await?);
    group.tables.push(match extent {
        Extent::Day | Extent::Rules => rejected.appended().await?,
        Extent::Anew | Extent::Added => rejected.replaced().await?,
    });
    let mut moved = Table::open(warehouse, name, MOVED).await?;
    let rows = moved_rows(&mut moved, assigned, *run).await?;
    moved.write(rows).await?;
    group.tables.push(moved.replaced().await?);
    let mut of_files = Table::open(warehouse, name, FILES).await?;
    of_files.write(files.rows()).await?;
    group.tables.push(of_files.replaced().await?);
    told.write(told_rows(&values)).await?;
    group.tables.push(told.replaced().await?);
    let mut hubs = Table::open(warehouse, name, HUBS).await?;
    hubs.write(hub_rows(definition, collected, &values)).await?;
    group.tables.push(hubs.replaced().await?);
    let mut review = Table::open(warehouse, name, REVIEW).await?;
    let items = review_rows(definition, collected, &values, &settled.unknown);
    let reviews = items.first().map_or(0, |(_, column)| column.len());
    review.write(items).await?;
    group.tables.push(review.replaced().await?);
    let mut alias = Table::open(warehouse, name, ALIAS).await?;
    let aliases = aliases(&mut alias, assigned, *run).await?;
    alias.write(aliases).await?;
    group.tables.push(alias.replaced().await?);
    let mut history = Table::open(warehouse, name, HISTORY).await?;
    history.write(history_rows(assigned, *run)).await?;
    group.tables.push(history.appended().await?);
    Ok((group, reviews))
}

/// Resolves what was collected, as far as there is memory for it beside what is `held`.
pub(super) async fn resolve(
    mut collector: Collector,
    held: usize,
    memory: &Workspace,
) -> Result<(Collected, Graph)> {
    let more = collector.bytes_to_resolve() + collector.bytes_to_sort();
    memory.fit(&mut collector, held + more)?;
    let (collected, graph) = in_background(move || collector.resolve()).await??;
    memory.try_resize(held + collected.bytes() + graph.bytes())?;
    Ok((collected, graph))
}

/// The ids that records had, and those of records that are not there any more.
pub(super) async fn ids_before(map: &mut Table<'_>, records: &Records) -> Result<(Ids, Vec<i64>)> {
    let mut before = Ids::none(records.len());
    let mut gone = Vec::new();
    // The map has the records in the order in which they were collected, and mostly they are collected in it again.
    let mut near = 0;
    map.read(|batch| {
        let text = |name: &str| batch.column_by_name(name).map(|c| c.as_string::<i32>().clone());
        let (Some(sources), Some(ids)) = (text("source"), text("record_id")) else { return };
        let one_ids = batch.column_by_name("one_id").map(|c| c.as_primitive::<Int64Type>());
        let since = batch.column_by_name("since_run").map(|c| c.as_primitive::<Int32Type>());
        let (Some(one_ids), Some(since)) = (one_ids, since) else { return };
        for row in 0..batch.num_rows() {
            let one_id = one_ids.value(row);
            match records.number_near(near, sources.value(row), ids.value(row)) {
                Some(number) => {
                    near = number;
                    before.ids[number as usize] = one_id;
                    // Rows from before there were runs are of the first one.
                    before.since[number as usize] = since.value(row).max(1) as u32;
                }
                None => gone.push(one_id),
            }
        }
    })
    .await?;
    gone.sort_unstable();
    gone.dedup();
    Ok((before, gone))
}

/// The last refresh of a graph.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    /// Its number; 0 when there was none.
    pub(super) run: u32,
    /// Records that there were.
    pub(super) records: u32,
    /// Customers that there were.
    pub(super) customers: Option<usize>,
    /// What it was made of; `None` when it was made by a version that did not say.
    made_of: Option<String>,
    /// What of that are not rows.
    pub(super) said: Option<String>,
    /// What of that says which types of identifiers there are.
    pub(super) said_of_types: Option<String>,
    /// Names of types by their numbers in the findings; `None` when it was made by a version that kept them in another way.
    pub(super) types: Option<Vec<String>>,
}

pub(super) async fn last_run(runs: &mut Table<'_>) -> Result<LastRun> {
    let mut last = LastRun::default();
    runs.read(|batch| {
        let column = |name: &str| batch.column_by_name(name);
        let text = |name: &str, row: usize| {
            let column = column(name)?.as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let count = |name: &str, row: usize| {
            let column = column(name)?.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        let Some(numbers) = column("run").map(|c| c.as_primitive::<Int32Type>()) else { return };
        for (row, run) in numbers.iter().enumerate() {
            let run = run.unwrap_or(0) as u32;
            if run > last.run {
                let types = text("types", row);
                last = LastRun {
                    run,
                    records: count("records", row).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                    customers: count("customers", row).and_then(|n| usize::try_from(n).ok()),
                    made_of: text("made_of", row),
                    said: text("said", row),
                    said_of_types: text("said_of_types", row),
                    types: types.and_then(|json| serde_json::from_str(&json).ok()),
                };
            }
        }
    })
    .await?;
    Ok(last)
}

/// Everything but rows that a refresh depends on, in a word each: the rules, what was said by hand, and this program.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) all: String,
    /// Of that what says which identifiers are rejected: the types that have rules.
    pub(super) of_types: String,
}

pub(super) async fn said(
    warehouse: &Warehouse,
    name: &str,
    definition: &Definition,
) -> Result<Asking> {
    let newest = warehouse.newest().await?;
    let by_hand = newest.table(&Name::new(name, OVERRIDES)).map(|def| (&def.path, def.version));
    let rules = serde_json::to_string(definition)?;
    let program = env!("CARGO_PKG_VERSION");
    let types: Vec<&String> = definition.rules.keys().collect();
    Ok(Asking {
        all: word(&format!("{rules} {by_hand:?} {program} {HOW}")),
        of_types: word(&format!("{types:?} {program} {HOW}")),
    })
}

fn word(all: &str) -> String {
    blake3::hash(all.as_bytes()).to_hex()[..32].to_owned()
}

/// The masked values of some identifiers. Of those that are not `known` the rows are read once more, until all are found:
/// first those of the files in `first`, which are the likeliest to have them.
pub(super) async fn values_told(
    warehouse: &Warehouse,
    source: &Source,
    collected: &Collected,
    identifiers: impl Iterator<Item = (u16, Value)>,
    known: HashMap<Value, String>,
    first: &[String],
) -> Result<HashMap<Value, String>> {
    let mut wanted: HashMap<Value, u16> = identifiers.map(|(kind, value)| (value, kind)).collect();
    let mut told = known;
    told.retain(|value, _| wanted.remove(value).is_some());
    let types: HashSet<&str> = wanted.values().map(|kind| type_name(collected, *kind)).collect();
    let is_first = |file: &&FileEntry| first.contains(&file.path);
    let (first, others): (Vec<&FileEntry>, Vec<_>) = source.files().iter().partition(is_first);
    for file in first.into_iter().chain(others) {
        if wanted.is_empty() {
            break;
        }
        let mut batches = source.open_file(warehouse, file).await?;
        while let Some(batch) = batches.next().await {
            source.texts_of(&batch?)?.columns().each(|_, written| {
                if let Some((id_type, raw, scope)) = written.filter(|(t, ..)| types.contains(t))
                    && let Some(value) = value_of(warehouse.key(), id_type, raw, scope)
                    && wanted.remove(&value).is_some()
                {
                    let cleaned = clientele_udfs::identity::clean(id_type, raw).unwrap_or_default();
                    told.insert(value, masked(id_type, &cleaned));
                }
                !wanted.is_empty()
            });
            if wanted.is_empty() {
                break;
            }
        }
    }
    Ok(told)
}

/// The masked values that the run before told.
pub(super) async fn told_before(table: &mut Table<'_>) -> Result<HashMap<Value, String>> {
    let mut told = HashMap::new();
    table
        .read(|batch| {
            let (hashes, values) =
                (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            for (hash, value) in hashes.iter().zip(values) {
                let hash = hash.and_then(|hash| u128::from_str_radix(hash, 16).ok());
                if let (Some(hash), Some(value)) = (hash, value) {
                    told.insert([(hash >> 64) as u64, hash as u64], value.to_owned());
                }
            }
        })
        .await?;
    Ok(told)
}

fn told_rows(values: &HashMap<Value, String>) -> Vec<(&'static str, ArrayRef)> {
    let mut rows: Vec<(&Value, &String)> = values.iter().collect();
    rows.sort_unstable();
    vec![
        ("hash", text(rows.iter().map(|([high, low], _)| format!("{high:016x}{low:016x}")))),
        ("value", text(rows.iter().map(|(_, value)| (*value).clone()))),
    ]
}

pub(super) fn type_name(collected: &Collected, kind: u16) -> &str {
    let name = collected.names[usize::from(kind)];
    &collected.types[usize::from(name)]
}

/// Ids that lost records with the last refreshes: of as many refreshes as are worth knowing. One that took none from anybody
/// has a row without an id.
async fn moved_rows(
    table: &mut Table<'_>,
    assigned: &Assigned,
    run: u32,
) -> Result<Vec<(&'static str, ArrayRef)>> {
    /// Where more ids have changed, all rows are looked up as fast.
    const IDS_KEPT: usize = 200_000;
    let mut moved: BTreeMap<u32, Vec<Option<i64>>> = BTreeMap::new();
    table
        .read(|batch| {
            let runs = batch.column(0).as_primitive::<Int32Type>();
            let ids = batch.column(1).as_primitive::<Int64Type>();
            for (run, id) in runs.iter().zip(ids) {
                moved.entry(run.unwrap_or(0).max(0) as u32).or_default().push(id);
            }
        })
        .await?;
    let now = assigned.moved.iter().copied().map(Some);
    moved.insert(run, if assigned.moved.is_empty() { vec![None] } else { now.collect() });
    let mut kept = 0;
    let rows: Vec<(u32, Option<i64>)> = { moved.iter().rev() }
        .take_while(|(of, ids)| {
            kept += ids.len();
            kept <= IDS_KEPT || **of == run
        })
        .flat_map(|(run, ids)| ids.iter().map(|id| (*run, *id)))
        .collect();
    Ok(vec![
        ("run", small(rows.iter().map(|(run, _)| *run))),
        ("one_id", Arc::new(rows.iter().map(|(_, id)| *id).collect::<Int64Array>())),
    ])
}

async fn write_rejected(
    table: &mut Table<'_>,
    collected: &Collected,
    rejected: &[Rejected],
) -> Result<()> {
    for part in rejected.chunks(BATCH_ROWS) {
        let [sources, record_ids] = key_columns(&collected.records, part.iter().map(|r| r.record));
        let name = |at: u16| &collected.types[usize::from(at)];
        table
            .write(vec![
                ("source", sources),
                ("record_id", record_ids),
                ("id_type", text(part.iter().map(|r| name(r.id_type)))),
                ("reason", text(part.iter().map(|r| r.reason))),
            ])
            .await?;
    }
    Ok(())
}

fn hub_rows(
    definition: &Definition,
    collected: &Collected,
    values: &HashMap<Value, String>,
) -> Vec<(&'static str, ArrayRef)> {
    let mut rows: Vec<(String, String, u32, u32)> = { collected.resolution.hubs.iter() }
        .map(|hub| {
            let id_type = type_name(collected, hub.kind).to_owned();
            let most = definition.rule_of(&id_type).max_records;
            (id_type, values.get(&hub.value).cloned().unwrap_or_default(), hub.records, most)
        })
        .collect();
    rows.sort_unstable_by(|a, b| (&a.0, b.2, &a.1).cmp(&(&b.0, a.2, &b.1)));
    vec![
        ("id_type", text(rows.iter().map(|row| row.0.clone()))),
        ("value", text(rows.iter().map(|row| row.1.clone()))),
        ("records", small(rows.iter().map(|row| row.2))),
        ("max_records", small(rows.iter().map(|row| row.3))),
    ]
}

/// One item: kind, type, value, why, records.
type Item = [String; 5];

fn review_rows(
    definition: &Definition,
    collected: &Collected,
    values: &HashMap<Value, String>,
    unknown: &[(String, String)],
) -> Vec<(&'static str, ArrayRef)> {
    let item = |review: &Review| -> Item {
        let kind = match (review.by_hand, review.identifier) {
            (true, _) => "contradiction",
            (false, Some(_)) => "ambiguous",
            (false, None) => "conflict",
        };
        let (id_type, value) = match review.identifier {
            Some((kind, value)) => (
                type_name(collected, kind).to_owned(),
                values.get(&value).cloned().unwrap_or_default(),
            ),
            None => (String::new(), String::new()),
        };
        let why = match review.limit {
            Limit::CannotLink => "two of the records were said to be different people".to_owned(),
            Limit::Records => format!(
                "one customer would have more than {} records",
                definition.max_cluster_records.unwrap_or(0)
            ),
            Limit::Values(kind) => {
                let id_type = type_name(collected, kind);
                match definition.rule_of(id_type).max_per_customer.unwrap_or(0) {
                    1 => format!("one customer would have more than one {id_type}"),
                    most => format!("one customer would have more than {most} {id_type} values"),
                }
            }
        };
        [kind.to_owned(), id_type, value, why, named(&collected.records, &review.records)]
    };
    let mut items: Vec<Item> = collected.resolution.reviews.iter().map(item).collect();
    items.extend(unknown.iter().map(|(why, records)| {
        ["override".to_owned(), String::new(), String::new(), why.clone(), records.clone()]
    }));
    items.sort_unstable();
    let id = |item: &Item| blake3::hash(item.join("\u{1}").as_bytes()).to_hex()[..16].to_owned();
    let column = |at: usize| -> ArrayRef {
        let texts = items.iter().map(|item| Some(&item[at]).filter(|text| !text.is_empty()));
        Arc::new(texts.collect::<StringArray>())
    };
    vec![
        ("id", text(items.iter().map(id))),
        ("kind", column(0)),
        ("id_type", column(1)),
        ("value", column(2)),
        ("why", column(3)),
        ("records", column(4)),
        ("state", text(items.iter().map(|_| "open".to_owned()))),
    ]
}

/// Records by their keys, in order; the first ones of many.
fn named(records: &Records, numbers: &[u32]) -> String {
    let mut keys: Vec<_> = numbers.iter().map(|number| records.key(*number)).collect();
    keys.sort_unstable();
    let shown: Vec<String> =
        keys.iter().take(RECORDS_NAMED).map(|(source, id)| format!("{source}/{id}")).collect();
    match keys.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Ids that another one has taken the place of, each with the one that stands for it now.
async fn aliases(
    table: &mut Table<'_>,
    assigned: &Assigned,
    run: u32,
) -> Result<Vec<(&'static str, ArrayRef)>> {
    let mut aliases: BTreeMap<i64, (i64, u32)> = BTreeMap::new();
    table
        .read(|batch| {
            let of = |at: usize| batch.column(at).as_primitive::<Int64Type>();
            let runs = batch.column(2).as_primitive::<Int32Type>();
            for row in 0..batch.num_rows() {
                let since = runs.value(row).max(0) as u32;
                aliases.insert(of(0).value(row), (of(1).value(row), since));
            }
        })
        .await?;
    let mut now: HashMap<i64, i64> = HashMap::new();
    for (id, event, other) in &assigned.events {
        match (event, other) {
            (Event::Merged, Some(other)) => {
                now.insert(*id, *other);
            }
            // An id that was an alias has records of its own again.
            (Event::Created | Event::Split, _) => {
                aliases.remove(id);
            }
            _ => {}
        }
    }
    for (stands_for, _) in aliases.values_mut() {
        *stands_for = now.get(stands_for).copied().unwrap_or(*stands_for);
    }
    aliases.extend(now.iter().map(|(id, other)| (*id, (*other, run))));
    Ok(vec![
        ("old_id", numbers(aliases.keys().copied())),
        ("one_id", numbers(aliases.values().map(|(one_id, _)| *one_id))),
        ("run", small(aliases.values().map(|(_, run)| *run))),
    ])
}

fn history_rows(assigned: &Assigned, run: u32) -> Vec<(&'static str, ArrayRef)> {
    let told = &assigned.events;
    let word = |event: Event| match event {
        Event::Created => "created",
        Event::Split => "split",
        Event::Merged => "merged",
        Event::Retired => "retired",
    };
    vec![
        ("one_id", numbers(told.iter().map(|(id, _, _)| *id))),
        ("run", small(told.iter().map(|_| run))),
        ("event", text(told.iter().map(|(_, event, _)| word(*event).to_owned()))),
        ("other_id", Arc::new(told.iter().map(|(_, _, other)| *other).collect::<Int64Array>())),
    ]
}

fn run_row(
    collected: &Collected,
    assigned: &Assigned,
    run: u32,
    reviews: usize,
    made_of: &str,
) -> Vec<(&'static str, ArrayRef)> {
    let one = |n: usize| numbers(std::iter::once(n as i64));
    let of = |event: Event| one(assigned.events.iter().filter(|(_, e, _)| *e == event).count());
    let now = chrono::Utc::now().timestamp_micros();
    vec![
        ("run", small(std::iter::once(run))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![now]).with_timezone("UTC"))),
        ("records", one(collected.records.len() as usize)),
        ("customers", one(assigned.customers)),
        ("created", one(assigned.created)),
        ("merged", of(Event::Merged)),
        ("split", of(Event::Split)),
        ("retired", of(Event::Retired)),
        ("rejected", one(collected.rejected.len())),
        ("hubs", one(collected.resolution.hubs.len())),
        ("reviews", one(reviews)),
        ("made_of", text(std::iter::once(made_of.to_owned()))),
    ]
}
