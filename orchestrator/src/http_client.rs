//! HTTP clients for everything but the calls to participants.

use reqwest::{Client, ClientBuilder};

/// A client to build. It has TLS, which is chosen once per process; the client wants one even where it is not used.
pub fn builder() -> ClientBuilder {
    // Errs when it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
