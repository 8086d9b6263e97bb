//! The server's certificate: read at start, and again when its files change, so that it can be renewed without a restart.

use std::{
    fmt,
    path::Path,
    sync::{Arc, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::config::Tls;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(30);

/// What is shown to clients now.
struct Shown(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().expect("nothing panics while it holds this lock")))
    }
}

/// The files' bytes.
#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// How the server speaks TLS; looks at the files until `closed`.
///
/// # Errors
///
/// When they cannot be read, or do not fit each other.
pub fn serving(tls: &Tls, mut closed: watch::Receiver<bool>) -> anyhow::Result<ServerConfig> {
    let mut known = Files::read(tls)?;
    let shown = Arc::new(Shown(RwLock::new(Arc::new(known.certified(&provider())?))));
    let (following, tls) = (Arc::clone(&shown), tls.clone());
    tokio::spawn(async move {
        while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
            match Files::read(&tls) {
                Ok(now) if now == known => {}
                Ok(now) => {
                    // They may be in the middle of being replaced: then they fit the next time.
                    match now.certified(&provider()) {
                        Ok(certified) => {
                            *following.0.write().expect("nothing panics while it holds this lock") =
                                Arc::new(certified);
                            known = now;
                            tracing::info!("the certificate is a new one");
                        }
                        Err(error) => tracing::warn!("the new certificate is not usable: {error:#}; the old one stays"),
                    }
                }
                Err(error) => tracing::warn!("the certificate cannot be looked at: {error:#}"),
            }
        }
    });
    let config = ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_cert_resolver(shown))
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

impl Files {
    fn read(tls: &Tls) -> anyhow::Result<Self> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).with_context(|| format!("server.tls.{key}: cannot read {}", path.display()))
        };
        Ok(Self { certificate: read("certificate", &tls.certificate)?, key: read("key", &tls.key)? })
    }

    fn certified(&self, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.context("server.tls.certificate is not readable as PEM")?;
        anyhow::ensure!(!chain.is_empty(), "server.tls.certificate holds no certificate");
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("server.tls.key holds no private key in PEM")?;
        CertifiedKey::from_der(chain, key, provider).context("server.tls: certificate and key are not usable together")
    }
}
