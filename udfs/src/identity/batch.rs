//! Rows of a graph's source, many at once: cleaned and hashed, and whose they are.

use std::ops::Range;

use arrow::array::{Array, StringViewArray, TimestampMicrosecondArray};

use super::collect::{Cleaner, Finding, Hashing};
use super::graph::Value;
use super::norm_id::Reject;
use super::records::{KeyHashing, Records};
use super::sip::Hash64;

/// Columns of rows of a source.
#[derive(Debug)]
pub struct Columns<'a> {
    /// Sources of records.
    pub sources: &'a StringViewArray,
    /// Their ids.
    pub record_ids: &'a StringViewArray,
    /// Their identifiers.
    pub identifiers: Identifiers<'a>,
    /// What values are told apart by besides their types.
    pub scopes: Option<&'a StringViewArray>,
    /// When they were seen.
    pub seen_at: Option<&'a TimestampMicrosecondArray>,
}

/// Identifiers of rows.
#[derive(Debug)]
pub enum Identifiers<'a> {
    /// One of each row: its type, and its value. A row without a type says only that the record is there; one without a value has an
    /// empty one.
    Long(&'a StringViewArray, &'a StringViewArray),
    /// Columns, each of a type. An empty cell is no identifier, and nothing to tell of.
    Wide(Vec<(&'a str, &'a StringViewArray)>),
}

/// An identifier as it is written: its type, its value, and its scope.
pub type Written<'a> = (&'a str, &'a str, Option<&'a str>);

impl<'a> Columns<'a> {
    /// Gives each row and its identifiers, one after the other, to `take`, until that says that it has enough: `None` for a row of
    /// which only is known whose it is. Rows without a source or a record are left out.
    #[inline]
    pub fn each(&self, mut take: impl FnMut(usize, Option<Written<'a>>) -> bool) {
        for row in self.with_keys() {
            let goes_on = match &self.identifiers {
                Identifiers::Long(types, values) => {
                    let value = if values.is_valid(row) { values.value(row) } else { "" };
                    let id_type = types.is_valid(row).then(|| types.value(row));
                    take(row, id_type.map(|id_type| (id_type, value, self.scope(row))))
                }
                Identifiers::Wide(columns) => {
                    let mut columns = columns.iter().filter(|(_, values)| values.is_valid(row));
                    take(row, None)
                        && columns.all(|(id_type, values)| {
                            take(row, Some((*id_type, values.value(row), self.scope(row))))
                        })
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// The scope of a row's values; an empty one is none.
    fn scope(&self, row: usize) -> Option<&'a str> {
        let scope = self.scopes.filter(|scopes| scopes.is_valid(row))?.value(row);
        Some(scope).filter(|scope| !scope.is_empty())
    }

    /// Rows that have a source and a record.
    fn with_keys(&self) -> impl Iterator<Item = usize> {
        (0..self.sources.len()).filter(|row| self.has_key(*row))
    }

    fn has_key(&self, row: usize) -> bool {
        self.sources.is_valid(row) && self.record_ids.is_valid(row)
    }

    /// Rows without a source or a record.
    fn without_key(&self) -> u64 {
        let has_all = self.sources.null_count() + self.record_ids.null_count() == 0;
        let rows = if has_all { 0..0 } else { 0..self.sources.len() };
        rows.filter(|row| !self.has_key(*row)).count() as u64
    }
}

/// Bytes of the longest text that is in its view.
const SHORT: usize = 12;

/// A text that is short enough to be in its view.
#[inline]
fn short(texts: &StringViewArray, row: usize) -> Option<u128> {
    Some(texts.views()[row]).filter(|view| *view as u32 as usize <= SHORT)
}

/// Whether two texts are the same.
#[inline]
fn are_same(texts: &StringViewArray, a: usize, b: usize) -> bool {
    match (short(texts, a), short(texts, b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => texts.value(a) == texts.value(b),
        _ => false,
    }
}

/// What belongs to names of a column that were met, such as types: each is found with one look or a few, whichever comes next.
struct Met<T> {
    short: [Option<(u128, T)>; PLACES],
    /// Rows of long names.
    long: Vec<(usize, T)>,
}

/// So many long names are known.
const LONG: usize = if cfg!(test) { 1 } else { 16 };

const PLACES: usize = if cfg!(test) { 2 } else { 64 };

/// Places that are looked at.
const TRIED: usize = if cfg!(test) { 1 } else { 4 };

impl<T: Copy> Met<T> {
    fn none() -> Self {
        Self { short: [None; PLACES], long: Vec::new() }
    }

    /// What belongs to the name in a row; `make` tells it of one that was not met.
    #[inline]
    fn of(&mut self, names: &StringViewArray, row: usize, make: impl FnOnce(&str) -> T) -> T {
        let Some(view) = short(names, row) else {
            let known = self.long.iter().find(|(known, _)| are_same(names, *known, row));
            return known.map(|(_, of)| *of).unwrap_or_else(|| {
                let of = make(names.value(row));
                self.long.extend(Some((row, of)).filter(|_| self.long.len() < LONG));
                of
            });
        };
        let bits = (view ^ (view >> u64::BITS)) as u64;
        let first = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2());
        let first = first as usize;
        let mut places = (first..first + TRIED).map(|place| place % PLACES);
        let is_it = |met: &Option<(u128, T)>| met.as_ref().is_none_or(|(known, _)| *known == view);
        let at = places.find(|place| is_it(&self.short[*place])).unwrap_or(first);
        match &mut self.short[at] {
            Some((known, of)) if *known == view => *of,
            // One that is met again is made again.
            place => place.insert((view, make(names.value(row)))).1,
        }
    }
}

/// What was found in a cell: an identifier, or why it is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) value: Value,
    /// Place of the record among those of the batch.
    of: u32,
    /// Number of the type in the batch.
    pub(super) id_type: u16,
    pub(super) reject: Option<Reject>,
}

/// Values of the last cells, which are not hashed yet: those of one type are hashed one after the other, for what they take is alike.
#[derive(Default)]
struct Values<'a> {
    texts: Vec<&'a str>,
    /// Their scopes, where any has one.
    scopes: Vec<Option<&'a str>>,
    /// Their places in the order of types, and where those of the next type begin.
    order: Vec<u32>,
    next: Vec<u32>,
    /// Places of those of a type that are hashed as they are written.
    plain: Vec<u32>,
}

impl Values<'_> {
    /// So many wait, and are in the cache still when it is their turn.
    const MOST: usize = if cfg!(test) { 5 } else { 2048 };

    /// Hashes all that wait.
    fn hash(&mut self, cells: &mut [Cell], cleaner: &Cleaner) {
        let Self { texts, order, next, .. } = self;
        let from = cells.len() - texts.len();
        let cells = &mut cells[from..];
        next.clear();
        next.resize(cells.iter().map(|cell| usize::from(cell.id_type) + 1).max().unwrap_or(0), 0);
        cells.iter().for_each(|cell| next[usize::from(cell.id_type)] += 1);
        let mut begin = 0;
        for of_type in &mut *next {
            begin += std::mem::replace(of_type, begin);
        }
        order.resize(cells.len(), 0);
        for (at, cell) in (0..).zip(&*cells) {
            let place = &mut next[usize::from(cell.id_type)];
            order[*place as usize] = at;
            *place += 1;
        }
        let mut from = 0;
        for id_type in 0..self.next.len() {
            let to = self.next[id_type] as usize;
            self.hash_of(cleaner.hashing(id_type as u16), from..to, cells);
            from = to;
        }
        self.texts.clear();
        self.scopes.clear();
    }

    /// Hashes those of one type, most of them two at a time.
    fn hash_of(&mut self, hashing: &Hashing, some: Range<usize>, cells: &mut [Cell]) {
        let Self { texts, scopes, order, plain, .. } = self;
        plain.clear();
        for at in &order[some] {
            let (place, text) = (*at as usize, texts[*at as usize]);
            let scope = scopes.get(place).copied().flatten();
            if scope.is_none() && hashing.is_clean(text) {
                plain.push(*at);
                continue;
            }
            match hashing.clean(text) {
                Ok(cleaned) => cells[place].value = hashing.hash(&cleaned, scope),
                Err(reject) => cells[place].reject = Some(reject),
            }
        }
        let (pairs, last) = plain.as_chunks();
        for [a, b] in pairs.iter().map(|pair| pair.map(|at| at as usize)) {
            [cells[a].value, cells[b].value] = hashing.hash_all([texts[a], texts[b]]);
        }
        for at in last.iter().map(|at| *at as usize) {
            [cells[at].value] = hashing.hash_all([texts[at]]);
        }
    }
}

/// Rows that were cleaned and hashed.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// The first row of each record here; rows of one record that stand together count once.
    firsts: Vec<u32>,
    /// Hashes of their keys.
    hashes: Vec<u64>,
    cells: Vec<Cell>,
    /// When each cell was seen, where that is known of any.
    times: Vec<Option<i64>>,
    /// Names of types by the numbers that cells have.
    types: Vec<String>,
    /// Rows without a source or a record.
    pub without_key: u64,
}

impl Cleaned {
    /// Of rows.
    pub fn of(columns: &Columns<'_>, mut cleaner: Cleaner, hashing: KeyHashing) -> Self {
        let cleaned = Self {
            cells: Vec::with_capacity(columns.sources.len()),
            without_key: columns.without_key(),
            ..Self::default()
        };
        let mut rows = Rows {
            columns,
            cleaned,
            hashing,
            last: None,
            of_source: Met::none(),
            values: Values::default(),
        };
        match &columns.identifiers {
            Identifiers::Long(types, values) => {
                let mut met = Met::none();
                for row in columns.with_keys() {
                    rows.begin(row);
                    if types.is_valid(row) {
                        let id_type = met.of(types, row, |name| cleaner.id_type(name));
                        let value = if values.is_valid(row) { values.value(row) } else { "" };
                        rows.add(row, id_type, value, &cleaner);
                    }
                }
            }
            Identifiers::Wide(of_types) => {
                let mut numbers: Vec<Option<u16>> = vec![None; of_types.len()];
                for row in columns.with_keys() {
                    rows.begin(row);
                    for ((id_type, values), number) in of_types.iter().zip(&mut numbers) {
                        if values.is_valid(row) {
                            let number = number.get_or_insert_with(|| cleaner.id_type(id_type));
                            rows.add(row, *number, values.value(row), &cleaner);
                        }
                    }
                }
            }
        }
        rows.end(&cleaner)
    }

    /// Names of types, by the numbers that they have here.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(String::as_str)
    }

    /// Finds the numbers of the records, and adds those that are not there. The columns are those as before, of a file with this number;
    /// `types` are the numbers of types in the place of those that they have here.
    pub fn number(
        self,
        columns: &Columns<'_>,
        file: u16,
        types: Vec<u16>,
        records: &mut Records,
    ) -> Batch {
        /// Records that are looked for at once. What more were looked at would not be in the cache any more when it is their turn.
        const LOOKED_AHEAD: usize = 64;
        let Columns { sources, record_ids, .. } = columns;
        let Self { firsts: mut numbers, hashes, cells, times, .. } = self;
        let mut met = Met::none();
        for (numbers, hashes) in numbers.chunks_mut(LOOKED_AHEAD).zip(hashes.chunks(LOOKED_AHEAD)) {
            records.look_ahead(hashes);
            for (number, hash) in numbers.iter_mut().zip(hashes) {
                let row = *number as usize;
                let source = met.of(sources, row, |source| records.source(source));
                *number = records.add_hashed(*hash, source, record_ids.value(row));
            }
        }
        Batch { file, rows: sources.len(), records: numbers, cells, times, types }
    }
}

/// Rows that are cleaned and hashed, one after the other.
struct Rows<'a> {
    columns: &'a Columns<'a>,
    cleaned: Cleaned,
    hashing: KeyHashing,
    /// The one before.
    last: Option<usize>,
    /// What hashes keys of sources.
    of_source: Met<Hash64>,
    values: Values<'a>,
}

impl<'a> Rows<'a> {
    /// Begins with a row.
    #[inline]
    fn begin(&mut self, row: usize) {
        let Columns { sources, record_ids, .. } = self.columns;
        let is_same = self
            .last
            .replace(row)
            .is_some_and(|last| are_same(record_ids, last, row) && are_same(sources, last, row));
        if is_same {
            return;
        }
        let of_source = self.of_source.of(sources, row, |source| self.hashing.of_source(source));
        self.cleaned.firsts.push(row as u32);
        self.cleaned.hashes.push(of_source.hash(record_ids.value(row)));
    }

    /// Adds a value of the row that was begun.
    #[inline]
    fn add(&mut self, row: usize, id_type: u16, value: &'a str, cleaner: &Cleaner) {
        let of = self.cleaned.firsts.len() as u32 - 1;
        self.cleaned.cells.push(Cell { value: [0; 2], of, id_type, reject: None });
        let time =
            |times: &TimestampMicrosecondArray| times.is_valid(row).then(|| times.value(row));
        self.cleaned.times.extend(self.columns.seen_at.map(time));
        self.values.texts.push(value);
        self.values.scopes.extend(self.columns.scopes.map(|_| self.columns.scope(row)));
        if self.values.texts.len() == Values::MOST {
            self.values.hash(&mut self.cleaned.cells, cleaner);
        }
    }

    fn end(mut self, cleaner: &Cleaner) -> Cleaned {
        self.values.hash(&mut self.cleaned.cells, cleaner);
        self.cleaned.types = cleaner.type_names().map(str::to_owned).collect();
        self.cleaned
    }
}

/// What rows of a file say of records that have numbers.
#[derive(Debug)]
pub struct Batch {
    /// Number of the file.
    pub(super) file: u16,
    rows: usize,
    /// Numbers of records.
    records: Vec<u32>,
    cells: Vec<Cell>,
    times: Vec<Option<i64>>,
    /// Numbers of types by those that cells have.
    pub(super) types: Vec<u16>,
}

impl Batch {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The records get other numbers.
    pub fn renumber(&mut self, number_of: impl Fn(u32) -> u32) {
        self.records.iter_mut().for_each(|record| *record = number_of(*record));
    }

    /// The identifiers, with the numbers of their types.
    pub fn identifiers(&self) -> impl Iterator<Item = (u16, Value)> {
        let found = self.cells.iter().filter(|cell| cell.reject.is_none());
        found.map(|cell| (self.types[usize::from(cell.id_type)], cell.value))
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let times = self.times.capacity() * size_of::<Option<i64>>();
        self.cells.capacity() * size_of::<Cell>()
            + times
            + self.records.capacity() * size_of::<u32>()
    }

    /// Gives the cells of each record to `take`: its number, the place of the cell, and the cell; `None` for a record of which only is known
    /// that it is there.
    #[inline]
    pub(super) fn each(&self, mut take: impl FnMut(u32, Option<(usize, &Cell)>)) {
        let mut next = 0;
        for (at, cell) in self.cells.iter().enumerate() {
            let of = cell.of as usize;
            let between = self.records.get(next..of).unwrap_or_default();
            between.iter().for_each(|bare| take(*bare, None));
            next = of + 1;
            take(self.records[of], Some((at, cell)));
        }
        self.records[next..].iter().for_each(|bare| take(*bare, None));
    }

    /// What was found in a cell, which is the one at this place.
    pub(super) fn finding(&self, at: usize, cell: &Cell) -> Finding {
        match cell.reject {
            None => Finding::Identifier(cell.value, self.times.get(at).copied().flatten()),
            Some(reject) => Finding::Rejected(reject),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::collect::{Collector, value_of};
    use super::super::graph::TypeRule;
    use super::super::norm_id::clean;
    use super::super::records::Keys;
    use super::*;

    const SECRET: [u8; 32] = [5; 32];

    /// A cell of a row: nothing, or one of a few texts.
    type Text = Option<&'static str>;

    /// What is found of records, in words.
    type Told = Vec<(String, Option<(String, Finding)>)>;

    fn collector() -> Collector {
        fn none(_: &str) -> Option<TypeRule> {
            None
        }
        Collector::new(&SECRET, &[], None, none)
    }

    /// What was found in batches of so many rows: whose they are, types, and findings.
    fn found(columns: &Columns<'_>, cut: usize) -> (Told, u64) {
        let mut collector = collector();
        let (mut told, mut without_key) = (Told::new(), 0);
        for from in (0..columns.sources.len()).step_by(cut) {
            let of = |array: &StringViewArray| array.slice(from, cut.min(array.len() - from));
            let (sources, record_ids, scopes) =
                (of(columns.sources), of(columns.record_ids), columns.scopes.map(of));
            let times = columns.seen_at.map(|times| times.slice(from, cut.min(times.len() - from)));
            let mut cells: Vec<StringViewArray> = Vec::new();
            let identifiers = match &columns.identifiers {
                Identifiers::Long(types, values) => {
                    cells.extend([of(types), of(values)]);
                    Identifiers::Long(&cells[0], &cells[1])
                }
                Identifiers::Wide(wide) => {
                    cells.extend(wide.iter().map(|(_, values)| of(values)));
                    Identifiers::Wide(wide.iter().map(|(name, _)| *name).zip(&cells).collect())
                }
            };
            let part = Columns {
                sources: &sources,
                record_ids: &record_ids,
                identifiers,
                scopes: scopes.as_ref(),
                seen_at: times.as_ref(),
            };
            let hashing = collector.records().hashing();
            let cleaned = Cleaned::of(&part, collector.cleaner(), hashing);
            without_key += cleaned.without_key;
            let types = cleaned.types().map(|name| collector.id_type(name)).collect();
            let mut batch = cleaned.number(&part, 1, types, collector.records_mut());
            // As where numbers change.
            let bytes = batch.bytes();
            batch.renumber(|number| number + 7);
            assert_eq!(batch.bytes(), bytes);
            let names: Vec<String> = collector.type_names().map(str::to_owned).collect();
            let mut identifiers = Vec::new();
            batch.each(|record, found| {
                let key = collector.records().key(record - 7);
                let found = found.map(|(at, cell)| {
                    let finding = batch.finding(at, cell);
                    let id_type = batch.types[usize::from(cell.id_type)];
                    if let Finding::Identifier(value, _) = finding {
                        identifiers.push((id_type, value));
                    }
                    (names[usize::from(id_type)].clone(), finding)
                });
                told.push((format!("{} {}", key.0, key.1), found));
            });
            assert_eq!(batch.identifiers().collect::<Vec<_>>(), identifiers);
        }
        (told, without_key)
    }

    /// As [`found`], row by row.
    fn slow(
        rows: &[[Text; 5]],
        times: Option<&[Option<i64>]>,
        is_long: bool,
        cut: usize,
    ) -> (Told, u64) {
        let (mut told, mut without_key) = (Told::new(), 0);
        for from in (0..rows.len()).step_by(cut) {
            let part = from..rows.len().min(from + cut);
            let has_key = |row: &usize| rows[*row][0].is_some() && rows[*row][1].is_some();
            without_key += part.clone().filter(|row| !has_key(row)).count() as u64;
            let rows_of: Vec<usize> = part.filter(has_key).collect();
            for same in rows_of.chunk_by(|a, b| rows[*a][..2] == rows[*b][..2]) {
                let name =
                    |row: usize| format!("{} {}", rows[row][0].unwrap(), rows[row][1].unwrap());
                let before = told.len();
                for row in same {
                    let [_, _, first, second, scope] = rows[*row];
                    let cells = match is_long {
                        true => vec![(first, Some(second.unwrap_or("")))],
                        false => vec![(Some("phone"), first), (Some("email"), second)],
                    };
                    for (id_type, value) in cells {
                        let (Some(id_type), Some(value)) = (id_type, value) else { continue };
                        let finding = match clean(id_type, value) {
                            Ok(_) => Finding::Identifier(
                                value_of(&SECRET, id_type, value, scope).unwrap(),
                                times.and_then(|times| times[*row]),
                            ),
                            Err(reject) => Finding::Rejected(reject),
                        };
                        told.push((name(*row), Some((id_type.to_owned(), finding))));
                    }
                }
                if told.len() == before {
                    told.push((name(same[0]), None));
                }
            }
        }
        (told, without_key)
    }

    fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = Text> {
        prop::option::weighted(0.8, prop::sample::select(texts))
    }

    proptest! {
        /// Rows in columns, cut anywhere: the same is found as row by row.
        #[test]
        fn what_columns_say_is_what_rows_say(
            rows in prop::collection::vec(
                (
                    prop::option::weighted(0.9, prop::sample::select(&["a", "b", "flagship_store", "flagship_shops"][..])),
                    prop::option::weighted(0.9, prop::sample::select(&["1", "2", "12"][..])),
                    one_of(&["phone", "email", "13800138001", "+86 13800138001", "n/a", "wechat_open_id", "wechat_union_id"]),
                    one_of(&["13800138002", "li7@qq.com", "Li@qq.com", "", "x"]),
                    one_of(&["", "s"]),
                )
                    .prop_map(|(a, b, c, d, e)| [a, b, c, d, e]),
                0..20,
            ),
            cut in 1usize..8, is_long in any::<bool>(), has_scopes in any::<bool>(), has_times in any::<bool>()
        ) {
            let column = |at: usize| -> StringViewArray { rows.iter().map(|row| row[at]).collect() };
            let columns = [0, 1, 2, 3, 4].map(column);
            let times: Vec<Option<i64>> = (0..rows.len() as i64).map(|row| (row % 3 > 0).then_some(row)).collect();
            let instants = TimestampMicrosecondArray::from(times.clone());
            let given = Columns {
                sources: &columns[0],
                record_ids: &columns[1],
                identifiers: match is_long {
                    true => Identifiers::Long(&columns[2], &columns[3]),
                    false => Identifiers::Wide(vec![("phone", &columns[2]), ("email", &columns[3])]),
                },
                scopes: has_scopes.then_some(&columns[4]),
                seen_at: has_times.then_some(&instants),
            };
            let mut rows = rows.clone();
            if !has_scopes {
                rows.iter_mut().for_each(|row| row[4] = None);
            }
            let times = Some(times.as_slice()).filter(|_| has_times);
            prop_assert_eq!(found(&given, cut), slow(&rows, times, is_long, cut));
        }
    }
}
