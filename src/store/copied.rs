//! A copy of a warehouse's folder is a warehouse of its own: it forgets what was under way when it was taken.
//!
//! A backup is `_clientele` first, then the tables: so every version that the copied publish log names is among the copied
//! files. What the tables' logs have beyond it was written while the copy was made; its data files may not be there, and the
//! next commit would build on it. So a folder that finds itself copied cuts those entries off before anything else.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::generation::Relation;
use super::warehouse::Warehouse;
use crate::error::Result;

const PLACE: &str = "_clientele/place.json";

/// Where a warehouse knows itself to be: a file that is copied is another file, an object that is copied is younger.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    #[serde(alias = "inode")]
    identity: u64,
}

impl Warehouse {
    /// Cuts off what a copy has of commits that were never published in it; `marker` is the document it is known by.
    pub(super) async fn settle_copy(&self, marker: &str) -> Result<()> {
        let place = Place { identity: self.root().identity(marker).await? };
        match self.root().read(PLACE).await? {
            Some(bytes) => {
                let known = serde_json::from_slice::<Place>(&bytes);
                if known.is_ok_and(|known| known == place) {
                    return Ok(());
                }
            }
            None => return self.root().replace_private(PLACE, serde_json::to_vec(&place)?).await,
        }
        let newest = self.newest().await?;
        let mut cut = 0;
        for relation in newest.relations.values() {
            let Relation::Table(def) = relation else { continue };
            let log = Path::from(format!("{}/_delta_log", def.path));
            let listed: Vec<_> = self.store().list(Some(&log)).try_collect().await?;
            for file in listed {
                let name = file.location.filename().unwrap_or_default();
                let version = name.split('.').next().and_then(|v| v.parse::<u64>().ok());
                // The pointer to the last checkpoint is only a hint, and found again without.
                let is_beyond = version.is_some_and(|version| version > def.version);
                if is_beyond || name == "_last_checkpoint" {
                    self.store().delete(&file.location).await?;
                    cut += usize::from(is_beyond);
                }
            }
        }
        tracing::info!(
            entries = cut,
            "the folder is a copy; what was never published in it was cut off"
        );
        // Processes that read the original do not read the copy.
        let readers: Vec<_> =
            self.store().list(Some(&Path::from("_clientele/readers"))).try_collect().await?;
        for file in readers {
            self.store().delete(&file.location).await?;
        }
        self.root().replace_private(PLACE, serde_json::to_vec(&place)?).await
    }
}
