//! Where a warehouse lies: a folder of this machine, or a prefix of a bucket.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use super::bucket::{self, PROBE_FOR, RETRY_FOR};
use super::local::SyncedStore;
use crate::error::{Error, Kind, Result};

/// A place for a warehouse, as `--dir` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// `s3://bucket/prefix`, or a bucket without a prefix.
    Bucket(Url),
}

impl Location {
    /// The folder, unless it is a bucket.
    pub fn folder(&self) -> Option<&FsPath> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Bucket(_) => None,
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, _)) = text.split_once("://") else {
            if text.starts_with("s3:") {
                return Err(Error::new(
                    Kind::InvalidParameter,
                    format!("{text:?} is no bucket; one is named as s3://bucket/prefix"),
                )
                .hint(format!("a folder of that name is ./{text}")));
            }
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        if scheme != "s3" {
            return Err(Error::not_supported(format!(
                "a warehouse lies in a folder or under s3://, not under {scheme}://"
            )));
        }
        if !cfg!(feature = "s3") {
            return Err(Error::not_supported("this program was built without the feature s3"));
        }
        let bad = || {
            Error::new(
                Kind::InvalidParameter,
                "a bucket is named as s3://bucket or s3://bucket/prefix",
            )
        };
        let mut url = Url::parse(text).map_err(|_| bad())?;
        let has_more = url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some()
            || url.port().is_some();
        if url.host_str().is_none_or(str::is_empty) || has_more {
            return Err(bad());
        }
        if url.path().trim_end_matches('/').contains("//") {
            return Err(bad().detail("the prefix has an empty part"));
        }
        // A base that other addresses are joined to ends with a slash.
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Self::Bucket(url))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl From<&FsPath> for Location {
    fn from(folder: &FsPath) -> Self {
        Self::Folder(folder.to_owned())
    }
}

/// The place of an open warehouse.
#[derive(Debug)]
pub(super) struct Root {
    location: Location,
    url: Url,
    whole: Arc<dyn ObjectStore>,
    store: Arc<dyn ObjectStore>,
}

impl Root {
    /// The place; `None` when it is a folder that does not exist.
    pub(super) async fn open(location: &Location) -> Result<Option<Self>> {
        let (location, url, whole): (_, _, Arc<dyn ObjectStore>) = match location {
            Location::Folder(folder) => {
                let folder = match folder.canonicalize() {
                    Ok(folder) => folder,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let url = Url::from_directory_path(&folder).map_err(|()| {
                    Error::new(Kind::Io, format!("{} is no absolute path", folder.display()))
                })?;
                (Location::Folder(folder), url, Arc::new(SyncedStore::new()))
            }
            Location::Bucket(url) => {
                // A wrong address is told soon; a store that was there is waited for.
                bucket::probe(bucket::open(url, PROBE_FOR)?.as_ref(), url).await?;
                (location.clone(), url.clone(), bucket::open(url, RETRY_FOR)?)
            }
        };
        let prefix =
            Path::from_url_path(url.path()).map_err(|e| Error::new(Kind::Io, e.to_string()))?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&whole), prefix));
        Ok(Some(Self { location, url, whole, store }))
    }

    /// As users name it.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// Its address, with a slash at the end.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The store whose root is the root of the file system or of the bucket.
    pub(super) fn whole(&self) -> &Arc<dyn ObjectStore> {
        &self.whole
    }

    /// The store whose root is the warehouse.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// A document; `None` when there is none.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.store.get(&Path::from(path)).await {
            Ok(found) => Ok(Some(found.bytes().await?.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a document that only the owner may read in the place of another.
    pub(super) async fn replace_private(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        match self.location.folder() {
            Some(folder) => {
                let beside = write_beside(&folder.join(path), &bytes)?;
                std::fs::rename(beside, folder.join(path))?;
                sync_parent(&folder.join(path))
            }
            None => {
                self.store.put(&Path::from(path), PutPayload::from(bytes)).await?;
                Ok(())
            }
        }
    }

    /// Writes a document that only the owner may read, unless there is one.
    pub(super) async fn create_private(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        match self.location.folder() {
            Some(folder) => {
                let path = folder.join(path);
                let beside = write_beside(&path, &bytes)?;
                let linked = std::fs::hard_link(&beside, &path);
                std::fs::remove_file(&beside)?;
                match linked {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                        Err(error.into())
                    }
                    _ => sync_parent(&path),
                }
            }
            None => {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let payload = PutPayload::from(bytes);
                match self.store.put_opts(&Path::from(path), payload, options).await {
                    Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// A number that a document has and its copy, with the same bytes, has not.
    pub(super) async fn identity(&self, path: &str) -> Result<u64> {
        match self.location.folder() {
            Some(folder) => Ok(std::fs::metadata(folder.join(path))?.ino()),
            None => {
                let written = self.store.head(&Path::from(path)).await?.last_modified;
                Ok(written.timestamp_micros().unsigned_abs())
            }
        }
    }

    /// Removes what is left of a folder whose files are deleted.
    pub(super) fn remove_folder(&self, path: &str) {
        if let Some(folder) = self.location.folder() {
            // Empty folders are only untidy.
            let _ = std::fs::remove_dir_all(folder.join(path));
        }
    }

    /// Removes a file, as the last thing that is done here; that it stays is only untidy.
    pub(super) fn remove_at_last(&self, path: &Path) {
        /// A store that does not answer is not waited for.
        const WAIT: Duration = Duration::from_secs(2);
        if let Some(folder) = self.location.folder() {
            let _ = std::fs::remove_file(folder.join(path.as_ref()));
            return;
        }
        let (store, path) = (Arc::clone(&self.store), path.clone());
        // This may be within a runtime, or after the end of one.
        let (done, is_done) = std::sync::mpsc::channel();
        let removing = std::thread::Builder::new().spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            {
                let removed = async { tokio::time::timeout(WAIT, store.delete(&path)).await };
                let _ = runtime.block_on(removed);
                // A search for the store's address may go on.
                runtime.shutdown_background();
            }
            let _ = done.send(());
        });
        if removing.is_ok() {
            let _ = is_done.recv_timeout(WAIT);
        }
    }
}

/// Writes a private file that nobody looks for, durably, and gives its path.
fn write_beside(path: &FsPath, bytes: &[u8]) -> Result<PathBuf> {
    use std::io::Write;
    let beside = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

fn sync_parent(path: &FsPath) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown_as_they_are_named() {
        let folder: Location = "./warehouse".parse().unwrap();
        assert_eq!(folder, Location::Folder(PathBuf::from("./warehouse")));
        assert_eq!("gs://b/x".parse::<Location>().unwrap_err().sqlstate(), "0A000");
        if cfg!(feature = "s3") {
            let bucket: Location = "s3://shop/clientele/".parse().unwrap();
            assert_eq!(bucket.to_string(), "s3://shop/clientele");
            assert_eq!(bucket, "s3://shop/clientele".parse().unwrap());
            for bad in [
                "s3://",
                "s3:///x",
                "s3://key:secret@shop/x",
                "s3://shop/x?y=1",
                "s3://shop//x",
                "s3:shop/x",
            ] {
                let error = bad.parse::<Location>().unwrap_err();
                assert_eq!(error.sqlstate(), "22023", "{bad}");
                assert!(!error.to_string().contains("secret"));
            }
        }
    }
}
