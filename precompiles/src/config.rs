//! The chain's configuration: `chain.toml`, section by section in `docs/gas.md` and `docs/abi.md`.
//!
//! All of it is consensus: two nodes with different configurations are on different chains.

mod registry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use metis_vm::{SpecId, fork};
use revm::primitives::eip7825::TX_GAS_LIMIT_CAP;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::gas::GasSchedule;
use crate::market::Market;

pub use registry::{LegacyConfig, RegistryConfig};

/// What a chain fixes about itself and its models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainConfig {
    /// The chain id (EIP-155).
    pub chain_id: u64,
    /// The name of the hard fork, for the EVM to parse.
    pub fork: String,
    /// The most gas that one transaction may ask for; `None` is the fork's own rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_gas_cap: Option<u64>,
    /// The model that `bytes32(0)` stands for.
    pub default_model: B256,
    /// What calls cost.
    pub gas: GasSchedule,
    /// Limits on the arguments of calls.
    pub caps: Caps,
    /// The registry through which other models come; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryConfig>,
    /// Price and limit of inference; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<Market>,
    /// The Metis SDK's precompile.
    #[serde(skip_serializing_if = "LegacyConfig::is_default")]
    pub legacy: LegacyConfig,
    /// The models that this chain has from genesis.
    pub models: Vec<ModelEntry>,
}

/// Limits on the arguments of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Bytes of a text.
    pub max_prompt_bytes: u32,
    /// New tokens of a generation.
    pub max_new_tokens: u32,
    /// Labels of `score`.
    pub max_labels: u32,
    /// Bytes of one label.
    pub max_label_bytes: u32,
    /// Token ids of `logits` and `detokenize`.
    pub max_ids: u32,
    /// Stop tokens of a generation.
    pub max_stop_ids: u32,
    /// Messages of a conversation.
    pub max_messages: u32,
    /// Bytes of a pattern.
    pub max_pattern_bytes: u32,
    /// Positions and states of a constraint's automaton; at most [`MOST_AUTOMATON_STATES`].
    pub max_automaton_states: u32,
}

/// The price of an automaton holds up to this size.
pub const MOST_AUTOMATON_STATES: u32 = 4_096;

impl Default for Caps {
    fn default() -> Self {
        Self {
            max_prompt_bytes: 65_536,
            max_new_tokens: 4_096,
            max_labels: 64,
            max_label_bytes: 1_024,
            max_ids: 8_192,
            max_stop_ids: 16,
            max_messages: 64,
            max_pattern_bytes: 1_024,
            max_automaton_states: 1_024,
        }
    }
}

/// A model that the chain knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// `keccak256` of its canonical manifest.
    pub id: B256,
    /// The bundle's directory on this node; `None` for a model that the binary carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether it may be called.
    pub status: ModelStatus,
}

/// Whether a model may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelStatus {
    /// It may; every node must hold its weights.
    Active,
    /// Not yet.
    Pending,
    /// No more.
    Deprecated,
}

/// The file as it is written; what is left out has a default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainFile {
    chain_id: Option<u64>,
    fork: Option<String>,
    tx_gas_cap: Option<u64>,
    default_model: Option<B256>,
    #[serde(default)]
    gas: GasSchedule,
    #[serde(default)]
    caps: Caps,
    registry: Option<RegistryConfig>,
    market: Option<Market>,
    #[serde(default)]
    legacy: LegacyConfig,
    #[serde(default)]
    models: Vec<ModelEntry>,
}

/// A chain configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; name a readable chain.toml, or leave it out for the default chain", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown field, or a value of the wrong kind.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: Box<toml::de::Error>,
    },
    /// A value that makes no chain.
    #[error("{}: `{field}` is {actual}: {rule}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What to write instead.
        rule: &'static str,
    },
}

impl ChainConfig {
    /// The default chain around one model that the binary carries.
    pub fn embedded(model: B256) -> Self {
        Self {
            chain_id: 1,
            fork: "Osaka".to_owned(),
            tx_gas_cap: None,
            default_model: model,
            gas: GasSchedule::default(),
            caps: Caps::default(),
            registry: None,
            market: None,
            legacy: LegacyConfig::default(),
            models: vec![ModelEntry { id: model, path: None, status: ModelStatus::Active }],
        }
    }

    /// Reads a `chain.toml`. What it leaves out is as in [`embedded`](Self::embedded); the embedded model stays known unless the
    /// file lists it itself. Bundle paths are relative to the file.
    pub fn load(path: impl AsRef<Path>, embedded_model: B256) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path, embedded_model)
    }

    /// The same from text; `path` is where it came from.
    pub fn parse(text: &str, path: &Path, embedded_model: B256) -> Result<Self, ConfigError> {
        let file: ChainFile = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let default = Self::embedded(embedded_model);
        let mut models = file.models;
        if models.iter().all(|model| model.id != embedded_model) {
            models.extend(default.models);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for bundle in models.iter_mut().filter_map(|model| model.path.as_mut()) {
            *bundle = folder.join(&*bundle);
        }
        let mut registry = file.registry;
        if let Some(registry) = &mut registry {
            registry.bundles = folder.join(&registry.bundles);
        }
        let config = Self {
            chain_id: file.chain_id.unwrap_or(default.chain_id),
            fork: file.fork.unwrap_or(default.fork),
            tx_gas_cap: file.tx_gas_cap,
            default_model: file.default_model.unwrap_or(default.default_model),
            gas: file.gas,
            caps: file.caps,
            registry,
            market: file.market,
            legacy: file.legacy,
            models,
        };
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |field, actual: &dyn ToString, rule| {
            Err(ConfigError::Value { path: path.to_owned(), field, actual: actual.to_string(), rule })
        };
        if self.gas.macs_per_gas == 0 {
            return wrong("gas.macs_per_gas", &0, "it must be at least 1");
        }
        if self.caps.max_automaton_states > MOST_AUTOMATON_STATES {
            let states = self.caps.max_automaton_states;
            return wrong("caps.max_automaton_states", &states, "it must be at most 4096");
        }
        let sections = [self.registry.as_ref().map(RegistryConfig::check), self.market.map(|m| m.check())];
        if let Some((field, actual, rule)) = sections.into_iter().flatten().find_map(Result::err) {
            return wrong(field, &actual, rule);
        }
        if let Some(registry) = &self.registry
            && self.activation_gas(registry.max_model_mebibytes) > u128::from(self.most_gas())
        {
            let rule = "activating a model of this size takes 64/63 of gas.per_mebibyte for each MiB, which is more than one transaction may; \
                        raise tx_gas_cap, or lower this";
            return wrong("registry.max_model_mebibytes", &registry.max_model_mebibytes, rule);
        }
        if self.legacy.enabled && self.legacy.max_new_tokens > self.caps.max_new_tokens {
            let rule = "it must be at most caps.max_new_tokens";
            return wrong("legacy.max_new_tokens", &self.legacy.max_new_tokens, rule);
        }
        let mut ids = BTreeSet::new();
        if let Some(twice) = self.models.iter().find(|model| !ids.insert(model.id)) {
            return wrong("models.id", &twice.id, "list each model once");
        }
        let default = self.models.iter().find(|model| model.id == self.default_model);
        match default.map(|model| model.status) {
            Some(ModelStatus::Active) => Ok(()),
            Some(_) => wrong("default_model", &self.default_model, "its status must be \"active\""),
            None => wrong(
                "default_model",
                &self.default_model,
                "list it under [[models]] with status = \"active\"",
            ),
        }
    }
}

impl ChainConfig {
    /// What a transaction needs for comparing a bundle: a call passes on 63 of 64 parts of its gas (EIP-150).
    fn activation_gas(&self, mebibytes: u32) -> u128 {
        (u128::from(self.gas.verification(mebibytes).0) * 64).div_ceil(63)
    }

    /// The most gas that one transaction may ask for. Whoever builds the EVM refuses forks that it does not know.
    fn most_gas(&self) -> u64 {
        let bounded = fork::parse(&self.fork).is_ok_and(|fork| fork.is_enabled_in(SpecId::OSAKA));
        self.tx_gas_cap.unwrap_or(if bounded { TX_GAS_LIMIT_CAP } else { u64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gas::Gas;

    const MODEL: B256 = B256::repeat_byte(1);
    const OTHER: B256 = B256::repeat_byte(2);

    fn parse(text: &str) -> Result<ChainConfig, ConfigError> {
        ChainConfig::parse(text, Path::new("/etc/metis/chain.toml"), MODEL)
    }

    #[test]
    fn an_empty_file_is_the_default_chain() {
        assert_eq!(parse("").unwrap(), ChainConfig::embedded(MODEL));
    }

    #[test]
    fn a_full_file_is_read() {
        let config = parse(&format!(
            r#"
            chain_id = 59_001
            fork = "Prague"
            tx_gas_cap = 500_000_000
            default_model = "{OTHER}"

            [gas]
            base = 1
            macs_per_gas = 1_000

            [caps]
            max_new_tokens = 7

            [registry]
            maturity_seconds = 60
            bundles = "bundles"

            [market]
            target_gas = 5

            [legacy]
            enabled = true
            max_new_tokens = 6

            [[models]]
            id = "{OTHER}"
            path = "bundles/other"
            status = "active"
            "#
        ))
        .unwrap();
        assert_eq!(
            (config.chain_id, config.fork.as_str(), config.tx_gas_cap),
            (59_001, "Prague", Some(500_000_000))
        );
        assert_eq!(config.default_model, OTHER);
        assert_eq!(config.gas, GasSchedule { base: Gas(1), macs_per_gas: 1_000, ..GasSchedule::default() });
        assert_eq!(config.caps, Caps { max_new_tokens: 7, ..Caps::default() });
        let registry = RegistryConfig {
            maturity_seconds: 60,
            bundles: "/etc/metis/bundles".into(),
            ..RegistryConfig::default()
        };
        assert_eq!(config.registry, Some(registry));
        assert_eq!(config.market, Some(Market { target_gas: 5, ..Market::default() }));
        assert_eq!(config.legacy, LegacyConfig { enabled: true, max_new_tokens: 6 });
        assert_eq!(config.models[0].path.as_deref(), Some(Path::new("/etc/metis/bundles/other")));
        assert_eq!(config.models[1].id, MODEL, "the embedded model stays");
    }

    #[test]
    fn a_configuration_written_out_reads_back() {
        let config = ChainConfig::embedded(MODEL);
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn the_largest_model_can_be_activated_in_one_transaction() {
        let registry = |fork: &str, cap: &str, mebibytes: u32| {
            parse(&format!("fork = \"{fork}\"\n{cap}\n[registry]\nmax_model_mebibytes = {mebibytes}"))
        };
        assert!(parse("[registry]").is_ok(), "the defaults");
        // 2^24 gas have room for 82 MiB, and half a thousand millions for 2,460.
        for (fork, cap, fits) in
            [("Osaka", "", 82), ("Prague", "", 16_384), ("Osaka", "tx_gas_cap = 500_000_000", 2_460)]
        {
            assert!(registry(fork, cap, fits).is_ok(), "{fork} {cap}");
            assert!(registry(fork, cap, fits + 1).is_err(), "{fork} {cap}");
        }
        let dearer = "[gas]\nper_mebibyte = 300_000\n[registry]";
        assert!(parse(dearer).unwrap_err().to_string().contains("raise tx_gas_cap"));
    }

    #[test]
    fn mistakes_say_what_where_and_what_to_do() {
        let default = format!("default_model = \"{OTHER}\"");
        let pending = format!("{default}\n[[models]]\nid = \"{OTHER}\"\nstatus = \"pending\"");
        let twice = format!("[[models]]\nid = \"{OTHER}\"\nstatus = \"active\"\n").repeat(2);
        for (text, says) in [
            ("chain = 1", "chain"),
            ("chain_id = -1", "line 1"),
            ("[gas]\nmacs_per_gas = 0", "`gas.macs_per_gas` is 0: it must be at least 1"),
            ("[caps]\nmax_bytes = 1", "max_bytes"),
            (
                "[caps]\nmax_automaton_states = 4097",
                "`caps.max_automaton_states` is 4097: it must be at most",
            ),
            (
                "[registry]\nmaturity_seconds = 5_000_000_000",
                "`registry.maturity_seconds` is 5000000000: it must be",
            ),
            (
                "[registry]\nmax_model_mebibytes = 99_999",
                "`registry.max_model_mebibytes` is 99999: it must be",
            ),
            (
                "[registry]\nmax_model_mebibytes = 83",
                "`registry.max_model_mebibytes` is 83: activating a model of this size",
            ),
            ("[registry]\nmax_rent_days = 0", "`registry.max_rent_days` is 0: it must be"),
            ("[market]\ntarget_gas = 0", "`market.target_gas` is 0: it must be"),
            (
                "[legacy]\nenabled = true\nmax_new_tokens = 5_000",
                "`legacy.max_new_tokens` is 5000: it must be",
            ),
            ("[[models]]\nid = \"0x12\"\nstatus = \"active\"", "line 2"),
            (&default, "list it under [[models]]"),
            (&pending, "its status must be"),
            (&twice, "list each model once"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("/etc/metis/chain.toml: ") && error.contains(says), "{error}");
        }
        let error = ChainConfig::load("/nowhere/chain.toml", MODEL).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/chain.toml: "), "{error}");
    }
}
