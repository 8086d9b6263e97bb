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
    crypto::ring,
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

impl Shown {
    /// Shows what is in the files now, if that is not what is known; says whether it was new.
    fn look(&self, known: &mut Files, tls: &Tls) -> anyhow::Result<bool> {
        let now = Files::read(tls)?;
        if now == *known {
            return Ok(false);
        }
        let certified = Arc::new(now.certified()?);
        *self.0.write().expect("nothing panics while it holds this lock") = certified;
        *known = now;
        Ok(true)
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
    let shown = Arc::new(Shown(RwLock::new(Arc::new(known.certified()?))));
    let (following, tls) = (Arc::clone(&shown), tls.clone());
    tokio::spawn(async move {
        while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
            match following.look(&mut known, &tls) {
                Ok(true) => tracing::info!("the certificate is a new one"),
                Ok(false) => {}
                // They may be in the middle of being replaced: then they are usable the next time.
                Err(error) => tracing::warn!("the certificate's files are not usable, the old ones stay: {error:#}"),
            }
        }
    });
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_cert_resolver(shown))
}

impl Files {
    fn read(tls: &Tls) -> anyhow::Result<Self> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).with_context(|| format!("server.tls.{key}: cannot read {}", path.display()))
        };
        Ok(Self { certificate: read("certificate", &tls.certificate)?, key: read("key", &tls.key)? })
    }

    fn certified(&self) -> anyhow::Result<CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.context("server.tls.certificate is not readable as PEM")?;
        anyhow::ensure!(!chain.is_empty(), "server.tls.certificate holds no certificate");
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("server.tls.key holds no private key in PEM")?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .context("server.tls: certificate and key are not usable together")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = include_str!("../../../tests/tls/server.pem");
    const AUTHORITY: &str = include_str!("../../../tests/tls/authority.pem");
    const KEY: &str = include_str!("../../../tests/tls/server.key");

    #[test]
    fn a_new_certificate_is_shown_and_an_unusable_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls { certificate: folder.path().join("crt"), key: folder.path().join("key") };
        std::fs::write(&tls.certificate, SERVER).unwrap();
        std::fs::write(&tls.key, KEY).unwrap();
        let mut known = Files::read(&tls).unwrap();
        let shown = Shown(RwLock::new(Arc::new(known.certified().unwrap())));
        let certificates = || shown.0.read().unwrap().cert.len();
        assert!(!shown.look(&mut known, &tls).unwrap());
        for unusable in ["", "half of a certif", AUTHORITY] {
            std::fs::write(&tls.certificate, unusable).unwrap();
            assert!(shown.look(&mut known, &tls).is_err(), "{unusable}");
            assert_eq!(certificates(), 1);
        }
        std::fs::write(&tls.certificate, [SERVER, AUTHORITY].concat()).unwrap();
        assert!(shown.look(&mut known, &tls).unwrap());
        assert_eq!(certificates(), 2);
    }
}
