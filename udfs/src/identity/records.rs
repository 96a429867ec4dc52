//! Records by number.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Int64Array, StringArray};

use super::sip::Hash64;
use super::slots::Slots;

/// A record's key: its source, and its id within it.
pub type RecordKey<'a> = (&'a str, &'a str);

/// Keys of records, by number.
pub trait Keys {
    /// A record's key.
    fn key(&self, number: u32) -> RecordKey<'_>;

    /// A keyed hash of a record's key.
    fn hash(&self, number: u32) -> u64;

    /// Whether two of the hashes may be the same, or would be but for their first bits.
    fn may_have_twins(&self) -> bool;
}

/// Records in the order in which they were first seen, each once.
///
/// Numbers below a base are of records whose keys are elsewhere: those that matter can be told. A record takes some 25 bytes and
/// the text of its id.
#[derive(Debug, Clone)]
pub struct Records {
    hashing: KeyHashing,
    base: u32,
    told: HashMap<u32, (String, String)>,
    sources: Vec<String>,
    source_of: Vec<u32>,
    /// The ids, one after the other, and where each ends.
    text: String,
    ends: Vec<usize>,
    hashes: Vec<u64>,
    /// Places of records: their numbers after the base.
    table: Table,
    /// The place of the record that was found last.
    last: u32,
    /// Whether two hashes are the same, or would be but for their first bits.
    has_twins: bool,
}

/// So many records after the one found last are looked at before the table is asked.
const NEAR: u32 = 3;

impl Records {
    /// No records yet; `key` is the secret of their hashes.
    pub fn new(key: [u8; 16]) -> Self {
        Self::after(key, 0)
    }

    /// So many records whose keys are elsewhere, and no others yet.
    pub fn after(key: [u8; 16], base: u32) -> Self {
        Self {
            hashing: KeyHashing(key),
            base,
            told: HashMap::new(),
            sources: Vec::new(),
            source_of: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            hashes: Vec::new(),
            table: Table::default(),
            last: 0,
            has_twins: false,
        }
    }

    /// No records yet, with hashes under the same secret, and so many whose keys are elsewhere.
    pub fn anew(&self, base: u32) -> Self {
        Self::after(self.hashing.0, base)
    }

    /// Makes room for so many, so that coming to that number moves none of those before.
    pub fn reserve(&mut self, records: u32) {
        let more = (records as usize).saturating_sub(self.ends.len());
        // Numbers become longer as they are counted up. What is not written takes no memory.
        let each = self.text.len().checked_div(self.ends.len()).map_or(0, |each| each * 5 / 4 + 2);
        self.text.reserve_exact(each * more);
        self.source_of.reserve_exact(more);
        self.ends.reserve_exact(more);
        self.hashes.reserve_exact(more);
        self.table.reserve(self.ends.len() + more, &self.hashes);
    }

    /// Frees what records are found with: from now on they are known by their numbers alone.
    pub fn end_search(&mut self) {
        self.table = Table::default();
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.base + self.ends.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let a_record = size_of::<u32>() + size_of::<usize>() + size_of::<u64>();
        let told = self.told.len() * (size_of::<(u32, String, String)>() + 2 * TOLD_BYTES);
        told + self.text.capacity() + self.ends.capacity() * a_record + self.table.bytes()
    }

    /// The key of a record below the base.
    pub fn tell(&mut self, number: u32, source: &str, record_id: &str) {
        debug_assert!(number < self.base);
        self.told.insert(number, (source.to_owned(), record_id.to_owned()));
    }

    /// Whether a record's key is known here.
    pub fn knows(&self, number: u32) -> bool {
        number >= self.base || self.told.contains_key(&number)
    }

    /// The number of a record, if it was seen.
    pub fn number(&self, source: &str, record_id: &str) -> Option<u32> {
        let hash = self.hash_of(source, record_id);
        self.with_hash(hash).find(|number| self.key(*number) == (source, record_id))
    }

    /// The numbers of the records that have this hash.
    pub fn with_hash(&self, hash: u64) -> impl Iterator<Item = u32> {
        let same = self.table.alike(hash).filter(move |at| self.hashes[*at as usize] == hash);
        same.map(|at| self.base + at)
    }

    /// To look for many hashes of which most are not here.
    pub fn sought(&self) -> Sought<'_> {
        Sought { records: self, sieve: Sieve::of(&self.hashes) }
    }

    /// The number of a record as [`Self::number`], when `near` was found just before: rows that come in the order in which the
    /// records came are found without a look into the table, each of which is a miss of every cache.
    pub fn number_near(&self, near: u32, source: &str, record_id: &str) -> Option<u32> {
        let mut near = self.near(near.saturating_sub(self.base));
        let found = near.find(|at| self.key_at(*at) == (source, record_id));
        found.map(|at| self.base + at).or_else(|| self.number(source, record_id))
    }

    /// The places of one and of those after it.
    fn near(&self, at: u32) -> Range<u32> {
        at..at.saturating_add(NEAR + 1).min(self.ends.len() as u32)
    }

    /// Sources and ids of some records, none of them below the base, as columns.
    pub fn columns(&self, some: Range<u32>) -> [StringArray; 2] {
        let keys = (some.start - self.base..some.end - self.base).map(|at| self.key_at(at));
        [
            StringArray::from_iter_values(keys.clone().map(|(source, _)| source)),
            StringArray::from_iter_values(keys.map(|(_, record_id)| record_id)),
        ]
    }

    /// Their hashes, as a table has them.
    pub fn signed_hashes(&self, some: Range<u32>) -> Int64Array {
        let places = (some.start - self.base) as usize..(some.end - self.base) as usize;
        self.hashes[places].iter().map(|hash| hash.cast_signed()).collect()
    }

    fn key_at(&self, at: u32) -> RecordKey<'_> {
        key_of((&self.sources, &self.source_of, &self.text, &self.ends), at)
    }

    /// What hashes keys as here.
    pub fn hashing(&self) -> KeyHashing {
        self.hashing
    }

    /// The number of a record, a new one when it was not seen before.
    pub fn add(&mut self, source: &str, record_id: &str) -> u32 {
        let hash = self.hash_of(source, record_id);
        let source = self.source(source);
        self.add_hashed(hash, source, record_id)
    }

    /// The number of a source, a new one when none of its records was seen before.
    pub(super) fn source(&mut self, name: &str) -> u32 {
        let known = self.sources.iter().position(|known| known == name);
        let at = known.unwrap_or_else(|| {
            self.sources.push(name.to_owned());
            self.sources.len() - 1
        });
        at as u32
    }

    /// As [`Self::add`], when the key was hashed and its source has a number.
    pub(super) fn add_hashed(&mut self, hash: u64, source: u32, record_id: &str) -> u32 {
        // Identifiers of one record mostly come together; or those of one type do, records in the same order again.
        let mut near = self.near(self.last);
        let is_key =
            |at: u32| self.source_of[at as usize] == source && self.key_at(at).1 == record_id;
        let is_here = |at: u32| self.hashes[at as usize] == hash && is_key(at);
        if let Some(at) = near.find(|at| is_here(*at)) {
            self.last = at;
            return self.base + at;
        }
        let mut has_twin = false;
        let known = self.table.alike(hash).find(|at| {
            let other = self.hashes[*at as usize];
            has_twin |= is_twin(hash, other);
            other == hash && is_key(*at)
        });
        if let Some(known) = known {
            self.last = known;
            return self.base + known;
        }
        self.has_twins |= has_twin;
        let new = self.ends.len() as u32;
        self.table.insert(hash, new, &self.hashes);
        self.last = new;
        self.source_of.push(source);
        self.text.push_str(record_id);
        self.ends.push(self.text.len());
        self.hashes.push(hash);
        self.base + new
    }

    /// Looks where records with these hashes are, or will be, all at once: each look is a miss of every cache, and one after the
    /// other they would take most of the time. To be followed by [`Self::add`] or [`Self::number`] of them.
    pub fn look_ahead(&self, hashes: &[u64]) {
        std::hint::black_box(self.table.look(hashes));
    }

    fn hash_of(&self, source: &str, record_id: &str) -> u64 {
        self.hashing.hash(source, record_id)
    }
}

/// Some of the records.
#[derive(Debug)]
pub struct RecordSet {
    /// A bit for each.
    bits: Vec<u64>,
}

impl RecordSet {
    /// These among so many.
    pub fn new(count: u32, records: impl Iterator<Item = u32>) -> Self {
        let mut bits = vec![0; count.div_ceil(u64::BITS) as usize];
        records.for_each(|record| bits[(record / u64::BITS) as usize] |= 1 << (record % u64::BITS));
        Self { bits }
    }

    /// Whether a record is one of them.
    pub fn has(&self, record: u32) -> bool {
        let word = self.bits.get((record / u64::BITS) as usize);
        word.is_some_and(|word| word & (1 << (record % u64::BITS)) != 0)
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bits.capacity() * size_of::<u64>()
    }
}

/// Records that many hashes are compared with.
#[derive(Debug)]
pub struct Sought<'a> {
    records: &'a Records,
    sieve: Sieve,
}

impl Sought<'_> {
    /// Which of some hashes, as a table has them, are those of records: their places are added to `found`, counted from `first`.
    pub fn find(&self, hashes: &[i64], first: u32, found: &mut Vec<u32>) {
        let is_here =
            |hash: u64| self.sieve.may_have(hash) && self.records.with_hash(hash).next().is_some();
        let here = (first..).zip(hashes).filter(|(_, hash)| is_here(hash.cast_unsigned()));
        found.extend(here.map(|(at, _)| at));
    }
}

/// Tells of most hashes that they are not among some.
#[derive(Debug)]
struct Sieve {
    /// A bit for each of the ways that the last bits of a hash can be; the number of words is a power of two.
    words: Vec<u64>,
}

impl Sieve {
    fn of(hashes: &[u64]) -> Self {
        const BITS_A_HASH: usize = 16;
        let words = (hashes.len() * BITS_A_HASH / 64 + 1).next_power_of_two();
        let mut sieve = Self { words: vec![0; words] };
        for hash in hashes {
            let (word, bit) = sieve.place(*hash);
            sieve.words[word] |= bit;
        }
        sieve
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize & (self.words.len() - 1), 1 << (hash & 63))
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        self.words[word] & bit != 0
    }
}

/// Hashes keys of records.
#[derive(Debug, Clone, Copy)]
pub struct KeyHashing([u8; 16]);

impl KeyHashing {
    /// A keyed hash of a record's key.
    pub fn hash(&self, source: &str, record_id: &str) -> u64 {
        self.of_source(source).hash(record_id)
    }

    /// Hashes keys of records of one source by their ids.
    pub(super) fn of_source(&self, source: &str) -> Hash64 {
        // No text holds this byte.
        Hash64::new(&self.0, &[source.as_bytes(), &[0xff]].concat())
    }
}

/// Places by hash, one look for nearly all: a slot holds half of the hash beside the place.
#[derive(Debug, Clone, Default)]
struct Table {
    /// Their number is a power of two; an empty one is 0. What does not fit where it belongs is in the next that is free.
    slots: Slots,
    len: usize,
}

/// Whether two hashes are the same, or would be but for their first bits.
fn is_twin(a: u64, b: u64) -> bool {
    (a ^ b) << 1 == 0
}

/// The place among so many slots where a hash belongs: its bits from the second on, so that twins meet.
fn place(slots: &[u64], hash: u64) -> usize {
    ((hash << 1) >> (u64::BITS - slots.len().trailing_zeros())) as usize
}

/// Puts a hash into a free slot: its other half, and a place.
fn put(slots: &mut [u64], hash: u64, at: u32) {
    let mask = slots.len() - 1;
    let mut free = place(slots, hash);
    while slots[free] != 0 {
        free = (free + 1) & mask;
    }
    slots[free] = (hash << 32) | (u64::from(at) + 1);
}

impl Table {
    /// Looks where hashes belong. What is seen is of no use but that it was looked at.
    fn look(&self, hashes: &[u64]) -> u64 {
        let slots = self.slots.all();
        match slots.is_empty() {
            true => 0,
            false => hashes.iter().fold(0, |seen, hash| seen ^ slots[place(slots, *hash)]),
        }
    }

    /// Places whose hashes may be this one.
    fn alike(&self, hash: u64) -> impl Iterator<Item = u32> {
        let slots = self.slots.all();
        let mask = slots.len().wrapping_sub(1);
        let first = if slots.is_empty() { 0 } else { place(slots, hash) };
        // There is always one that is empty.
        (first..)
            .map_while(move |at| slots.get(at & mask).copied().filter(|slot| *slot != 0))
            .filter(move |slot| slot >> 32 == hash & u64::from(u32::MAX))
            .map(|slot| (slot as u32) - 1)
    }

    /// Adds the place of a hash, which is that of the next one in `hashes`.
    fn insert(&mut self, hash: u64, at: u32, hashes: &[u64]) {
        self.reserve(self.len + 1, hashes);
        put(self.slots.all_mut(), hash, at);
        self.len += 1;
    }

    /// Makes room for so many; three of four slots may be taken.
    fn reserve(&mut self, len: usize, hashes: &[u64]) {
        if len * 4 <= self.slots.all().len() * 3 {
            return;
        }
        // The old ones are given back before.
        self.slots = Slots::default();
        self.slots = Slots::zeroed((len * 4 / 3 + 1).next_power_of_two().max(16));
        let slots = self.slots.all_mut();
        (0..).zip(hashes).for_each(|(at, hash)| put(slots, *hash, at));
    }

    fn bytes(&self) -> usize {
        self.slots.bytes()
    }
}

/// A key that was told takes about so many bytes a text.
const TOLD_BYTES: usize = 24;

impl Keys for Records {
    fn key(&self, number: u32) -> RecordKey<'_> {
        match number.checked_sub(self.base) {
            Some(at) => self.key_at(at),
            None => {
                let told = self.told.get(&number);
                debug_assert!(told.is_some(), "the key of record {number} was not told");
                told.map_or(("", ""), |(source, id)| (source, id))
            }
        }
    }

    fn hash(&self, number: u32) -> u64 {
        match number.checked_sub(self.base) {
            Some(at) => self.hashes[at as usize],
            None => {
                let (source, record_id) = self.key(number);
                self.hash_of(source, record_id)
            }
        }
    }

    fn may_have_twins(&self) -> bool {
        // Of those that are elsewhere it is not known.
        self.has_twins || self.base > 0
    }
}

/// What keys are kept in: sources, whose each record is, ids, and where they end.
type Texts<'a> = (&'a [String], &'a [u32], &'a str, &'a [usize]);

fn key_of((sources, source_of, text, ends): Texts<'_>, at: u32) -> RecordKey<'_> {
    let at = at as usize;
    let from = if at == 0 { 0 } else { ends[at - 1] };
    (&sources[source_of[at] as usize], &text[from..ends[at]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two hashes that are the same but for the first bit are seen, wherever they come, and no others are taken for such.
        #[test]
        fn twins_are_seen(hashes in prop::collection::vec((0u64..40, 0u32..64, any::<bool>()), 0..40)) {
            let mut records = Records::new([3; 16]);
            let hashes: Vec<u64> = hashes.iter().map(|(n, shift, bit)| {
                n.rotate_right(*shift) ^ (u64::from(*bit) << 63)
            }).collect();
            for (at, hash) in hashes.iter().enumerate() {
                // Each is new, and those of one record come again.
                let id = at.to_string();
                let source = records.source("a");
                prop_assert_eq!(records.add_hashed(*hash, source, &id), at as u32);
                prop_assert_eq!(records.add_hashed(*hash, source, &id), at as u32);
            }
            let mut seen: Vec<u64> = hashes.iter().map(|hash| hash << 1).collect();
            seen.sort_unstable();
            prop_assert_eq!(records.may_have_twins(), seen.windows(2).any(|pair| pair[0] == pair[1]));
        }
    }

    #[test]
    fn records_that_are_elsewhere_are_told() {
        let all = Records::new([3; 16]);
        let mut records = all.anew(5);
        assert_eq!((records.add("a", "1"), records.add("a", "2"), records.len()), (5, 6, 7));
        assert_eq!(
            (records.number("a", "2"), records.number_near(5, "a", "1")),
            (Some(6), Some(5))
        );
        assert!(records.knows(6) && !records.knows(4));
        records.tell(4, "b", "1");
        assert_eq!((records.key(4), records.key(6)), (("b", "1"), ("a", "2")));
        let mut others = all.anew(0);
        others.add("b", "1");
        assert_eq!(others.hash(0), records.hash(4));
        let hash = records.hash(6);
        assert_eq!(records.with_hash(hash).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn a_record_has_one_number() {
        let mut records = Records::new([3; 16]);
        let given: Vec<u32> =
            [("a", "1"), ("a", "1"), ("b", "1"), ("a", "11"), ("", "a1"), ("a", "1")]
                .into_iter()
                .map(|(source, id)| records.add(source, id))
                .collect();
        assert_eq!(given, [0, 0, 1, 2, 3, 0]);
        for n in 0..5000 {
            assert_eq!(records.add("many", &n.to_string()), 4 + n);
        }
        assert_eq!(records.number("many", "77"), Some(81));
        // Again in the same order, with gaps and backwards.
        for n in (0..5000).step_by(3).chain((0..5000).rev().step_by(7)) {
            assert_eq!(records.add("many", &n.to_string()), 4 + n);
            assert_eq!(records.number_near(n, "many", &n.to_string()), Some(4 + n));
            assert_eq!(records.number_near(4 + n, "many", &n.to_string()), Some(4 + n));
        }
        assert_eq!(
            (records.number_near(5003, "many", "x"), records.number_near(9999, "a", "11")),
            (None, Some(2))
        );
        assert_eq!((records.key(2), records.number("b", "2")), (("a", "11"), None));
    }
}
