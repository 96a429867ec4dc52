//! A bucket of an object store: how it is reached, and whether it can hold a warehouse.

use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::error::{Error, Kind, Result};

#[cfg(feature = "s3")]
pub(super) use s3::open;

#[cfg(not(feature = "s3"))]
pub(super) fn open(_: &Url, _: Duration) -> Result<std::sync::Arc<dyn ObjectStore>> {
    Err(Error::not_supported("this program was built without the feature s3"))
}

/// How long a request is tried again.
pub(super) const RETRY_FOR: Duration = Duration::from_secs(60);

/// How long the first request of all is.
pub(super) const PROBE_FOR: Duration = Duration::from_secs(5);

/// The variable that says where buckets are, and what it says; `None` for those of Amazon.
fn endpoint() -> Option<(&'static str, String)> {
    /// The first of them counts.
    const NAMES: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let set = |name| Some((name, std::env::var(name).ok()?.trim().to_owned()));
    NAMES.into_iter().filter_map(set).find(|(_, address)| !address.is_empty())
}

/// Refuses a bucket that would let two writers create the same object: every commit rests on that.
pub(super) async fn probe(bucket: &dyn ObjectStore, url: &Url) -> Result<()> {
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
        let asked = endpoint().map_or("Amazon".to_owned(), |(_, address)| address);
        return Err(Error::new(error.kind(), message).detail(format!("asked: {asked}")).hint(
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

#[cfg(feature = "s3")]
mod s3 {
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpService, ReqwestConnector,
    };
    use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
    use url::Url;

    use super::endpoint;
    use crate::error::{Error, Kind, Result};

    /// Most times that a request is tried again; its time is over first.
    const RETRIES_MAX: usize = 200;

    /// What is sent as it stands, so that a line's end in it could not be.
    const SENT: [(&str, AmazonS3ConfigKey); 5] = [
        ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
        ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
        ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
        ("AWS_DEFAULT_REGION", AmazonS3ConfigKey::DefaultRegion),
        ("AWS_REGION", AmazonS3ConfigKey::Region),
    ];

    /// The bucket, with credentials, region and endpoint from the usual `AWS_...` variables. A request that fails on the store's side,
    /// does not reach it, or is not answered to the end, is tried again for so long.
    pub(in crate::store) fn open(url: &Url, retry_for: Duration) -> Result<Arc<dyn ObjectStore>> {
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
        for (name, key) in SENT {
            if let Some(value) = clean(name)? {
                builder = builder.with_config(key, value);
            }
        }
        if clean(SENT[0].0)?.is_some() != clean(SENT[1].0)?.is_some() {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("of {} and {} only one is set", SENT[0].0, SENT[1].0),
            )
            .hint("set both, or none for a web identity or the machine's role"));
        }
        if let Some((name, address)) = endpoint() {
            check_endpoint(name, &address)?;
            if address.starts_with("http://") {
                // Who names a plain endpoint means it.
                let allowed = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
                builder = builder.with_config(allowed, "true");
            }
            builder = builder.with_endpoint(address);
        }
        // A pause is by chance between the first and four times the one before: with the usual twice they do not grow.
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 4.0,
        };
        let retries = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: retry_for };
        Ok(Arc::new(builder.with_retry(retries).with_http_connector(Repeating).build()?))
    }

    /// A variable without the line's end that one from a file has.
    fn clean(name: &str) -> Result<Option<String>> {
        let Ok(value) = std::env::var(name) else { return Ok(None) };
        let value = value.trim();
        if value.chars().any(|c| c.is_control() || !c.is_ascii()) {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("{name} has a character in it that cannot be sent"),
            ));
        }
        Ok(Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    fn check_endpoint(name: &str, endpoint: &str) -> Result<()> {
        let url = Url::parse(endpoint).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let is_open = |url: &Url| url.username().is_empty() && url.password().is_none();
        let wrong = match url {
            Some(url) if is_open(&url) => return Ok(()),
            // It is not shown: there is a password in it.
            Some(_) => format!("{name} has a user or a password in it"),
            None => {
                format!("{name} is {endpoint:?}; an address with http:// or https:// is needed")
            }
        };
        Err(Error::new(Kind::InvalidParameter, wrong).hint(
            "without the variable the buckets of Amazon are meant; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say who asks",
        ))
    }

    /// Connections whose requests are all tried again when they are not answered to the end.
    ///
    /// The library does so where it believes that a request has no effect. Ours may all be carried out twice: an object is written
    /// whole, or created, and who finds it there looks whether it is his.
    #[derive(Debug)]
    struct Repeating;

    impl HttpConnector for Repeating {
        fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
            Ok(HttpClient::new(Whole(ReqwestConnector::default().connect(options)?)))
        }
    }

    /// Gives answers when they are there to the end.
    #[derive(Debug)]
    struct Whole(HttpClient);

    #[async_trait::async_trait]
    impl HttpService for Whole {
        async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
            let repeated = |error| HttpError::new(HttpErrorKind::Request, error);
            let answer = self.0.execute(request).await.map_err(|error| match error.kind() {
                HttpErrorKind::Interrupted | HttpErrorKind::Timeout => repeated(error),
                _ => error,
            })?;
            let (head, body) = answer.into_parts();
            // Of what is cut off in the middle nothing is used.
            let body = body.bytes().await.map_err(repeated)?;
            Ok(HttpResponse::from_parts(head, body.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use object_store::memory::InMemory;

    use super::*;

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
