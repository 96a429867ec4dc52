//! TLS: a certificate that cannot be loaded stops the start, it never falls back to plain.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

use crate::config::Tls;
use crate::error::{Error, Kind, Result};

/// Accepts TLS connections.
pub(crate) type Acceptor = TlsAcceptor;

/// The acceptor of the configured certificate; `None` when there is none.
pub(super) fn acceptor(tls: &Tls) -> Result<Option<Acceptor>> {
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else { return Ok(None) };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(|certs| certs.collect::<std::result::Result<Vec<_>, _>>())
        .map_err(|error| unusable("certificate", cert, &error))?;
    if chain.is_empty() {
        return Err(unusable("certificate", cert, &"the file holds none"));
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("private key", key, &error))?;
    // The provider is named, because two are compiled in and the default of rustls would then panic.
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("certificate", cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| unusable("certificate", cert, &error))?;
    let mut config = config;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn unusable(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("the {what} in {} cannot be used: {error}", path.display()))
        .hint("PEM files are needed: tls.cert the chain, tls.key the key of its first certificate")
}
