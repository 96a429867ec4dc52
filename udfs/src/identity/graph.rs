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

use std::collections::HashMap;

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
}

impl Graph {
    /// A graph without records.
    pub fn new(rules: Rules) -> Self {
        let (must, cannot) = (Vec::new(), Vec::new());
        Self { rules, plain: Partitions::default(), timed: Vec::new(), must, cannot }
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
        let has_owners = self.rules.types[usize::from(kind)].reuse_gap_us.is_some();
        let observation = Observation { value, record, kind };
        match has_owners {
            true => self.timed.push(Timed { observation, seen_at }),
            false => self.plain.push(observation),
        }
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
    pub fn resolve(mut self, records: u32) -> Resolution {
        for list in [&mut self.must, &mut self.cannot] {
            list.sort_unstable();
            list.dedup();
        }
        let mut owners = HashMap::new();
        for observation in links::with_owners(self.timed, &self.rules, &mut owners) {
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
        // Owners of one value are told of as that value.
        let told = |value: &mut Value| {
            if let Some(shared) = owners.get(value) {
                *value = *shared;
            }
        };
        hubs.iter_mut().for_each(|hub| told(&mut hub.value));
        for review in &mut reviews {
            if let Some((_, value)) = &mut review.identifier {
                told(value);
            }
        }
        hubs.sort_unstable();
        reviews.sort_unstable();
        Resolution { roots, hubs, reviews }
    }
}
