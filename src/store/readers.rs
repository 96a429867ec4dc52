//! Who still reads what: a vacuum takes no file from under a statement, in this process or in another.
//!
//! A process that answers statements says every few seconds which is the oldest generation it still reads. What it began
//! after saying so is newer. A process that has not been heard of for a minute is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::warehouse::Warehouse;
use crate::error::Result;

const FOLDER: &str = "_clientele/readers";

/// How often a process says what it reads.
const EVERY: Duration = Duration::from_secs(10);

/// For how long that counts.
const COUNTS_US: i64 = 60_000_000;

/// What this process reads.
#[derive(Debug)]
pub(crate) struct Readers {
    id: String,
    pinned: Mutex<BTreeMap<u64, usize>>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { id: uuid::Uuid::new_v4().simple().to_string(), pinned: Mutex::default() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    oldest: u64,
    until_us: i64,
}

/// Holds a generation for as long as it lives.
#[derive(Debug)]
pub struct Pin {
    warehouse: Arc<Warehouse>,
    number: u64,
}

impl Pin {
    /// Holds what is published from now on, and everything from before too when `past` versions are read.
    pub fn new(warehouse: &Arc<Warehouse>, past: bool) -> Self {
        let readers = warehouse.readers();
        let number = if past { 0 } else { warehouse.chain().known().number };
        let mut pinned = readers.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        *pinned.entry(number).or_default() += 1;
        Self { warehouse: Arc::clone(warehouse), number }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let readers = self.warehouse.readers();
        let mut pinned = readers.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pinned.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.number);
            }
        }
    }
}

impl Warehouse {
    /// Says which is the oldest generation that this process reads.
    pub async fn announce(&self) -> Result<()> {
        let newest = self.newest().await?.number;
        let oldest = self.oldest_here().unwrap_or(newest).min(newest);
        let until_us = chrono::Utc::now().timestamp_micros() + COUNTS_US;
        let payload = PutPayload::from(serde_json::to_vec(&Reading { oldest, until_us })?);
        self.store().put(&location(&self.readers().id), payload).await?;
        Ok(())
    }

    /// Says so every few seconds, for as long as the warehouse is open.
    pub async fn keep_announced(warehouse: Weak<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(warehouse) = warehouse.upgrade() else { return };
            if let Err(error) = warehouse.announce().await {
                tracing::warn!(code = error.sqlstate(), %error, "what is read could not be announced");
                continue;
            }
            if let Err(error) = warehouse.settle_open().await {
                tracing::warn!(code = error.sqlstate(), %error, "a change that was left open stays so");
            }
        }
    }

    /// The oldest generation that any process still reads; `None` when nobody reads.
    pub(super) async fn oldest_read(&self) -> Result<Option<u64>> {
        let mut oldest = self.oldest_here();
        let now_us = chrono::Utc::now().timestamp_micros();
        let own = location(&self.readers().id);
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        for file in listed.iter().filter(|file| file.location != own) {
            let bytes = match self.store().get(&file.location).await {
                Ok(found) => found.bytes().await?,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // What cannot be read may be somebody's all the same.
            let reading =
                serde_json::from_slice(&bytes).unwrap_or(Reading { oldest: 0, until_us: i64::MAX });
            if reading.until_us > now_us {
                oldest = Some(oldest.map_or(reading.oldest, |known| known.min(reading.oldest)));
            } else if let Err(error) = self.store().delete(&file.location).await {
                tracing::debug!(%error, "an old announcement could not be removed");
            }
        }
        Ok(oldest)
    }

    fn oldest_here(&self) -> Option<u64> {
        let pinned = self.readers().pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.keys().next().copied()
    }
}

impl Drop for Warehouse {
    fn drop(&mut self) {
        // Who does not say goodbye is waited for by a vacuum, a minute long.
        self.root().remove_at_last(&location(&self.readers().id));
    }
}

fn location(id: &str) -> Path {
    Path::from(format!("{FOLDER}/{id}.json"))
}
