//! Who is who in one published state of an identity graph, as far as the files of other tables depend on it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};

use super::cluster::Known;
use super::generation::{Generation, Name};
use super::table::TableSnapshot;
use super::warehouse::Warehouse;
use crate::error::Result;

/// Of the relations of an identity graph the one that says who is who: every record with its `one_id`.
pub const MAP: &str = "map";

/// Of the relations of an identity graph the one that says which `one_id`s lost records with which refresh.
pub const MOVED: &str = "moved";

/// The map of a graph, and what has changed in it.
#[derive(Debug, PartialEq)]
pub struct Customers {
    map: Arc<TableSnapshot>,
    /// By refresh: the ids that it took records from, in order.
    moved: BTreeMap<u32, Vec<i64>>,
    version: u64,
}

impl Customers {
    /// Who is who.
    pub fn map(&self) -> &Arc<TableSnapshot> {
        &self.map
    }

    /// The map's own mark, for files whose customers are taken from it; `None` when it does not say which refresh wrote it.
    pub fn known(&self) -> Option<Known> {
        let (run, _) = self.moved.last_key_value()?;
        Some(Known { map: self.map.path.clone(), run: *run, unknown: 0 })
    }

    /// The ids that have lost records since the customers of a file were known, in order.
    ///
    /// `None` when nobody can tell: the file is of another graph or of a later state of this one, or too much has happened.
    pub fn moved_since(&self, then: &Known) -> Option<Vec<i64>> {
        let now = self.known()?;
        if then.map != now.map || then.run > now.run {
            return None;
        }
        let since = self.moved.range(then.run + 1..);
        if since.clone().count() as u32 != now.run - then.run {
            return None;
        }
        let mut ids: Vec<i64> = since.flat_map(|(_, ids)| ids).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        Some(ids)
    }
}

impl Warehouse {
    /// The customers of graph `graph` in a published state; `None` when there is no such graph.
    pub async fn customers(
        &self,
        state: &Generation,
        graph: &str,
    ) -> Result<Option<Arc<Customers>>> {
        let table = |name: &str| state.table(&Name::new(graph, name));
        let Some(map) = table(MAP) else { return Ok(None) };
        let version = table(MOVED).map_or(0, |moved| moved.version);
        let map = self.snapshot(map).await?;
        let known = self.known_customers().get(graph).cloned();
        if let Some(known) = known.filter(|known| known.map == map && known.version == version) {
            return Ok(Some(known));
        }
        let mut moved: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        if let Some(def) = table(MOVED) {
            let snapshot = self.snapshot(def).await?;
            let columns = ["run", "one_id"].map(str::to_owned);
            self.read_columns(&snapshot, &columns, |batch| {
                let runs = batch.column(0).as_primitive::<Int32Type>();
                let ids = batch.column(1).as_primitive::<Int64Type>();
                for (run, id) in runs.iter().zip(ids) {
                    let of_run = moved.entry(run.unwrap_or(0).max(0) as u32).or_default();
                    // A refresh that took no records from anybody has a row without an id.
                    of_run.extend(id);
                }
            })
            .await?;
        }
        let customers = Arc::new(Customers { map, moved, version });
        self.known_customers().insert(graph.to_owned(), Arc::clone(&customers));
        Ok(Some(customers))
    }

    fn known_customers(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Arc<Customers>>> {
        self.customers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn what_moved_since_is_told_where_all_of_it_is_known() {
        let empty = Arc::new(Schema::empty());
        let map =
            TableSnapshot { version: 7, ..TableSnapshot::unlogged("customer/map".into(), empty) };
        let moved = BTreeMap::from([(3, vec![5, 9]), (4, vec![]), (5, vec![9, 2])]);
        let customers = Customers { map: Arc::new(map), moved, version: 1 };
        let known = |run| Known { map: "customer/map".into(), run, unknown: 0 };
        assert_eq!(customers.known(), Some(known(5)));
        let expected: HashMap<u32, Option<Vec<i64>>> = HashMap::from([
            (1, None),
            (2, Some(vec![2, 5, 9])),
            (3, Some(vec![2, 9])),
            (4, Some(vec![2, 9])),
            (5, Some(vec![])),
            (6, None),
        ]);
        for (run, ids) in expected {
            assert_eq!(customers.moved_since(&known(run)), ids, "run {run}");
        }
        let other = Known { map: "customer/map-2".into(), run: 4, unknown: 0 };
        assert_eq!(customers.moved_since(&other), None);
    }
}
