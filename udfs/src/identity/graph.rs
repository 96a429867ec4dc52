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
//! everything is joined at first; only components that break a limit are resolved tier by tier, each alone.

mod components;
mod links;
#[cfg(test)]
mod tests;
mod tiers;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use self::components::Components;
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
}

/// Records and what is known of them.
#[derive(Debug, Clone)]
pub struct Graph {
    rules: Rules,
    plain: Partitions,
    timed: Vec<Timed>,
    must: Vec<(u32, u32)>,
    cannot: Vec<(u32, u32)>,
    /// Values of owners of a value that has had several, and what they are owners of.
    owners: HashMap<Value, Value>,
}

/// Whose identifiers are, in the order of the first halves of their values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookup {
    /// The first half of each value, ascending.
    pub halves: Vec<u64>,
    /// A record of the customer that has it; [`NOBODY`] where none has it alone.
    pub records: Vec<u32>,
}

/// No record.
pub const NOBODY: u32 = u32::MAX;

impl Lookup {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.halves.len() * (size_of::<u64>() + size_of::<u32>())
    }
}

/// A record of the customer whose records alone have what `same` have in common: the first half of a value.
fn whose(
    same: &[Observation],
    links: &Partitions,
    owners: &HashMap<Value, Value>,
    resolution: &Resolution,
) -> Option<u32> {
    let shared = |value: Value| owners.get(&value).copied().unwrap_or(value);
    let value = shared(same[0].value);
    if same.iter().any(|other| shared(other.value) != value) {
        // Two identifiers with the same 64 bits: rather none than the wrong one.
        return None;
    }
    let numbered = (0..).map(|number| links::of_owner(value, number));
    let last = numbered.take_while(|owner| *owner == value || owners.contains_key(owner)).last()?;
    if links.is_hub(last) {
        return None;
    }
    let root = |observation: &Observation| resolution.roots[observation.record as usize];
    let mut of_last = same.iter().filter(|other| other.value == last);
    let first = of_last.next()?;
    of_last.all(|other| root(other) == root(first)).then_some(first.record)
}

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
        let (must, cannot) = (Vec::new(), Vec::new());
        let (plain, timed, owners) = (Partitions::default(), Vec::new(), HashMap::new());
        Self { rules, plain, timed, must, cannot, owners }
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

    /// Makes room for so many identifiers that come in the order of their values.
    pub fn reserve(&mut self, count: usize) {
        self.plain.reserve(count);
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

    /// What was found in files: once it is sorted, in the order of values, each once of a file. It is asked before it is resolved.
    pub fn of_files(&self) -> impl Iterator<Item = Found> {
        let plain = self.plain.all().map(|observation| (observation, None));
        let timed = self.timed.iter().map(|timed| (&timed.observation, timed.seen_at));
        let is_of_file = |(observation, _): &(&Observation, _)| observation.file != OF_NO_FILE;
        plain.chain(timed).filter(is_of_file).map(|(observation, seen_at)| {
            let Observation { value, record, kind, file } = *observation;
            Found { file, kind, value, record, seen_at }
        })
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.plain.bytes() + self.timed.capacity() * size_of::<Timed>()
    }

    /// Two records are of one customer, whatever limits of values and records say.
    pub fn must_link(&mut self, a: u32, b: u32) {
        self.must.push((a.min(b), a.max(b)));
    }

    /// Two records are never of one customer.
    pub fn cannot_link(&mut self, a: u32, b: u32) {
        self.cannot.push((a.min(b), a.max(b)));
    }

    /// Who is who among records `0..records`.
    pub fn resolve(&mut self, records: u32) -> Resolution {
        for list in [&mut self.must, &mut self.cannot] {
            list.sort_unstable();
            list.dedup();
        }
        let timed = std::mem::take(&mut self.timed);
        for observation in links::with_owners(timed, &self.rules, &mut self.owners) {
            self.plain.push(observation);
        }
        let mut all = Components::new(records);
        self.must.iter().for_each(|(a, b)| all.union(*a, *b));
        let mut hubs = self.plain.join(&self.rules, &mut all);
        let mut roots = all.into_roots();
        let mut reviews = Vec::new();
        if self.rules.has_limits() || !self.cannot.is_empty() {
            let broken = links::broken(&roots, &self.plain, &self.rules, &self.cannot);
            if !broken.is_empty() {
                let of = Component::gather(&roots, &broken, &self.plain, &self.must, &self.cannot);
                for component in of {
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
        Resolution { roots, hubs, reviews }
    }

    /// Owners of one value are told of as that value.
    fn told(&self, value: Value) -> Value {
        self.owners.get(&value).copied().unwrap_or(value)
    }

    /// Whose every identifier is, once resolved. Of a value that had several owners it is the last one's. Hubs, and what
    /// records of several customers have, are nobody's, and are left out.
    pub fn into_lookup(self, resolution: &Resolution) -> Lookup {
        self.look_up(resolution, |_| true, false)
    }

    /// As [`Self::into_lookup`], of the identifiers that one of the `touched` records has; of nobody's too.
    pub fn into_lookup_of(self, resolution: &Resolution, touched: &[bool]) -> Lookup {
        let is_touched = |observation: &Observation| touched[observation.record as usize];
        self.look_up(resolution, |same| same.iter().any(is_touched), true)
    }

    fn look_up(
        mut self,
        resolution: &Resolution,
        is_wanted: impl Fn(&[Observation]) -> bool,
        tells_of_nobody: bool,
    ) -> Lookup {
        let mut lookup = Lookup::default();
        let owners = std::mem::take(&mut self.owners);
        self.plain.each_first_half(|links, same| {
            if !is_wanted(same) {
                return;
            }
            let found = match same {
                // Nearly all: what one record has alone. Its root is not looked at, that would be a miss of every cache.
                [only] if owners.is_empty() => {
                    Some(only.record).filter(|_| !links.is_hub(only.value))
                }
                _ => whose(same, links, &owners, resolution),
            };
            if found.is_some() || tells_of_nobody {
                lookup.halves.push(same[0].value[0]);
                lookup.records.push(found.unwrap_or(NOBODY));
            }
        });
        lookup
    }

    /// The shortest chain of identifiers and links by hand between two records of one customer; nothing for others.
    pub fn path(&self, resolution: &Resolution, a: u32, b: u32) -> Vec<Step> {
        let roots = &resolution.roots;
        let root = roots[a as usize];
        if root != roots[b as usize] {
            return Vec::new();
        }
        let ambiguous: HashSet<(u16, Value)> =
            resolution.reviews.iter().filter_map(|review| review.identifier).collect();
        let mut on: BTreeMap<(u16, Value), Vec<u32>> = BTreeMap::new();
        let mut has: BTreeMap<u32, Vec<(u16, Value)>> = BTreeMap::new();
        for observation in self.plain.joining().filter(|o| roots[o.record as usize] == root) {
            let identifier = (observation.kind, observation.value);
            if !ambiguous.contains(&(observation.kind, self.told(observation.value))) {
                on.entry(identifier).or_default().push(observation.record);
                has.entry(observation.record).or_default().push(identifier);
            }
        }
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
        path
    }

    /// Identifiers that records of both customers have: hubs, what is for review, and what had several owners.
    pub fn shared(&self, resolution: &Resolution, a: u32, b: u32) -> Vec<(u16, Value)> {
        let roots = &resolution.roots;
        let (a, b) = (roots[a as usize], roots[b as usize]);
        let mut seen: BTreeMap<(u16, Value), (bool, bool)> = BTreeMap::new();
        for observation in self.plain.all() {
            let root = roots[observation.record as usize];
            if root == a || root == b {
                let identifier = (observation.kind, self.told(observation.value));
                let of = seen.entry(identifier).or_default();
                of.0 |= root == a;
                of.1 |= root == b;
            }
        }
        seen.into_iter().filter(|(_, of)| *of == (true, true)).map(|(id, _)| id).collect()
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
