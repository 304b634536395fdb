//! Where a key comes from.

use std::io::IsTerminal;
use std::path::PathBuf;

use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail, ensure};
use clap::Args;

use super::keystore;

/// The key that signs. It is read from the environment or from an encrypted file, so that it is in no command line and in no history.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false, id = "key")]
pub struct KeySource {
    /// An environment variable that holds the private key, 32 bytes in hex.
    #[arg(long, value_name = "VARIABLE", group = "key")]
    key_env: Option<String>,
    /// An encrypted key file (Web3 Secret Storage, as geth, Foundry's `cast` and wallets write it).
    #[arg(long, value_name = "FILE", group = "key")]
    keystore: Option<PathBuf>,
}

/// What opens an encrypted file.
#[derive(Clone, Debug, Args)]
pub struct Password {
    /// An environment variable that holds the keystore's password; without it, it is asked for.
    #[arg(long, value_name = "VARIABLE", requires = "keystore")]
    password_env: Option<String>,
}

impl KeySource {
    /// The signer.
    ///
    /// # Errors
    /// What is missing, and never what was found.
    pub fn signer(&self, password: &Password) -> anyhow::Result<PrivateKeySigner> {
        match (&self.key_env, &self.keystore) {
            (Some(variable), _) => {
                let key = variable_of("--key-env", variable)?;
                // The error of the parser would show what it read.
                key.trim().parse().ok().with_context(|| {
                    format!("--key-env {variable}: it does not hold a private key, which is 64 hex digits")
                })
            }
            (None, Some(file)) => {
                let password = match &password.password_env {
                    Some(variable) => variable_of("--password-env", variable)?,
                    None if std::io::stdin().is_terminal() => {
                        rpassword::prompt_password(format!("password of {}: ", file.display()))?
                    }
                    None => bail!("--keystore {}: give its password with --password-env", file.display()),
                };
                keystore::open(file, &password).with_context(|| format!("--keystore {}", file.display()))
            }
            (None, None) => bail!("give --key-env or --keystore"),
        }
    }
}

fn variable_of(option: &str, name: &str) -> anyhow::Result<String> {
    // Who writes `$KEY` instead of `KEY` gives the key itself, which must not be repeated.
    ensure!(
        is_variable(name),
        "{option} takes the name of an environment variable, such as METIS_KEY, and this is none; if it was a key or a password, \
         it is in your shell's history now, and should not be used any more"
    );
    std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
        format!("{option} {name}: there is no such environment variable; set it before the command, not on its line")
    })
}

/// Whether a shell could have a variable of this name, and a key does not look like it.
fn is_variable(name: &str) -> bool {
    let digits = name.strip_prefix("0x").unwrap_or(name);
    let is_key = digits.len() >= 60 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name && !is_key && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_passwords_are_no_names() {
        for name in ["METIS_KEY", "_k", "KEY1"] {
            assert!(is_variable(name), "{name}");
        }
        let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        for name in [key, &format!("0x{key}"), "", "1KEY", "correct horse", "p@ss", "KEY=1"] {
            assert!(!is_variable(name), "{name}");
            let error = format!("{:#}", variable_of("--key-env", name).unwrap_err());
            assert!(name.is_empty() || !error.contains(name), "{error}");
        }
    }
}
