//! All that is known of a graph's records: what was kept of earlier runs, what new files say, and what was said by hand.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use clientele_udfs::identity::batch::Batch;
use clientele_udfs::identity::collect::{Collector, Wanted};
use clientele_udfs::identity::graph::{BYTES_AN_IDENTIFIER, Value, unsigned};
use clientele_udfs::identity::records::{Keys, RecordSet};

use super::findings::{self, Files, Taking};
use super::map::Map;
use super::refresh::{Asking, LastRun};
use super::rules::Definition;
use super::source::Source;
use super::tables::{APART, OWNERS, Table};
use crate::error::{Error, Result};
use crate::store::{OVERRIDES, Warehouse};
use crate::workspace::Workspace;

/// How much of what is known is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// All of it, and what is found is kept.
    Kept,
    /// All of it, and nothing is kept.
    Seen,
    /// None: every file is read, and what is found is kept.
    Anew,
}

/// How much is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything: nothing was kept, or not all of it stays.
    Anew,
    /// Records and findings that are new, and everything that follows from them: something else than rows is new too.
    Added,
    /// As [`Self::Day`]: other rules, or what was said by hand, are new too.
    Rules,
    /// What is new, and what changes with it: nothing but rows is new. Keys of records that are not stay where they are.
    Day,
}

/// What was collected.
pub(super) struct Collection {
    pub(super) collector: Collector,
    pub(super) extent: Extent,
    pub(super) files: Files,
    pub(super) map: Map,
    /// Whether the map's ids are known by the numbers of records; else by their keys.
    pub(super) has_numbered_ids: bool,
    /// Names of types by their numbers in the findings.
    pub(super) types: Vec<String>,
    /// Of a day whose customers are resolved alone all records of those; `None` where everything is resolved.
    pub(super) members: Option<Vec<u32>>,
    /// Paths of the files that were read.
    pub(super) read: Vec<String>,
    /// What was said by hand of records that are not there, or says nothing that is known.
    pub(super) unknown: Vec<(String, String)>,
}

/// What one collection is of.
pub(super) struct Asked<'a> {
    pub(super) warehouse: &'a Warehouse,
    pub(super) graph: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) source: &'a Source,
    /// The last refresh.
    pub(super) last: &'a LastRun,
    /// Everything but rows that the result depends on.
    pub(super) said: &'a Asking,
}

impl Asked<'_> {
    /// Collects everything that is known, as far as there is memory for it. Files that were read in an earlier run are not read
    /// again.
    pub(super) async fn collect(
        &self,
        map: &mut Table<'_>,
        how: Use,
        memory: &Workspace,
    ) -> Result<Collection> {
        let Self { warehouse, graph, definition, source, last, said } = *self;
        let erased = source.erased();
        let has_all = map.rows().await? == u64::from(last.records);
        // Fewer rows than there were are there when some were erased.
        let is_kept = how != Use::Anew && last.types.is_some() && (has_all || !erased.is_empty());
        let mut files = Files::open(warehouse, graph, source, !is_kept).await?;
        let stays = is_kept && has_all && !files.has_gone && map.is_clean_of(erased);
        let fresh = files.fresh_rows();
        // Much that is new is read faster as if everything was.
        const FEW: u64 = 100_000;
        let is_few = fresh <= FEW.max(u64::from(last.records) / 4);
        let extent = match stays {
            false => Extent::Anew,
            true if how == Use::Kept && is_few => match last {
                _ if last.said.as_ref() == Some(&said.all) => Extent::Day,
                _ if last.said_of_types.as_ref() == Some(&said.of_types) => Extent::Rules,
                _ => Extent::Added,
            },
            true => Extent::Added,
        };
        if how != Use::Seen {
            files.number(extent == Extent::Anew)?;
        }
        let empty = |files: Files| Collection {
            collector: definition.collector(warehouse.key()),
            extent,
            has_numbered_ids: is_kept,
            types: last.types.clone().filter(|_| is_kept).unwrap_or_default(),
            members: None,
            read: files.fresh_paths(),
            files,
            map: Map::default(),
            unknown: Vec::new(),
        };
        if !matches!(extent, Extent::Day | Extent::Rules) {
            return self.collect_all(empty(files), map, is_kept, memory).await;
        }
        if let Some(collected) = self.collect_new(empty(files.clone()), map, true, memory).await? {
            return Ok(collected);
        }
        memory.free();
        let collected = self.collect_new(empty(files), map, false, memory).await?;
        collected.ok_or_else(|| Error::internal("the records of a map have no numbers"))
    }

    /// Everything, with the keys of all records.
    async fn collect_all(
        &self,
        mut all: Collection,
        map: &mut Table<'_>,
        is_kept: bool,
        memory: &Workspace,
    ) -> Result<Collection> {
        let Self { warehouse, graph, source, last, .. } = *self;
        let Collection { collector, files, types, map: known, has_numbered_ids, extent, .. } =
            &mut all;
        collector.records_mut().reserve(last.records);
        memory.try_resize(collector.bytes())?;
        if is_kept {
            let mut table = findings::table(warehouse, graph).await?;
            let live = match files.has_gone {
                true => Some(findings::live_records(&mut table, files).await?),
                false => None,
            };
            let is_live = |number: u32| {
                live.as_ref().is_none_or(|live| live.get(number as usize) == Some(&true))
            };
            let records = collector.records_mut();
            *known = Map::with_keys(map, source.erased(), is_live, records, memory).await?;
            let held = known.bytes();
            memory.fit(collector, held)?;
            let taking = match extent {
                Extent::Anew => Taking::OfFiles(&known.numbers),
                _ => Taking::Numbered(&known.numbers),
            };
            let fit = |collector: &mut Collector| memory.fit(collector, held);
            findings::take_kept(&table, files, taking, types, collector, fit).await?;
            // A record that one file has no more may be in another: then its key tells whose it was.
            *has_numbered_ids = known.gone.is_empty() || files.fresh_rows() == 0;
        }
        let mut counts = Vec::new();
        let held = known.bytes();
        let mut expected =
            Expected { before: collector.records().len(), rows: files.fresh_rows(), seen: 0 };
        for file in files.fresh() {
            let take = |collector: &mut Collector, batch: Batch| {
                collector.take_batch(&batch);
                if let Some(records) = expected.after(batch.rows(), collector.records().len()) {
                    collector.records_mut().reserve(records);
                }
                drop(batch);
                memory.fit(collector, held)
            };
            counts.push(findings::read_file(warehouse, source, file, collector, None, take).await?);
        }
        files.were_read(counts);
        let said = by_hand(warehouse, graph).await?;
        for said in said {
            let records = all.collector.records();
            let both = said.both(|source, record_id| records.number(source, record_id));
            say(&mut all.collector, &said, both, &mut all.unknown);
        }
        Ok(all.end())
    }

    /// What a day is resolved of, with the keys of new records only. The map `may_be_plain`: where it turns out that it is not, which its
    /// files do not tell when they were compacted, all is collected again.
    async fn collect_new(
        &self,
        mut all: Collection,
        map: &mut Table<'_>,
        may_be_plain: bool,
        memory: &Workspace,
    ) -> Result<Option<Collection>> {
        let Self { warehouse, graph, source, .. } = *self;
        let Collection { collector, files, types, map: known, unknown, extent, .. } = &mut all;
        let mut all_members = None;
        let mut apart = collector.records().anew(0);
        let (mut rows, mut counts): (Vec<Batch>, _) = (Vec::new(), Vec::new());
        let mut of_rows = 0;
        for file in files.fresh() {
            let take = |_: &mut Collector, batch: Batch| {
                of_rows += batch.bytes();
                rows.push(batch);
                Ok(memory.try_resize(of_rows)?)
            };
            let of_files = Some(&mut apart);
            counts.push(
                findings::read_file(warehouse, source, file, collector, of_files, take).await?,
            );
            memory.try_resize(of_rows + apart.bytes())?;
        }
        files.were_read(counts);
        let found_in_files = apart.len();
        let said = by_hand(warehouse, graph).await?;
        for said in &said {
            said.both(|source, record_id| Some(apart.add(source, record_id)));
        }
        // Which of them are in the map is told by their hashes, and by their keys where these are the same.
        let mut alike: Vec<u32> = Vec::new();
        let sought = apart.sought();
        let find = |hashes: &[i64], first| sought.find(hashes, first, &mut alike);
        let table = findings::table(warehouse, graph).await?;
        let held = apart.bytes() + of_rows;
        let records = u32::try_from(map.rows().await?).unwrap_or(u32::MAX);
        let of_map = Map::bytes_of(u64::from(records));
        let of_kept = table.rows().await? as usize * BYTES_AN_IDENTIFIER;
        memory.try_resize(held + of_map)?;
        let is_plain = may_be_plain && Map::is_plain(map).await?;
        let new = match is_plain && *extent == Extent::Day && self.last.customers.is_some() {
            true => New::of(self, &rows, collector).await?,
            false => None,
        };
        if let Some(new) = &new {
            let kept = async {
                let taking = Taking::Some { wanted: &new.wanted, records };
                let fit = |collector: &mut Collector| memory.fit(collector, held + of_map);
                findings::take_kept(&table, files, taking, types, collector, fit).await
            };
            (*known, ()) = tokio::try_join!(Map::without_keys(map, apart.len(), find), kept)?;
        } else if is_plain && memory.try_grow(of_kept).is_ok() {
            // One processor reads the map while another reads what was found.
            let kept = async {
                let (taking, fit) = (Taking::AsTheyAre { records }, |_: &mut Collector| Ok(()));
                findings::take_kept(&table, files, taking, types, collector, fit).await
            };
            (*known, ()) = tokio::try_join!(Map::without_keys(map, apart.len(), find), kept)?;
        } else {
            *known = Map::without_keys(map, apart.len(), find).await?;
            let held = held + known.bytes();
            let taking = Taking::Numbered(&known.numbers);
            let fit = |collector: &mut Collector| memory.fit(collector, held);
            findings::take_kept(&table, files, taking, types, collector, fit).await?;
        }
        if is_plain && !known.numbers.are_same() {
            return Ok(None);
        }
        let mut number_of: Vec<Option<u32>> = vec![None; apart.len() as usize];
        let meet = |number, source: &str, record_id: &str| {
            if let Some(at) = apart.number(source, record_id) {
                number_of[at as usize] = Some(number);
            }
        };
        known.keys_of(map, &alike, meet).await?;
        let mut records = apart.anew(known.len());
        let mut touched: Vec<u32> = Vec::new();
        for (at, number) in (0..).zip(&mut number_of) {
            let (source, record_id) = apart.key(at);
            match number {
                Some(number) => {
                    records.tell(*number, source, record_id);
                    touched.push(*number);
                }
                None if at < found_in_files => *number = Some(records.add(source, record_id)),
                None => {}
            }
        }
        let of_apart = new.iter().flat_map(|new| &new.apart);
        for (record, source, record_id) in of_apart.filter(|(record, ..)| *record < known.len()) {
            records.tell(*record, source, record_id);
        }
        *collector.records_mut() = records;
        let held = held + known.bytes();
        memory.fit(collector, held)?;
        let by_hand = |said: &Said| {
            said.both(|source, record_id| {
                apart.number(source, record_id).and_then(|at| number_of[at as usize])
            })
        };
        for said in &said {
            say(collector, said, by_hand(said), unknown);
        }
        collector.begin_new();
        for mut batch in rows {
            // Those that were found in files have numbers.
            batch.renumber(|at| number_of[at as usize].unwrap_or(at));
            collector.take_batch(&batch);
        }
        memory.fit(collector, held)?;
        if let Some(new) = new {
            let (mut members, may_part) = new.members(collector, known, touched)?;
            drop(new);
            let held = held + members.capacity() * size_of::<u32>();
            if may_part {
                // It depends on all that their customers have.
                let some = RecordSet::new(known.len(), members.iter().copied());
                memory.fit(collector, held + some.bytes())?;
                let wanted = Wanted::Records(Arc::new(some));
                let fit = |collector: &mut Collector| memory.fit(collector, held);
                let taking = Taking::Some { wanted: &wanted, records: known.len() };
                findings::take_kept(&table, files, taking, types, collector, fit).await?;
            } else {
                let mut first: HashMap<i64, u32> = HashMap::new();
                for record in &members {
                    let first = *first.entry(known.id_of(*record)).or_insert(*record);
                    collector.graph_mut().are_one(first, *record);
                }
            }
            members.extend(known.len()..collector.records().len());
            all_members = Some(members);
        }
        all.members = all_members;
        Ok(Some(all.end()))
    }
}

/// How many records there will be, told by the first of many rows.
struct Expected {
    before: u32,
    rows: u64,
    seen: u64,
}

impl Expected {
    /// So many that there should be room for them, once that can be said, after more rows with which there are so many.
    fn after(&mut self, more: usize, records: u32) -> Option<u32> {
        const SAID_FROM: u64 = 1_000_000;
        /// What a table of them may take before it is known that they come.
        const MOST: u64 = 12_000_000;
        let is_before = self.seen < SAID_FROM;
        self.seen += more as u64;
        let new = u64::from(records - self.before);
        // Where each row is of another record, they may come again: those of one type before those of the next.
        let come_together = new * 10 < self.seen * 9;
        if !is_before || self.seen < SAID_FROM || !come_together {
            return None;
        }
        let all = (self.rows as f64 / self.seen as f64 * new as f64 * 1.01) as u64;
        u32::try_from(all.min(MOST)).ok()?.checked_add(self.before)
    }
}

/// What decides whose customers a day can change.
struct New {
    /// First halves of the identifiers that it brings, in order.
    halves: Vec<u64>,
    /// Those of identifiers that are exceptions, which are resolved every day; in order.
    exceptions: Vec<u64>,
    /// Both.
    wanted: Wanted,
    /// Records of components that break a limit, which are resolved every day, with their keys.
    apart: Vec<(u32, String, String)>,
}

impl New {
    /// Of a day with these rows; `None` where so much is an exception that everything is resolved as fast.
    async fn of(asked: &Asked<'_>, rows: &[Batch], collector: &Collector) -> Result<Option<Self>> {
        const FEW: u64 = 10_000;
        let Asked { warehouse, graph, last, .. } = *asked;
        let mut owners = Table::open(warehouse, graph, OWNERS).await?;
        let mut of_apart = Table::open(warehouse, graph, APART).await?;
        let most = FEW.max(u64::from(last.records) / 8);
        if owners.rows().await? > most || of_apart.rows().await? > most {
            return Ok(None);
        }
        let found = rows.iter().flat_map(Batch::identifiers);
        let joining = found.filter(|(id_type, _)| collector.joins(*id_type));
        let mut halves: Vec<u64> = joining.map(|(_, value)| value[0]).collect();
        halves.sort_unstable();
        halves.dedup();
        let mut exceptions: Vec<u64> = Vec::new();
        owners
            .read(|batch| {
                let hashes = batch.column(0).as_primitive::<Int64Type>().values();
                exceptions.extend(hashes.iter().map(|half| unsigned(*half)));
            })
            .await?;
        exceptions.sort_unstable();
        let mut all = [halves.as_slice(), &exceptions].concat();
        all.sort_unstable();
        all.dedup();
        let mut apart = Vec::new();
        of_apart
            .read(|batch| {
                let records = batch.column(0).as_primitive::<Int32Type>().values();
                let text = |at: usize| batch.column(at).as_string::<i32>();
                for (row, record) in records.iter().enumerate() {
                    let (source, record_id) = (text(1).value(row), text(2).value(row));
                    apart.push((record.cast_unsigned(), source.to_owned(), record_id.to_owned()));
                }
            })
            .await?;
        Ok(Some(Self { halves, exceptions, wanted: Wanted::Halves(Arc::new(all)), apart }))
    }

    /// The known records of all customers that may change, in order, once the identifiers of the day were taken and those that were
    /// kept of the same values: `touched` are records that the day, or a word of somebody, names. And whether a customer may come apart.
    fn members(
        &self,
        collector: &Collector,
        known: &Map,
        mut touched: Vec<u32>,
    ) -> Result<(Vec<u32>, bool)> {
        let graph = collector.graph();
        let mut on: Vec<(Value, u16, u32)> = Vec::new();
        graph.each_added(|kind, value, record| {
            let is_in = |halves: &[u64]| halves.binary_search(&value[0]).is_ok();
            // A hub stays one, and joins nobody.
            let is_hub = || graph.is_plain(kind) && is_in(&self.exceptions);
            if is_in(&self.halves) && !is_hub() {
                on.push((value, kind, record));
            }
        })?;
        on.sort_unstable();
        on.dedup();
        touched.extend(on.iter().map(|(.., record)| *record));
        touched.extend(self.apart.iter().map(|(record, ..)| *record));
        touched.retain(|record| *record < known.len());
        let mut of_values = on.chunk_by(|a, b| a.0 == b.0);
        let may_part =
            graph.can_part() || of_values.any(|same| graph.is_hub(same[0].1, same.len()));
        Ok((known.with_customers_of(touched.into_iter()), may_part))
    }
}

impl Collection {
    fn end(mut self) -> Self {
        self.unknown.sort_unstable();
        self.unknown.dedup();
        self
    }
}

/// A row of overrides.
struct Said {
    op: String,
    a: String,
    b: String,
}

impl Said {
    /// The numbers of both records.
    fn both(&self, mut number: impl FnMut(&str, &str) -> Option<u32>) -> [Option<u32>; 2] {
        [&self.a, &self.b].map(|key| {
            let (source, record_id) = key.split_once('/')?;
            number(source, record_id)
        })
    }
}

async fn by_hand(warehouse: &Warehouse, graph: &str) -> Result<Vec<Said>> {
    let mut said = Vec::new();
    let mut overrides = Table::open(warehouse, graph, OVERRIDES).await?;
    overrides
        .read(|batch| {
            let text = |at: usize, row: usize| {
                let column = batch.column(at).as_string::<i32>();
                if column.is_valid(row) { column.value(row).to_owned() } else { String::new() }
            };
            let rows = (0..batch.num_rows()).map(|row| Said {
                op: text(0, row),
                a: text(1, row),
                b: text(2, row),
            });
            said.extend(rows);
        })
        .await?;
    Ok(said)
}

/// Adds what was said by hand of two records, or tells why it is not known.
fn say(
    collector: &mut Collector,
    said: &Said,
    both: [Option<u32>; 2],
    unknown: &mut Vec<(String, String)>,
) {
    let keys = format!("{}, {}", said.a, said.b);
    match (said.op.as_str(), both) {
        ("must_link", [Some(a), Some(b)]) => collector.must_link(a, b),
        ("cannot_link", [Some(a), Some(b)]) => collector.cannot_link(a, b),
        (op @ ("must_link" | "cannot_link"), _) => unknown.push((
            format!("{op}: a record is not there; records are named source/record_id"),
            keys,
        )),
        _ => unknown.push(("op is none of must_link, cannot_link".to_owned(), keys)),
    }
}
