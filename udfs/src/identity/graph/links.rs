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
    /// The file in which it was found; several may have the same.
    pub(super) file: u16,
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
    partitions: Vec<Partition>,
    /// Values that join nobody.
    hubs: HashSet<Value>,
    /// Room for so many identifiers was taken.
    room: usize,
}

/// Identifiers as they come: what was kept from earlier runs comes in order, and is not put in order again.
#[derive(Debug, Clone, Default)]
struct Partition {
    /// By value.
    ordered: Vec<Observation>,
    /// Those that came later than others that come after them; growing copies nothing.
    others: Vec<Vec<Observation>>,
    last: Value,
}

const PARTITION_BITS: u32 = 8;

/// What comes out of order is kept in pieces of this size.
const PIECE: usize = 2048;

impl Default for Partitions {
    fn default() -> Self {
        Self::new(PARTITION_BITS)
    }
}

impl Partition {
    /// Adds an identifier, and gives for how many more there is room now.
    fn push(&mut self, observation: Observation) -> usize {
        if observation.value >= self.last {
            self.last = observation.value;
            let before = self.ordered.capacity();
            self.ordered.push(observation);
            return self.ordered.capacity() - before;
        }
        match self.others.last_mut() {
            Some(piece) if piece.len() < piece.capacity() => {
                piece.push(observation);
                0
            }
            last => {
                // Small inputs should not take 1,024 whole pieces.
                let size = last.map_or(16, |piece| (piece.capacity() * 4).min(PIECE));
                let mut piece = Vec::with_capacity(size);
                piece.push(observation);
                self.others.push(piece);
                size
            }
        }
    }

    /// Puts all of it in order, each once of a file: in one piece, or in the pieces in which most of it came, so that nothing is
    /// allocated and nothing torn.
    fn sort(&mut self, scratch: &mut Vec<Observation>) {
        let (ordered, others) = (&mut self.ordered, &mut self.others);
        let count: usize = others.iter().map(Vec::len).sum();
        if count <= ordered.len() / 4 {
            let from = ordered.len();
            ordered.reserve_exact(count);
            others.drain(..).for_each(|piece| ordered.extend(piece));
            ordered[from..].sort_unstable();
            if !ordered.is_sorted() {
                // Two lists in order: that is seen, and they are merged.
                ordered.sort();
            }
            ordered.dedup();
            return;
        }
        scratch.clear();
        others.iter().for_each(|piece| scratch.extend_from_slice(piece));
        scratch.append(ordered);
        *ordered = Vec::new();
        if !scratch.is_sorted() {
            scratch.sort_unstable();
        }
        scratch.dedup();
        let mut rest = scratch.as_slice();
        for piece in others.iter_mut() {
            let (part, more) = rest.split_at(piece.len().min(rest.len()));
            piece.clear();
            piece.extend_from_slice(part);
            rest = more;
        }
        if !rest.is_empty() {
            others.push(rest.to_vec());
        }
    }

    /// All of it in order, when it was sorted; put together in `scratch` where it is in pieces.
    fn all<'a>(&'a self, scratch: &'a mut Vec<Observation>) -> &'a [Observation] {
        if self.others.is_empty() {
            return &self.ordered;
        }
        debug_assert!(self.ordered.is_empty());
        scratch.clear();
        self.others.iter().for_each(|piece| scratch.extend_from_slice(piece));
        scratch
    }

    fn room(&self) -> usize {
        self.ordered.capacity() + self.others.iter().map(Vec::capacity).sum::<usize>()
    }
}

impl Partitions {
    /// By so many bits of the value.
    pub(super) fn new(bits: u32) -> Self {
        Self { partitions: vec![Partition::default(); 1 << bits], hubs: HashSet::new(), room: 0 }
    }

    pub(super) fn push(&mut self, observation: Observation) {
        // Their number is a power of two; the first bits of the value say which it is.
        let bits = self.partitions.len().trailing_zeros();
        let at = observation.value[0].checked_shr(u64::BITS - bits).unwrap_or(0);
        self.room += self.partitions[at as usize].push(observation);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let of = |of: &Partition| of.ordered.len() + of.others.iter().map(Vec::len).sum::<usize>();
        self.partitions.iter().map(of).sum()
    }

    /// Bytes that [`Self::sort`] takes besides: new ones are put among those that are in order.
    pub(super) fn bytes_to_sort(&self) -> usize {
        let new = |of: &Partition| of.others.iter().map(Vec::len).sum::<usize>();
        self.partitions.iter().map(new).sum::<usize>() * size_of::<Observation>()
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.room * size_of::<Observation>()
    }

    /// Makes room for so many that come in order.
    pub(super) fn reserve(&mut self, count: usize) {
        // Values are hashes: partitions are as large as each other, nearly.
        let each = count / self.partitions.len();
        let each = each + each / 32 + 16;
        for partition in &mut self.partitions {
            partition.ordered.reserve_exact(each);
            self.room += partition.ordered.capacity();
        }
    }

    /// Puts identifiers in order, each once of a file.
    pub(super) fn sort(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let each = self.partitions.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for part in self.partitions.chunks_mut(each) {
                scope.spawn(|| {
                    let mut scratch = Vec::new();
                    part.iter_mut().for_each(|partition| partition.sort(&mut scratch));
                });
            }
        });
        self.room = self.partitions.iter().map(Partition::room).sum();
    }

    /// Joins the records of every value that is not a hub, and gives the hubs. Identifiers are in order then, each once of a file.
    pub(super) fn join(&mut self, rules: &Rules, components: &mut Components) -> Vec<Hub> {
        self.sort();
        let (mut hubs, mut scratch) = (Vec::new(), Vec::new());
        for partition in &self.partitions {
            for same in partition.all(&mut scratch).chunk_by(|a, b| a.value == b.value) {
                let [first, others @ ..] = same else { continue };
                let most = rules.types[usize::from(first.kind)].max_records as usize;
                if same.len() > most {
                    let records = same.chunk_by(|a, b| a.record == b.record).count() as u32;
                    if records as usize > most {
                        hubs.push(Hub { kind: first.kind, value: first.value, records });
                        continue;
                    }
                }
                others.iter().for_each(|other| components.union(first.record, other.record));
            }
        }
        self.hubs = hubs.iter().map(|hub| hub.value).collect();
        hubs
    }

    /// Gives up all identifiers, once they were joined: in order, those with the same first half of their value together.
    pub(super) fn each_first_half(&mut self, mut take: impl FnMut(&Self, &[Observation])) {
        let mut scratch = Vec::new();
        for at in 0..self.partitions.len() {
            let partition = std::mem::take(&mut self.partitions[at]);
            let all = partition.all(&mut scratch);
            all.chunk_by(|a, b| a.value[0] == b.value[0]).for_each(|same| take(self, same));
        }
    }

    pub(super) fn is_hub(&self, value: Value) -> bool {
        self.hubs.contains(&value)
    }

    /// Every identifier.
    pub(super) fn all(&self) -> impl Iterator<Item = &Observation> {
        self.partitions.iter().flat_map(|of| of.others.iter().flatten().chain(&of.ordered))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What comes in order and what does not is in order at last, each once of a file.
        #[test]
        fn whatever_comes_is_put_in_order(
            kept in prop::collection::btree_set((0u64..4000, 0u32..3), 0..4000),
            new in prop::collection::vec((0u64..4000, 0u32..3, 0u16..2), 0..4000), bits in 0u32..3
        ) {
            let observation = |(value, record, file): (u64, u32, u16)| Observation {
                value: [value << 52, value], record, kind: 0, file,
            };
            let kept = kept.into_iter().map(|(value, record)| (value, record, 0));
            let all: Vec<_> = kept.chain(new).map(observation).collect();
            let mut partitions = Partitions::new(bits);
            partitions.reserve(all.len() / 2);
            for (at, observation) in all.iter().enumerate() {
                partitions.push(*observation);
                // In the middle of it is as good as at the end.
                if at == all.len() * 3 / 4 {
                    partitions.sort();
                }
            }
            partitions.sort();
            let mut expected = all;
            expected.sort();
            expected.dedup();
            prop_assert_eq!(partitions.all().copied().collect::<Vec<_>>(), expected);
        }
    }
}
