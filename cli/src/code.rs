//! Contract code as a user names it.

use std::path::Path;

use alloy_primitives::{Bytes, hex};
use anyhow::{Context, bail};
use serde::Deserialize;

/// Runtime code: hex, a file with hex, or a compiler artefact (`deployedBytecode`).
///
/// # Errors
/// If it is none of these.
pub fn read_code(code: &str) -> anyhow::Result<Bytes> {
    /// The part of a compiler artefact that is needed.
    #[derive(Deserialize)]
    struct Artefact {
        #[serde(rename = "deployedBytecode")]
        code: Bytes,
    }
    let path = Path::new(code);
    let is_hex = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if !path.exists() {
        if is_hex(code) {
            return Ok(hex::decode(code).context("--code has an odd number of hex digits")?.into());
        }
        bail!("--code {code:?} is neither hex nor a file that exists");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("code {code}"))?;
    if text.trim_start().starts_with('{') {
        let artefact: Artefact =
            serde_json::from_str(&text).with_context(|| format!("{code} is not a compiler artefact"))?;
        return Ok(artefact.code);
    }
    Ok(hex::decode(text.trim()).with_context(|| format!("{code} is not hex"))?.into())
}
