//! Takes away what no version within the time of grace has: files, entries of logs, folders of dropped tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::generation::{Change, Relation};
use super::lease::Lease;
use super::warehouse::Warehouse;
use crate::error::Result;

/// How long a vacuum waits for statements that read older versions than it may leave.
const WAIT: Duration = Duration::from_secs(90);

/// What a vacuum took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Data files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Entries and checkpoints of tables' logs.
    pub log_entries: usize,
    /// Folders of dropped tables.
    pub folders: usize,
    /// Whether older versions had to stay because a statement still reads them.
    pub is_held_back: bool,
}

impl Warehouse {
    /// Deletes what only versions older than `keep` have.
    ///
    /// With `keep` of zero the newest version alone stays. Statements that read older ones are waited for, at most
    /// 90 seconds; then their versions stay until the next vacuum.
    pub async fn vacuum(&self, lease: Option<Lease>, keep: Duration) -> Result<Vacuumed> {
        self.finish_pending(None).await?;
        let mut done = Vacuumed::default();
        let newest = self.newest().await?;
        let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let since_us = chrono::Utc::now().timestamp_micros().saturating_sub(keep_us);
        let mut horizon = match keep.is_zero() {
            true => newest.number,
            // A warehouse that is younger keeps everything.
            false => self.generation_at(since_us).await?.map_or(1, |state| state.number),
        };
        let wait_until = tokio::time::Instant::now() + WAIT;
        while let Some(oldest) = self.oldest_read().await?.filter(|oldest| *oldest < horizon) {
            if !keep.is_zero() || tokio::time::Instant::now() >= wait_until {
                horizon = oldest;
                done.is_held_back = true;
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let Some(state) = self.generation(horizon).await? else { return Ok(done) };
        // The oldest version of each folder that has to stay.
        let mut oldest = BTreeMap::new();
        let mut keep_version = |relation: &Relation| {
            if let Relation::Table(def) = relation {
                oldest.entry(def.path.clone()).or_insert(def.version);
            }
        };
        state.relations.values().for_each(&mut keep_version);
        let mut published = BTreeSet::new();
        let mut history = self.history(usize::MAX).await?;
        history.reverse();
        for (number, _, changes) in &history {
            for change in changes.values() {
                let Change::Set(relation) = change else { continue };
                if let Relation::Table(def) = relation {
                    published.insert(def.path.clone());
                }
                if *number > horizon {
                    keep_version(relation);
                }
            }
        }
        let dropped: Vec<String> =
            published.into_iter().filter(|path| !oldest.contains_key(path)).collect();
        for path in dropped {
            if self.tables().exists(&path).await? {
                self.delete_folders(&[path]).await?;
                done.folders += 1;
            }
        }
        let keep = chrono::TimeDelta::from_std(keep).unwrap_or(chrono::TimeDelta::MAX);
        // A time before all times is a time that no file is from.
        let keep = keep.min(chrono::TimeDelta::days(36_500));
        let is_live = |path: &str| {
            newest.relations.values().any(|r| matches!(r, Relation::Table(t) if t.path == path))
        };
        let mut failed = None;
        for (path, version) in oldest {
            // A vacuum that kept nothing has taken the folder of a table that the versions within the time of grace still name.
            if !is_live(&path) && !self.tables().exists(&path).await? {
                continue;
            }
            // Whoever has taken over may have let somebody read what was out of use when this began.
            self.check_lease(lease).await?;
            match self.tables().vacuum(&path, version, keep).await {
                Ok((files, bytes, log_entries)) => {
                    done.files += files;
                    done.bytes += bytes;
                    done.log_entries += log_entries;
                }
                // One that is damaged keeps no other from its turn.
                Err(error) => _ = failed.get_or_insert(error),
            }
        }
        failed.map_or(Ok(done), Err)
    }
}
