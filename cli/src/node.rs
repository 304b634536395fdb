//! A chain on this machine: its configuration, its models, and machines that execute on it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use alloy_primitives::B256;
use anyhow::{Context, bail, ensure};
use metis_models::bundle::BundleError;
use metis_models::engine::{Answers, Claims, EngineOptions, InferenceModel, LoadError, Witness, Witnessed};
use metis_models::{Bundle, Manifest, Tokenizer};
use metis_precompiles::{
    ChainConfig, Inference, Library, LoadFailure, MetisPrecompiles, ModelEntry, ModelSet,
};
use metis_vm::{EvmBuilder, EvmConfig, State, Vm, fork};

use crate::cli::Global;
use crate::genesis::genesis;
use crate::machine::Machine;

/// A chain's configuration with its models behind the inference precompile.
#[derive(Clone, Debug)]
pub struct Node {
    config: ChainConfig,
    evm: EvmConfig,
    genesis: State,
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

    /// A chain with this configuration whose blocks this node makes. It remembers so many answers of models.
    pub fn for_production(config: ChainConfig, global: &Global, memo: usize) -> anyhow::Result<Self> {
        let witness = Witness::Write(Arc::default());
        Self::build(config, global.machine()?, global.engine_options(), witness, memo)
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
            if let (Some(registry), Some(local)) = (&mut config.registry, local.registry) {
                registry.bundles = local.bundles;
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
        Self::build(config, machine, options, witness, 0)
    }

    fn build(
        config: ChainConfig,
        machine: Machine,
        options: EngineOptions,
        witness: Witness,
        memo: usize,
    ) -> anyhow::Result<Self> {
        let fork = fork::parse(&config.fork)?;
        let genesis = genesis(&config)?;
        machine.selftest()?;
        let witnessed = |witness: &Witness, model| -> Arc<dyn InferenceModel> {
            Arc::new(Witnessed::new(model, witness.clone()))
        };
        let (device, with) = (machine.clone(), witness.clone());
        let mut models = ModelSet::new(&config).with_loader(move |entry| {
            let model = load(entry, &device, options).map_err(|error| format!("{error:#}"))?;
            Ok(witnessed(&with, model))
        });
        if let Some(registry) = &config.registry {
            let (bundles, with) = (registry.bundles.clone(), witness.clone());
            models = models.with_library(Bundles { folder: bundles, machine, options, witness: with });
        }
        models.load_all()?;
        let mut evm = EvmConfig {
            fork,
            chain_id: config.chain_id,
            tx_gas_limit_cap: config.tx_gas_cap,
            ..EvmConfig::default()
        };
        evm.block.metered = config.market.map(|market| market.block(0, evm.block.base_fee));
        let inference = Arc::new(Inference::new(&config, models).with_memo(memo));
        Ok(Self { config, evm, genesis, inference, witness })
    }

    /// What the models have answered since this was asked last, as records keep it.
    pub fn take_answers(&self) -> anyhow::Result<serde_json::Value> {
        let answers = self.drain_answers();
        Ok(if answers.is_empty() { serde_json::Value::Null } else { serde_json::to_value(&answers)? })
    }

    /// Forgets what the models have answered, where nobody keeps it.
    pub fn forget_answers(&self) {
        drop(self.drain_answers());
    }

    fn drain_answers(&self) -> Answers {
        let Witness::Write(answers) = &self.witness else { return Answers::default() };
        std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// The state that the chain begins with.
    pub const fn genesis(&self) -> &State {
        &self.genesis
    }

    /// The configuration.
    pub const fn config(&self) -> &ChainConfig {
        &self.config
    }

    /// A machine on the genesis with a state laid over it.
    pub fn vm(&self, state: State) -> Vm<MetisPrecompiles> {
        let builder = EvmBuilder::new().config(self.evm.clone()).state(self.genesis.clone());
        let mut vm = builder.build(self.precompiles());
        vm.overlay(&state);
        vm
    }
}

/// The model in this binary.
pub fn embedded_bundle() -> anyhow::Result<Bundle> {
    metis_default_model::bundle().context("the embedded model")
}

/// Registered models, each in a folder named after its id.
struct Bundles {
    folder: PathBuf,
    machine: Machine,
    options: EngineOptions,
    witness: Witness,
}

impl Bundles {
    /// What is read from a model's folder, or whose fault it is that it cannot be.
    fn read<T, E: Display>(
        &self,
        id: B256,
        read: impl FnOnce(&Path) -> Result<T, E>,
        is_inherent: impl FnOnce(&E) -> bool,
    ) -> Result<T, LoadFailure> {
        let folder = self.folder.join(id.to_string());
        let here = |what: String| {
            let into = self.folder.display();
            LoadFailure::Here(format!(
                "{what}; get it with: metisvm model fetch {id} --from <URL or folder> --into {into}"
            ))
        };
        if !folder.exists() {
            return Err(here(format!("its bundle is not in {}", folder.display())));
        }
        read(&folder).map_err(|error| match is_inherent(&error) {
            true => LoadFailure::Everywhere(error.to_string()),
            false => here(format!("its bundle in {} cannot be used: {error}", folder.display())),
        })
    }
}

impl Library for Bundles {
    fn manifest(&self, id: B256) -> Result<Manifest, LoadFailure> {
        self.read(id, |folder| Bundle::read_manifest(folder, id), BundleError::is_inherent)
    }

    fn tokenizer(&self, id: B256, manifest: &Manifest) -> Result<Tokenizer, LoadFailure> {
        self.read(id, |folder| Bundle::read_tokenizer(folder, manifest), BundleError::is_inherent)
    }

    fn model(&self, id: B256) -> Result<Arc<dyn InferenceModel>, LoadFailure> {
        let bundle = self.read(id, |folder| Bundle::open_model(folder, id), BundleError::is_inherent)?;
        let model = self.read(id, |_| self.machine.load(bundle, self.options), LoadError::is_inherent)?;
        Ok(Arc::new(Witnessed::new(model, self.witness.clone())))
    }
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
