//! Housekeeping of a server: clustered tables with many fresh rows are compacted while it runs.

use std::sync::Arc;
use std::time::Duration;

use super::compact::compact;
use crate::error::Result;
use crate::scan::SnapshotTable;
use crate::session::Engine;
use crate::store::Relation;

/// A table is compacted when one of so many rows is fresh,
const FRESH_SHARE: u64 = 10;

/// or when it has more fresh files than this.
const FRESH_FILES_MAX: usize = 8;

/// Looks every so often until the future is dropped. What fails is logged and tried again the next time.
pub async fn keep_compact(engine: Arc<Engine>, every: Duration) {
    let holder = uuid::Uuid::new_v4().to_string();
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = Box::pin(compact_all(&engine, &holder, every)).await {
            tracing::warn!(code = error.sqlstate(), %error, "housekeeping failed");
        }
    }
}

async fn compact_all(engine: &Arc<Engine>, holder: &str, every: Duration) -> Result<()> {
    let warehouse = engine.warehouse();
    // Longer than the pause, so that a server that lives keeps it.
    let us = i64::try_from(every.as_micros()).unwrap_or(i64::MAX / 4).saturating_mul(3);
    if warehouse.take_lease(holder, us).await?.is_none() {
        return Ok(());
    }
    let newest = warehouse.newest().await?;
    let session = engine.session(super::UPKEEP_USER);
    for (name, relation) in &newest.relations {
        let Relation::Table(def) = relation else { continue };
        let snapshot = warehouse.snapshot(&def.path, def.version).await?;
        let (files, rows) = SnapshotTable::fresh(&snapshot);
        if files <= FRESH_FILES_MAX && rows * FRESH_SHARE <= snapshot.rows() {
            continue;
        }
        if let Some(done) = compact(&session, name).await? {
            tracing::info!(
                table = %name,
                rows = done.rows,
                files_before = done.files_before,
                files_after = done.files_after,
                "compacted"
            );
        }
    }
    Ok(())
}
