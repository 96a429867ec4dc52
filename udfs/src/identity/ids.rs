//! Which one_id a customer has: ids that stay.
//!
//! An id goes to the customer that has most of its records (of two with as many, to the one with the smaller first record
//! key). A customer keeps the oldest id it was given; of ids as old, the one with more of its records, then the smaller. Its
//! other ids become aliases. A customer without one gets the hash of its first record key, or the next free number if that is
//! taken. So a merge keeps the older id, a split leaves it with the larger side, what does not change keeps what it has,
//! and ids that are computed from nothing are the same wherever the data never changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::parts::in_parts;
use super::records::Keys;

/// Ids of records, and the run that gave each out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// By number of the record; [`NO_ID`] for one without.
    pub ids: Vec<i64>,
    /// By number of the record.
    pub since: Vec<u32>,
}

/// A record that has no id yet.
pub const NO_ID: i64 = -1;

/// The records that have one of the ids of `some` records, in order.
pub fn with_ids_of(some: impl Iterator<Item = u32>, ids: &[i64]) -> Vec<u32> {
    let mut wanted: Vec<i64> = some.map(|record| ids[record as usize]).collect();
    wanted.retain(|id| *id >= 0);
    wanted.sort_unstable();
    wanted.dedup();
    let mut seen = Filter::new(wanted.len());
    wanted.iter().for_each(|id| _ = seen.insert(*id));
    in_parts(ids.len(), |part| {
        let is_one = |at: &usize| seen.has(ids[*at]) && wanted.binary_search(&ids[*at]).is_ok();
        part.filter(is_one).map(|at| at as u32).collect::<Vec<u32>>()
    })
    .concat()
}

impl Ids {
    /// Room for so many records.
    pub fn with_room(records: usize) -> Self {
        Self { ids: Vec::with_capacity(records), since: Vec::with_capacity(records) }
    }

    /// Adds records with the ids and runs that a table has.
    pub fn extend(&mut self, ids: &[i64], since: &[i32]) {
        self.ids.extend_from_slice(ids);
        // Rows from before there were runs are of the first one.
        self.since.extend(since.iter().map(|run| (*run).max(1).cast_unsigned()));
    }

    /// So many records without ids.
    pub fn none(records: u32) -> Self {
        Self { ids: vec![NO_ID; records as usize], since: vec![0; records as usize] }
    }
}

/// What became of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// It is new.
    Created,
    /// It is new, for records that the other id had.
    Split,
    /// Its customer has the other id now.
    Merged,
    /// No record has it any more.
    Retired,
}

/// Ids of customers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The ids of records.
    pub ids: Ids,
    /// What changed: the id, what became of it, and the other id. Where nobody had an id before, that all are new is not told.
    pub events: Vec<(i64, Event, Option<i64>)>,
    /// Ids that had records which now have another id, or are gone; in order.
    pub moved: Vec<i64>,
    /// Records whose id changed, or is their first one; in order.
    pub changed: Vec<u32>,
    /// Ids that are new and not split from another.
    pub created: usize,
    /// Customers.
    pub customers: usize,
}

/// An id that a customer was offered: the oldest is best, then the one with most records, then the smallest.
type Offer = (u32, Reverse<u32>, i64);

/// What a record had: the id, the place of its customer's first record, and the run that gave the id out.
type Had = (i64, u32, u32);

/// Bytes that it takes to find what changes for so many records, with those of the ids before.
pub fn bytes_to_find(records: u32) -> usize {
    // Ids and runs, whether a customer changes, and places.
    records as usize * (size_of::<i64>() + 2 * size_of::<u32>() + 1)
}

/// Bytes that it takes besides to give ids to so many records whose customers change.
fn bytes_to_give(members: usize) -> usize {
    // Roots, first records, counts, ids and runs, what the records had, in order, and what is given out.
    members * (6 * size_of::<u32>() + 2 * size_of::<i64>() + size_of::<Had>())
}

/// Bytes that [`assign`] takes at most.
pub fn bytes_to_assign(records: u32) -> usize {
    bytes_to_find(records) + bytes_to_give(records as usize)
}

/// The ids of run number `run`, for customers as `roots` tell: the smallest record of each record's customer. `gone` are ids of
/// records that are not there any more.
///
/// Cost: see [`Changes`].
pub fn assign(records: &impl Keys, roots: &[u32], before: Ids, gone: &[i64], run: u32) -> Assigned {
    Changes::find(roots, &before, gone, None).assign(records, roots, before, gone, run)
}

/// Customers that are not those they were: only their ids can change.
///
/// A customer is what it was when all of its records had the same id and no other records had it.
///
/// Cost: a pass over the records, one sort of what records of changing customers had, and one of all ids where their number
/// does not tell that no id has come apart.
#[derive(Debug)]
pub struct Changes {
    /// Their records, in order.
    members: Vec<u32>,
    /// By place among the members: the place of the customer's first one.
    roots: Vec<u32>,
    /// What the members had, in order.
    had: Vec<Had>,
    /// By place of a customer's first record: whether the smallest of its keys matters.
    needs_keys: Vec<bool>,
    /// Ids of records that are gone which customers have that do not change.
    held: Vec<i64>,
    /// Customers that do not change.
    unchanged: usize,
    /// Whether nobody has an id yet: then nothing of the above is told.
    are_all_new: bool,
}

impl Changes {
    /// What changes with `roots`. `customers` is the number of different ids in `before` and `gone`, where it is known.
    pub fn find(roots: &[u32], before: &Ids, gone: &[i64], customers: Option<usize>) -> Self {
        if gone.is_empty() && before.ids.iter().all(|id| *id == NO_ID) {
            let none = Self::of(Vec::new(), Vec::new(), 0, &[], before);
            return Self { are_all_new: true, ..none };
        }
        let is_changing: Vec<AtomicBool> =
            std::iter::repeat_with(AtomicBool::default).take(roots.len()).collect();
        let changes_at = |root: u32| is_changing[root as usize].load(Ordering::Relaxed);
        let change = |root: u32| is_changing[root as usize].store(true, Ordering::Relaxed);
        in_parts(roots.len(), |part| {
            for (id, root) in before.ids[part.clone()].iter().zip(&roots[part]) {
                if *id == NO_ID || *id != before.ids[*root as usize] {
                    change(*root);
                }
            }
        });
        let found = in_parts(roots.len(), |part| {
            let (mut ids, mut unchanged) = (Vec::new(), 0);
            for record in part {
                let (id, root) = (before.ids[record], roots[record]);
                if changes_at(root) {
                    ids.extend(Some(id).filter(|id| *id != NO_ID));
                } else {
                    unchanged += usize::from(record == root as usize);
                }
            }
            (ids, unchanged)
        });
        let mut unchanged: usize = found.iter().map(|(_, unchanged)| unchanged).sum();
        let mut ids: Vec<i64> = found.into_iter().flat_map(|(ids, _)| ids).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut held = Vec::new();
        // Each of them has an id of its own, unless there are fewer ids than that.
        if !gone.is_empty() || customers != Some(unchanged + ids.len()) {
            let mut of: Vec<(i64, u32)> = (0..)
                .zip(roots)
                .filter(|(record, root)| record == *root && !changes_at(**root))
                .map(|(_, root)| (before.ids[*root as usize], *root))
                .collect();
            of.sort_unstable();
            for same in of.chunk_by(|a, b| a.0 == b.0) {
                if same.len() > 1 || ids.binary_search(&same[0].0).is_ok() {
                    same.iter().for_each(|(_, root)| change(*root));
                    unchanged -= same.len();
                }
            }
            let has = |id: &&i64| of.binary_search_by_key(*id, |(id, _)| *id).is_ok();
            held = gone.iter().filter(has).copied().collect();
        }
        let members = in_parts(roots.len(), |part| {
            let of = roots[part.clone()].iter().zip(part);
            let members = of.filter(|(root, _)| changes_at(**root));
            members.map(|(_, record)| record as u32).collect::<Vec<u32>>()
        })
        .concat();
        Self::of(members, held, unchanged, roots, before)
    }

    /// What changes where only these `members` can: all records of their customers, as they were and as they are, in order. `customers`
    /// is the number of different ids in `before`. Of other records the roots are not looked at.
    pub fn among(members: Vec<u32>, roots: &[u32], before: &Ids, customers: usize) -> Self {
        let mut changes = Self::of(members, Vec::new(), 0, roots, before);
        changes.unchanged =
            customers.saturating_sub(changes.had.chunk_by(|a, b| a.0 == b.0).count());
        changes
    }

    fn of(
        members: Vec<u32>,
        held: Vec<i64>,
        unchanged: usize,
        roots: &[u32],
        before: &Ids,
    ) -> Self {
        let mut places = vec![0; roots.len()];
        let mut changes = Self {
            members,
            roots: Vec::new(),
            had: Vec::new(),
            needs_keys: Vec::new(),
            held,
            unchanged,
            are_all_new: false,
        };
        for (place, record) in (0..).zip(&changes.members) {
            let at = *record as usize;
            // The first record comes before the others.
            places[at] = place;
            let root = places[roots[at] as usize];
            changes.roots.push(root);
            if before.ids[at] != NO_ID {
                changes.had.push((before.ids[at], root, before.since[at]));
            }
        }
        changes.had.sort_unstable();
        changes.needs_keys = vec![true; changes.members.len()];
        for (_, root, _) in &changes.had {
            changes.needs_keys[*root as usize] = false;
        }
        for of_id in changes.had.chunk_by(|a, b| a.0 == b.0) {
            if of_id.iter().any(|(_, root, _)| *root != of_id[0].1) {
                for (_, root, _) in of_id {
                    changes.needs_keys[*root as usize] = true;
                }
            }
        }
        changes
    }

    /// Bytes that [`Self::assign`] takes for so many records besides those of [`bytes_to_find`].
    pub fn bytes_to_assign(&self, records: u32) -> usize {
        let all = if self.are_all_new { records as usize } else { 0 };
        bytes_to_give(self.members.len()) + all * 2 * size_of::<u32>()
    }

    /// Records whose keys it takes to give ids: those of customers that come from no other, or of an id that came apart. Where nobody has
    /// an id, it takes those of all records, and none is told here.
    pub fn keys_needed(&self) -> impl Iterator<Item = u32> {
        let needed = self.members.iter().zip(&self.roots);
        needed.filter(|(_, root)| self.needs_keys[**root as usize]).map(|(record, _)| *record)
    }

    /// The ids of run number `run`, with what was given to [`Self::find`].
    pub fn assign(
        self,
        records: &impl Keys,
        roots: &[u32],
        before: Ids,
        gone: &[i64],
        run: u32,
    ) -> Assigned {
        if self.are_all_new {
            return all_new(records, roots, before, run);
        }
        let Self { members, roots: roots_of, had, needs_keys, held, unchanged, .. } = self;
        // By place of the root: the place of the record with the smallest key.
        let key = |place: u32| records.key(members[place as usize]);
        let mut first: Vec<u32> = (0..members.len() as u32).collect();
        for (place, root) in (0..).zip(&roots_of) {
            let (root, place) = (*root as usize, place as u32);
            if needs_keys[root] && place != first[root] && key(place) < key(first[root]) {
                first[root] = place;
            }
        }
        let mut kept = Ids::none(members.len() as u32);
        let mut counts: Vec<u32> = vec![0; members.len()];
        let mut merged: Vec<(i64, u32)> = Vec::new();
        let mut from: BTreeMap<u32, i64> = BTreeMap::new();
        for of_id in had.chunk_by(|a, b| a.0 == b.0) {
            let (id, _, since) = of_id[0];
            let shares =
                of_id.chunk_by(|a, b| a.1 == b.1).map(|share| (share.len() as u32, share[0].1));
            let first_key = |root: &u32| key(first[*root as usize]);
            let most = shares
                .clone()
                .max_by(|(n, a), (m, b)| n.cmp(m).then_with(|| first_key(b).cmp(&first_key(a))));
            let Some((count, winner)) = most else { continue };
            for (_, root) in shares.filter(|(_, root)| *root != winner) {
                let known = from.entry(root).or_insert(id);
                *known = id.min(*known);
            }
            let at = winner as usize;
            let offer: Offer = (since, Reverse(count), id);
            let known: Offer = (kept.since[at], Reverse(counts[at]), kept.ids[at]);
            if kept.ids[at] != NO_ID && known < offer {
                merged.push((id, winner));
                continue;
            }
            if kept.ids[at] != NO_ID {
                merged.push((kept.ids[at], winner));
            }
            (kept.ids[at], kept.since[at], counts[at]) = (id, since, count);
        }
        drop(counts);
        let customers = (0..).zip(&roots_of).filter(|(place, root)| place == *root);
        let customers: Vec<u32> = customers.map(|(place, _)| place).collect();
        let mut live: Vec<i64> = { customers.iter() }
            .map(|root| kept.ids[*root as usize])
            .filter(|id| *id != NO_ID)
            .collect();
        live.sort_unstable();
        let record = |place: u32| members[place as usize];
        let without: Vec<u32> = { customers.iter() }
            .copied()
            .filter(|root| kept.ids[*root as usize] == NO_ID)
            .collect();
        // Members have their ids among `live`, or have lost them.
        let mut is_member = members.iter().copied().peekable();
        let others =
            (0..).zip(&before.ids).filter(move |(at, _)| is_member.next_if_eq(at).is_none());
        let others = others.map(|(_, id)| *id);
        let new = || without.iter().copied();
        let minted = mint(records, |root| record(first[root as usize]), new, &live, others);
        let mut events: Vec<(i64, Event, Option<i64>)> = Vec::new();
        let is_first = had.is_empty() && gone.is_empty() && unchanged == 0;
        let mut created = 0;
        for (id, root) in minted {
            kept.ids[root as usize] = id;
            kept.since[root as usize] = run;
            match from.get(&root) {
                Some(other) => events.push((id, Event::Split, Some(*other))),
                None => created += 1,
            }
            if !is_first && !from.contains_key(&root) {
                events.push((id, Event::Created, None));
            }
            // Asked for what is gone alone.
            live.extend(Some(id).filter(|_| !gone.is_empty()));
        }
        live.sort_unstable();
        let kept_by = |root: u32| Some(kept.ids[root as usize]);
        events.extend(merged.into_iter().map(|(id, root)| (id, Event::Merged, kept_by(root))));
        let is_had = |id: &i64| had.binary_search_by_key(id, |(had, _, _)| *had).is_ok();
        let is_live = |id: &i64| held.binary_search(id).is_ok() || live.binary_search(id).is_ok();
        let retired = gone.iter().filter(|id| !is_had(id) && !is_live(id));
        events.extend(retired.map(|id| (*id, Event::Retired, None)));
        events.sort_unstable();
        events.dedup();
        let mut ids = before;
        let (mut moved, mut changed): (Vec<i64>, _) = (Vec::new(), Vec::new());
        for (record, root) in members.iter().zip(&roots_of) {
            let (at, root) = (*record as usize, *root as usize);
            if ids.ids[at] != NO_ID && ids.ids[at] != kept.ids[root] {
                moved.push(ids.ids[at]);
            }
            if (ids.ids[at], ids.since[at]) != (kept.ids[root], kept.since[root]) {
                changed.push(*record);
            }
            (ids.ids[at], ids.since[at]) = (kept.ids[root], kept.since[root]);
        }
        moved.extend(gone);
        moved.sort_unstable();
        moved.dedup();
        debug_assert_eq!(ids.ids.len(), roots.len());
        let customers = unchanged + customers.len();
        Assigned { ids, events, moved, changed, created, customers }
    }
}

impl Assigned {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let ids = self.ids.ids.capacity() * (size_of::<i64>() + size_of::<u32>());
        let events = self.events.capacity() * size_of::<(i64, Event, Option<i64>)>();
        let moved = self.moved.capacity() * size_of::<i64>();
        ids + events + moved + self.changed.capacity() * size_of::<u32>()
    }
}

/// The ids of customers of whom none has one.
fn all_new(records: &impl Keys, roots: &[u32], before: Ids, run: u32) -> Assigned {
    // By root: the record with the smallest key.
    let mut first: Vec<u32> = (0..roots.len() as u32).collect();
    for (record, root) in (0..).zip(roots) {
        let first = &mut first[*root as usize];
        if record != *first && records.key(record) < records.key(*first) {
            *first = record;
        }
    }
    let customers = || (0..).zip(roots).filter(|(at, root)| at == *root).map(|(at, _)| at);
    let (mut ids, created) = (before, customers().count());
    let first_of = |root: u32| first[root as usize];
    match records.may_have_twins() {
        true => mint_in_turn(records, first_of, customers().collect(), HashSet::new())
            .for_each(|(id, root)| ids.ids[root as usize] = id),
        false => {
            customers().for_each(|root| ids.ids[root as usize] = minted(records, first_of(root)))
        }
    }
    // A root comes before the others.
    (0..).zip(roots).for_each(|(at, root): (usize, _)| ids.ids[at] = ids.ids[*root as usize]);
    ids.since.fill(run);
    drop(first);
    Assigned {
        ids,
        events: Vec::new(),
        moved: Vec::new(),
        changed: (0..roots.len() as u32).collect(),
        created,
        customers: created,
    }
}

/// The id of a customer whose first record this is, where nobody has it.
fn minted(records: &impl Keys, first: u32) -> i64 {
    (records.hash(first) & i64::MAX as u64) as i64
}

/// Ids for customers `without` one, given as their roots: hashes of the keys of their `first` records. `live` are ids in order, and
/// `others` more ids, that are taken.
fn mint<'a, Roots: Iterator<Item = u32> + 'a>(
    records: &'a impl Keys,
    first: impl Fn(u32) -> u32 + Copy + 'a,
    without: impl Fn() -> Roots,
    live: &[i64],
    others: impl Iterator<Item = i64> + Clone,
) -> Box<dyn Iterator<Item = (i64, u32)> + 'a> {
    let hash = move |root: u32| minted(records, first(root));
    let new = || without().map(hash);
    if !meet(without().count(), new, others.clone())
        && !new().any(|id| live.binary_search(&id).is_ok())
    {
        return Box::new(without().map(move |root| (hash(root), root)));
    }
    let taken = live.iter().copied().chain(others).collect();
    Box::new(mint_in_turn(records, first, without().collect(), taken))
}

/// As [`mint`], in the order of first keys: of two with the same hash the later one takes the next number that is free.
fn mint_in_turn<'a>(
    records: &'a impl Keys,
    first: impl Fn(u32) -> u32 + 'a,
    mut without: Vec<u32>,
    mut taken: HashSet<i64>,
) -> impl Iterator<Item = (i64, u32)> + 'a {
    without.sort_unstable_by(|a, b| records.key(first(*a)).cmp(&records.key(first(*b))));
    without.into_iter().map(move |root| {
        let mut id = minted(records, first(root));
        while !taken.insert(id) {
            id = id.wrapping_add(1) & i64::MAX;
        }
        (id, root)
    })
}

/// Whether two of so many new ids are the same, or one is among `others`. Neither are put in order for that: what may be is found by a few bits
/// of each, and is little.
fn meet<New: Iterator<Item = i64>>(
    count: usize,
    new: impl Fn() -> New,
    others: impl Iterator<Item = i64>,
) -> bool {
    let mut seen = Filter::new(count);
    let again: Vec<i64> = new().filter(|id| !seen.insert(*id)).collect();
    if has_twins(&again, new()) {
        return true;
    }
    let mut known: Vec<i64> = others.filter(|id| seen.has(*id)).collect();
    known.sort_unstable();
    !known.is_empty() && new().any(|id| known.binary_search(&id).is_ok())
}

/// Whether two of some ids are the same; one of two such is `again` there.
fn has_twins(again: &[i64], ids: impl Iterator<Item = i64>) -> bool {
    let mut of_again = Filter::new(again.len());
    again.iter().for_each(|id| _ = of_again.insert(*id));
    let mut twins: Vec<i64> = ids.filter(|id| of_again.has(*id)).collect();
    twins.sort_unstable();
    twins.windows(2).any(|pair| pair[0] == pair[1])
}

/// Which ids may be among some: these are hashes, so a few of their bits tell them apart.
struct Filter {
    words: Vec<u64>,
    shift: u32,
}

impl Filter {
    /// Most bits: what a processor's cache holds.
    const BITS_MAX: u32 = 27;

    fn new(ids: usize) -> Self {
        // Of 64 times as many places one in 64 is taken.
        let bits = (ids.max(1) * 64).next_power_of_two().trailing_zeros().min(Self::BITS_MAX);
        Self { words: vec![0; 1 << bits.saturating_sub(6)], shift: i64::BITS - 1 - bits }
    }

    /// Word and bit. Ids are not negative.
    fn place(&self, id: i64) -> (usize, u64) {
        let place = id.cast_unsigned() >> self.shift;
        ((place / 64) as usize, 1 << (place % 64))
    }

    /// Adds an id; gives whether none that looks like it was there.
    fn insert(&mut self, id: i64) -> bool {
        let (word, bit) = self.place(id);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    fn has(&self, id: i64) -> bool {
        // No id at all is a negative number.
        id >= 0 && {
            let (word, bit) = self.place(id);
            self.words[word] & bit != 0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::records::Records;
    use super::*;

    fn records(n: u32) -> Records {
        let mut records = Records::new([1; 16]);
        for record in 0..n {
            records.add("s", &format!("{record:03}"));
        }
        records
    }

    fn of(assigned: &Assigned) -> Ids {
        assigned.ids.clone()
    }

    fn id(assigned: &Assigned, record: usize) -> i64 {
        assigned.ids.ids[record]
    }

    #[test]
    fn the_oldest_survives_a_merge_and_the_larger_side_keeps_it_on_a_split() {
        let records = records(5);
        let first = assign(&records, &[0, 0, 0, 3, 4], Ids::none(5), &[], 1);
        let mut before = of(&first);
        before.ids[4] = NO_ID;
        let second = assign(&records, &[0, 0, 0, 3, 4], before, &[], 2);
        assert_eq!(second.events, [(id(&second, 4), Event::Created, None)]);
        // Records 3 and 4 become one: 3 is from the first run.
        let merged = assign(&records, &[0, 0, 0, 3, 3], of(&second), &[], 3);
        assert_eq!(id(&merged, 4), id(&first, 3));
        assert_eq!(merged.events, [(id(&second, 4), Event::Merged, Some(id(&first, 3)))]);
        // They part again: as many on each side, so the smaller first key keeps it, and 4 gets back what it had.
        let parted = assign(&records, &[0, 0, 0, 3, 4], of(&merged), &[], 4);
        assert_eq!((id(&parted, 3), id(&parted, 4)), (id(&first, 3), id(&second, 4)));
        // The first customer splits: the larger side keeps the id.
        let split = assign(&records, &[0, 1, 1, 3, 4], of(&parted), &[], 5);
        assert_eq!(id(&split, 1), id(&first, 0));
        assert_eq!(split.events, [(id(&split, 0), Event::Split, Some(id(&first, 0)))]);
        // And becomes one again.
        let healed = assign(&records, &[0, 0, 0, 3, 4], of(&split), &[], 6);
        assert_eq!(healed.ids, parted.ids);
    }

    #[test]
    fn ids_of_nobody_are_retired() {
        let records = records(1);
        let before = Ids { ids: vec![7], since: vec![1] };
        let assigned = assign(&records, &[0], before, &[7, 8], 2);
        assert_eq!(assigned.events, [(8, Event::Retired, None)]);
    }

    /// The slow twin: of everything, with every key.
    fn slow(records: &Records, roots: &[u32], before: &Ids, gone: &[i64], run: u32) -> Assigned {
        // By root: the record with the smallest key, and the best offer.
        let mut first: Vec<u32> = (0..roots.len() as u32).collect();
        for (record, root) in roots.iter().enumerate() {
            let (record, first) = (record as u32, &mut first[*root as usize]);
            if record != *first && records.key(record) < records.key(*first) {
                *first = record;
            }
        }
        let mut kept = Ids::none(roots.len() as u32);
        let mut counts: Vec<u32> = vec![0; roots.len()];
        let mut merged: Vec<(i64, u32)> = Vec::new();
        let mut from: BTreeMap<u32, i64> = BTreeMap::new();
        let mut had: Vec<(i64, u32, u32)> = (0..roots.len())
            .filter(|at| before.ids[*at] != NO_ID)
            .map(|at| (before.ids[at], roots[at], before.since[at]))
            .collect();
        had.sort_unstable();
        for of_id in had.chunk_by(|a, b| a.0 == b.0) {
            let (id, _, since) = of_id[0];
            let shares =
                of_id.chunk_by(|a, b| a.1 == b.1).map(|share| (share.len() as u32, share[0].1));
            let first_key = |root: &u32| records.key(first[*root as usize]);
            let most = shares
                .clone()
                .max_by(|(n, a), (m, b)| n.cmp(m).then_with(|| first_key(b).cmp(&first_key(a))));
            let Some((count, winner)) = most else { continue };
            for (_, root) in shares.filter(|(_, root)| *root != winner) {
                let known = from.entry(root).or_insert(id);
                *known = id.min(*known);
            }
            let at = winner as usize;
            let offer: Offer = (since, Reverse(count), id);
            let known: Offer = (kept.since[at], Reverse(counts[at]), kept.ids[at]);
            if kept.ids[at] != NO_ID && known < offer {
                merged.push((id, winner));
                continue;
            }
            if kept.ids[at] != NO_ID {
                merged.push((kept.ids[at], winner));
            }
            (kept.ids[at], kept.since[at], counts[at]) = (id, since, count);
        }
        let customers: Vec<u32> =
            (0..roots.len() as u32).filter(|root| roots[*root as usize] == *root).collect();
        let mut live: Vec<i64> = { customers.iter() }
            .map(|root| kept.ids[*root as usize])
            .filter(|id| *id != NO_ID)
            .collect();
        live.sort_unstable();
        let without = customers.iter().filter(|root| kept.ids[**root as usize] == NO_ID);
        let mut without: Vec<u32> = without.copied().collect();
        without.sort_by_key(|root| records.key(first[*root as usize]));
        let mut taken: HashSet<i64> = live.iter().copied().collect();
        let mut minted = Vec::new();
        for root in without {
            let mut id = (records.hash(first[root as usize]) & i64::MAX as u64) as i64;
            while !taken.insert(id) {
                id = id.wrapping_add(1) & i64::MAX;
            }
            minted.push((id, root));
        }
        let mut events: Vec<(i64, Event, Option<i64>)> = Vec::new();
        let is_first = had.is_empty() && gone.is_empty();
        let mut created = 0;
        for (id, root) in minted {
            kept.ids[root as usize] = id;
            kept.since[root as usize] = run;
            match from.get(&root) {
                Some(other) => events.push((id, Event::Split, Some(*other))),
                None => created += 1,
            }
            if !is_first && !from.contains_key(&root) {
                events.push((id, Event::Created, None));
            }
            live.push(id);
        }
        live.sort_unstable();
        let kept_by = |root: u32| Some(kept.ids[root as usize]);
        events.extend(merged.into_iter().map(|(id, root)| (id, Event::Merged, kept_by(root))));
        let is_had = |id: &i64| had.binary_search_by_key(id, |(had, _, _)| *had).is_ok();
        let retired = gone.iter().filter(|id| !is_had(id) && live.binary_search(id).is_err());
        events.extend(retired.map(|id| (*id, Event::Retired, None)));
        events.sort_unstable();
        events.dedup();
        let ids = Ids {
            ids: roots.iter().map(|root| kept.ids[*root as usize]).collect(),
            since: roots.iter().map(|root| kept.since[*root as usize]).collect(),
        };
        let had_before = before.ids.iter().zip(&ids.ids).filter(|(had, _)| **had != NO_ID);
        let mut moved: Vec<i64> =
            had_before.filter(|(had, has)| had != has).map(|(had, _)| *had).collect();
        moved.extend(gone);
        moved.sort_unstable();
        moved.dedup();
        let is_same =
            |at: &usize| (before.ids[*at], before.since[*at]) == (ids.ids[*at], ids.since[*at]);
        let changed = (0..roots.len()).filter(|at| !is_same(at)).map(|at| at as u32).collect();
        Assigned { ids, events, moved, changed, created, customers: customers.len() }
    }

    fn partition() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(0u32..8, 8).prop_map(|labels| {
            let first = |label: &u32| labels.iter().position(|l| l == label).unwrap() as u32;
            labels.iter().map(first).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// New ids meet when a look at all of them finds two that are the same, or one that is there.
        #[test]
        fn ids_that_meet_are_found(
            new in prop::collection::vec(0i64..2000, 0..60), others in prop::collection::vec(-1i64..2000, 0..60), shift in 0u32..52
        ) {
            let far = |id: &i64| if *id < 0 { *id } else { *id << shift };
            let (new, others): (Vec<i64>, Vec<i64>) = (new.iter().map(far).collect(), others.iter().map(far).collect());
            let mut all = HashSet::new();
            let slow = new.iter().any(|id| !all.insert(*id)) || others.iter().any(|id| all.contains(id));
            prop_assert_eq!(meet(new.len(), || new.iter().copied(), others.into_iter()), slow);
        }

        /// Every customer has one id and no two the same; nothing new changes nothing; a way there and back changes nothing
        /// for those who kept together.
        #[test]
        fn ids_are_those_of_customers(steps in prop::collection::vec(partition(), 1..6)) {
            let records = records(8);
            let mut before = Ids::none(8);
            for (run, roots) in steps.iter().enumerate() {
                let run = run as u32 + 1;
                let assigned = assign(&records, roots, before, &[], run);
                for a in 0..8 {
                    for b in 0..8 {
                        prop_assert_eq!(id(&assigned, a) == id(&assigned, b), roots[a] == roots[b]);
                    }
                }
                let again = assign(&records, roots, of(&assigned), &[], run + 1);
                prop_assert_eq!(&again.ids, &assigned.ids);
                prop_assert!(again.events.is_empty());
                before = of(&assigned);
            }
        }

        /// Looking at what changes alone gives what looking at everything gives, gone records and new ones included.
        #[test]
        fn what_changes_is_enough(
            before in prop::collection::vec((-1i64..6, 1u32..3), 8), roots in partition(),
            gone in prop::collection::btree_set(0i64..9, 0..3),
        ) {
            let records = records(8);
            // Of one id all records know the same run.
            let since = |id: i64| if id == NO_ID { 0 } else { 1 + (id % 2) as u32 };
            let before = Ids {
                ids: before.iter().map(|(id, _)| *id).collect(),
                since: before.iter().map(|(id, _)| since(*id)).collect(),
            };
            let gone: Vec<i64> = gone.into_iter().collect();
            let expected = slow(&records, &roots, &before, &gone, 3);
            let found: HashSet<i64> =
                before.ids.iter().chain(&gone).copied().filter(|id| *id != NO_ID).collect();
            for customers in [None, Option::Some(found.len())] {
                let changes = Changes::find(&roots, &before, &gone, customers);
                let is_first = gone.is_empty() && found.is_empty();
                let needed: HashSet<u32> = if is_first { (0..8).collect() } else { changes.keys_needed().collect() };
                let some = Some { records: &records, needed };
                let assigned = changes.assign(&some, &roots, before.clone(), &gone, 3);
                prop_assert_eq!(&assigned, &expected);
            }
        }
    }

    /// Keys that were asked for.
    struct Some<'a> {
        records: &'a Records,
        needed: HashSet<u32>,
    }

    impl Keys for Some<'_> {
        fn key(&self, number: u32) -> super::super::records::RecordKey<'_> {
            assert!(self.needed.contains(&number));
            self.records.key(number)
        }

        fn hash(&self, number: u32) -> u64 {
            assert!(self.needed.contains(&number));
            self.records.hash(number)
        }

        fn may_have_twins(&self) -> bool {
            self.records.may_have_twins()
        }
    }
}
