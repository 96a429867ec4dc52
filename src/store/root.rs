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
                probe(bucket(url, PROBE_FOR)?.as_ref(), url).await?;
                (location.clone(), url.clone(), bucket(url, RETRY_FOR)?)
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

    /// Removes a file without waiting, where that can be done.
    pub(super) fn remove_now(&self, path: &Path) {
        if let Some(folder) = self.location.folder() {
            let _ = std::fs::remove_file(folder.join(path.as_ref()));
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

#[cfg(not(feature = "s3"))]
fn bucket(_: &Url, _: Duration) -> Result<Arc<dyn ObjectStore>> {
    Err(Error::not_supported("this program was built without the feature s3"))
}

/// The bucket, with credentials, region and endpoint from the usual `AWS_...` variables. A request that fails on the store's side, or
/// does not reach it, is tried again for so long.
#[cfg(feature = "s3")]
fn bucket(url: &Url, retry_for: Duration) -> Result<Arc<dyn ObjectStore>> {
    use object_store::ClientConfigKey;
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let named = endpoint.into_iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    if let Some((name, endpoint)) = &named
        && !Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("{name} is {endpoint:?}; an address with http:// or https:// is needed"),
        )
        .hint("without the variable the buckets of Amazon are meant"));
    }
    let endpoint = named.map(|(_, endpoint)| endpoint);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        // Who names a plain endpoint means it.
        builder =
            builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    // A pause is by chance between the first and four times the one before: with the usual twice they do not grow.
    let backoff = object_store::BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 4.0,
    };
    let retries =
        object_store::RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: retry_for };
    Ok(Arc::new(builder.with_retry(retries).build()?))
}

/// Most times that a request is tried again; its time is over first.
#[cfg(feature = "s3")]
const RETRIES_MAX: usize = 200;

/// How long a request is tried again.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// How long the first request of all is.
const PROBE_FOR: Duration = Duration::from_secs(5);

/// Refuses a bucket that would let two writers create the same object: every commit rests on that.
async fn probe(bucket: &dyn ObjectStore, url: &Url) -> Result<()> {
    let prefix =
        Path::from_url_path(url.path()).map_err(|e| Error::new(Kind::Io, e.to_string()))?;
    let name = format!("probe-{}", uuid::Uuid::new_v4().simple());
    let at = prefix.join("_clientele").join(name);
    let create = || {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        bucket.put_opts(&at, PutPayload::from_static(b"probe"), options)
    };
    let first = create().await;
    if let Err(error @ object_store::Error::NotFound { .. }) = first {
        tracing::debug!(%error, "the bucket was not found");
        let name = url.host_str().unwrap_or_default();
        return Err(Error::new(Kind::UndefinedFile, format!("there is no bucket {name:?}"))
            .hint("AWS_REGION and AWS_ENDPOINT_URL say where buckets are looked for"));
    }
    // A first try that was carried out and not answered makes the one after it fail.
    if let Err(error) = first
        && !matches!(error, object_store::Error::AlreadyExists { .. })
    {
        let (error, name) = (Error::from(error), url.host_str().unwrap_or_default());
        let message = format!("the bucket {name:?} cannot be used: {}", error.message());
        return Err(Error::new(error.kind(), message).hint(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity or the machine's role say who asks; \
             AWS_REGION and AWS_ENDPOINT_URL say where",
        ));
    }
    let second = create().await;
    if let Err(error) = bucket.delete(&at).await {
        tracing::debug!(%error, "the probe could not be removed");
    }
    match second {
        Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Error::not_supported(format!(
            "the store of {url} lets two writers create the same object; a warehouse there would lose commits"
        ))
        .hint("conditional PUT (If-None-Match) is needed, as AWS S3 and MinIO have it")),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

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
            for bad in ["s3://", "s3:///x", "s3://key:secret@shop/x", "s3://shop/x?y=1"] {
                let error = bad.parse::<Location>().unwrap_err();
                assert_eq!(error.sqlstate(), "22023", "{bad}");
                assert!(!error.to_string().contains("secret"));
            }
        }
    }

    /// A store that does what an S3 clone without conditional PUT does.
    #[derive(Debug)]
    struct Careless(InMemory);

    impl fmt::Display for Careless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Careless")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            _: PutOptions,
        ) -> object_store::Result<object_store::PutResult> {
            self.0.put(location, payload).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: object_store::PutMultipartOptions,
        ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
            self.0.put_multipart_opts(location, options).await
        }

        async fn get_opts(
            &self,
            location: &Path,
            options: object_store::GetOptions,
        ) -> object_store::Result<object_store::GetResult> {
            self.0.get_opts(location, options).await
        }

        fn delete_stream(
            &self,
            locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(locations)
        }

        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>
        {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(
            &self,
            prefix: Option<&Path>,
        ) -> object_store::Result<object_store::ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: object_store::CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_store_that_creates_an_object_twice_is_refused() {
        let url = Url::parse("s3://shop/clientele/").unwrap();
        let good = InMemory::new();
        probe(&good, &url).await.unwrap();
        use futures::TryStreamExt;
        assert!(good.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
        let error = probe(&Careless(InMemory::new()), &url).await.unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
        assert!(error.message().contains("two writers"), "{error}");
    }
}
