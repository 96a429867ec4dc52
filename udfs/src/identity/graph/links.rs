//! Identifiers, kept by value: what they join, and what breaks a limit.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::parts::threads;
use super::components::Meeting;
use super::{Hub, OF_NO_FILE, Rules, Value};

/// A record has an identifier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Observation {
    pub(super) value: Value,
    pub(super) record: u32,
    pub(super) kind: u16,
    /// The file in which it was found; several may have the same.
    pub(super) file: u16,
}

impl Observation {
    const BYTES: usize = 24;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.value[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.value[1].to_le_bytes());
        bytes[16..20].copy_from_slice(&self.record.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.kind.to_le_bytes());
        bytes[22..].copy_from_slice(&self.file.to_le_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, record @ .., q, r, s, t] = *bytes;
        let value = [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_le_bytes);
        let [kind, file] = [[q, r], [s, t]].map(u16::from_le_bytes);
        Self { value, record: u32::from_le_bytes(record), kind, file }
    }
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
    /// What came last of each, until it is a piece.
    open: Vec<Vec<Observation>>,
    /// Values that join nobody.
    hubs: HashSet<Value>,
    /// Room for so many identifiers was taken.
    room: usize,
    /// Where those are that did not fit into memory, and its length.
    disk: Option<Arc<File>>,
    disk_bytes: u64,
}

/// Identifiers as they come: what was kept from earlier runs comes in order, and is not put in order again.
#[derive(Debug, Clone, Default)]
struct Partition {
    /// In order, one piece after the other; growing copies nothing.
    ordered: Vec<Vec<Observation>>,
    /// The last of them.
    last: Option<Observation>,
    /// Whether some of them are of a file.
    has_files: bool,
    /// Those that came later than others that come after them; in order once they are sorted.
    others: Vec<Vec<Observation>>,
    is_sorted: bool,
    /// Those on disk: where they begin and how many there are, each part in order.
    on_disk: Vec<(u64, usize)>,
}

pub(super) const PARTITION_BITS: u32 = 8;

/// Identifiers that come one by one are put into pieces of this size.
const PIECE: usize = 2048;

impl Default for Partitions {
    fn default() -> Self {
        Self::new(PARTITION_BITS)
    }
}

fn count(pieces: &[Vec<Observation>]) -> usize {
    pieces.iter().map(Vec::len).sum()
}

/// Puts pieces together in order. Their values begin with the same `bits`; what follows is as good as random, so that a few more tell
/// nearly where each belongs.
fn sorted(pieces: &[Vec<Observation>], bits: u32, to: &mut Vec<Observation>) {
    /// So many share a place, about: what is quickly put in order.
    const SHARE: usize = 8;
    /// Most bits: the ends of places should stay in the fastest cache.
    const BITS_MAX: u32 = 13;
    let all = count(pieces);
    let more = (all / SHARE).checked_ilog2().unwrap_or(0).min(BITS_MAX);
    let place = |one: &Observation| {
        let rest = one.value[0].checked_shl(bits).unwrap_or(0);
        rest.checked_shr(u64::BITS - more).unwrap_or(0) as usize
    };
    let mut ends = vec![0; (1 << more) + 1];
    pieces.iter().flatten().for_each(|one| ends[place(one) + 1] += 1);
    // Where each place begins; each that comes moves it on.
    let mut from = 0;
    for end in &mut ends {
        from += *end;
        *end = from;
    }
    to.resize(all, Observation::default());
    for one in pieces.iter().flatten() {
        let at = &mut ends[place(one)];
        to[*at] = *one;
        *at += 1;
    }
    let mut from = 0;
    for end in &ends[..1 << more] {
        to[from..*end].sort_unstable();
        from = *end;
    }
}

impl Partition {
    /// Adds a piece, and gives for how many it has room.
    fn push_piece(&mut self, piece: Vec<Observation>) -> usize {
        let [first, ..] = piece.as_slice() else { return 0 };
        let room = piece.capacity();
        if self.last.is_none_or(|last| *first >= last) && piece.is_sorted() {
            self.last = piece.last().copied();
            self.has_files |= piece.iter().any(|observation| observation.file != OF_NO_FILE);
            self.ordered.push(piece);
        } else {
            self.is_sorted = false;
            self.others.push(piece);
        }
        room
    }

    /// Puts all of it in order, each that is not in order yet once of a file: in the pieces in which it came, so that nothing is
    /// allocated and nothing torn.
    fn sort(&mut self, bits: u32, scratch: &mut Vec<Observation>) {
        if self.is_sorted || self.others.is_empty() {
            self.is_sorted = true;
            return;
        }
        if count(&self.ordered) <= count(&self.others) / 4 {
            // By chance.
            self.others.append(&mut self.ordered);
            self.last = None;
        }
        sorted(&self.others, bits, scratch);
        scratch.dedup();
        let mut rest = scratch.as_slice();
        for piece in &mut self.others {
            let (part, more) = rest.split_at(piece.capacity().min(rest.len()));
            piece.clear();
            piece.extend_from_slice(part);
            rest = more;
        }
        if !rest.is_empty() {
            self.others.push(rest.to_vec());
        }
        self.is_sorted = true;
    }

    /// All of it in order, when it was sorted; put together in `scratch` where it is in pieces.
    fn all<'a>(
        &'a self,
        disk: Option<&File>,
        scratch: &'a mut Vec<Observation>,
    ) -> io::Result<&'a [Observation]> {
        debug_assert!(self.is_sorted || self.others.is_empty());
        if let ([one], [], []) | ([], [one], []) =
            (self.ordered.as_slice(), self.others.as_slice(), self.on_disk.as_slice())
        {
            return Ok(one);
        }
        scratch.clear();
        self.in_memory(scratch);
        let is_merged = self.on_disk.is_empty();
        self.on_disk(disk, scratch)?;
        if !is_merged {
            // A few lists in order: that is seen, and they are merged.
            scratch.sort();
        }
        Ok(scratch)
    }

    /// Adds those in memory, in order when they were sorted.
    fn in_memory(&self, to: &mut Vec<Observation>) {
        // Mostly few come among many, which are copied in long pieces. A search would miss the caches more often than a look at each.
        let mut others = self.others.iter().flatten().peekable();
        for piece in &self.ordered {
            let mut rest = piece.as_slice();
            while let Some(next) = others.peek() {
                if rest.last().is_none_or(|last| last <= next) {
                    break;
                }
                let before = rest.iter().position(|known| known > next).unwrap_or(rest.len());
                let (before, after) = rest.split_at(before);
                to.extend_from_slice(before);
                to.extend(others.next());
                rest = after;
            }
            to.extend_from_slice(rest);
        }
        to.extend(others);
    }

    /// Adds those on disk, each part of them in order.
    fn on_disk<'a>(
        &self,
        disk: Option<&File>,
        to: &'a mut Vec<Observation>,
    ) -> io::Result<&'a [Observation]> {
        let mut bytes = Vec::new();
        for (from, count) in &self.on_disk {
            let Some(disk) = disk else { return Err(io::ErrorKind::NotFound.into()) };
            bytes.resize(count * Observation::BYTES, 0);
            disk.read_exact_at(&mut bytes, *from)?;
            to.extend(bytes.as_chunks().0.iter().map(Observation::of_bytes));
        }
        Ok(to)
    }

    /// How many there are in memory.
    fn len(&self) -> usize {
        count(&self.ordered) + count(&self.others)
    }

    fn room(&self) -> usize {
        self.ordered.iter().chain(&self.others).map(Vec::capacity).sum::<usize>()
    }
}

/// Some partitions, and an accumulator.
type Part<'a, T> = (&'a mut [Partition], T);

impl Partitions {
    /// By so many bits of the value.
    pub(super) fn new(bits: u32) -> Self {
        let (partitions, open) =
            (vec![Partition::default(); 1 << bits], vec![Vec::new(); 1 << bits]);
        Self { partitions, open, hubs: HashSet::new(), room: 0, disk: None, disk_bytes: 0 }
    }

    /// The partition of a value. Their number is a power of two; the first bits of the value say which it is.
    fn place(&self, value: Value) -> usize {
        value[0].checked_shr(u64::BITS - self.bits()).unwrap_or(0) as usize
    }

    /// So many bits of a value tell which partition it is of.
    fn bits(&self) -> u32 {
        self.partitions.len().trailing_zeros()
    }

    /// Adds an identifier. It is put together where it belongs: one that is copied there from elsewhere, just written, waits for all
    /// that was written before it, which misses the caches.
    #[inline]
    pub(super) fn push(&mut self, observation: Observation) {
        let at = self.place(observation.value);
        if self.open[at].len() == self.open[at].capacity() {
            self.open_another(at);
        }
        self.open[at].push(observation);
    }

    #[cold]
    fn open_another(&mut self, at: usize) {
        let piece = &mut self.open[at];
        // Small inputs should not take whole pieces.
        let size = (piece.capacity() * 4).clamp(16, PIECE);
        let full = std::mem::replace(piece, Vec::with_capacity(size));
        self.partitions[at].push_piece(full);
        self.room += size;
    }

    /// What came last are pieces, too.
    fn close(&mut self) {
        for (piece, partition) in self.open.iter_mut().zip(&mut self.partitions) {
            partition.push_piece(std::mem::take(piece));
        }
    }

    /// Adds identifiers of one partition that are in order.
    pub(super) fn push_piece(&mut self, piece: Vec<Observation>) {
        let Some(first) = piece.first() else { return };
        let at = self.place(first.value);
        debug_assert!(piece.is_sorted() && piece.iter().all(|o| self.place(o.value) == at));
        self.room += self.partitions[at].push_piece(piece);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let on_disk = |of: &Partition| of.on_disk.iter().map(|(_, count)| count).sum::<usize>();
        let closed: usize = self.partitions.iter().map(|of| of.len() + on_disk(of)).sum();
        closed + count(&self.open)
    }

    /// How many partitions there are.
    pub(super) fn parts(&self) -> usize {
        self.partitions.len()
    }

    /// Bytes that it takes besides to put them in order and to go through them: each thread has a partition at a time.
    pub(super) fn bytes_to_sort(&self) -> usize {
        let most = self.partitions.iter().map(Partition::room).max().unwrap_or(0);
        2 * threads() * most * size_of::<Observation>()
    }

    /// Bytes on disk.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.disk_bytes
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.room * size_of::<Observation>()
    }

    /// Puts identifiers in order, each that came out of order once of a file.
    pub(super) fn sort(&mut self) {
        self.close();
        let (each, bits) = (self.each(), self.bits());
        std::thread::scope(|scope| {
            for part in self.partitions.chunks_mut(each) {
                scope.spawn(|| {
                    let mut scratch = Vec::new();
                    part.iter_mut().for_each(|partition| partition.sort(bits, &mut scratch));
                });
            }
        });
        self.room = self.partitions.iter().map(Partition::room).sum();
    }

    /// So many partitions are a thread's.
    fn each(&self) -> usize {
        self.partitions.len().div_ceil(threads()).max(1)
    }

    /// Writes all identifiers that are in memory to the end of a file, which is the same one each time.
    pub(super) fn spill(&mut self, make: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        self.sort();
        let disk = match &self.disk {
            Some(disk) => Arc::clone(disk),
            None => Arc::clone(self.disk.insert(Arc::new(make()?))),
        };
        let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
        for partition in &mut self.partitions {
            let before = std::mem::take(&mut partition.on_disk);
            let all = partition.all(None, &mut scratch)?;
            bytes.clear();
            all.iter().for_each(|observation| bytes.extend_from_slice(&observation.to_bytes()));
            disk.write_all_at(&bytes, self.disk_bytes)?;
            let written = (self.disk_bytes, all.len());
            self.disk_bytes += bytes.len() as u64;
            let is_any = written.1 > 0;
            *partition = Partition { on_disk: before, ..Partition::default() };
            partition.on_disk.extend(Some(written).filter(|_| is_any));
        }
        self.room = 0;
        Ok(())
    }

    /// What `work` makes of each partition in order, several at once; in parts of the same order.
    fn map<T: Default + Send>(
        &mut self,
        work: impl Fn(&mut Partition, &mut Vec<Observation>, &mut T) -> io::Result<()> + Sync,
    ) -> io::Result<Vec<T>> {
        let each = self.each();
        let mut parts: Vec<Part<'_, T>> =
            self.partitions.chunks_mut(each).map(|part| (part, T::default())).collect();
        let go = |(part, made): &mut Part<'_, T>| {
            let mut scratch = Vec::new();
            part.iter_mut().try_for_each(|partition| work(partition, &mut scratch, made))
        };
        std::thread::scope(|scope| -> io::Result<()> {
            let tasks: Vec<_> = parts.iter_mut().map(|part| scope.spawn(|| go(part))).collect();
            tasks.into_iter().try_for_each(|task| {
                task.join().unwrap_or_else(|_| Err(io::Error::other("a part of it panicked")))
            })
        })?;
        Ok(parts.into_iter().map(|(_, made)| made).collect())
    }

    /// Joins the records of every value that is not a hub, and gives the hubs. Identifiers are in order then.
    pub(super) fn join(&mut self, rules: &Rules, components: &Meeting) -> io::Result<Vec<Hub>> {
        self.sort();
        let disk = self.disk.clone();
        let hubs = self.map(|partition, scratch, hubs: &mut Vec<Hub>| {
            for same in partition.all(disk.as_deref(), scratch)?.chunk_by(|a, b| a.value == b.value)
            {
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
            Ok(())
        })?;
        let hubs = hubs.concat();
        self.hubs = hubs.iter().map(|hub| hub.value).collect();
        Ok(hubs)
    }

    /// Values that join nobody, once the others were joined.
    pub(super) fn hubs(&self) -> &HashSet<Value> {
        &self.hubs
    }

    /// Gives every identifier that joins to `take`, in order, once they were joined.
    pub(super) fn each_in_order(&self, mut take: impl FnMut(&Observation)) -> io::Result<()> {
        let mut scratch = Vec::new();
        for partition in &self.partitions {
            let all = partition.all(self.disk.as_deref(), &mut scratch)?;
            let joining = all.iter().filter(|one| !self.hubs.contains(&one.value));
            joining.for_each(&mut take);
        }
        Ok(())
    }

    /// Gives what was found in files to `take`, of one partition in order and each once, when they were sorted; with how many are still
    /// to come at most.
    pub(super) fn of_files(
        &self,
        part: usize,
        mut take: impl FnMut(&Observation, usize),
    ) -> io::Result<()> {
        let partition = &self.partitions[part];
        let is_of_file = |observation: &&Observation| observation.file != OF_NO_FILE;
        let others = partition.others.iter().flatten().filter(is_of_file);
        if partition.ordered.is_empty() && partition.on_disk.is_empty() {
            debug_assert!(partition.is_sorted || partition.others.is_empty());
            let all = count(&partition.others);
            others.enumerate().for_each(|(at, one)| take(one, all - at));
            return Ok(());
        }
        let mut found: Vec<Observation> = Vec::new();
        // What was kept is not looked at, unless something else is among it.
        let ordered = partition.ordered.iter().filter(|_| partition.has_files).flatten();
        found.extend(ordered.filter(is_of_file));
        found.extend(others);
        let mut scratch = Vec::new();
        let on_disk = partition.on_disk(self.disk.as_deref(), &mut scratch)?;
        found.extend(on_disk.iter().filter(is_of_file));
        if !found.is_sorted() {
            found.sort();
        }
        found.dedup();
        found.iter().enumerate().for_each(|(at, one)| take(one, found.len() - at));
        Ok(())
    }

    /// Gives every identifier to `take`.
    pub(super) fn each_one(&self, mut take: impl FnMut(&Observation)) -> io::Result<()> {
        let mut scratch = Vec::new();
        self.open.iter().flatten().for_each(&mut take);
        for partition in &self.partitions {
            partition.ordered.iter().chain(&partition.others).flatten().for_each(&mut take);
            scratch.clear();
            partition.on_disk(self.disk.as_deref(), &mut scratch)?.iter().for_each(&mut take);
        }
        Ok(())
    }

    /// Gives every identifier that joins to `take`.
    pub(super) fn each_joining(&self, mut take: impl FnMut(&Observation)) -> io::Result<()> {
        self.each_one(|observation| {
            if self.hubs.is_empty() || !self.hubs.contains(&observation.value) {
                take(observation);
            }
        })
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
) -> io::Result<HashSet<u32>> {
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
        let mut values: Vec<(u32, u16, Value)> = Vec::new();
        links.each_joining(|o| {
            if rules.limit(o.kind).is_some() && sizes[root(o.record) as usize] > 1 {
                values.push((root(o.record), o.kind, o.value));
            }
        })?;
        values.sort_unstable();
        values.dedup();
        for same in values.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            if rules.limit(same[0].1).is_some_and(|most| same.len() > most as usize) {
                broken.insert(same[0].0);
            }
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What comes in order and what does not, in memory and on disk, is in order at last, each once of a file.
        #[test]
        fn whatever_comes_is_put_in_order(
            kept in prop::collection::btree_set((0u64..4000, 0u32..3), 0..4000),
            new in prop::collection::vec((0u64..4000, 0u32..3, 0u16..2), 0..4000), bits in 0u32..3,
            spills in prop::collection::btree_set(0usize..8000, 0..4)
        ) {
            let observation = |(value, record, file): (u64, u32, u16)| Observation {
                value: [value << 52, value], record, kind: 0, file,
            };
            let kept = kept.into_iter().map(|(value, record)| (value, record, 0));
            let new: Vec<_> = new.into_iter().map(observation).collect();
            let mut partitions = Partitions::new(bits);
            let mut expected: Vec<_> = kept.map(observation).collect();
            let places = expected.chunk_by(|a, b| partitions.place(a.value) == partitions.place(b.value));
            for piece in places.flat_map(|of| of.chunks(100)).map(<[_]>::to_vec).collect::<Vec<_>>() {
                partitions.push_piece(piece);
            }
            for (at, observation) in new.iter().enumerate() {
                partitions.push(*observation);
                // In the middle of it is as good as at the end.
                if at == new.len() * 3 / 4 {
                    partitions.sort();
                }
                if spills.contains(&at) {
                    partitions.spill(tempfile::tempfile).unwrap();
                    prop_assert_eq!(partitions.bytes(), 0);
                }
            }
            partitions.sort();
            expected.extend(new);
            expected.sort();
            expected.dedup();
            let mut found = Vec::new();
            for part in 0..partitions.parts() {
                let mut before = usize::MAX;
                partitions.of_files(part, |one, to_come| {
                    assert!((1..before).contains(&to_come));
                    before = to_come;
                    found.push(*one);
                }).unwrap();
            }
            let of_files = expected.iter().copied().filter(|o| o.file != OF_NO_FILE);
            prop_assert_eq!(found, of_files.collect::<Vec<_>>());
            let mut each = Vec::new();
            partitions.each_one(|one| each.push(*one)).unwrap();
            each.sort();
            each.dedup();
            prop_assert_eq!(&each, &expected);
            let mut given = Vec::new();
            partitions.each_in_order(|one| given.push(*one)).unwrap();
            prop_assert!(given.is_sorted());
            given.dedup();
            prop_assert_eq!(&given, &expected);
        }
    }
}
