//! What the chain's configuration says of the model registry, and of the Metis SDK's precompile.

use std::path::PathBuf;

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

/// The model registry: `contracts/src/ModelRegistry.sol`, there from genesis with these rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Seconds between a model's registration and its activation.
    pub maturity_seconds: u64,
    /// Seconds that a deprecated model can still be called.
    pub notice_seconds: u64,
    /// Largest model, in MiB.
    pub max_model_mebibytes: u32,
    /// What all active models may have together, in MiB: what every validator holds.
    pub resident_mebibytes: u32,
    /// Days of rent that may be paid ahead.
    pub max_rent_days: u16,
    /// Bond for each model, in gwei.
    pub bond_gwei: u64,
    /// Bond for each MiB, in gwei.
    pub bond_gwei_per_mebibyte: u64,
    /// Rent for each MiB and day, in gwei.
    pub rent_gwei_per_mebibyte_day: u64,
    /// Who gets the rent; the zero address burns it.
    pub collector: Address,
    /// Where this node keeps bundles, each in a folder named after its id, relative to the file; the only field that is not consensus.
    pub bundles: PathBuf,
}

/// Folder of bundles unless the configuration names one.
const BUNDLES: &str = "models";

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            maturity_seconds: 86_400,
            notice_seconds: 7 * 86_400,
            max_model_mebibytes: 64,
            resident_mebibytes: 16_384,
            max_rent_days: 365,
            bond_gwei: 100_000_000,
            bond_gwei_per_mebibyte: 1_000_000,
            rent_gwei_per_mebibyte_day: 10_000,
            collector: Address::ZERO,
            bundles: BUNDLES.into(),
        }
    }
}

impl RegistryConfig {
    /// What is wrong with the rules: the field, its value and the rule.
    pub(super) fn check(&self) -> Result<(), (&'static str, u64, &'static str)> {
        const MOST_SECONDS: u64 = 1 << 32;
        let at_most = |field, value: u64, max: u64, rule| {
            if value > max { Err((field, value, rule)) } else { Ok(()) }
        };
        // The contract keeps times in 40 bits, sizes in 24 and money in 96.
        at_most("registry.maturity_seconds", self.maturity_seconds, MOST_SECONDS, "it must be at most 2^32")?;
        at_most("registry.notice_seconds", self.notice_seconds, MOST_SECONDS, "it must be at most 2^32")?;
        let rule = "it must be less than 2^24";
        at_most("registry.resident_mebibytes", self.resident_mebibytes.into(), (1 << 24) - 1, rule)?;
        if self.max_model_mebibytes == 0 || self.max_model_mebibytes > self.resident_mebibytes {
            let rule = "it must be at least 1 and at most registry.resident_mebibytes";
            return Err(("registry.max_model_mebibytes", self.max_model_mebibytes.into(), rule));
        }
        if self.max_rent_days == 0 {
            return Err(("registry.max_rent_days", 0, "it must be at least 1"));
        }
        Ok(())
    }
}

/// The Metis SDK's precompile at `0x…0999`: raw text in, raw text out. Off unless it is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LegacyConfig {
    /// Whether the chain has it.
    pub enabled: bool,
    /// Most tokens of an answer.
    pub max_new_tokens: u32,
}

impl Default for LegacyConfig {
    fn default() -> Self {
        Self { enabled: false, max_new_tokens: 128 }
    }
}

impl LegacyConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
