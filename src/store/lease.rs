//! Who does the housekeeping: one process at a time, for as long as it says it is there.
//!
//! A holder that was stopped for longer than its lease may wake up in the middle of its work. So each holder has an epoch, a
//! number that only grows; what housekeeping publishes says it, and nothing is published under an epoch that a later one has
//! followed. That saves work; that no row is lost or doubled rests on every rewrite being checked against the table it
//! replaces.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::warehouse::Warehouse;
use crate::error::{Error, Kind, Result};

const FOLDER: &str = "_clientele/leases";

/// The right to do the housekeeping, as long as nobody else has taken it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    epoch: u64,
}

impl Lease {
    /// Its number; a later holder has a larger one.
    pub(super) fn epoch(self) -> u64 {
        self.epoch
    }

    /// What is said to a holder whose time has passed.
    pub(super) fn is_over() -> Error {
        Error::new(Kind::Serialization, "another process has taken over the housekeeping")
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    holder: String,
    until_us: i64,
}

impl Warehouse {
    /// Takes the lease of housekeeping for `holder`, or keeps it, for `us` microseconds from now; `None` while somebody else
    /// has it.
    pub async fn take_lease(&self, holder: &str, us: i64) -> Result<Option<Lease>> {
        let now_us = chrono::Utc::now().timestamp_micros();
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        let newest = listed.iter().filter_map(|file| epoch_of(&file.location)).max().unwrap_or(0);
        let mut mode = PutMode::Create;
        let mut epoch = newest + 1;
        if newest > 0 {
            let Some(bytes) = self.root().read(location(newest).as_ref()).await? else {
                // Its holder has just gone on to the next epoch.
                return Ok(None);
            };
            match serde_json::from_slice::<Document>(&bytes) {
                Ok(lease) if lease.holder == holder => (mode, epoch) = (PutMode::Overwrite, newest),
                Ok(lease) if lease.until_us > now_us => return Ok(None),
                _ => {}
            }
        }
        let lease = Document { holder: holder.to_owned(), until_us: now_us.saturating_add(us) };
        let options = PutOptions { mode, ..PutOptions::default() };
        let payload = PutPayload::from(serde_json::to_vec(&lease)?);
        match self.store().put_opts(&location(epoch), payload, options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        for old in listed.iter().filter(|file| file.location != location(epoch)) {
            if let Err(error) = self.store().delete(&old.location).await {
                tracing::debug!(%error, "an old lease could not be removed");
            }
        }
        Ok(Some(Lease { epoch }))
    }

    /// Gives the lease of housekeeping back, where `holder` has it: nobody has to wait for its end.
    pub async fn give_lease_back(&self, holder: &str) -> Result<()> {
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        let Some(newest) = listed.iter().filter_map(|file| epoch_of(&file.location)).max() else {
            return Ok(());
        };
        let Some(bytes) = self.root().read(location(newest).as_ref()).await? else { return Ok(()) };
        let Ok(lease) = serde_json::from_slice::<Document>(&bytes) else { return Ok(()) };
        if lease.holder == holder {
            let over = Document { until_us: 0, ..lease };
            let payload = PutPayload::from(serde_json::to_vec(&over)?);
            self.store().put(&location(newest), payload).await?;
        }
        Ok(())
    }

    /// Fails when somebody else has taken `lease` over.
    pub async fn check_lease(&self, lease: Option<Lease>) -> Result<()> {
        let Some(lease) = lease else { return Ok(()) };
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        let newest = listed.iter().filter_map(|file| epoch_of(&file.location)).max();
        if newest.is_some_and(|newest| newest > lease.epoch) {
            return Err(Lease::is_over());
        }
        Ok(())
    }
}

fn epoch_of(location: &Path) -> Option<u64> {
    location.filename()?.strip_suffix(".json")?.parse().ok()
}

fn location(epoch: u64) -> Path {
    Path::from(format!("{FOLDER}/{epoch:020}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_has_it_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        const HOUR: i64 = 3_600_000_000;
        let first = warehouse.take_lease("a", HOUR).await.unwrap();
        assert_eq!(first, Some(Lease { epoch: 1 }));
        assert_eq!(warehouse.take_lease("b", HOUR).await.unwrap(), None);
        assert_eq!(warehouse.take_lease("a", -1).await.unwrap(), first);
        warehouse.check_lease(first).await.unwrap();
        assert_eq!(warehouse.take_lease("b", HOUR).await.unwrap(), Some(Lease { epoch: 2 }));
        assert_eq!(warehouse.take_lease("a", HOUR).await.unwrap(), None);
        warehouse.give_lease_back("a").await.unwrap();
        assert_eq!(warehouse.take_lease("c", HOUR).await.unwrap(), None);
        warehouse.give_lease_back("b").await.unwrap();
        assert_eq!(warehouse.take_lease("c", HOUR).await.unwrap(), Some(Lease { epoch: 3 }));
        assert_eq!(warehouse.check_lease(first).await.unwrap_err().sqlstate(), "40001");
    }

    /// A holder that wakes up late publishes nothing over what its successor has published.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_holder_is_fenced_off() {
        use std::collections::BTreeMap;

        use crate::store::{Change, Name, Relation, ViewDef};
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        let first = warehouse.take_lease("a", -1).await.unwrap();
        let second = warehouse.take_lease("b", -1).await.unwrap();
        let view = ViewDef { sql: "SELECT 1".to_owned(), columns: vec![], timezone: None };
        let change = |table: &str| {
            let view = Change::Set(Relation::View(view.clone()));
            BTreeMap::from([(Name::new("public", table), view)])
        };
        warehouse.chain().publish_under(first, |_| Ok(change("one"))).await.unwrap();
        warehouse.chain().publish_under(second, |_| Ok(change("two"))).await.unwrap();
        warehouse.chain().publish_under(None, |_| Ok(change("three"))).await.unwrap();
        let late = warehouse.chain().publish_under(first, |_| Ok(change("four"))).await;
        assert_eq!(late.unwrap_err().sqlstate(), "40001");
        // A process that opens the warehouse anew knows the fence.
        let again = Warehouse::open(&dir.path().into()).await.unwrap();
        let late = again.chain().publish_under(first, |_| Ok(change("four"))).await;
        assert_eq!(late.unwrap_err().sqlstate(), "40001");
        assert_eq!(again.newest().await.unwrap().relations.len(), 3);
    }
}
