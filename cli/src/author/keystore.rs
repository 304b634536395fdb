//! Encrypted key files: Web3 Secret Storage, version 3. What somebody else may have written is looked at before it is used.

use std::fs;
use std::path::Path;

use alloy_primitives::hex;
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, ensure};
use serde::Deserialize;

/// Bytes of a key file, at most.
const MOST_BYTES: u64 = 64 << 10;
/// Memory that scrypt may take, in bytes: four times what wallets write.
const MOST_MEMORY: u64 = 1 << 30;
/// Work that a password may take: rounds of PBKDF2, or of scrypt's blocks.
const MOST_ROUNDS: u64 = 1 << 26;

/// What decides whether a key file can be opened, and at what cost.
#[derive(Debug, Deserialize)]
struct KeyFile {
    crypto: Crypto,
    version: u32,
}

#[derive(Debug, Deserialize)]
struct Crypto {
    cipher: String,
    ciphertext: String,
    cipherparams: CipherParameters,
    kdfparams: KdfParameters,
}

#[derive(Debug, Deserialize)]
struct CipherParameters {
    iv: String,
}

/// Of PBKDF2 (`c`) or scrypt (`n`, `p`, `r`).
#[derive(Debug, Deserialize)]
struct KdfParameters {
    dklen: u64,
    c: Option<u64>,
    n: Option<u64>,
    p: Option<u64>,
    r: Option<u64>,
}

/// Opens a key file.
///
/// # Errors
/// What is wrong with the file, or that the password is not its.
pub fn open(path: &Path, password: &str) -> anyhow::Result<PrivateKeySigner> {
    let length = fs::metadata(path)?.len();
    ensure!(length <= MOST_BYTES, "{length} bytes are too many for a key file");
    // The parser's error would show what it read.
    let file: KeyFile = serde_json::from_str(&fs::read_to_string(path)?)
        .ok()
        .context("it is not a key file (Web3 Secret Storage, as geth, cast and wallets write it)")?;
    check(&file)?;
    PrivateKeySigner::decrypt_keystore(path, password).ok().context("this is not its password")
}

fn check(file: &KeyFile) -> anyhow::Result<()> {
    let KeyFile { crypto, version } = file;
    ensure!(*version == 3, "it is a key file of version {version}; only version 3 is read");
    ensure!(crypto.cipher == "aes-128-ctr", "its cipher is not aes-128-ctr");
    let bytes = |text: &str| hex::decode(text).map_or(0, |bytes| bytes.len());
    let KdfParameters { dklen, c, n, p, r } = &crypto.kdfparams;
    ensure!(*dklen == 32, "its `dklen` is {dklen}, not 32");
    ensure!(bytes(&crypto.cipherparams.iv) == 16, "its `iv` has not 16 bytes");
    ensure!(bytes(&crypto.ciphertext) == 32, "its `ciphertext` has not 32 bytes");
    let (rounds, memory) = match (c, n, p, r) {
        (Some(rounds), None, None, None) => (*rounds, 0),
        (None, Some(n), Some(p), Some(r)) => {
            ensure!(n.is_power_of_two(), "its `n` is {n}, which is no power of two");
            (n.saturating_mul(*p).saturating_mul(*r), n.saturating_mul(*r).saturating_mul(128))
        }
        _ => anyhow::bail!("its `kdfparams` are neither those of scrypt nor of PBKDF2"),
    };
    ensure!(rounds > 0 && rounds <= MOST_ROUNDS, "its key derivation has {rounds} rounds");
    ensure!(memory <= MOST_MEMORY, "its key derivation takes {} MiB", memory >> 20);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The vector of the Web3 Secret Storage definition; its password is `testpassword`.
    fn vector() -> Value {
        json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
                "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
                "kdf": "pbkdf2",
                "kdfparams": {
                    "c": 262_144,
                    "dklen": 32,
                    "prf": "hmac-sha256",
                    "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
                },
                "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3,
        })
    }

    fn opened(file: &str, password: &str) -> Result<PrivateKeySigner, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        fs::write(&path, file).unwrap();
        open(&path, password).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_opens_with_its_password_alone() {
        let signer = opened(&vector().to_string(), "testpassword").unwrap();
        let key = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        assert_eq!(signer.to_bytes(), key.parse::<alloy_primitives::B256>().unwrap());
        assert_eq!(opened(&vector().to_string(), "other").unwrap_err(), "this is not its password");
    }

    #[test]
    fn files_that_would_do_harm_are_refused_with_the_reason() {
        let scrypt = |n: u64, r: u64| json!({ "dklen": 32, "n": n, "p": 1, "r": r, "salt": "00" });
        for (pointer, value, says) in [
            ("/version", json!(1), "version 1"),
            ("/crypto/cipher", json!("aes-256-cbc"), "cipher"),
            ("/crypto/cipherparams/iv", json!("6087"), "`iv`"),
            ("/crypto/ciphertext", json!("6087"), "`ciphertext`"),
            ("/crypto/kdfparams/dklen", json!(16), "`dklen` is 16"),
            ("/crypto/kdfparams/c", json!(4_000_000_000u64), "4000000000 rounds"),
            ("/crypto/kdfparams/c", json!(0), "0 rounds"),
            ("/crypto/kdfparams", scrypt(1 << 20, 64), "takes 8192 MiB"),
            ("/crypto/kdfparams", scrypt(1_000, 8), "no power of two"),
            ("/crypto/kdfparams", json!({ "dklen": 32, "salt": "00" }), "neither"),
            ("/crypto", json!("secret words"), "not a key file"),
        ] {
            let mut file = vector();
            *file.pointer_mut(pointer).unwrap() = value;
            let error = opened(&file.to_string(), "testpassword").unwrap_err();
            assert!(error.contains(says) && !error.contains("secret words"), "{pointer}: {error}");
        }
        assert!(opened(&" ".repeat(70_000), "").unwrap_err().contains("too many"));
        assert!(opened("secret words", "").unwrap_err().starts_with("it is not a key file"));
    }
}
