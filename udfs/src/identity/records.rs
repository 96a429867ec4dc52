//! Records by number.

use std::hash::Hasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use siphasher::sip::SipHasher13;

/// A record's key: its source, and its id within it.
pub type RecordKey<'a> = (&'a str, &'a str);

/// Records in the order in which they were first seen, each once.
///
/// A record takes some 25 bytes and the text of its id.
#[derive(Debug, Clone)]
pub struct Records {
    key: [u8; 16],
    sources: Vec<String>,
    source_of: Vec<u32>,
    /// The ids, one after the other, and where each ends.
    text: String,
    ends: Vec<usize>,
    hashes: Vec<u64>,
    table: HashTable<u32>,
    /// The record that was found last.
    last: u32,
}

/// So many records after the one found last are looked at before the table is asked.
const NEAR: u32 = 3;

impl Records {
    /// No records yet; `key` is the secret of their hashes.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            sources: Vec::new(),
            source_of: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            hashes: Vec::new(),
            table: HashTable::new(),
            last: 0,
        }
    }

    /// Makes room for so many, so that coming to that number moves none of those before.
    pub fn reserve(&mut self, records: u32) {
        let more = (records as usize).saturating_sub(self.ends.len());
        self.source_of.reserve_exact(more);
        self.ends.reserve_exact(more);
        self.hashes.reserve_exact(more);
        let hashes = &self.hashes;
        self.table.reserve(more, |at| hashes[*at as usize]);
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let a_record = size_of::<u32>() + size_of::<usize>() + size_of::<u64>();
        self.text.capacity() + self.ends.capacity() * a_record + self.table.allocation_size()
    }

    /// A record's key.
    pub fn key(&self, number: u32) -> RecordKey<'_> {
        key_of((&self.sources, &self.source_of, &self.text, &self.ends), number)
    }

    /// A keyed hash of a record's key.
    pub fn hash(&self, number: u32) -> u64 {
        self.hashes[number as usize]
    }

    /// The number of a record, if it was seen.
    pub fn number(&self, source: &str, record_id: &str) -> Option<u32> {
        let hash = self.hash_of(source, record_id);
        self.table.find(hash, |at| self.key(*at) == (source, record_id)).copied()
    }

    /// The number of a record as [`Self::number`], when `near` was found just before: rows that come in the order in which the
    /// records came are found without a look into the table, each of which is a miss of every cache.
    pub fn number_near(&self, near: u32, source: &str, record_id: &str) -> Option<u32> {
        self.at_or_after(near, source, record_id).or_else(|| self.number(source, record_id))
    }

    fn at_or_after(&self, near: u32, source: &str, record_id: &str) -> Option<u32> {
        let mut few = near..near.saturating_add(NEAR + 1).min(self.len());
        few.find(|number| self.key(*number) == (source, record_id))
    }

    /// The number of a record, a new one when it was not seen before.
    pub fn add(&mut self, source: &str, record_id: &str) -> u32 {
        // Identifiers of one record mostly come together; or those of one type do, records in the same order again.
        if let Some(number) = self.at_or_after(self.last, source, record_id) {
            self.last = number;
            return number;
        }
        let hash = self.hash_of(source, record_id);
        let number = self.len();
        let texts: Texts<'_> = (&self.sources, &self.source_of, &self.text, &self.ends);
        let hashes = &self.hashes;
        let is_it = |at: &u32| key_of(texts, *at) == (source, record_id);
        self.last = match self.table.entry(hash, is_it, |at| hashes[*at as usize]) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                free.insert(number);
                number
            }
        };
        if self.last < number {
            return self.last;
        }
        let of = match self.sources.iter().position(|known| known == source) {
            Some(at) => at,
            None => {
                self.sources.push(source.to_owned());
                self.sources.len() - 1
            }
        };
        self.source_of.push(of as u32);
        self.text.push_str(record_id);
        self.ends.push(self.text.len());
        self.hashes.push(hash);
        number
    }

    fn hash_of(&self, source: &str, record_id: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(source.as_bytes());
        // No text holds this byte.
        hasher.write_u8(0xff);
        hasher.write(record_id.as_bytes());
        hasher.finish()
    }
}

/// What keys are kept in: sources, whose each record is, ids, and where they end.
type Texts<'a> = (&'a [String], &'a [u32], &'a str, &'a [usize]);

fn key_of((sources, source_of, text, ends): Texts<'_>, number: u32) -> RecordKey<'_> {
    let at = number as usize;
    let from = if at == 0 { 0 } else { ends[at - 1] };
    (&sources[source_of[at] as usize], &text[from..ends[at]])
}

#[cfg(test)]
mod tests {
    use super::*;

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
