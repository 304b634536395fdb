//! HTTP clients, with TLS in Rust.

use std::time::Duration;

/// A client whose requests end.
pub(crate) fn asynchronous(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().timeout(timeout).build()?)
}
