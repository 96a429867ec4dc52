//! A local file system that has written what it says it has written.

#![expect(clippy::disallowed_types, reason = "this is the wrapper that the others must use")]

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// What was synced, in order; a test reads it.
pub(crate) type SyncLog = Arc<Mutex<Vec<PathBuf>>>;

/// [`LocalFileSystem`] with an fsync of the file and its folders after every put, upload and rename.
///
/// object_store 0.13 never syncs, so a power cut could take back what a load had acknowledged. The first time a folder
/// is written to, its parents are synced as well, because the folder itself may be new.
#[derive(Debug)]
pub(crate) struct SyncedStore {
    inner: LocalFileSystem,
    syncer: Arc<Syncer>,
}

#[derive(Debug, Default)]
struct Syncer {
    known_folders: Mutex<HashSet<PathBuf>>,
    log: Option<SyncLog>,
}

impl SyncedStore {
    /// A store over the whole file system: paths are absolute paths without the leading slash.
    pub(crate) fn new() -> Self {
        Self { inner: LocalFileSystem::new(), syncer: Arc::default() }
    }

    #[cfg(test)]
    fn recording(log: SyncLog) -> Self {
        let syncer = Syncer { known_folders: Mutex::default(), log: Some(log) };
        Self { inner: LocalFileSystem::new(), syncer: Arc::new(syncer) }
    }

    async fn sync(&self, location: &Path) -> Result<()> {
        sync(Arc::clone(&self.syncer), self.inner.path_to_filesystem(location)?).await
    }
}

async fn sync(syncer: Arc<Syncer>, path: PathBuf) -> Result<()> {
    let synced = tokio::task::spawn_blocking(move || syncer.sync_file_and_folders(&path)).await;
    let synced = synced.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    synced.map_err(|source| object_store::Error::Generic {
        store: "SyncedStore",
        source: Box::new(source),
    })
}

impl Syncer {
    fn sync_file_and_folders(&self, path: &FsPath) -> std::io::Result<()> {
        self.sync_one(path)?;
        for folder in path.ancestors().skip(1) {
            if folder.as_os_str().is_empty() {
                break;
            }
            let is_parent = Some(folder) == path.parent();
            let is_new = self
                .known_folders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(folder.to_owned());
            if !is_new && !is_parent {
                break;
            }
            match self.sync_one(folder) {
                Ok(()) => {}
                // A folder above the warehouse that belongs to somebody else was not made by us.
                Err(error)
                    if !is_parent && error.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_one(&self, path: &FsPath) -> std::io::Result<()> {
        File::open(path)?.sync_all()?;
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for SyncedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncedStore")
    }
}

#[async_trait]
impl ObjectStore for SyncedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let result = self.inner.put_opts(location, payload, opts).await?;
        self.sync(location).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { upload, path, syncer: Arc::clone(&self.syncer) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

#[derive(Debug)]
struct SyncedUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
    syncer: Arc<Syncer>,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        sync(Arc::clone(&self.syncer), self.path.clone()).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    /// A put answers only after the file and every folder that may be new have reached the disk.
    #[tokio::test]
    async fn a_put_syncs_the_file_and_its_new_folders() {
        let dir = tempfile::tempdir().unwrap();
        let log = SyncLog::default();
        let store = SyncedStore::recording(Arc::clone(&log));
        let file = dir.path().join("a/b/1.json");
        let location = Path::from_absolute_path(&file).unwrap();
        store.put(&location, "x".into()).await.unwrap();
        let synced = log.lock().unwrap().clone();
        let expected =
            [file.clone(), dir.path().join("a/b"), dir.path().join("a"), dir.path().to_owned()];
        assert_eq!(synced[..4], expected);

        log.lock().unwrap().clear();
        let mut upload = store
            .put_multipart(&Path::from_absolute_path(dir.path().join("a/b/2")).unwrap())
            .await
            .unwrap();
        upload.put_part("y".into()).await.unwrap();
        assert!(log.lock().unwrap().is_empty(), "nothing is promised before complete");
        upload.complete().await.unwrap();
        assert_eq!(*log.lock().unwrap(), [dir.path().join("a/b/2"), dir.path().join("a/b")]);
    }
}
