//! One component, resolved tier by tier because joining all of it would break a limit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use super::super::records::RecordSet;
use super::components::Components;
use super::links::Partitions;
use super::{Limit, Review, Rules, Value};

/// A component with everything that joins its records; records by their place in `members`.
#[derive(Debug, Default)]
pub(super) struct Component {
    members: Vec<u32>,
    observations: Vec<(u16, Value, u32)>,
    must: Vec<(u32, u32)>,
    cannot: Vec<(u32, u32)>,
}

/// What joins records: an identifier, or a link made by hand.
#[derive(Debug)]
struct Link {
    identifier: Option<(u16, Value)>,
    records: Vec<u32>,
}

/// What a cluster counts for.
#[derive(Debug, Clone, Default)]
struct Summary {
    records: u32,
    /// Values of types that have a limit, in order.
    values: Vec<(u16, Value)>,
}

impl Component {
    /// Its records.
    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// The components with these roots.
    pub(super) fn gather(
        roots: &[u32],
        broken: &HashSet<u32>,
        links: &Partitions,
        must: &[(u32, u32)],
        cannot: &[(u32, u32)],
    ) -> io::Result<Vec<Self>> {
        let mut order: Vec<u32> = broken.iter().copied().collect();
        order.sort_unstable();
        let number: HashMap<u32, usize> =
            order.iter().enumerate().map(|(i, root)| (*root, i)).collect();
        let mut components: Vec<Self> = order.iter().map(|_| Self::default()).collect();
        // Nearly all records are of others, which a bit tells.
        let is_one = RecordSet::new(roots.len() as u32, order.iter().copied());
        let of = |record: u32| {
            let root = roots[record as usize];
            if is_one.has(root) { number.get(&root).copied() } else { None }
        };
        let mut place = HashMap::new();
        for record in 0..roots.len() as u32 {
            if let Some(i) = of(record) {
                let members = &mut components[i].members;
                place.insert(record, members.len() as u32);
                members.push(record);
            }
        }
        links.each_joining(|observation| {
            if let Some(i) = of(observation.record) {
                let at = place[&observation.record];
                components[i].observations.push((observation.kind, observation.value, at));
            }
        })?;
        for (a, b) in must {
            if let Some(i) = of(*a) {
                components[i].must.push((place[a], place[b]));
            }
        }
        // People who would not be joined anyway need no keeping apart.
        for (a, b) in cannot.iter().filter(|(a, b)| roots[*a as usize] == roots[*b as usize]) {
            if let Some(i) = of(*a) {
                components[i].cannot.push((place[a], place[b]));
            }
        }
        for component in &mut components {
            component.observations.sort_unstable();
            component.observations.dedup();
        }
        Ok(components)
    }

    /// Writes the roots of its records, and gives what was not joined.
    pub(super) fn resolve(&self, rules: &Rules, roots: &mut [u32]) -> Vec<Review> {
        let mut summaries = vec![Summary { records: 1, values: Vec::new() }; self.members.len()];
        for (kind, value, at) in &self.observations {
            if rules.limit(*kind).is_some() {
                summaries[*at as usize].values.push((*kind, *value));
            }
        }
        let clusters = Components::new(self.members.len() as u32);
        let mut state = State { component: self, rules, clusters, summaries, reviews: Vec::new() };
        let by_hand =
            self.must.iter().map(|(a, b)| Link { identifier: None, records: vec![*a, *b] });
        state.tier(by_hand.collect());
        let mut tiers: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
        for same in self.observations.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (kind, value, _) = same[0];
            let records = same.iter().map(|(_, _, at)| *at).collect();
            let link = Link { identifier: Some((kind, value)), records };
            tiers.entry(rules.types[usize::from(kind)].priority).or_default().push(link);
        }
        tiers.into_values().for_each(|links| state.tier(links));
        let State { clusters, reviews, .. } = state;
        for (at, root) in clusters.into_roots().into_iter().enumerate() {
            // Members are in order, so the smallest place is the smallest record.
            roots[self.members[at] as usize] = self.members[root as usize];
        }
        reviews
    }
}

struct State<'a> {
    component: &'a Component,
    rules: &'a Rules,
    clusters: Components,
    /// By root of the cluster; others are out of date.
    summaries: Vec<Summary>,
    reviews: Vec<Review>,
}

impl State<'_> {
    fn tier(&mut self, links: Vec<Link>) {
        for group in self.groups(links) {
            let clusters = self.clusters_of(group.iter());
            if self.breaks(&clusters, &group).is_none() {
                self.merge(&clusters);
                continue;
            }
            let mut good = Vec::new();
            for link in group {
                let touched = self.clusters_of(std::iter::once(&link));
                match self.breaks(&touched, std::slice::from_ref(&link)) {
                    Some(limit) => self.review(limit, &link),
                    None => good.push(link),
                }
            }
            for rest in self.groups(good) {
                let clusters = self.clusters_of(rest.iter());
                match self.breaks(&clusters, &rest) {
                    None => self.merge(&clusters),
                    Some(limit) => self.review_together(limit, &rest),
                }
            }
        }
    }

    /// Links that reach each other's records through clusters and through each other.
    fn groups(&mut self, links: Vec<Link>) -> Vec<Vec<Link>> {
        let mut reached = Components::new(self.component.members.len() as u32);
        for link in &links {
            let first = self.clusters.root(link.records[0]);
            for record in &link.records {
                reached.union(first, self.clusters.root(*record));
            }
        }
        let mut groups: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
        for link in links {
            let group = reached.root(self.clusters.root(link.records[0]));
            groups.entry(group).or_default().push(link);
        }
        groups.into_values().collect()
    }

    fn clusters_of<'a>(&mut self, links: impl Iterator<Item = &'a Link>) -> Vec<u32> {
        let mut clusters: Vec<u32> = links
            .flat_map(|link| &link.records)
            .map(|record| self.clusters.root(*record))
            .collect();
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }

    /// A limit that these clusters keep, each for itself, and would break as one. Links made by hand may break all but one.
    fn breaks(&mut self, clusters: &[u32], links: &[Link]) -> Option<Limit> {
        if clusters.len() < 2 {
            return None;
        }
        let component = self.component;
        for (a, b) in &component.cannot {
            let (a, b) = (self.clusters.root(*a), self.clusters.root(*b));
            if a != b && clusters.binary_search(&a).is_ok() && clusters.binary_search(&b).is_ok() {
                return Some(Limit::CannotLink);
            }
        }
        if links.iter().all(|link| link.identifier.is_none()) {
            return None;
        }
        let mut values: Vec<(u16, Value)> = Vec::new();
        let mut are_broken: HashSet<u16> = HashSet::new();
        let count = |values: &[(u16, Value)], broken: &mut dyn FnMut(u16)| {
            for same in values.chunk_by(|a, b| a.0 == b.0) {
                if self.rules.limit(same[0].0).is_some_and(|most| same.len() > most as usize) {
                    broken(same[0].0);
                }
            }
        };
        for cluster in clusters {
            let summary = &self.summaries[*cluster as usize];
            count(&summary.values, &mut |kind| {
                are_broken.insert(kind);
            });
            values.extend_from_slice(&summary.values);
        }
        values.sort_unstable();
        values.dedup();
        let mut newly = None;
        count(&values, &mut |kind| {
            if !are_broken.contains(&kind) {
                newly = newly.or(Some(Limit::Values(kind)));
            }
        });
        if newly.is_some() {
            return newly;
        }
        let sizes = clusters.iter().map(|cluster| self.summaries[*cluster as usize].records);
        let most = self.rules.max_cluster_records?;
        let is_broken = sizes.clone().any(|size| size > most);
        (!is_broken && sizes.sum::<u32>() > most).then_some(Limit::Records)
    }

    fn merge(&mut self, clusters: &[u32]) {
        let Some((first, others)) = clusters.split_first() else { return };
        let mut all = std::mem::take(&mut self.summaries[*first as usize]);
        for other in others {
            let summary = std::mem::take(&mut self.summaries[*other as usize]);
            all.records += summary.records;
            all.values.extend(summary.values);
            self.clusters.union(*first, *other);
        }
        all.values.sort_unstable();
        all.values.dedup();
        // The clusters are in order, and the root of a component is its smallest member.
        self.summaries[*first as usize] = all;
    }

    fn review(&mut self, limit: Limit, link: &Link) {
        let records = self.records(std::iter::once(link));
        let by_hand = link.identifier.is_none();
        self.reviews.push(Review { limit, identifier: link.identifier, by_hand, records });
    }

    fn review_together(&mut self, limit: Limit, links: &[Link]) {
        let records = self.records(links.iter());
        let by_hand = links.iter().all(|link| link.identifier.is_none());
        self.reviews.push(Review { limit, identifier: None, by_hand, records });
    }

    fn records<'a>(&self, links: impl Iterator<Item = &'a Link>) -> Vec<u32> {
        let places = links.flat_map(|link| &link.records);
        let mut records: Vec<u32> = places.map(|at| self.component.members[*at as usize]).collect();
        records.sort_unstable();
        records.dedup();
        records
    }
}
