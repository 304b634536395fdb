//! Where a key comes from.

use std::io::IsTerminal;
use std::path::PathBuf;

use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail};
use clap::Args;

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
                PrivateKeySigner::decrypt_keystore(file, password).with_context(|| {
                    format!("--keystore {}: not a key file, or not its password", file.display())
                })
            }
            (None, None) => bail!("give --key-env or --keystore"),
        }
    }
}

fn variable_of(option: &str, name: &str) -> anyhow::Result<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
        format!("{option} {name}: there is no such environment variable; set it before the command, not on its line")
    })
}
