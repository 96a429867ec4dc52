//! Looks at every file of a table: is it there, whole, and what was written?

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::generation::{Name, TableDef};
use super::log::Extent;
use super::sums::CheckedFile;
use super::table::FileEntry;
use super::warehouse::Warehouse;
use crate::error::{Error, Kind, Result};

/// What a look at one file found.
#[derive(Debug, Clone, PartialEq)]
pub struct FileCheck {
    /// The table.
    pub table: Name,
    /// File below the warehouse; for a log of which no file can be told, the log's folder.
    pub file: String,
    /// Bytes that it should have.
    pub bytes: Option<u64>,
    /// Rows that it should have.
    pub rows: Option<u64>,
    /// What is wrong; `None` when all is well.
    pub problem: Option<String>,
}

/// Files that are read at once: enough to keep a disk busy.
const FILES_AHEAD: usize = 4;

impl Warehouse {
    /// Compares every file of a published table with its checksums; one without them is decoded and its rows are counted.
    ///
    /// # Errors
    /// When the store itself fails. Damage is a finding, not an error.
    pub async fn check_table(&self, name: &Name, def: &TableDef) -> Result<Vec<FileCheck>> {
        // What a vacuum takes away meanwhile is not missing: its log can be read once more, or a later version is published.
        const TRIES: u32 = 10;
        let mut def = def.clone();
        let mut tries = 0;
        loop {
            tries += 1;
            let found = self.check_version(name, &def).await;
            let is_of_log = match &found {
                Ok(files) if files.iter().all(|file| file.problem.is_none()) => return found,
                Ok(files) => {
                    files.iter().any(|file| file.problem.is_some() && file.bytes.is_none())
                }
                Err(_) => true,
            };
            let newest = self.newest().await?;
            match newest.table(name) {
                _ if tries == TRIES => return found,
                Some(newest) if newest.version > def.version => def = newest.clone(),
                Some(_) if is_of_log => {}
                _ => return found,
            }
        }
    }

    async fn check_version(&self, name: &Name, def: &TableDef) -> Result<Vec<FileCheck>> {
        let of_log = async |error: Error| {
            let broken = self.tables().culprit(def).await;
            let (file, problem) = match broken {
                Some(broken) => (broken.file, broken.what),
                None => (format!("{}/_delta_log", def.path), told(&error)),
            };
            let (bytes, rows, problem) = (None, None, Some(problem));
            FileCheck { table: name.clone(), file, bytes, rows, problem }
        };
        let snapshot = match self.tables().read(def).await {
            Ok(snapshot) => snapshot,
            Err(error) if error.kind() == Kind::Io => return Err(error),
            Err(error) => return Ok(vec![of_log(error).await]),
        };
        let look = |file: FileEntry| async move {
            let problem = match self.check_file(&file).await {
                Ok(()) => None,
                Err(error) if error.kind() == Kind::Io => return Err(error),
                Err(error) => Some(told(&error)),
            };
            Ok(FileCheck {
                table: name.clone(),
                file: file.path,
                bytes: Some(file.size),
                rows: Some(file.rows),
                problem,
            })
        };
        let looks = futures::stream::iter(snapshot.files.into_iter().map(look));
        let mut found: Vec<FileCheck> = looks.buffered(FILES_AHEAD).try_collect().await?;
        // A log that gives the right rows may still be wrong in what else it says.
        match self.tables().loads(def, Extent::Everything).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Io => return Err(error),
            Err(error) => found.push(of_log(error).await),
        }
        Ok(found)
    }

    async fn check_file(&self, file: &FileEntry) -> Result<()> {
        let path = Path::from(file.path.as_str());
        if let Some(sums) = &file.sums {
            let checked = CheckedFile::new(Arc::clone(self.store()), Arc::clone(sums));
            return Ok(checked.verify(&path).await?);
        }
        let bytes = self.store().get(&path).await?.bytes().await?;
        let rows = tokio::task::spawn_blocking(move || -> Result<u64> {
            let mut rows = 0;
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
                rows += batch?.num_rows() as u64;
            }
            Ok(rows)
        });
        let rows = rows.await.map_err(|_| {
            Error::new(Kind::DataCorrupted, format!("data file \"{path}\" cannot be decoded"))
        })??;
        if rows != file.rows {
            return Err(Error::new(
                Kind::DataCorrupted,
                format!("data file \"{path}\" has {rows} rows instead of {}", file.rows),
            ));
        }
        Ok(())
    }
}

fn told(error: &Error) -> String {
    match error.detail_text() {
        Some(detail) => format!("{}; {detail}", error.message()),
        None => error.message().to_owned(),
    }
}
