//! From rows of identifiers to a graph: cleaned, hashed, and what is no identifier set aside.

use std::borrow::Cow;
use std::hash::Hasher;
use std::io;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::batch::Batch;
use super::graph::{Graph, Kept, OF_NO_FILE, Resolution, Rules, TypeRule, Value, signed, unsigned};
use super::norm_id::{Cleaning, Reject};
use super::records::{RecordSet, Records};
use super::sip::Hash128;

/// What became of one value. It depends on the row and the warehouse's secret alone; what rules make of it is decided when it is
/// taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// An identifier, and when it was seen, in microseconds.
    Identifier(Value, Option<i64>),
    /// None.
    Rejected(Reject),
}

/// What a file says of a record that joins nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Number of the file.
    pub file: u16,
    /// Number of the record.
    pub record: u32,
    /// Number of the type's name, and what was found; `None` where the file knows nothing of the record but that it is there.
    pub what: Option<(u16, Finding)>,
}

/// An identifier that joins nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// Number of the record.
    pub record: u32,
    /// Number of the type's name.
    pub id_type: u16,
    /// Why: [`Reject::as_str`], or `undeclared` where the graph has no rule for the type.
    pub reason: &'static str,
}

#[derive(Debug)]
struct Type {
    /// Number of its rule; `None` when the graph has none for it.
    kind: Option<u16>,
    hashing: Hashing,
}

/// How values of one type are cleaned and hashed.
#[derive(Debug, Clone)]
pub(super) struct Hashing {
    name: String,
    cleaning: Cleaning,
    /// Of values without a scope.
    unscoped: Hash128,
    scoped: SipHasher13,
}

impl Hashing {
    /// Of a type, under a warehouse's secret.
    pub(super) fn new(secret: &[u8; 32], id_type: &str) -> Self {
        let mut of_values = [0; 16];
        of_values.copy_from_slice(&secret[16..]);
        // No text holds this byte.
        let prefix = [id_type.as_bytes(), &[0xff]].concat();
        let mut scoped = SipHasher13::new_with_key(&of_values);
        scoped.write(&prefix);
        let unscoped = Hash128::new(&of_values, &prefix);
        Self { name: id_type.to_owned(), cleaning: Cleaning::of(id_type), unscoped, scoped }
    }

    /// The type.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The one spelling of a value, or why it is no identifier.
    pub(super) fn clean<'a>(&self, value: &'a str) -> Result<Cow<'a, str>, Reject> {
        self.cleaning.clean(value)
    }

    /// Whether a value is written in its one spelling, as far as a quick look tells.
    #[inline]
    pub(super) fn is_clean(&self, value: &str) -> bool {
        self.cleaning.is_clean(value)
    }

    /// The hash of a value that has been cleaned, within its scope; an empty scope is none.
    pub(super) fn hash(&self, cleaned: &str, scope: Option<&str>) -> Value {
        let Some(scope) = scope.filter(|scope| !scope.is_empty()) else {
            return self.hash_all([cleaned])[0];
        };
        let mut hasher = self.scoped;
        hasher.write(cleaned.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(scope.as_bytes());
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The hashes of values that have been cleaned and have no scope.
    #[inline]
    pub(super) fn hash_all<const N: usize>(&self, cleaned: [&str; N]) -> [Value; N] {
        self.unscoped.hash(cleaned)
    }
}

/// Collects identifiers of records.
pub struct Collector {
    secret: [u8; 32],
    types: Vec<Type>,
    /// Number of the type's name by that of its rule.
    names: Vec<u16>,
    records: Records,
    graph: Graph,
    rejected: Vec<Rejected>,
    /// How many of them were known before.
    rejected_before: usize,
    aside: Vec<Aside>,
    rule_of: fn(&str) -> Option<TypeRule>,
}

/// What was collected and resolved.
#[derive(Debug)]
pub struct Collected {
    /// The records.
    pub records: Records,
    /// Who is who.
    pub resolution: Arc<Resolution>,
    /// What joins nobody, each once.
    pub rejected: Vec<Rejected>,
    /// What of it is new, when the collector was told what is not.
    pub newly_rejected: Vec<Rejected>,
    /// Names of types, by number.
    pub types: Vec<String>,
    /// Number of a type's name by the number of its rule.
    pub names: Vec<u16>,
}

impl Collected {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let rejected = self.rejected.capacity() + self.newly_rejected.capacity();
        let rejected = rejected * size_of::<Rejected>();
        self.records.bytes() + rejected + self.resolution.roots.capacity() * size_of::<u32>()
    }
}

impl Collector {
    /// A collector with rules for these types; `rule_of` gives rules for others, or none for those that join nobody.
    ///
    /// `secret` is the key of all hashes.
    pub fn new(
        secret: &[u8; 32],
        declared: &[(String, TypeRule)],
        max_cluster_records: Option<u32>,
        rule_of: fn(&str) -> Option<TypeRule>,
    ) -> Self {
        let mut of_records = [0; 16];
        of_records.copy_from_slice(&secret[..16]);
        let mut collector = Self {
            secret: *secret,
            types: Vec::new(),
            names: Vec::new(),
            records: Records::new(of_records),
            graph: Graph::new(Rules { types: Vec::new(), max_cluster_records }),
            rejected: Vec::new(),
            rejected_before: 0,
            aside: Vec::new(),
            rule_of,
        };
        for (name, rule) in declared {
            collector.add_type(name, Some(rule.clone()));
        }
        collector
    }

    fn add_type(&mut self, name: &str, rule: Option<TypeRule>) -> usize {
        let kind = rule.map(|rule| {
            self.names.push(self.types.len() as u16);
            self.graph.add_type(rule)
        });
        self.types.push(Type { kind, hashing: Hashing::new(&self.secret, name) });
        self.types.len() - 1
    }

    /// The records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The records, to add to them.
    pub fn records_mut(&mut self) -> &mut Records {
        &mut self.records
    }

    /// What comes from now on is new.
    pub fn begin_new(&mut self) {
        self.rejected_before = self.rejected.len();
    }

    /// The number of a type.
    pub fn id_type(&mut self, name: &str) -> u16 {
        let at = match self.types.iter().position(|known| known.hashing.name == name) {
            Some(at) => at,
            None => self.add_type(name, (self.rule_of)(name)),
        };
        at as u16
    }

    /// What cleans and hashes as this does, beside it.
    pub fn cleaner(&self) -> Cleaner {
        let types = self.types.iter().map(|of| of.hashing.clone()).collect();
        Cleaner { secret: self.secret, types }
    }

    /// Takes what rows of a file say.
    pub fn take_batch(&mut self, batch: &Batch) {
        // By number of the type in the batch: nearly all have a rule that asks for their values alone.
        let plain = self.taker(&batch.types).kinds;
        batch.each(|record, found| match found {
            Some((at, cell)) => match plain[usize::from(cell.id_type)] {
                Some(kind) if cell.reject.is_none() => {
                    self.graph.add_plain(batch.file, kind, cell.value, record);
                }
                _ => {
                    let id_type = batch.types[usize::from(cell.id_type)];
                    self.take(batch.file, record, id_type, &batch.finding(at, cell));
                }
            },
            None => self.take_record(batch.file, record),
        });
    }

    /// A record has what was found in a file; [`OF_NO_FILE`] when which one need not be kept.
    #[inline]
    pub fn take(&mut self, file: u16, record: u32, id_type: u16, finding: &Finding) {
        let reason = match (self.types[usize::from(id_type)].kind, finding) {
            (Some(kind), Finding::Identifier(value, seen_at)) => {
                self.graph.add_of(file, kind, *value, record, *seen_at);
                return;
            }
            // A value that is missing is missing, whatever its type.
            (_, Finding::Rejected(Reject::Null)) => Reject::Null.as_str(),
            (None, _) => "undeclared",
            (Some(_), Finding::Rejected(reason)) => reason.as_str(),
        };
        self.rejected.push(Rejected { record, id_type, reason });
        if file != OF_NO_FILE {
            self.aside.push(Aside { file, record, what: Some((id_type, *finding)) });
        }
    }

    /// A file has a record and knows nothing more of it.
    pub fn take_record(&mut self, file: u16, record: u32) {
        if file != OF_NO_FILE {
            self.aside.push(Aside { file, record, what: None });
        }
    }

    /// What takes kept rows beside this, whose types have these numbers.
    pub fn taker(&self, types: &[u16]) -> Taker {
        let kind = |id_type: &u16| self.types[usize::from(*id_type)].kind;
        let plain = |id_type| kind(id_type).filter(|kind| self.graph.is_plain(*kind));
        Taker {
            kinds: types.iter().map(plain).collect(),
            joins: types.iter().map(|id_type| kind(id_type).is_some()).collect(),
        }
    }

    /// Whether identifiers of a type join records.
    pub fn joins(&self, id_type: u16) -> bool {
        self.types[usize::from(id_type)].kind.is_some()
    }

    /// Takes what was kept.
    pub fn take_kept(&mut self, kept: Kept) {
        self.graph.add_kept(kept);
    }

    /// The graph that holds the identifiers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The graph that holds the identifiers, to put some of it on disk.
    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// Bytes that [`Self::sort`] takes besides.
    pub fn bytes_to_sort(&self) -> usize {
        self.graph.bytes_to_sort()
    }

    /// Puts what was taken in order.
    pub fn sort(&mut self) {
        self.graph.sort();
    }

    /// What files say that joins nobody; once.
    pub fn aside_of_files(&mut self) -> Vec<Aside> {
        std::mem::take(&mut self.aside)
    }

    /// In so many parts [`Self::of_files`] is asked.
    pub fn parts(&self) -> usize {
        self.graph.parts()
    }

    /// What files say that may join: part by part in the order of hashes, once it is sorted. `files` are what stands for files by their
    /// numbers, `types` what stands for types by those of their names.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn of_files(&self, part: usize, files: &[i64], types: &[i32]) -> io::Result<FoundRows> {
        let types: Vec<i32> = self.names.iter().map(|name| types[usize::from(*name)]).collect();
        let mut rows = FoundRows::default();
        self.graph.of_files(part, |found, more| {
            if rows.records.is_empty() {
                rows.reserve(more);
            }
            rows.files.push(files[usize::from(found.file)]);
            rows.records.push(found.record.cast_signed());
            rows.types.push(types[usize::from(found.kind)]);
            rows.highs.push(signed(found.value[0]));
            rows.lows.push(found.value[1].cast_signed());
            if found.seen_at.is_some() {
                rows.times.resize(rows.records.len() - 1, None);
                rows.times.push(found.seen_at);
            }
        })?;
        if !rows.times.is_empty() {
            rows.times.resize(rows.records.len(), None);
        }
        Ok(rows)
    }

    /// The number of a type's name by that of its rule.
    pub fn names(&self) -> &[u16] {
        &self.names
    }

    /// Names of types, by number.
    pub fn type_names(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(|of| of.hashing.name.as_str())
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let rejected = self.rejected.capacity() * size_of::<Rejected>();
        let aside = self.aside.capacity() * size_of::<Aside>();
        self.records.bytes() + self.graph.bytes() + rejected + aside
    }

    /// Bytes that [`Self::resolve`] takes besides: a record has a parent, a size, and a root.
    pub fn bytes_to_resolve(&self) -> usize {
        self.records.len() as usize * 3 * size_of::<u32>()
    }

    /// Two records are one customer, said by hand.
    pub fn must_link(&mut self, a: u32, b: u32) {
        self.graph.must_link(a, b);
    }

    /// Two records are two customers, said by hand.
    pub fn cannot_link(&mut self, a: u32, b: u32) {
        self.graph.cannot_link(a, b);
    }

    /// Who is who; the graph can be asked why.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn resolve(mut self) -> io::Result<(Collected, Graph)> {
        let mut newly_rejected = self.rejected.split_off(self.rejected_before);
        for rejected in [&mut newly_rejected, &mut self.rejected] {
            rejected.sort_unstable();
            rejected.dedup();
        }
        newly_rejected.retain(|new| self.rejected.binary_search(new).is_err());
        self.rejected.extend_from_slice(&newly_rejected);
        self.rejected.sort_unstable();
        let resolution = self.graph.resolve(self.records.len())?;
        let collected = Collected {
            records: self.records,
            resolution: Arc::new(resolution),
            rejected: self.rejected,
            newly_rejected,
            types: self.types.into_iter().map(|of| of.hashing.name).collect(),
            names: self.names,
        };
        Ok((collected, self.graph))
    }
}

/// Identifiers that were found in files, as columns of a table.
#[derive(Debug, Default)]
pub struct FoundRows {
    /// What stands for files.
    pub files: Vec<i64>,
    /// Numbers of records.
    pub records: Vec<i32>,
    /// What stands for types.
    pub types: Vec<i32>,
    /// First halves of hashes.
    pub highs: Vec<i64>,
    /// Second halves.
    pub lows: Vec<i64>,
    /// When they were seen; nothing where that matters of none.
    pub times: Vec<Option<i64>>,
}

impl FoundRows {
    fn reserve(&mut self, rows: usize) {
        self.files.reserve_exact(rows);
        self.records.reserve_exact(rows);
        self.types.reserve_exact(rows);
        self.highs.reserve_exact(rows);
        self.lows.reserve_exact(rows);
    }
}

/// Which of the rows that were kept are wanted.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Identifiers whose values begin with one of these halves, which are in order; and all that joins nobody.
    Halves(Arc<Vec<u64>>),
    /// What joins these records.
    Records(Arc<RecordSet>),
}

/// Takes rows that were kept of earlier runs, many at once.
#[derive(Debug, Clone)]
pub struct Taker {
    /// By number of the type in the rows: the number of its rule, where only values tell its identifiers apart.
    kinds: Vec<Option<u16>>,
    /// Whether it has a rule at all.
    joins: Vec<bool>,
}

/// Rows that were kept: records, types, and both halves of hashes, the first in the order of numbers with a sign.
#[derive(Debug, Clone, Copy)]
pub struct KeptRows<'a> {
    /// Numbers of records.
    pub records: &'a [i32],
    /// Numbers of types.
    pub types: &'a [i32],
    /// First halves of hashes.
    pub highs: &'a [i64],
    /// Second halves.
    pub lows: &'a [i64],
}

impl Taker {
    /// Which rows are wanted, in order.
    pub fn wanted(&self, rows: KeptRows<'_>, wanted: &Wanted) -> Vec<usize> {
        let KeptRows { records, types, highs, .. } = rows;
        let all = 0..records.len();
        let joins = |row: &usize| {
            let id_type = usize::try_from(types[*row]).ok();
            id_type.is_some_and(|at| self.joins.get(at) == Some(&true))
        };
        let halves = match wanted {
            Wanted::Records(some) => {
                let is_one = |row: &usize| some.has(records[*row].cast_unsigned());
                return all.filter(is_one).filter(joins).collect();
            }
            Wanted::Halves(halves) => halves,
        };
        let mut found = match highs.is_sorted() {
            true => places_of(halves, highs),
            false => {
                let is_one = |row: &usize| halves.binary_search(&unsigned(highs[*row])).is_ok();
                all.clone().filter(is_one).collect()
            }
        };
        if !self.joins.iter().all(|joins| *joins) {
            found.extend(all.filter(|row| !joins(row)));
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// The identifiers of rows; those that are to be taken one by one are named in `others`.
    pub fn take(&self, rows: KeptRows<'_>, others: &mut Vec<usize>) -> Kept {
        let KeptRows { records, types, highs, lows } = rows;
        let kind =
            |id_type: i32| usize::try_from(id_type).ok().and_then(|at| *self.kinds.get(at)?);
        let mut kept = Kept::default();
        let mut from = 0;
        while from < records.len() {
            // Rows lie in the order of hashes: mostly all of them are of one piece.
            let to = from + Kept::of_one_piece(&highs[from..]);
            let rows = from..to;
            let of_rows = records[rows.clone()].iter().zip(&types[rows.clone()]);
            let values = highs[rows.clone()].iter().zip(&lows[rows.clone()]);
            kept.add_piece(
                rows.len(),
                of_rows.zip(values).zip(rows).filter_map(
                    |(((record, id_type), (high, low)), row)| match kind(*id_type) {
                        Some(kind) => {
                            let value = [unsigned(*high), low.cast_unsigned()];
                            Some((kind, value, record.cast_unsigned()))
                        }
                        None => {
                            others.push(row);
                            None
                        }
                    },
                ),
            );
            from = to;
        }
        kept
    }
}

/// The places of some halves among those of rows; both are in order. Each is looked for from where the one before was found.
fn places_of(halves: &[u64], highs: &[i64]) -> Vec<usize> {
    let (Some(first), Some(last)) = (highs.first(), highs.last()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut from = 0;
    let begin = halves.partition_point(|half| signed(*half) < *first);
    for half in halves[begin..].iter().map(|half| signed(*half)).take_while(|half| half <= last) {
        let (mut to, mut step) = (from, 1);
        while to < highs.len() && highs[to] < half {
            from = to + 1;
            to += step;
            step *= 2;
        }
        from += highs[from..to.min(highs.len())].partition_point(|high| *high < half);
        while highs.get(from) == Some(&half) {
            found.push(from);
            from += 1;
        }
    }
    found
}

/// Cleans and hashes values, whatever the rules say of them.
#[derive(Debug, Clone)]
pub struct Cleaner {
    secret: [u8; 32],
    types: Vec<Hashing>,
}

impl Cleaner {
    /// The number of a type, here.
    pub fn id_type(&mut self, name: &str) -> u16 {
        let known = self.types.iter().position(|known| known.name == name);
        let at = known.unwrap_or_else(|| {
            self.types.push(Hashing::new(&self.secret, name));
            self.types.len() - 1
        });
        at as u16
    }

    /// Names of types, by number.
    pub fn type_names(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(Hashing::name)
    }

    /// How values of a type are cleaned and hashed.
    pub(super) fn hashing(&self, id_type: u16) -> &Hashing {
        &self.types[usize::from(id_type)]
    }
}

/// The hash of an identifier of a type, as a collector with this secret has it; `None` for a value that is no identifier.
pub fn value_of(
    secret: &[u8; 32],
    id_type: &str,
    value: &str,
    scope: Option<&str>,
) -> Option<Value> {
    let hashing = Hashing::new(secret, id_type);
    hashing.clean(value).ok().map(|cleaned| hashing.hash(&cleaned, scope))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::batch::{Cleaned, Columns, Identifiers};
    use super::super::records::Keys;
    use super::*;

    fn plain(_: &str) -> Option<TypeRule> {
        Some(TypeRule { priority: 1, max_records: 5, max_per_customer: None, reuse_gap_us: None })
    }

    fn resolve(
        rule_of: fn(&str) -> Option<TypeRule>,
        rows: &[(&str, &str, &str, Option<&str>)],
    ) -> Collected {
        let declared: Vec<_> = { ["phone", "email", "device"].into_iter() }
            .filter_map(|name| Some((name.to_owned(), plain(name)?)))
            .collect();
        let mut collector = Collector::new(&[7; 32], &declared, None, rule_of);
        let columns = Columns {
            sources: &rows.iter().map(|_| Some("s")).collect(),
            record_ids: &rows.iter().map(|(record, ..)| Some(*record)).collect(),
            identifiers: Identifiers::Long(
                &rows.iter().map(|(_, id_type, ..)| Some(*id_type)).collect(),
                &rows.iter().map(|(_, _, value, _)| Some(*value)).collect(),
            ),
            scopes: Some(&rows.iter().map(|(.., scope)| *scope).collect()),
            seen_at: None,
        };
        let hashing = collector.records().hashing();
        let cleaned = Cleaned::of(&columns, collector.cleaner(), hashing);
        let types = cleaned.types().map(|name| collector.id_type(name)).collect();
        let batch = cleaned.number(&columns, OF_NO_FILE, types, collector.records_mut());
        collector.take_batch(&batch);
        collector.resolve().unwrap().0
    }

    /// The classic case: phone + device, email + device, email + open id are one person.
    #[test]
    fn a_chain_of_identifiers_is_one_person() {
        let rows = [
            ("1", "phone", "+86 138 0013 8001", None),
            ("1", "device", "D-1", None),
            ("2", "email", "Li@QQ.com", None),
            ("2", "device", "ｄ-１", None),
            ("3", "email", "li@qq.com", None),
            ("3", "open_id", "oX", None),
            ("4", "phone", "13800138002", None),
        ];
        assert_eq!(resolve(plain, &rows).resolution.roots, [0, 0, 0, 3]);
        let undeclared = resolve(|_| None, &rows);
        assert_eq!(undeclared.rejected.len(), 1);
        let rejected = undeclared.rejected[0];
        assert_eq!(
            (undeclared.types[usize::from(rejected.id_type)].as_str(), rejected.reason),
            ("open_id", "undeclared")
        );
    }

    proptest! {
        /// Rows that are wanted are those that a look at each of them finds.
        #[test]
        fn wanted_rows_are_found(
            mut rows in prop::collection::vec((-9i64..9, 0i32..70, 0i32..3), 0..60), is_sorted in any::<bool>(),
            halves in prop::collection::btree_set(-12i64..12, 0..12), some in prop::collection::btree_set(0u32..70, 0..20),
            joins in prop::collection::vec(any::<bool>(), 3)
        ) {
            if is_sorted {
                rows.sort_unstable();
            }
            let highs: Vec<i64> = rows.iter().map(|row| row.0 << 58).collect();
            let records: Vec<i32> = rows.iter().map(|row| row.1).collect();
            let types: Vec<i32> = rows.iter().map(|row| row.2).collect();
            let given = KeptRows { records: &records, types: &types, highs: &highs, lows: &highs };
            let taker = Taker { kinds: vec![None; 3], joins: joins.clone() };
            let joins = |row: usize| joins.get(types[row] as usize) == Some(&true);
            let of_halves = |row: &usize| halves.contains(&rows[*row].0) || !joins(*row);
            let of_records = |row: &usize| some.contains(&(records[*row] as u32)) && joins(*row);
            let wanted = Wanted::Halves(Arc::new(halves.iter().map(|half| unsigned(half << 58)).collect()));
            prop_assert_eq!(taker.wanted(given, &wanted), (0..rows.len()).filter(of_halves).collect::<Vec<_>>());
            let wanted = Wanted::Records(Arc::new(RecordSet::new(65, some.iter().copied().filter(|record| *record < 65))));
            let of_records = (0..rows.len()).filter(of_records).filter(|row| records[*row] < 65);
            prop_assert_eq!(taker.wanted(given, &wanted), of_records.collect::<Vec<_>>());
        }

        /// Rows in any order, records met in any order: the same records are together, and the same values are rejected.
        #[test]
        fn no_order_of_rows_changes_anything(
            rows in prop::collection::vec((0u8..9, 0u8..4, 0u8..6), 0..40), turn in 0usize..40
        ) {
            let texts = |rows: &[(u8, u8, u8)]| -> Vec<(String, &'static str, String)> {
                let types = ["phone", "email", "device", "unknown"];
                let value = |kind: u8, n: u8| match (kind, n) {
                    (_, 0) => "n/a".to_owned(),
                    (0, n) => format!("+86 1380013800{n}"),
                    (1, n) => format!("Li{n}@qq.com"),
                    (_, n) => format!("D-{n}"),
                };
                let row = |(record, kind, n): &(u8, u8, u8)| {
                    (record.to_string(), types[usize::from(*kind)], value(*kind, *n))
                };
                rows.iter().map(row).collect()
            };
            let told = |rows: &[(u8, u8, u8)]| {
                let texts = texts(rows);
                let rows: Vec<_> =
                    texts.iter().map(|(r, t, v)| (r.as_str(), *t, v.as_str(), None)).collect();
                let collected = resolve(|_| None, &rows);
                let name = |number: u32| collected.records.key(number).1.to_owned();
                let mut clusters: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
                for (number, root) in collected.resolution.roots.iter().enumerate() {
                    clusters.entry(*root).or_default().insert(name(number as u32));
                }
                let clusters: BTreeSet<_> = clusters.into_values().collect();
                let rejected = collected.rejected.iter().map(|r| {
                    (name(r.record), collected.types[usize::from(r.id_type)].clone(), r.reason)
                });
                (clusters, rejected.collect::<BTreeSet<_>>())
            };
            let mut turned = rows.clone();
            turned.rotate_left(turn.min(rows.len()));
            turned.reverse();
            prop_assert_eq!(told(&rows), told(&turned));
        }
    }

    /// A value joins within its scope only.
    #[test]
    fn scopes_are_kept_apart() {
        let rows = [
            ("1", "phone", "13800138001", Some("a")),
            ("2", "phone", "13800138001", Some("b")),
            ("3", "phone", "13800138001", Some("a")),
        ];
        assert_eq!(resolve(plain, &rows).resolution.roots, [0, 1, 0]);
    }

    #[test]
    fn what_is_no_identifier_is_told() {
        let rows = [
            ("1", "phone", "00000000000", None),
            ("1", "phone", "00000000000", None),
            ("2", "phone", "12345", None),
            ("3", "other", "null", None),
        ];
        let collected = resolve(|_| None, &rows);
        let told: Vec<_> = collected.rejected.iter().map(|r| (r.record, r.reason)).collect();
        assert_eq!(told, [(0, "placeholder"), (1, "invalid"), (2, "null")]);
    }
}
