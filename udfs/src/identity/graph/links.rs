//! Identifiers, kept by value: what they join, and what breaks a limit.

use std::collections::{HashMap, HashSet};

use super::components::Components;
use super::{Hub, Rules, Value};

/// A record has an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Observation {
    pub(super) value: Value,
    pub(super) record: u32,
    pub(super) kind: u16,
}

/// A record has an identifier whose owners change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) observation: Observation,
    pub(super) seen_at: Option<i64>,
}

/// Identifiers by the first bits of their value: all of one value are in one partition, which fits a processor's cache.
#[derive(Debug, Clone)]
pub(super) struct Partitions {
    partitions: Vec<Vec<Vec<Observation>>>,
    /// Values that join nobody.
    hubs: HashSet<Value>,
    /// Room for so many identifiers was taken.
    room: usize,
}

const PARTITION_BITS: u32 = 8;

/// A partition grows in pieces of this size, so that growing copies nothing.
const PIECE: usize = 2048;

impl Default for Partitions {
    fn default() -> Self {
        Self::new(PARTITION_BITS)
    }
}

impl Partitions {
    /// By so many bits of the value.
    pub(super) fn new(bits: u32) -> Self {
        Self { partitions: vec![Vec::new(); 1 << bits], hubs: HashSet::new(), room: 0 }
    }

    pub(super) fn push(&mut self, observation: Observation) {
        // Their number is a power of two; the first bits of the value say which it is.
        let bits = self.partitions.len().trailing_zeros();
        let at = observation.value[0].checked_shr(u64::BITS - bits).unwrap_or(0);
        let partition = &mut self.partitions[at as usize];
        match partition.last_mut() {
            Some(piece) if piece.len() < piece.capacity() => piece.push(observation),
            last => {
                // Small inputs should not take 1,024 whole pieces.
                let size = last.map_or(16, |piece| (piece.capacity() * 4).min(PIECE));
                self.room += size;
                let mut piece = Vec::with_capacity(size);
                piece.push(observation);
                partition.push(piece);
            }
        }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.room * size_of::<Observation>()
    }

    /// Joins the records of every value that is not a hub, and gives the hubs. Identifiers are in order then, each once.
    pub(super) fn join(&mut self, rules: &Rules, components: &mut Components) -> Vec<Hub> {
        let mut hubs = Vec::new();
        let mut sorted = Vec::new();
        for partition in &mut self.partitions {
            sorted.clear();
            partition.iter().for_each(|piece| sorted.extend_from_slice(piece));
            sorted.sort_unstable();
            sorted.dedup();
            for same in sorted.chunk_by(|a, b| a.value == b.value) {
                let first = same[0];
                let records = same.len() as u32;
                if records > rules.types[usize::from(first.kind)].max_records {
                    hubs.push(Hub { kind: first.kind, value: first.value, records });
                } else {
                    same[1..].iter().for_each(|other| components.union(first.record, other.record));
                }
            }
            // Back into the same pieces: nothing is allocated, and nothing torn.
            let mut rest = sorted.as_slice();
            for piece in partition {
                let (part, others) = rest.split_at(piece.len().min(rest.len()));
                piece.clear();
                piece.extend_from_slice(part);
                rest = others;
            }
        }
        self.hubs = hubs.iter().map(|hub| hub.value).collect();
        hubs
    }

    /// Gives up all identifiers, once they were joined: in order, those with the same first half of their value together.
    pub(super) fn each_first_half(&mut self, mut take: impl FnMut(&Self, &[Observation])) {
        let mut sorted = Vec::new();
        for at in 0..self.partitions.len() {
            let pieces = std::mem::take(&mut self.partitions[at]);
            sorted.clear();
            pieces.into_iter().for_each(|piece| sorted.extend_from_slice(&piece));
            sorted
                .chunk_by(|a: &Observation, b| a.value[0] == b.value[0])
                .for_each(|same| take(self, same));
        }
    }

    pub(super) fn is_hub(&self, value: Value) -> bool {
        self.hubs.contains(&value)
    }

    /// Every identifier.
    pub(super) fn all(&self) -> impl Iterator<Item = &Observation> {
        self.partitions.iter().flatten().flatten()
    }

    /// Every identifier that joins.
    pub(super) fn joining(&self) -> impl Iterator<Item = &Observation> {
        self.all()
            .filter(|observation| self.hubs.is_empty() || !self.hubs.contains(&observation.value))
    }
}

/// Identifiers whose owners change, each under a value of its owner; `owners` gets what those were made of.
pub(super) fn with_owners(
    mut timed: Vec<Timed>,
    rules: &Rules,
    owners: &mut HashMap<Value, Value>,
) -> Vec<Observation> {
    timed.sort_unstable_by_key(|timed| (timed.observation.value, timed.seen_at));
    let mut given = Vec::with_capacity(timed.len());
    for same in timed.chunk_by(|a, b| a.observation.value == b.observation.value) {
        let shared = same[0].observation.value;
        let gap = rules.types[usize::from(same[0].observation.kind)].reuse_gap_us;
        let gap = gap.unwrap_or(i64::MAX);
        let known = same.partition_point(|timed| timed.seen_at.is_none());
        let (without, seen) = same.split_at(known);
        let is_far = |a: &Timed, b: &Timed| {
            b.seen_at.unwrap_or(0).saturating_sub(a.seen_at.unwrap_or(0)) > gap
        };
        let periods: Vec<&[Timed]> = seen.chunk_by(|a, b| !is_far(a, b)).collect();
        for (number, period) in periods.iter().enumerate() {
            let value = of_owner(shared, number);
            if number > 0 {
                owners.insert(value, shared);
            }
            given.extend(period.iter().map(|timed| Observation { value, ..timed.observation }));
        }
        if periods.len() <= 1 {
            given.extend(without.iter().map(|timed| timed.observation));
        }
    }
    given
}

/// The value of the owner `number` of a value, the first being 0: its first half is that of the value.
pub(super) fn of_owner(value: Value, number: usize) -> Value {
    [value[0], value[1] ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)]
}

/// The roots of components in which a limit is broken, if everything is joined.
pub(super) fn broken(
    roots: &[u32],
    links: &Partitions,
    rules: &Rules,
    cannot: &[(u32, u32)],
) -> HashSet<u32> {
    let mut broken = HashSet::new();
    let root = |record: u32| roots[record as usize];
    for (a, b) in cannot.iter().filter(|(a, b)| root(*a) == root(*b)) {
        debug_assert!(a <= b);
        broken.insert(root(*a));
    }
    let mut sizes = vec![0u32; roots.len()];
    roots.iter().for_each(|root| sizes[*root as usize] += 1);
    if let Some(most) = rules.max_cluster_records {
        let large = sizes.iter().enumerate().filter(|(_, size)| **size > most);
        broken.extend(large.map(|(root, _)| root as u32));
    }
    if rules.types.iter().any(|rule| rule.max_per_customer.is_some()) {
        let limited = links
            .joining()
            .filter(|o| rules.limit(o.kind).is_some() && sizes[root(o.record) as usize] > 1);
        let mut values: Vec<(u32, u16, Value)> =
            limited.map(|o| (root(o.record), o.kind, o.value)).collect();
        values.sort_unstable();
        values.dedup();
        for same in values.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            if rules.limit(same[0].1).is_some_and(|most| same.len() > most as usize) {
                broken.insert(same[0].0);
            }
        }
    }
    broken
}
