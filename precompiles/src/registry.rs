//! Which models may be called, and where their weights are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use alloy_primitives::B256;
use metis_kernels::TokenId;
use metis_models::engine::InferenceModel;
use thiserror::Error;

use crate::config::{ChainConfig, ModelEntry, ModelStatus};
use crate::gas::ModelCosts;

/// Smallest width of a model that the gas schedule is calibrated for.
pub const MIN_HIDDEN: usize = 64;
/// Smallest head dimension that the gas schedule is calibrated for.
pub const MIN_HEAD_DIM: usize = 8;
/// Longest text of one token, in bytes: bounds what an answer can weigh.
pub const MAX_PIECE_BYTES: usize = 1_024;

/// Fetches the weights of a model when it is first called.
pub type Loader = dyn Fn(&ModelEntry) -> Result<Arc<dyn InferenceModel>, String> + Send + Sync;

/// The models of a chain.
pub struct ModelSet {
    slots: BTreeMap<B256, Slot>,
    default_model: B256,
    loader: Option<Box<Loader>>,
}

#[derive(Debug)]
struct Slot {
    entry: ModelEntry,
    model: OnceLock<ActiveModel>,
}

/// A model that can be called.
#[derive(Clone, Debug)]
pub struct ActiveModel {
    /// The model.
    pub model: Arc<dyn InferenceModel>,
    /// What of it enters its price.
    pub costs: ModelCosts,
    /// Most tokens of a sequence.
    pub context: u32,
}

/// Why there is no model under an id.
#[derive(Debug)]
pub enum Unavailable {
    /// The chain does not know it.
    Unknown,
    /// The chain knows it and does not let it be called.
    NotActive,
    /// The chain lets it be called and this node cannot.
    Failed(ModelError),
}

/// A model that this node should have and has not. Fatal: a validator never skips a call or invents an answer.
#[derive(Debug, Error)]
pub enum ModelError {
    /// An active model whose weights were never loaded.
    #[error(
        "model {0} is active on this chain, but its weights are not loaded; give its bundle's `path` in chain.toml"
    )]
    MissingWeights(B256),
    /// The weights cannot be loaded.
    #[error("model {id} is active on this chain, but its weights cannot be loaded: {reason}")]
    Load {
        /// The model.
        id: B256,
        /// What went wrong.
        reason: String,
    },
    /// The bundle is another model.
    #[error("the bundle for model {expected} is model {actual}; correct `path` or `id` in chain.toml")]
    WrongModel {
        /// The model of the configuration.
        expected: B256,
        /// The model that was loaded.
        actual: B256,
    },
    /// The gas schedule is not honest for such a model.
    #[error("model {id} cannot be active: {what} is {actual}, and the gas schedule holds for {rule}")]
    NotPriced {
        /// The model.
        id: B256,
        /// The dimension.
        what: &'static str,
        /// Its value.
        actual: usize,
        /// What is priced.
        rule: String,
    },
}

impl ModelSet {
    /// The models that a chain knows, none loaded.
    pub fn new(config: &ChainConfig) -> Self {
        let slot = |entry: &ModelEntry| (entry.id, Slot { entry: entry.clone(), model: OnceLock::new() });
        Self {
            slots: config.models.iter().map(slot).collect(),
            default_model: config.default_model,
            loader: None,
        }
    }

    /// Loads models when they are first called.
    #[must_use]
    pub fn with_loader(
        mut self,
        loader: impl Fn(&ModelEntry) -> Result<Arc<dyn InferenceModel>, String> + Send + Sync + 'static,
    ) -> Self {
        self.loader = Some(Box::new(loader));
        self
    }

    /// Brings in a loaded model. One that the chain does not let be called is left out.
    pub fn insert(&mut self, model: Arc<dyn InferenceModel>) -> Result<(), ModelError> {
        let id = model.id();
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.entry.status == ModelStatus::Active
        {
            slot.model = OnceLock::from(ActiveModel::new(id, model)?);
        }
        Ok(())
    }

    /// Loads every active model now, so that a node fails when it starts rather than at a call.
    pub fn load_all(&self) -> Result<(), ModelError> {
        let mut active = self.slots.values().filter(|slot| slot.entry.status == ModelStatus::Active);
        active.try_for_each(|slot| self.load(slot).map(drop))
    }

    /// The active models that are not loaded.
    pub fn missing(&self) -> impl Iterator<Item = &ModelEntry> {
        self.slots
            .values()
            .filter(|slot| slot.entry.status == ModelStatus::Active && slot.model.get().is_none())
            .map(|slot| &slot.entry)
    }

    /// Drops what the loaded models keep of earlier calls to save work. Changes no answer.
    pub fn forget_prefixes(&self) {
        let loaded = self.slots.values().filter_map(|slot| slot.model.get());
        loaded.for_each(|active| active.model.forget_prefixes());
    }

    /// The model under an id; zero is the chain's default model.
    pub fn get(&self, id: B256) -> Result<&ActiveModel, Unavailable> {
        let id = if id.is_zero() { self.default_model } else { id };
        let slot = self.slots.get(&id).ok_or(Unavailable::Unknown)?;
        match slot.entry.status {
            ModelStatus::Active => self.load(slot).map_err(Unavailable::Failed),
            ModelStatus::Pending | ModelStatus::Deprecated => Err(Unavailable::NotActive),
        }
    }

    fn load<'a>(&self, slot: &'a Slot) -> Result<&'a ActiveModel, ModelError> {
        if let Some(model) = slot.model.get() {
            return Ok(model);
        }
        let id = slot.entry.id;
        let loader = self.loader.as_ref().ok_or(ModelError::MissingWeights(id))?;
        let model = loader(&slot.entry).map_err(|reason| ModelError::Load { id, reason })?;
        let model = ActiveModel::new(id, model)?;
        Ok(slot.model.get_or_init(|| model))
    }
}

impl fmt::Debug for ModelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSet")
            .field("slots", &self.slots)
            .field("default_model", &self.default_model)
            .finish_non_exhaustive()
    }
}

impl ActiveModel {
    /// Checks that the model is the one that `id` names and that its calls have an honest price.
    pub fn new(id: B256, model: Arc<dyn InferenceModel>) -> Result<Self, ModelError> {
        if model.id() != id {
            return Err(ModelError::WrongModel { expected: id, actual: model.id() });
        }
        let manifest = model.manifest();
        let at_least = |what, actual: usize, min: usize| {
            let rule = format!("at least {min}");
            if actual < min { Err(ModelError::NotPriced { id, what, actual, rule }) } else { Ok(()) }
        };
        at_least("hidden", manifest.hidden, MIN_HIDDEN)?;
        at_least("head_dim", manifest.attention().head_dim, MIN_HEAD_DIM)?;
        let dimension = |what, actual: usize| {
            let rule = format!("at most {}", u32::MAX);
            u32::try_from(actual).map_err(|_| ModelError::NotPriced { id, what, actual, rule })
        };
        let vocabulary = dimension("vocabulary", manifest.vocabulary)?;
        let context = dimension("context", manifest.context)?;
        let lengths = (0..vocabulary).map(|id| model.tokenizer().decode(&[TokenId(id)]).len());
        let (longest, spelled_bytes) =
            lengths.fold((0, 0), |(longest, sum), length| (length.max(longest), sum + length as u64));
        if longest > MAX_PIECE_BYTES {
            let rule = format!("at most {MAX_PIECE_BYTES} bytes");
            return Err(ModelError::NotPriced { id, what: "the longest token", actual: longest, rule });
        }
        let work = manifest.work;
        let costs = ModelCosts {
            linear_macs: work.linear_macs,
            attention_macs: work.attention_macs,
            head_macs: work.head_macs,
            layers: manifest.layers as u32,
            vocabulary,
            spelled_bytes,
            has_groups: manifest.formats.has_groups(),
        };
        Ok(Self { costs, context, model })
    }

    /// Whether it continues texts; if not, it reads them.
    pub fn is_decoder(&self) -> bool {
        self.model.manifest().architecture.is_decoder()
    }
}
