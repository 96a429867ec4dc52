use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400_000_000;

/// Type, value, record, day.
type Row = (u16, u64, u32, Option<i64>);

fn rule(priority: u32, max_records: u32, max_per_customer: Option<u32>) -> TypeRule {
    TypeRule { priority, max_records, max_per_customer, reuse_gap_us: None }
}

fn hashed(kind: u16, value: u64) -> Value {
    // Different values fall into different partitions.
    [value.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(kind), value << 8 | u64::from(kind)]
}

fn resolve(
    rules: &Rules,
    records: u32,
    rows: &[Row],
    must: &[(u32, u32)],
    cannot: &[(u32, u32)],
) -> Resolution {
    resolve_and_look_up(8, rules, records, rows, must, cannot).0
}

/// Who is who, and whose each identifier is, by the first half of its value.
fn resolve_and_look_up(
    partition_bits: u32,
    rules: &Rules,
    records: u32,
    rows: &[Row],
    must: &[(u32, u32)],
    cannot: &[(u32, u32)],
) -> (Resolution, Vec<(u64, u32)>) {
    let mut graph = Graph::new(rules.clone());
    graph.plain = Partitions::new(partition_bits);
    for (at, (kind, value, record, day)) in rows.iter().enumerate() {
        graph.add(*kind, hashed(*kind, *value), *record, day.map(|day| day * DAY));
        // With few partitions some of it goes to disk now and then.
        if partition_bits < 8 && at % 7 == 6 {
            graph.spill(tempfile::tempfile).unwrap();
        }
    }
    must.iter().for_each(|(a, b)| graph.must_link(*a, *b));
    cannot.iter().for_each(|(a, b)| graph.cannot_link(*a, *b));
    let resolution = graph.resolve(records).unwrap();
    // As it is asked: an identifier is the one customer's whose records have it, but for the exceptions.
    let root = |record: u32| resolution.roots[record as usize];
    let mut of: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for (kind, value, record, _) in rows {
        of.entry(hashed(*kind, *value)[0]).or_default().insert(root(*record));
    }
    for (half, record) in graph.exceptions(root).unwrap() {
        of.insert(half, record.map(root).into_iter().collect());
    }
    let one = |(half, roots): (u64, BTreeSet<u32>)| match roots.len() {
        1 => roots.first().map(|root| (half, *root)),
        _ => None,
    };
    let owners = of.into_iter().filter_map(one).collect();
    (resolution, owners)
}

type Cluster = BTreeSet<u32>;

/// A type and a value, as rows have them.
type Identifier = (u16, u64);

/// What joins records: an identifier, or `None` for a link made by hand.
type Link = (Option<Identifier>, Cluster);

type Told = (Limit, Option<Identifier>, bool, Vec<u32>);

/// The rules, word by word and without a thought of cost.
struct Slow<'a> {
    rules: &'a Rules,
    /// Which records have an identifier, hubs left out.
    on: BTreeMap<(u16, u64, usize), Cluster>,
    /// Number of the last owner of each.
    last: BTreeMap<Identifier, usize>,
    cannot: &'a [(u32, u32)],
    clusters: Vec<Cluster>,
    reviews: BTreeSet<Told>,
}

impl<'a> Slow<'a> {
    fn new(rules: &'a Rules, records: u32, rows: &[Row], cannot: &'a [(u32, u32)]) -> Self {
        let mut sightings: BTreeMap<Identifier, Vec<(Option<i64>, u32)>> = BTreeMap::new();
        for (kind, value, record, day) in rows {
            sightings.entry((*kind, *value)).or_default().push((*day, *record));
        }
        let mut on: BTreeMap<(u16, u64, usize), Cluster> = BTreeMap::new();
        for ((kind, value), mut seen) in sightings {
            let Some(gap) = rules.types[usize::from(kind)].reuse_gap_us else {
                let all = seen.iter().map(|(_, record)| *record);
                on.insert((kind, value, 0), all.collect());
                continue;
            };
            seen.sort_unstable();
            let (mut owner, mut before) = (0, None);
            for (day, record) in seen.iter().filter(|(day, _)| day.is_some()) {
                let day = day.unwrap() * DAY;
                if before.is_some_and(|before: i64| day - before > gap) {
                    owner += 1;
                }
                before = Some(day);
                on.entry((kind, value, owner)).or_default().insert(*record);
            }
            for (_, record) in seen.iter().filter(|(day, _)| day.is_none() && owner == 0) {
                on.entry((kind, value, 0)).or_default().insert(*record);
            }
        }
        let last = on.keys().map(|(kind, value, owner)| ((*kind, *value), *owner)).collect();
        on.retain(|(kind, _, _), records| {
            records.len() <= rules.types[usize::from(*kind)].max_records as usize
        });
        let clusters = (0..records).map(|record| Cluster::from([record])).collect();
        Self { rules, on, last, cannot, clusters, reviews: BTreeSet::new() }
    }

    fn values(&self, kind: u16, of: &Cluster) -> usize {
        self.on.iter().filter(|((k, _, _), records)| *k == kind && !records.is_disjoint(of)).count()
    }

    fn is_broken(&self, limit: Limit, cluster: &Cluster) -> bool {
        match limit {
            Limit::CannotLink => unreachable!(),
            Limit::Values(kind) => {
                let most = self.rules.types[usize::from(kind)].max_per_customer;
                most.is_some_and(|most| self.values(kind, cluster) > most as usize)
            }
            Limit::Records => {
                self.rules.max_cluster_records.is_some_and(|most| cluster.len() > most as usize)
            }
        }
    }

    fn newly(&self, together: &[&Cluster], by_hand: bool) -> Option<Limit> {
        let all: Cluster = together.iter().flat_map(|c| c.iter().copied()).collect();
        for (a, b) in self.cannot {
            let is_old = together.iter().any(|c| c.contains(a) && c.contains(b));
            if all.contains(a) && all.contains(b) && !is_old {
                return Some(Limit::CannotLink);
            }
        }
        if by_hand {
            return None;
        }
        let kinds = (0..self.rules.types.len() as u16).map(Limit::Values);
        kinds.chain([Limit::Records]).find(|limit| {
            self.is_broken(*limit, &all) && !together.iter().any(|c| self.is_broken(*limit, c))
        })
    }

    fn touched(&self, links: &[Link]) -> Vec<Cluster> {
        let is_touched = |c: &&Cluster| links.iter().any(|(_, on)| !on.is_disjoint(c));
        self.clusters.iter().filter(is_touched).cloned().collect()
    }

    /// Links that hang together, through clusters or records.
    fn groups(&self, mut links: Vec<Link>) -> Vec<Vec<Link>> {
        let mut groups = Vec::new();
        while let Some(first) = links.pop() {
            let mut group = vec![first];
            loop {
                let reached: Cluster = self.touched(&group).into_iter().flatten().collect();
                let (more, rest): (Vec<_>, Vec<_>) =
                    links.into_iter().partition(|(_, on)| !on.is_disjoint(&reached));
                links = rest;
                if more.is_empty() {
                    break;
                }
                group.extend(more);
            }
            groups.push(group);
        }
        groups
    }

    fn merge(&mut self, together: &[Cluster]) {
        self.clusters.retain(|cluster| !together.contains(cluster));
        self.clusters.push(together.iter().flatten().copied().collect());
    }

    fn tier(&mut self, links: Vec<Link>) {
        let by_hand = links.iter().all(|(identifier, _)| identifier.is_none());
        for group in self.groups(links) {
            let together = self.touched(&group);
            if self.newly(&together.iter().collect::<Vec<_>>(), by_hand).is_none() {
                self.merge(&together);
                continue;
            }
            let mut good = Vec::new();
            for link in group {
                let touched = self.touched(std::slice::from_ref(&link));
                match self.newly(&touched.iter().collect::<Vec<_>>(), by_hand) {
                    Some(limit) => {
                        let records = link.1.iter().copied().collect();
                        self.reviews.insert((limit, link.0, by_hand, records));
                    }
                    None => good.push(link),
                }
            }
            for rest in self.groups(good) {
                let together = self.touched(&rest);
                match self.newly(&together.iter().collect::<Vec<_>>(), by_hand) {
                    Some(limit) => {
                        let records: Cluster =
                            rest.iter().flat_map(|(_, on)| on).copied().collect();
                        self.reviews.insert((limit, None, by_hand, records.into_iter().collect()));
                    }
                    None => self.merge(&together),
                }
            }
        }
    }

    fn run(mut self, must: &[(u32, u32)]) -> (Vec<u32>, usize) {
        self.tier(must.iter().map(|(a, b)| (None, Cluster::from([*a, *b]))).collect());
        let priorities: BTreeSet<u32> = self.rules.types.iter().map(|rule| rule.priority).collect();
        for priority in priorities {
            let of_tier = self.on.iter().filter(|((kind, _, _), _)| {
                self.rules.types[usize::from(*kind)].priority == priority
            });
            let links =
                of_tier.map(|((kind, value, _), on)| (Some((*kind, *value)), on.clone())).collect();
            self.tier(links);
        }
        let records = self.clusters.iter().map(BTreeSet::len).sum();
        let mut roots = vec![0; records];
        for cluster in &self.clusters {
            cluster.iter().for_each(|record| roots[*record as usize] = *cluster.first().unwrap());
        }
        (roots, self.reviews.len())
    }
}

/// Random rules that are easily broken.
fn rules() -> impl Strategy<Value = Rules> {
    let of_type = (1u32..4, 2u32..6, prop::option::of(1u32..3), prop::option::of(2i64..5));
    let of_type = of_type.prop_map(|(priority, max_records, max_per_customer, gap)| TypeRule {
        priority,
        max_records,
        max_per_customer,
        reuse_gap_us: gap.map(|days| days * DAY),
    });
    (prop::collection::vec(of_type, 3), prop::option::of(2u32..7))
        .prop_map(|(types, max_cluster_records)| Rules { types, max_cluster_records })
}

const RECORDS: u32 = 14;

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0u16..3, 0u64..7, 0..RECORDS, prop::option::weighted(0.8, 0i64..12));
    prop::collection::vec(row, 0..28)
}

fn pairs() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let pair = (0..RECORDS, 0..RECORDS).prop_filter("two records", |(a, b)| a != b);
    prop::collection::vec(pair, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Customers and reviews are those of the rules taken word by word; no order of rows and no number of partitions, from 1
    /// to 64, changes anything.
    #[test]
    fn the_rules_are_kept(rules in rules(), rows in rows(), must in pairs(), cannot in pairs(), turn in 0usize..28, bits in 0u32..7) {
        let (found, owners) = resolve_and_look_up(8, &rules, RECORDS, &rows, &must, &cannot);
        let ordered = |pairs: &[(u32, u32)]| -> Vec<(u32, u32)> {
            let pairs: BTreeSet<_> = pairs.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
            pairs.into_iter().collect()
        };
        let (must_once, cannot_once) = (ordered(&must), ordered(&cannot));
        let slow = Slow::new(&rules, RECORDS, &rows, &cannot_once);
        let (on, last) = (slow.on.clone(), slow.last.clone());
        let (roots, reviews) = slow.run(&must_once);
        prop_assert_eq!(&found.roots, &roots);
        let whose = |((kind, value), owner): (&Identifier, &usize)| {
            let records = on.get(&(*kind, *value, *owner))?;
            let of: BTreeSet<u32> = records.iter().map(|record| roots[*record as usize]).collect();
            (of.len() == 1).then(|| (hashed(*kind, *value)[0], of.into_iter().next().unwrap()))
        };
        let whose: BTreeSet<(u64, u32)> = last.iter().filter_map(whose).collect();
        prop_assert_eq!(&owners, &whose.into_iter().collect::<Vec<_>>());
        let told: BTreeSet<_> = found.reviews.iter().collect();
        prop_assert_eq!(told.len(), reviews);

        let mut turned = rows.clone();
        turned.rotate_left(turn.min(rows.len()));
        turned.reverse();
        let again = resolve_and_look_up(bits, &rules, RECORDS, &turned, &must, &cannot);
        prop_assert_eq!(again, (found, owners));
    }

    /// What new rows change can be resolved alone: with the identifiers of all records of the customers that they touch, of what
    /// breaks a limit, and of the exceptions.
    #[test]
    fn what_new_rows_touch_is_enough(rules in rules(), rows in rows(), must in pairs(), cannot in pairs(), cut in 0usize..28, are_few in any::<bool>()) {
        let cut = cut.min(rows.len());
        let limits = |mut rules: Rules| {
            if are_few {
                rules.max_cluster_records = None;
                for rule in &mut rules.types {
                    (rule.max_per_customer, rule.reuse_gap_us) = (None, None);
                }
            }
            rules
        };
        let (rules, cannot) = (limits(rules), if are_few { Vec::new() } else { cannot });
        let graph_of = |rows: &mut dyn Iterator<Item = &Row>| {
            let mut graph = Graph::new(rules.clone());
            for (kind, value, record, day) in rows {
                graph.add(*kind, hashed(*kind, *value), *record, day.map(|day| day * DAY));
            }
            graph
        };
        let by_hand = |graph: &mut Graph| {
            must.iter().for_each(|(a, b)| graph.must_link(*a, *b));
            cannot.iter().for_each(|(a, b)| graph.cannot_link(*a, *b));
        };
        let (old, new) = rows.split_at(cut);
        let mut earlier = graph_of(&mut old.iter());
        by_hand(&mut earlier);
        let before = earlier.resolve(RECORDS).unwrap();
        let exceptions = earlier.exceptions(|record| before.roots[record as usize]).unwrap();
        let half = |row: &Row| hashed(row.0, row.1)[0];
        let is_exception = |row: &&Row| exceptions.iter().any(|(of, _)| *of == half(row));
        let is_new = |row: &&Row| new.iter().any(|other| half(other) == half(row));
        let is_hub = |row: &&Row| rules.types[usize::from(row.0)].reuse_gap_us.is_none() && is_exception(row);
        let mut touched: BTreeSet<u32> = old.iter().filter(is_new).filter(|row| !is_hub(row)).map(|row| row.2).collect();
        touched.extend(new.iter().map(|row| row.2));
        touched.extend(&before.apart);
        touched.extend(must.iter().chain(&cannot).flat_map(|(a, b)| [*a, *b]));
        let customers: BTreeSet<u32> = touched.iter().map(|record| before.roots[*record as usize]).collect();
        let is_member = |record: u32| customers.contains(&before.roots[record as usize]);

        let found = old.iter().filter(|row| is_new(row) || is_exception(row));
        let is_new_hub = |row: &Row| {
            let on: BTreeSet<u32> = rows.iter().filter(|other| half(other) == half(row)).map(|row| row.2).collect();
            !is_exception(&row) && on.len() > rules.types[usize::from(row.0)].max_records as usize
        };
        // Where nothing can come apart, customers are told by their ids alone.
        let are_known = are_few && !new.iter().any(is_new_hub);
        let of_members = old.iter().filter(|row| !are_known && is_member(row.2));
        let mut some = graph_of(&mut found.chain(of_members).chain(new));
        by_hand(&mut some);
        prop_assert!(!are_few || !some.can_part());
        if are_known {
            (0..RECORDS).for_each(|record| some.are_one(before.roots[record as usize], record));
        }
        let alone = some.resolve(RECORDS).unwrap();
        let mut whole = graph_of(&mut rows.iter());
        by_hand(&mut whole);
        let all = whole.resolve(RECORDS).unwrap();
        for record in 0..RECORDS {
            let root = if is_member(record) { &alone.roots } else { &before.roots }[record as usize];
            prop_assert_eq!(root, all.roots[record as usize]);
        }
        prop_assert_eq!((&alone.hubs, &alone.reviews, &alone.apart), (&all.hubs, &all.reviews, &all.apart));
        let of = |record: u32| (is_member(record), if is_member(record) { &alone.roots } else { &before.roots }[record as usize]);
        let told = |exceptions: Vec<Exception>| -> Vec<(u64, Option<u32>)> {
            exceptions.into_iter().map(|(half, record)| (half, record.map(|record| all.roots[record as usize]))).collect()
        };
        prop_assert_eq!(told(some.exceptions(of).unwrap()), told(whole.exceptions(|record| all.roots[record as usize]).unwrap()));
    }

    /// Records under other numbers are the same customers.
    #[test]
    fn numbers_of_records_do_not_matter(rules in rules(), rows in rows(), must in pairs(), cannot in pairs(), step in 1u32..13) {
        let other = |record: u32| (record * step + 5) % 13 ;
        let fits = |r: u32| r < 13;
        let rows: Vec<Row> = rows.into_iter().filter(|r| fits(r.2)).collect();
        let must: Vec<_> = must.into_iter().filter(|(a, b)| fits(*a) && fits(*b)).collect();
        let cannot: Vec<_> = cannot.into_iter().filter(|(a, b)| fits(*a) && fits(*b)).collect();
        let found = resolve(&rules, 13, &rows, &must, &cannot);
        let renamed: Vec<Row> = rows.iter().map(|(k, v, r, d)| (*k, *v, other(*r), *d)).collect();
        let pairs = |pairs: &[(u32, u32)]| -> Vec<(u32, u32)> {
            pairs.iter().map(|(a, b)| (other(*a), other(*b))).collect()
        };
        let again = resolve(&rules, 13, &renamed, &pairs(&must), &pairs(&cannot));
        for a in 0..13u32 {
            for b in 0..13u32 {
                let same = found.roots[a as usize] == found.roots[b as usize];
                let same_again = again.roots[other(a) as usize] == again.roots[other(b) as usize];
                prop_assert_eq!(same, same_again);
            }
        }
        prop_assert_eq!(again.reviews.len(), found.reviews.len());
    }
}

#[test]
fn a_shared_device_joins_nobody() {
    let rules = Rules { types: vec![rule(1, 5, None)], max_cluster_records: None };
    let rows: Vec<Row> = (0..10_000).map(|record| (0, 7, record, None)).collect();
    let found = resolve(&rules, 10_000, &rows, &[], &[]);
    assert_eq!(found.hubs, [Hub { kind: 0, value: hashed(0, 7), records: 10_000 }]);
    assert!(found.roots.iter().enumerate().all(|(record, root)| record as u32 == *root));
}

/// A phone that two people with different id cards have is ambiguous; what else they share with others still joins.
#[test]
fn two_id_cards_are_two_people() {
    let types = vec![rule(1, 50, Some(1)), rule(2, 10, None)];
    let rules = Rules { types, max_cluster_records: None };
    let rows = [
        (0, 1, 0, None),
        (0, 2, 1, None),
        (1, 9, 0, None),
        (1, 9, 1, None),
        (1, 8, 1, None),
        (1, 8, 2, None),
    ];
    let found = resolve(&rules, 3, &rows, &[], &[]);
    assert_eq!(found.roots, [0, 1, 1]);
    let review = Review {
        limit: Limit::Values(0),
        identifier: Some((1, hashed(1, 9))),
        by_hand: false,
        records: vec![0, 1],
    };
    assert_eq!(found.reviews, [review]);
    // By hand they can be said to be one; that they are not outweighs it.
    assert_eq!(resolve(&rules, 3, &rows, &[(0, 1)], &[]).roots, [0, 0, 0]);
    let contradiction = resolve(&rules, 3, &rows, &[(0, 1)], &[(1, 0)]);
    assert_eq!(contradiction.roots, [0, 1, 1]);
    assert!(contradiction.reviews.iter().any(|r| r.by_hand && r.limit == Limit::CannotLink));
}

/// A number that was given to somebody else half a year later is two numbers.
#[test]
fn a_recycled_number_has_two_owners() {
    let mut phone = rule(1, 10, None);
    phone.reuse_gap_us = Some(180 * DAY);
    let rules = Rules { types: vec![phone], max_cluster_records: None };
    let rows = [(0, 1, 0, Some(0)), (0, 1, 1, Some(100)), (0, 1, 2, Some(300)), (0, 1, 3, None)];
    assert_eq!(resolve(&rules, 4, &rows, &[], &[]).roots, [0, 0, 2, 3]);
    assert_eq!(resolve(&rules, 4, &rows[..2], &[], &[]).roots, [0, 0, 2, 3]);
    assert_eq!(resolve(&rules, 4, &[rows[0], rows[1], rows[3]], &[], &[]).roots, [0, 0, 2, 0]);
}

/// Why two records are one: the shortest chain; why two are not: what they share all the same.
#[test]
fn chains_and_what_kept_apart_are_told() {
    let types = vec![rule(1, 50, Some(1)), rule(2, 2, None)];
    let rules = Rules { types, max_cluster_records: None };
    let rows: [Row; 11] = [
        (1, 1, 0, None),
        (1, 1, 1, None),
        (1, 2, 1, None),
        (1, 2, 2, None),
        // A hub of three, and an id card each.
        (1, 3, 2, None),
        (1, 3, 3, None),
        (1, 3, 4, None),
        (0, 7, 3, None),
        (0, 8, 5, None),
        (1, 4, 3, None),
        (1, 4, 5, None),
    ];
    let mut graph = Graph::new(rules);
    for (kind, value, record, _) in rows {
        graph.add(kind, hashed(kind, value), record, None);
    }
    graph.must_link(4, 6);
    graph.cannot_link(0, 6);
    let found = graph.resolve(7).unwrap();
    let by = |kind: u16, value: u64| Some((kind, hashed(kind, value)));
    let chain = [Step { from: 0, by: by(1, 1), to: 1 }, Step { from: 1, by: by(1, 2), to: 2 }];
    assert_eq!(graph.path(&found, 0, 2).unwrap(), chain);
    assert_eq!(graph.path(&found, 6, 4).unwrap(), [Step { from: 6, by: None, to: 4 }]);
    assert!(graph.path(&found, 0, 3).unwrap().is_empty());
    assert_eq!(graph.shared(&found, 2, 3).unwrap(), [(1, hashed(1, 3))]);
    assert_eq!(graph.shared(&found, 3, 5).unwrap(), [(1, hashed(1, 4))]);
    assert!(graph.kept_apart(&found, 4, 2) && !graph.kept_apart(&found, 3, 5));
}
