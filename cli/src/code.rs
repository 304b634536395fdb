//! Contract code as a user names it.

use std::path::Path;

use alloy_primitives::{Bytes, hex};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// What a file should be that is something else.
const EXPECTED: &str = "is neither hex text nor a compiler artefact in JSON";

/// Runtime code: hex, a file with hex, or a compiler artefact (`deployedBytecode`).
///
/// # Errors
/// If it is none of these, or a file without code.
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
    let bytes = std::fs::read(path).with_context(|| format!("--code {code}"))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{code} {EXPECTED}"))?;
    let text = text.trim();
    let read: Bytes = if text.starts_with('{') {
        let artefact: Artefact =
            serde_json::from_str(text).with_context(|| format!("{code} is not a compiler artefact"))?;
        artefact.code
    } else if text.is_empty() {
        Bytes::new()
    } else {
        hex::decode(text).with_context(|| format!("{code} {EXPECTED}"))?.into()
    };
    ensure!(!read.is_empty(), "{code} is empty: there is no code in it");
    Ok(read)
}
