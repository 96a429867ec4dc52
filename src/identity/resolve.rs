//! From identifiers to connected components.

use std::collections::{BTreeMap, HashMap, HashSet};

use clientele_udfs::identity::clean;

use super::statement::Rule;

/// Records that an identifier of a type may be on, when the rules do not say.
const MAX_RECORDS_DEFAULT: u32 = 50;

/// Defaults of the types that are shared by families, shops and test devices.
fn max_records(id_type: &str, rules: &BTreeMap<String, Rule>) -> u32 {
    let ruled = rules.get(id_type).and_then(|rule| rule.max_records);
    ruled.unwrap_or(match id_type {
        "phone" | "email" => 10,
        "device" | "device_id" => 5,
        _ => MAX_RECORDS_DEFAULT,
    })
}

/// A record's key: source, then id within it.
pub(super) type RecordKey = (String, String);

/// Identifiers collected from the table.
pub(super) struct Resolver<'a> {
    rules: &'a BTreeMap<String, Rule>,
    key: &'a [u8; 32],
    records: HashMap<RecordKey, u32>,
    /// Type number, keyed hash of type and cleaned value, record.
    links: Vec<(u128, u16, u32)>,
    types: Vec<String>,
    rejected: Vec<Rejected>,
}

/// An identifier that identifies nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rejected {
    pub(super) source: String,
    pub(super) record_id: String,
    pub(super) id_type: String,
    pub(super) reason: &'static str,
}

/// A value that too many records share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hub {
    pub(super) id_type: String,
    pub(super) records: u32,
    pub(super) max_records: u32,
}

/// Who is who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Every record in the order of keys, with its one_id.
    pub(super) map: Vec<(RecordKey, i64)>,
    pub(super) hubs: Vec<Hub>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) clusters: usize,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(rules: &'a BTreeMap<String, Rule>, key: &'a [u8; 32]) -> Self {
        Self {
            rules,
            key,
            records: HashMap::new(),
            links: Vec::new(),
            types: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Adds one identifier of a record. A record without a good identifier is still a record.
    pub(super) fn add(
        &mut self,
        source: &str,
        record_id: &str,
        id_type: &str,
        id_value: Option<&str>,
    ) {
        let next = self.records.len() as u32;
        let record = *self.records.entry((source.to_owned(), record_id.to_owned())).or_insert(next);
        let type_number = self.type_number(id_type);
        match clean(id_type, id_value.unwrap_or("")) {
            Ok(value) => self.links.push((self.hash(id_type, &value), type_number, record)),
            Err(reason) => self.rejected.push(Rejected {
                source: source.to_owned(),
                record_id: record_id.to_owned(),
                id_type: id_type.to_owned(),
                reason: reason.as_str(),
            }),
        }
    }

    fn type_number(&mut self, id_type: &str) -> u16 {
        match self.types.iter().position(|t| t == id_type) {
            Some(at) => at as u16,
            None => {
                self.types.push(id_type.to_owned());
                (self.types.len() - 1) as u16
            }
        }
    }

    /// 128 bits, keyed: enough that no two values of a warehouse meet, and useless to whoever finds them.
    fn hash(&self, id_type: &str, value: &str) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(self.key);
        hasher
            .update(&(id_type.len() as u64).to_le_bytes())
            .update(id_type.as_bytes())
            .update(value.as_bytes());
        first_bytes(&hasher)
    }

    /// Computes the components. Cost: a sort of the identifiers and of the records.
    pub(super) fn resolve(self) -> Resolved {
        let Self { rules, key, records, mut links, types, mut rejected } = self;
        let mut keys: Vec<(RecordKey, u32)> = records.into_iter().collect();
        keys.sort_unstable();
        // From here a record is its rank among the keys, so the smallest of a component is its smallest key.
        let mut rank = vec![0u32; keys.len()];
        for (at, (_, arrived)) in keys.iter().enumerate() {
            rank[*arrived as usize] = at as u32;
        }
        for link in &mut links {
            link.2 = rank[link.2 as usize];
        }
        links.sort_unstable();
        links.dedup();
        let mut components = Components::new(keys.len());
        let mut hubs = Vec::new();
        for same in links.chunk_by(|a, b| a.0 == b.0) {
            let id_type = &types[usize::from(same[0].1)];
            let allowed = max_records(id_type, rules);
            let on_records = same.len() as u32;
            if on_records > allowed {
                hubs.push(Hub {
                    id_type: id_type.clone(),
                    records: on_records,
                    max_records: allowed,
                });
                continue;
            }
            for link in &same[1..] {
                components.union(same[0].2, link.2);
            }
        }
        hubs.sort_unstable();
        rejected.sort_unstable();
        let mut minted = Ids { key, used: HashSet::new() };
        let mut ids = vec![0i64; keys.len()];
        let mut clusters = 0;
        for at in 0..keys.len() {
            let root = components.root(at as u32) as usize;
            if root == at {
                clusters += 1;
                ids[at] = minted.mint(&keys[at].0);
            } else {
                ids[at] = ids[root];
            }
        }
        let map = keys.into_iter().zip(ids).map(|((key, _), id)| (key, id)).collect();
        Resolved { map, hubs, rejected, clusters }
    }
}

fn first_bytes(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// Gives out one_ids: 63 bits of a keyed hash of the smallest record key; a later key takes the next free value.
struct Ids<'a> {
    key: &'a [u8; 32],
    used: HashSet<i64>,
}

impl Ids<'_> {
    fn mint(&mut self, key: &RecordKey) -> i64 {
        let mut hasher = blake3::Hasher::new_keyed(self.key);
        hasher
            .update(b"one_id")
            .update(&(key.0.len() as u64).to_le_bytes())
            .update(key.0.as_bytes())
            .update(key.1.as_bytes());
        let mut id = (first_bytes(&hasher) as u64 & i64::MAX as u64) as i64;
        while !self.used.insert(id) {
            id = id.wrapping_add(1) & i64::MAX;
        }
        id
    }
}

/// Union-find over a flat array; the root of a component is its smallest member.
struct Components {
    parent: Vec<u32>,
}

impl Components {
    fn new(len: usize) -> Self {
        Self { parent: (0..len as u32).collect() }
    }

    fn root(&mut self, mut of: u32) -> u32 {
        while self.parent[of as usize] != of {
            // Path halving: every other step is shortened for the next who comes along.
            let above = self.parent[self.parent[of as usize] as usize];
            self.parent[of as usize] = above;
            of = above;
        }
        of
    }

    fn union(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn resolve(rows: &[(&str, &str, &str)]) -> Resolved {
        let rules = BTreeMap::new();
        let mut resolver = Resolver::new(&rules, &KEY);
        for (record, id_type, value) in rows {
            let (source, id) = record.split_once('/').unwrap();
            resolver.add(source, id, id_type, Some(value));
        }
        resolver.resolve()
    }

    fn id_of(resolved: &Resolved, record: &str) -> i64 {
        let (source, id) = record.split_once('/').unwrap();
        resolved.map.iter().find(|(key, _)| key == &(source.to_owned(), id.to_owned())).unwrap().1
    }

    /// The classic case: phone + device, email + device, email + open id are one person.
    #[test]
    fn a_chain_of_identifiers_is_one_person() {
        let resolved = resolve(&[
            ("shop/1", "phone", "+86 138 0013 8001"),
            ("shop/1", "device", "D-1"),
            ("app/2", "email", "Li@QQ.com"),
            ("app/2", "device", "d-1"),
            ("wechat/3", "email", "li@qq.com"),
            ("wechat/3", "open_id", "oX"),
            ("shop/4", "phone", "13800138002"),
        ]);
        assert_eq!(id_of(&resolved, "shop/1"), id_of(&resolved, "wechat/3"));
        assert_ne!(id_of(&resolved, "shop/1"), id_of(&resolved, "shop/4"));
        assert_eq!(resolved.clusters, 2);
        assert!(resolved.map.iter().all(|(_, id)| *id >= 0));
    }

    #[test]
    fn a_shared_device_and_a_placeholder_link_nobody() {
        let names: Vec<String> = (0..6).map(|i| format!("s/{i}")).collect();
        let mut rows: Vec<(&str, &str, &str)> =
            names.iter().map(|n| (n.as_str(), "device", "kiosk")).collect();
        rows.extend(names.iter().map(|n| (n.as_str(), "phone", "00000000000")));
        let resolved = resolve(&rows);
        assert_eq!(resolved.clusters, 6);
        assert_eq!(resolved.hubs, [Hub { id_type: "device".into(), records: 6, max_records: 5 }]);
        assert_eq!(resolved.rejected.len(), 6);
    }

    /// Labels that spread until nothing changes: the obvious way.
    fn slow_clusters(rows: &[(u8, u8)]) -> BTreeMap<u8, u8> {
        let mut label: BTreeMap<u8, u8> = rows.iter().map(|(r, _)| (*r, *r)).collect();
        loop {
            let before = label.clone();
            for (a, value) in rows {
                for (b, other) in rows {
                    if value == other {
                        let least = label[a].min(label[b]);
                        label.insert(*a, least);
                        label.insert(*b, least);
                    }
                }
            }
            if label == before {
                return label;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Clusters are the connected components, and no order of rows changes anything.
        #[test]
        fn order_never_matters(mut rows in prop::collection::vec((0u8..12, 0u8..10), 1..30), seed: u64) {
            let run = |rows: &[(u8, u8)]| {
                let rules = BTreeMap::from([("x".to_owned(), Rule { priority: None, max_records: Some(100) })]);
                let mut resolver = Resolver::new(&rules, &KEY);
                for (record, value) in rows {
                    resolver.add("s", &format!("{record:03}"), "x", Some(&format!("value-{value}")));
                }
                resolver.resolve()
            };
            let first = run(&rows);
            let slow = slow_clusters(&rows);
            for ((_, a), one) in &first.map {
                for ((_, b), two) in &first.map {
                    let same = slow[&a.parse::<u8>().unwrap()] == slow[&b.parse::<u8>().unwrap()];
                    prop_assert_eq!(one == two, same);
                }
            }
            let half = (seed as usize) % rows.len();
            rows.rotate_left(half);
            rows.reverse();
            prop_assert_eq!(run(&rows), first);
        }
    }
}
