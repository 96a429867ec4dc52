//! Imports run one way. What a room may use is written here; the test reads the sources and holds them to it.

use std::collections::BTreeMap;
use std::path::Path;

/// Rooms by rank: a room uses rooms of a lower rank only. Those of one rank do not know each other, except as listed.
const RANKS: [(&str, u32); 17] = [
    ("tree", 0),
    ("error", 0),
    ("config", 1),
    ("dialect", 1),
    ("workspace", 1),
    ("store", 2),
    ("scan", 3),
    ("report", 3),
    ("catalog", 4),
    ("analysis", 4),
    ("identity", 4),
    ("ingest", 4),
    ("session", 5),
    ("sql", 6),
    ("wire", 7),
    ("cli", 8),
    ("lib", 9),
];

/// Crates that one room alone may name.
const WALLS: [(&str, &[&str]); 3] = [
    ("deltalake::", &["store", "error"]),
    ("pgwire::", &["wire"]),
    ("object_store::", &["store", "error", "session"]),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>, root: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found, root);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let relative = path.strip_prefix(root).unwrap();
            let room = relative
                .iter()
                .next()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_end_matches(".rs")
                .to_owned();
            found.push((room, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found, &root);
    let ranks: BTreeMap<&str, u32> = RANKS.into();
    let mut wrong = Vec::new();
    for (room, text) in &found {
        if room == "main" || room == "lib" {
            continue;
        }
        let rank = *ranks.get(room.as_str()).unwrap_or_else(|| panic!("room {room} has no rank"));
        let code: String = text
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        for (used, used_rank) in &ranks {
            let is_used = code.contains(&format!("crate::{used}::"))
                || code.contains(&format!("crate::{{{used}"));
            if is_used && used != room && *used_rank >= rank {
                wrong.push(format!("{room} uses {used}"));
            }
        }
        for (outside, allowed) in WALLS {
            // A path that only ends in the crate's name belongs to another crate.
            let names_it =
                code.match_indices(outside).any(|(at, _)| !code[..at].ends_with([':', '_']));
            if names_it && !allowed.contains(&room.as_str()) {
                wrong.push(format!("{room} names {outside}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
