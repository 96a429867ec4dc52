//! Who is who: records joined by the identifiers that they share, within limits that no join may break.
//!
//! The result is a function of the records, their identifiers and the rules alone. No order in which they are added, and no
//! cut into batches or partitions, changes it.
//!
//! Types of identifiers are joined tier by tier, the strongest first; links made by hand come before all. In a tier, the
//! records that its identifiers join, directly or through each other, become one customer if that breaks no limit which is
//! not broken already. Else every identifier that would break one by itself is ambiguous and joins nobody, and what the
//! others join is looked at once more: it becomes one customer, or stays apart as a whole. Nothing is half joined, and
//! nothing is guessed; what was not joined is told.
//!
//! Cost: an identifier takes 24 bytes and a record 8. Identifiers are sorted in partitions that fit a processor's cache, and
//! everything is joined at first, by as many threads as there are processors; only components that break a limit are resolved
//! tier by tier, each alone. Identifiers can be put on disk, from where a partition at a time is read whenever all are gone
//! through; those of types with a `reuse_gap_us` stay in memory.

mod components;
mod links;
#[cfg(test)]
mod tests;
mod tiers;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;

use self::components::Meeting;
use self::links::{Observation, Partitions, Timed};
use self::tiers::Component;

/// A keyed hash of an identifier with its type: 128 bits, so that no two of a warehouse meet.
pub type Value = [u64; 2];

/// How one type of identifier joins records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRule {
    /// Its tier; 1 is the strongest.
    pub priority: u32,
    /// A value on more records than this is a hub and joins nobody.
    pub max_records: u32,
    /// Most values of it that one customer may have; 1 where it is unique.
    pub max_per_customer: Option<u32>,
    /// Sightings of a value further apart than this, in microseconds, are of different owners: recycled phone numbers.
    pub reuse_gap_us: Option<i64>,
}

/// The rules of a graph: those of each type, by its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// By number of the type.
    pub types: Vec<TypeRule>,
    /// Most records that one customer may have.
    pub max_cluster_records: Option<u32>,
}

impl Rules {
    fn limit(&self, kind: u16) -> Option<u32> {
        self.types.get(usize::from(kind)).and_then(|rule| rule.max_per_customer)
    }

    fn has_limits(&self) -> bool {
        self.max_cluster_records.is_some()
            || self.types.iter().any(|rule| rule.max_per_customer.is_some())
    }
}

/// A limit that a join would have broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Two records that were said to be different people.
    CannotLink,
    /// Values of a type, by its number, that one customer may have.
    Values(u16),
    /// Records that one customer may have.
    Records,
}

/// A value that too many records share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hub {
    /// Number of its type.
    pub kind: u16,
    /// The value.
    pub value: Value,
    /// Records that have it.
    pub records: u32,
}

/// What was not joined, for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Review {
    /// The limit that it would have broken.
    pub limit: Limit,
    /// The identifier that would have broken it by itself: type and value. `None` when it is a link made by hand
    /// (`by_hand`), or when only several identifiers together would have broken it.
    pub identifier: Option<(u16, Value)>,
    /// Whether it is a link made by hand.
    pub by_hand: bool,
    /// The records that were not joined by it, in order.
    pub records: Vec<u32>,
}

/// Who is who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// For each record the smallest record of its customer.
    pub roots: Vec<u32>,
    /// Values that too many records share.
    pub hubs: Vec<Hub>,
    /// What was not joined.
    pub reviews: Vec<Review>,
    /// Records of components that would break a limit if everything in them was joined, in order.
    pub apart: Vec<u32>,
}

/// Records and what is known of them.
#[derive(Debug, Clone)]
pub struct Graph {
    rules: Rules,
    plain: Partitions,
    timed: Vec<Timed>,
    must: Vec<(u32, u32)>,
    cannot: Vec<(u32, u32)>,
    /// Records that are known to be of one customer, whatever joined them.
    same: Vec<(u32, u32)>,
    /// Values of owners of a value that has had several, and what they are owners of.
    owners: HashMap<Value, Value>,
}

/// An identifier that is not simply of the customer whose records have it: the first half of its value, and a record of the customer
/// that has it; `None` where nobody has.
pub type Exception = (u64, Option<u32>);

/// Bytes that an identifier of a record takes.
pub const BYTES_AN_IDENTIFIER: usize = size_of::<Observation>();

/// The number of no file.
pub const OF_NO_FILE: u16 = 0;

/// An identifier of a record, as a file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Number of the file.
    pub file: u16,
    /// Number of the type.
    pub kind: u16,
    /// The value.
    pub value: Value,
    /// The record.
    pub record: u32,
    /// When it was seen, where that matters.
    pub seen_at: Option<i64>,
}

/// Half of a value in the order of numbers with a sign, as tables have it.
pub fn signed(half: u64) -> i64 {
    (half ^ (1 << 63)).cast_signed()
}

/// What [`signed`] was made of.
pub fn unsigned(half: i64) -> u64 {
    half.cast_unsigned() ^ (1 << 63)
}

/// Identifiers that were kept, in the pieces in which a graph takes them.
#[derive(Debug, Default)]
pub struct Kept {
    pieces: Vec<Vec<Observation>>,
}

impl Kept {
    /// How many of the first halves, as tables have them, are of the piece of the first one.
    pub fn of_one_piece(halves: &[i64]) -> usize {
        const BITS: u32 = u64::BITS - links::PARTITION_BITS;
        let piece = |half: &i64| unsigned(*half) >> BITS;
        let Some(first) = halves.first().map(piece) else { return 0 };
        // Those in order are of one piece when the last of them is of the first one's.
        match halves.last().map(piece) == Some(first) && halves.is_sorted() {
            true => halves.len(),
            false => halves.iter().position(|half| piece(half) != first).unwrap_or(halves.len()),
        }
    }

    /// Adds identifiers of records, of no file, that are of one piece: at most so many, each with its type and value.
    pub fn add_piece(&mut self, most: usize, identifiers: impl Iterator<Item = (u16, Value, u32)>) {
        let mut piece = Vec::with_capacity(most);
        piece.extend(identifiers.map(|(kind, value, record)| Observation {
            value,
            record,
            kind,
            file: OF_NO_FILE,
        }));
        if !piece.is_sorted() {
            piece.sort();
        }
        if piece.len() < most / 2 {
            piece.shrink_to_fit();
        }
        self.pieces.push(piece);
    }
}

/// One step of a chain between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The record that it begins with.
    pub from: u32,
    /// The identifier that both have: type and value; `None` for a link made by hand.
    pub by: Option<(u16, Value)>,
    /// The record that it leads to.
    pub to: u32,
}

impl Graph {
    /// A graph without records.
    pub fn new(rules: Rules) -> Self {
        let (must, cannot, same) = (Vec::new(), Vec::new(), Vec::new());
        let (plain, timed, owners) = (Partitions::default(), Vec::new(), HashMap::new());
        Self { rules, plain, timed, must, cannot, same, owners }
    }

    /// Another type of identifiers; gives its number.
    pub fn add_type(&mut self, rule: TypeRule) -> u16 {
        self.rules.types.push(rule);
        (self.rules.types.len() - 1) as u16
    }

    /// A record has an identifier of type `kind`, seen at a time in microseconds.
    ///
    /// The time matters where the type has a `reuse_gap_us`. An identifier without a time is of the value's only owner; when
    /// it has had several, it joins nobody.
    pub fn add(&mut self, kind: u16, value: Value, record: u32, seen_at: Option<i64>) {
        self.add_of(OF_NO_FILE, kind, value, record, seen_at);
    }

    /// As [`Self::add`], found in a file with this number.
    #[inline]
    pub fn add_of(
        &mut self,
        file: u16,
        kind: u16,
        value: Value,
        record: u32,
        seen_at: Option<i64>,
    ) {
        let has_owners = self.rules.types[usize::from(kind)].reuse_gap_us.is_some();
        let observation = Observation { value, record, kind, file };
        match has_owners {
            true => self.timed.push(Timed { observation, seen_at }),
            false => self.plain.push(observation),
        }
    }

    /// As [`Self::add_of`], of a type whose identifiers are [plain](Self::is_plain).
    #[inline]
    pub(super) fn add_plain(&mut self, file: u16, kind: u16, value: Value, record: u32) {
        debug_assert!(self.is_plain(kind));
        self.plain.push(Observation { value, record, kind, file });
    }

    /// Takes identifiers that were kept, many at once.
    pub fn add_kept(&mut self, kept: Kept) {
        kept.pieces.into_iter().for_each(|piece| self.plain.push_piece(piece));
    }

    /// Whether identifiers of a type are only told apart by their values, and not by when they were seen.
    pub fn is_plain(&self, kind: u16) -> bool {
        self.rules.types[usize::from(kind)].reuse_gap_us.is_none()
    }

    /// Writes what is in memory to a file that nobody else has, which `make` gives when there is none yet. Identifiers of types with
    /// a `reuse_gap_us` stay.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn spill(&mut self, make: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        self.plain.spill(make)
    }

    /// How many identifiers of records there are, once resolved.
    pub fn len(&self) -> usize {
        self.plain.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that [`Self::sort`] takes besides.
    pub fn bytes_to_sort(&self) -> usize {
        self.plain.bytes_to_sort()
    }

    /// Puts identifiers in order.
    pub fn sort(&mut self) {
        self.plain.sort();
        self.timed.sort_unstable_by_key(|timed| (timed.observation, timed.seen_at));
        self.timed.dedup();
    }

    /// In so many parts [`Self::of_files`] is asked.
    pub fn parts(&self) -> usize {
        self.plain.parts() + 1
    }

    /// Gives what was found in files to `take`, a part of it, with how many are still to come at most: once it is sorted, in the order
    /// of values, each once of a file. It is asked before it is resolved.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn of_files(&self, part: usize, mut take: impl FnMut(Found, usize)) -> io::Result<()> {
        let found = |observation: &Observation, seen_at| {
            let Observation { value, record, kind, file } = *observation;
            Found { file, kind, value, record, seen_at }
        };
        if part < self.plain.parts() {
            return self.plain.of_files(part, |one, to_come| take(found(one, None), to_come));
        }
        let timed = self.timed.iter().filter(|timed| timed.observation.file != OF_NO_FILE);
        timed.for_each(|timed| take(found(&timed.observation, timed.seen_at), 1));
        Ok(())
    }

    /// Bytes that [`Self::spill`] frees.
    pub fn bytes_to_spill(&self) -> usize {
        self.plain.bytes()
    }

    /// Bytes on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.plain.bytes_on_disk()
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let pairs = self.must.capacity() + self.cannot.capacity() + self.same.capacity();
        let timed = self.timed.capacity() * size_of::<Timed>();
        self.plain.bytes() + timed + pairs * size_of::<(u32, u32)>()
    }

    /// Two records are of one customer, whatever limits of values and records say.
    pub fn must_link(&mut self, a: u32, b: u32) {
        self.must.push((a.min(b), a.max(b)));
    }

    /// Two records are never of one customer.
    pub fn cannot_link(&mut self, a: u32, b: u32) {
        self.cannot.push((a.min(b), a.max(b)));
    }

    /// Two records are of one customer that is resolved already: what joined them need not be here. Only where nothing of that can
    /// come apart: nothing does where [`Self::can_part`] says so and no value becomes a [hub](Self::is_hub).
    pub fn are_one(&mut self, a: u32, b: u32) {
        self.same.push((a, b));
    }

    /// Whether there are limits that a join could break, or values whose owners change.
    pub fn can_part(&self) -> bool {
        self.can_break() || self.rules.types.iter().any(|rule| rule.reuse_gap_us.is_some())
    }

    fn can_break(&self) -> bool {
        self.rules.has_limits() || !self.cannot.is_empty()
    }

    /// Whether a value of a type joins nobody when it is on so many records.
    pub fn is_hub(&self, kind: u16, records: usize) -> bool {
        records > self.rules.types[usize::from(kind)].max_records as usize
    }

    /// Gives every identifier that was added, before they are resolved, to `take`: type, value and record.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn each_added(&self, mut take: impl FnMut(u16, Value, u32)) -> io::Result<()> {
        let timed = self.timed.iter().map(|timed| timed.observation);
        timed.for_each(|one| take(one.kind, one.value, one.record));
        self.plain.each_one(|one| take(one.kind, one.value, one.record))
    }

    /// Who is who among records `0..records`.
    ///
    /// What new identifiers change can be resolved alone, as the days of a graph are: with all identifiers of all records of the
    /// customers that they touch (or these told as [one](Self::are_one)), of the components that are `apart`, and of the values that
    /// are [exceptions](Self::exceptions). Of other records the answer means nothing then.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn resolve(&mut self, records: u32) -> io::Result<Resolution> {
        for list in [&mut self.must, &mut self.cannot] {
            list.sort_unstable();
            list.dedup();
        }
        let timed = std::mem::take(&mut self.timed);
        for observation in links::with_owners(timed, &self.rules, &mut self.owners) {
            self.plain.push(observation);
        }
        let all = Meeting::new(records);
        self.must.iter().chain(&self.same).for_each(|(a, b)| all.union(*a, *b));
        let mut hubs = self.plain.join(&self.rules, &all)?;
        let mut roots = all.into_roots();
        let (mut reviews, mut apart) = (Vec::new(), Vec::new());
        if self.can_break() {
            let broken = links::broken(&roots, &self.plain, &self.rules, &self.cannot)?;
            if !broken.is_empty() {
                let of = Component::gather(&roots, &broken, &self.plain, &self.must, &self.cannot);
                for component in of? {
                    apart.extend_from_slice(component.members());
                    reviews.extend(component.resolve(&self.rules, &mut roots));
                }
            }
        }
        hubs.iter_mut().for_each(|hub| hub.value = self.told(hub.value));
        for review in &mut reviews {
            if let Some((_, value)) = &mut review.identifier {
                *value = self.told(*value);
            }
        }
        hubs.sort_unstable();
        reviews.sort_unstable();
        apart.sort_unstable();
        Ok(Resolution { roots, hubs, reviews, apart })
    }

    /// Owners of one value are told of as that value.
    fn told(&self, value: Value) -> Value {
        self.owners.get(&value).copied().unwrap_or(value)
    }

    /// Identifiers of which it does not follow from the customers of the records that have them whose they are, once resolved, in
    /// order: hubs, which are nobody's, and those that had several owners, which are the last one's. `customer_of` tells whose a
    /// record is.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn exceptions<Customer: PartialEq>(
        &self,
        customer_of: impl Fn(u32) -> Customer,
    ) -> io::Result<Vec<Exception>> {
        let hubs = self.plain.hubs();
        let shared: HashSet<Value> = self.owners.values().copied().collect();
        // By the value of the last owner: a record of the customer that has it, where it is one.
        let mut of_last: HashMap<Value, Option<u32>> = HashMap::new();
        for value in &shared {
            let later = (1..).map(|number| links::of_owner(*value, number));
            let last = later.take_while(|owner| self.owners.contains_key(owner)).last();
            of_last.insert(last.unwrap_or(*value), None);
        }
        let mut apart: HashSet<Value> = HashSet::new();
        if !of_last.is_empty() {
            self.plain.each_joining(|one| {
                if let Some(owner) = of_last.get_mut(&one.value) {
                    let first = *owner.get_or_insert(one.record);
                    if first != one.record && customer_of(first) != customer_of(one.record) {
                        apart.insert(one.value);
                    }
                }
            })?;
        }
        let is_one = |value: &Value| !shared.contains(value) && !self.owners.contains_key(value);
        let mut exceptions: Vec<Exception> =
            hubs.iter().filter(|hub| is_one(hub)).map(|hub| (hub[0], None)).collect();
        // The first half of an owner's value is that of the value.
        let owned = of_last.into_iter();
        exceptions
            .extend(owned.map(|(last, root)| (last[0], root.filter(|_| !apart.contains(&last)))));
        exceptions.sort_unstable();
        Ok(exceptions)
    }

    /// Gives everything that joins records to `take`, in the order of values: a value, and a record that has it.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn each_joining(&self, mut take: impl FnMut(Value, u32)) -> io::Result<()> {
        self.plain.each_in_order(|observation| take(observation.value, observation.record))
    }

    /// The shortest chain of identifiers and links by hand between two records of one customer; nothing for others.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn path(&self, resolution: &Resolution, a: u32, b: u32) -> io::Result<Vec<Step>> {
        let roots = &resolution.roots;
        let root = roots[a as usize];
        if root != roots[b as usize] {
            return Ok(Vec::new());
        }
        let ambiguous: HashSet<(u16, Value)> =
            resolution.reviews.iter().filter_map(|review| review.identifier).collect();
        let mut on: BTreeMap<(u16, Value), Vec<u32>> = BTreeMap::new();
        let mut has: BTreeMap<u32, Vec<(u16, Value)>> = BTreeMap::new();
        self.plain.each_joining(|observation| {
            let identifier = (observation.kind, observation.value);
            if roots[observation.record as usize] == root
                && !ambiguous.contains(&(observation.kind, self.told(observation.value)))
            {
                on.entry(identifier).or_default().push(observation.record);
                has.entry(observation.record).or_default().push(identifier);
            }
        })?;
        on.values_mut().for_each(|records| records.sort_unstable());
        has.values_mut().for_each(|identifiers| identifiers.sort_unstable());
        // Breadth first, in order, so that of two chains as long always the same one is found.
        let mut came: HashMap<u32, Step> = HashMap::new();
        let mut next = VecDeque::from([a]);
        while let Some(from) = next.pop_front() {
            if from == b {
                break;
            }
            let by_hand = self.must.iter().filter_map(|(x, y)| match (*x == from, *y == from) {
                (true, _) => Some((None, *y)),
                (_, true) => Some((None, *x)),
                _ => None,
            });
            let identifiers = has.get(&from).into_iter().flatten();
            let shared = identifiers.flat_map(|identifier| {
                on[identifier].iter().map(move |to| (Some(*identifier), *to))
            });
            for (by, to) in by_hand.chain(shared) {
                if to != a && roots[to as usize] == root && !came.contains_key(&to) {
                    let by = by.map(|(kind, value)| (kind, self.told(value)));
                    came.insert(to, Step { from, by, to });
                    next.push_back(to);
                }
            }
        }
        let mut path = Vec::new();
        let mut at = b;
        while let Some(step) = came.get(&at) {
            path.push(*step);
            at = step.from;
        }
        path.reverse();
        Ok(path)
    }

    /// Identifiers that records of both customers have: hubs, what is for review, and what had several owners.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn shared(&self, resolution: &Resolution, a: u32, b: u32) -> io::Result<Vec<(u16, Value)>> {
        let roots = &resolution.roots;
        let (a, b) = (roots[a as usize], roots[b as usize]);
        let mut seen: BTreeMap<(u16, Value), (bool, bool)> = BTreeMap::new();
        self.plain.each_one(|observation| {
            let root = roots[observation.record as usize];
            if root == a || root == b {
                let identifier = (observation.kind, self.told(observation.value));
                let of = seen.entry(identifier).or_default();
                of.0 |= root == a;
                of.1 |= root == b;
            }
        })?;
        Ok(seen.into_iter().filter(|(_, of)| *of == (true, true)).map(|(id, _)| id).collect())
    }

    /// Whether records of both customers were said to be different people.
    pub fn kept_apart(&self, resolution: &Resolution, a: u32, b: u32) -> bool {
        let root = |record: u32| resolution.roots[record as usize];
        let (a, b) = (root(a), root(b));
        self.cannot.iter().any(|(x, y)| {
            let (x, y) = (root(*x), root(*y));
            (x, y) == (a, b) || (x, y) == (b, a)
        })
    }
}
