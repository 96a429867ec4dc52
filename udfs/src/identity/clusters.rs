//! Rows that are joined by what they have in common, without a graph's rules: `oneid_clusters`.

use std::collections::HashMap;
use std::io;

use arrow::array::{Array, StringArray};

use super::collect::Hashing;
use super::graph::{Graph, Rules, TypeRule};

/// Collects the identifiers of rows, a column a type.
///
/// A row takes 8 bytes, an identifier 24.
#[derive(Debug)]
pub struct Clusters {
    types: Vec<Hashing>,
    graph: Graph,
    rows: u32,
}

impl Clusters {
    /// For identifiers of these types, in the order of their columns. Columns of one type hold the same kind of value: a phone
    /// in one is the phone in the other. A value on more rows than `max_records` joins nobody.
    pub fn new(secret: &[u8; 32], types: &[String], max_records: Option<u32>) -> Self {
        let mut graph = Graph::new(Rules::default());
        for _ in types {
            graph.add_type(TypeRule {
                priority: 1,
                max_records: max_records.unwrap_or(u32::MAX),
                max_per_customer: None,
                reuse_gap_us: None,
            });
        }
        let types = types.iter().map(|name| Hashing::new(secret, name)).collect();
        Self { types, graph, rows: 0 }
    }

    /// Adds rows. A value that is NULL or no identifier joins nobody. `false` when there are more rows than can be numbered.
    pub fn add(&mut self, columns: &[StringArray]) -> bool {
        let rows = columns.first().map_or(0, Array::len);
        let Some(end) = u32::try_from(rows).ok().and_then(|rows| self.rows.checked_add(rows))
        else {
            return false;
        };
        for (of, column) in self.types.iter().zip(columns) {
            // Columns of one type share the number of the first, so that a value counts once in a row.
            let kind = self.types.iter().position(|other| other.name() == of.name()).unwrap_or(0);
            for (row, value) in (self.rows..end).zip(column) {
                if let Some(Ok(cleaned)) = value.map(|value| of.clean(value)) {
                    let value = of.hash(&cleaned, None);
                    self.graph.add(kind as u16, value, row, None);
                }
            }
        }
        self.rows = end;
        true
    }

    /// The graph that holds the identifiers, to put some of it on disk.
    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// Bytes that are held, and that [`Self::ids`] takes, about.
    pub fn bytes(&self) -> usize {
        // A row will have a parent, a root and an id.
        self.graph.bytes() + self.rows as usize * 24
    }

    /// The id of each row's component: half of the keyed hash of its smallest identifier, so that the same identifiers have
    /// the same id in any order of rows; of two components that meet there, the one with the larger hash takes the next free
    /// number. A row whose values join nobody is alone under a negative number, the first one found under -1.
    ///
    /// # Errors
    /// When what was put on disk cannot be read.
    pub fn ids(mut self) -> io::Result<Vec<i64>> {
        let resolution = self.graph.resolve(self.rows)?;
        let mut of_root: HashMap<u32, i64> = HashMap::new();
        let mut last = 0;
        // They come in ascending order: the first one of a component is its smallest, and ids ascend too.
        self.graph.each_joining(|value, row| {
            of_root.entry(resolution.roots[row as usize]).or_insert_with(|| {
                last = (value[0] >> 1).cast_signed().max(last + 1);
                last
            });
        })?;
        let mut alone = 0;
        let id = |root: &u32| {
            *of_root.entry(*root).or_insert_with(|| {
                alone -= 1;
                alone
            })
        };
        Ok(resolution.roots.iter().map(id).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::norm_id::clean;
    use super::*;

    fn ids(rows: &[[Option<String>; 3]], cut: usize, most: Option<u32>) -> Vec<i64> {
        let types = ["phone", "email", "phone"].map(str::to_owned);
        let mut clusters = Clusters::new(&[5; 32], &types, most);
        for part in rows.chunks(cut) {
            let column = |at: usize| part.iter().map(|row| row[at].as_deref()).collect();
            assert!(clusters.add(&[column(0), column(1), column(2)]));
        }
        clusters.ids().unwrap()
    }

    /// The components, by joining again and again until nothing changes.
    fn slow(rows: &[[Option<String>; 3]], most: Option<u32>) -> Vec<usize> {
        let values = |row: &[Option<String>; 3]| -> Vec<String> {
            let cleaned = |(at, value): (usize, &Option<String>)| {
                let id_type = if at == 1 { "email" } else { "phone" };
                clean(id_type, value.as_deref()?).ok().map(|value| format!("{id_type} {value}"))
            };
            row.iter().enumerate().filter_map(cleaned).collect()
        };
        let count = |value: &String| rows.iter().filter(|row| values(row).contains(value)).count();
        let mut component: Vec<usize> = (0..rows.len()).collect();
        for _ in 0..rows.len() {
            for a in 0..rows.len() {
                for b in 0..rows.len() {
                    let shared = values(&rows[a]).into_iter().any(|value| {
                        values(&rows[b]).contains(&value)
                            && most.is_none_or(|most| count(&value) <= most as usize)
                    });
                    if shared {
                        let least = component[a].min(component[b]);
                        (component[a], component[b]) = (least, least);
                    }
                }
            }
        }
        component
    }

    fn row() -> impl Strategy<Value = [Option<String>; 3]> {
        let phone = || {
            prop::option::of((0u32..8).prop_map(|n| match n {
                0 => "000".to_owned(),
                n => format!("+86 1380013800{n}"),
            }))
        };
        let email = prop::option::of((0u32..8).prop_map(|n| match n {
            0 => "n/a".to_owned(),
            n => format!("Li{n}@qq.com"),
        }));
        (phone(), email, phone()).prop_map(|(a, b, c)| [a, b, c])
    }

    proptest! {
        #[test]
        fn rows_with_something_in_common_are_together(
            rows in prop::collection::vec(row(), 0..16), cut in 1usize..8, most in prop::option::of(2u32..5), turn in 0usize..16
        ) {
            let found = ids(&rows, cut, most);
            let right = slow(&rows, most);
            for a in 0..rows.len() {
                for b in 0..rows.len() {
                    prop_assert_eq!(found[a] == found[b], right[a] == right[b]);
                }
            }
            let mut turned: Vec<_> = rows.iter().cloned().zip(found).collect();
            turned.rotate_left(turn.min(rows.len()));
            let again = ids(&turned.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>(), 5, most);
            for ((_, before), now) in turned.iter().zip(&again) {
                prop_assert!(before == now || (*before < 0 && *now < 0));
            }
            let mut alone = BTreeMap::new();
            again.iter().filter(|id| **id < 0).for_each(|id| *alone.entry(*id).or_insert(0) += 1);
            prop_assert!(alone.values().all(|rows| *rows == 1));
        }
    }
}
