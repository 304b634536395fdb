//! A chain on this machine: its configuration, its models, and machines that execute on it.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use alloy_primitives::B256;
use anyhow::{Context, bail, ensure};
use metis_models::Bundle;
use metis_models::engine::{Claims, EngineOptions, InferenceModel, Witness, Witnessed};
use metis_precompiles::{ChainConfig, Inference, MetisPrecompiles, ModelEntry, ModelSet};
use metis_vm::{EvmBuilder, EvmConfig, State, Vm, fork};

use crate::cli::Global;
use crate::machine::Machine;

/// A chain's configuration with its models behind the inference precompile.
#[derive(Clone, Debug)]
pub struct Node {
    config: ChainConfig,
    evm: EvmConfig,
    inference: Arc<Inference>,
    witness: Witness,
}

impl Node {
    /// The chain that the options name.
    pub fn new(global: &Global) -> anyhow::Result<Self> {
        let embedded = embedded_bundle()?.id();
        let config = match &global.chain {
            Some(path) => ChainConfig::load(path, embedded)?,
            None => ChainConfig::embedded(embedded),
        };
        Self::with_witness(config, global.machine()?, global.engine_options(), Witness::Write(Arc::default()))
    }

    /// The chain of a record: its configuration as it was written down. A model's bundle is looked for where the record says,
    /// or where `chain.toml` has it. Answers that are in `claims` are checked instead of generated.
    pub fn from_record(
        chain: &serde_json::Value,
        claims: Arc<Claims>,
        global: &Global,
    ) -> anyhow::Result<Self> {
        let embedded = embedded_bundle()?.id();
        let text = toml::to_string(chain).context("the record's chain configuration")?;
        let mut config = ChainConfig::parse(&text, Path::new("the record's chain"), embedded)?;
        if let Some(path) = &global.chain {
            let local = ChainConfig::load(path, embedded)?;
            for model in &mut config.models {
                let found = local.models.iter().find(|local| local.id == model.id);
                if let Some(path) = found.and_then(|found| found.path.clone()) {
                    model.path = Some(path);
                }
            }
        }
        Self::with_witness(config, global.machine()?, global.engine_options(), Witness::Check(claims))
    }

    /// A chain with this configuration. Every active model is loaded now: a node that lacks one does not start.
    pub fn with_config(config: ChainConfig, machine: &Machine) -> anyhow::Result<Self> {
        Self::with_witness(config, machine.clone(), EngineOptions::default(), Witness::Write(Arc::default()))
    }

    fn with_witness(
        config: ChainConfig,
        machine: Machine,
        options: EngineOptions,
        witness: Witness,
    ) -> anyhow::Result<Self> {
        let fork = fork::parse(&config.fork)?;
        machine.selftest()?;
        let witness_of_models = witness.clone();
        let models = ModelSet::new(&config).with_loader(move |entry| {
            let model = load(entry, &machine, options).map_err(|error| format!("{error:#}"))?;
            Ok(Arc::new(Witnessed::new(model, witness_of_models.clone())))
        });
        models.load_all()?;
        let evm = EvmConfig {
            fork,
            chain_id: config.chain_id,
            tx_gas_limit_cap: config.tx_gas_cap,
            ..EvmConfig::default()
        };
        let inference = Arc::new(Inference::new(&config, models));
        Ok(Self { config, evm, inference, witness })
    }

    /// What the models have answered so far, as records keep it.
    pub fn answers(&self) -> anyhow::Result<serde_json::Value> {
        let Witness::Write(answers) = &self.witness else { return Ok(serde_json::Value::Null) };
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(if answers.is_empty() { serde_json::Value::Null } else { serde_json::to_value(&*answers)? })
    }

    /// The configuration, as records keep it.
    pub fn chain(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::to_value(&self.config)?)
    }

    /// The rules under which transactions execute on this chain.
    pub const fn rules(&self) -> &EvmConfig {
        &self.evm
    }

    /// The inference precompile.
    pub fn inference(&self) -> &Inference {
        &self.inference
    }

    /// The chain's default model.
    pub fn default_model(&self) -> anyhow::Result<Arc<dyn InferenceModel>> {
        match self.inference.models().get(B256::ZERO) {
            Ok(active) => Ok(Arc::clone(&active.model)),
            Err(_) => bail!("the default model {} is not active", self.config.default_model),
        }
    }

    /// The precompiled contracts of this chain.
    pub fn precompiles(&self) -> MetisPrecompiles {
        MetisPrecompiles::new(self.evm.fork, Arc::clone(&self.inference))
    }

    /// A machine on a state.
    pub fn vm(&self, state: State) -> Vm<MetisPrecompiles> {
        EvmBuilder::new().config(self.evm.clone()).state(state).build(self.precompiles())
    }
}

/// The model in this binary.
pub fn embedded_bundle() -> anyhow::Result<Bundle> {
    metis_default_model::bundle().context("the embedded model")
}

fn load(
    entry: &ModelEntry,
    machine: &Machine,
    options: EngineOptions,
) -> anyhow::Result<Arc<dyn InferenceModel>> {
    let bundle = match &entry.path {
        Some(path) => Bundle::open(path).with_context(|| format!("bundle {}", path.display()))?,
        None => {
            let bundle = embedded_bundle()?;
            ensure!(
                bundle.id() == entry.id,
                "it has no `path` and is not the embedded model {}; give its bundle's `path` in chain.toml",
                bundle.id()
            );
            bundle
        }
    };
    Ok(machine.load(bundle, options)?)
}
