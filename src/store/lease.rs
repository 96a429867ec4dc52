//! Who does the housekeeping: one process at a time, for as long as it says it is there.
//!
//! Correctness does not rest on it: every rewrite is checked against the table it replaces. It saves two servers of one
//! warehouse from doing the same work twice.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::warehouse::Warehouse;
use crate::error::Result;

const FOLDER: &str = "_clientele/leases";

#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until_us: i64,
}

impl Warehouse {
    /// Takes the lease of housekeeping for `holder`, or keeps it, for `us` microseconds from now.
    ///
    /// Gives its epoch, a number that only grows; `None` while somebody else has it.
    pub async fn take_lease(&self, holder: &str, us: i64) -> Result<Option<u64>> {
        let now_us = chrono::Utc::now().timestamp_micros();
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        let epochs = listed.iter().filter_map(|file| {
            file.location.filename()?.strip_suffix(".json")?.parse::<u64>().ok()
        });
        let newest = epochs.max().unwrap_or(0);
        if newest > 0 {
            match self.store().get(&location(newest)).await {
                Ok(found) => {
                    let lease: Option<Lease> = serde_json::from_slice(&found.bytes().await?).ok();
                    let is_taken = lease.is_some_and(|l| l.holder != holder && l.until_us > now_us);
                    if is_taken {
                        return Ok(None);
                    }
                }
                // Its holder has just gone on to the next epoch.
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let lease = Lease { holder: holder.to_owned(), until_us: now_us + us };
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(serde_json::to_vec(&lease)?);
        match self.store().put_opts(&location(newest + 1), payload, options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        for old in listed {
            if let Err(error) = self.store().delete(&old.location).await {
                tracing::debug!(%error, "an old lease could not be removed");
            }
        }
        Ok(Some(newest + 1))
    }
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
        let warehouse = Warehouse::open_or_create(dir.path()).await.unwrap();
        const HOUR: i64 = 3_600_000_000;
        assert_eq!(warehouse.take_lease("a", HOUR).await.unwrap(), Some(1));
        assert_eq!(warehouse.take_lease("b", HOUR).await.unwrap(), None);
        assert_eq!(warehouse.take_lease("a", -1).await.unwrap(), Some(2));
        assert_eq!(warehouse.take_lease("b", HOUR).await.unwrap(), Some(3));
        assert_eq!(warehouse.take_lease("a", HOUR).await.unwrap(), None);
    }
}
