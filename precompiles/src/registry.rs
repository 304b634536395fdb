//! Which models may be called, and where their weights are.
//!
//! A chain's configuration may list models, which are there from genesis and cost nothing but gas; all others are in the model registry, a
//! contract, whose word on them is read at each call. Weights are this node's: a node that has not those of a model which may be called stops.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use alloy_primitives::B256;
use metis_models::engine::InferenceModel;
use metis_models::{Manifest, Tokenizer};
use thiserror::Error;

use crate::config::{ChainConfig, ModelEntry, ModelStatus};
use crate::costs::{ModelCosts, NotPriced};
use crate::registration::Claims;
use crate::residents::Residents;

/// Fetches the weights of a model of the configuration when it is first called.
pub type Loader = dyn Fn(&ModelEntry) -> Result<Arc<dyn InferenceModel>, String> + Send + Sync;

/// Where this node has the bundles of registered models. They are looked at in this order, so that one which is not what it was registered as
/// costs no more than it takes to see that.
pub trait Library: Send + Sync {
    /// A model's manifest.
    fn manifest(&self, id: B256) -> Result<Manifest, LoadFailure>;

    /// Its tokenizer.
    fn tokenizer(&self, id: B256, manifest: &Manifest) -> Result<Tokenizer, LoadFailure>;

    /// All of it, to be called.
    fn model(&self, id: B256) -> Result<Arc<dyn InferenceModel>, LoadFailure>;
}

/// The models of a chain.
pub struct ModelSet {
    slots: BTreeMap<B256, Slot>,
    default_model: B256,
    loader: Option<Box<Loader>>,
    registered: Mutex<Residents>,
    library: Option<Box<dyn Library>>,
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

/// Why there is no model under an id in the configuration.
#[derive(Debug)]
pub enum Unavailable {
    /// The configuration does not list it.
    Unknown,
    /// The configuration does not let it be called.
    NotActive,
    /// The configuration lets it be called and this node cannot.
    Failed(ModelError),
}

/// Why a registered model's bundle cannot be executed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadFailure {
    /// This node lacks it, or cannot read it; another node may.
    #[error("{0}")]
    Here(String),
    /// No node can: these are the bytes that its id names, and they make no model, or none that has a price.
    #[error("{0}")]
    Everywhere(String),
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
    /// The bundle of a registered model cannot be loaded here.
    #[error("model {id} is registered on this chain and needed here, but {reason}")]
    Registered {
        /// The model.
        id: B256,
        /// What is wrong and what to do.
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
    #[error("model {id} cannot be active: {reason}")]
    NotPriced {
        /// The model.
        id: B256,
        /// The dimension.
        reason: NotPriced,
    },
}

impl ModelSet {
    /// The models that a chain knows, none loaded.
    pub fn new(config: &ChainConfig) -> Self {
        let slot = |entry: &ModelEntry| (entry.id, Slot { entry: entry.clone(), model: OnceLock::new() });
        let resident = config.registry.as_ref().map_or(0, |registry| registry.resident_mebibytes);
        Self {
            slots: config.models.iter().map(slot).collect(),
            default_model: config.default_model,
            loader: None,
            registered: Mutex::new(Residents::new(resident)),
            library: None,
        }
    }

    /// Loads models of the configuration when they are first called.
    #[must_use]
    pub fn with_loader(
        mut self,
        loader: impl Fn(&ModelEntry) -> Result<Arc<dyn InferenceModel>, String> + Send + Sync + 'static,
    ) -> Self {
        self.loader = Some(Box::new(loader));
        self
    }

    /// Loads registered models when they are first needed.
    #[must_use]
    pub fn with_library(mut self, library: impl Library + 'static) -> Self {
        self.library = Some(Box::new(library));
        self
    }

    /// Brings in a loaded model of the configuration. One that the chain does not let be called is left out.
    pub fn insert(&mut self, model: Arc<dyn InferenceModel>) -> Result<(), ModelError> {
        let id = model.id();
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.entry.status == ModelStatus::Active
        {
            slot.model = OnceLock::from(ActiveModel::new(id, model)?);
        }
        Ok(())
    }

    /// Loads every active model of the configuration now, so that a node fails when it starts rather than at a call.
    pub fn load_all(&self) -> Result<(), ModelError> {
        let mut active = self.slots.values().filter(|slot| slot.entry.status == ModelStatus::Active);
        active.try_for_each(|slot| self.load(slot).map(drop))
    }

    /// The active models of the configuration that are not loaded.
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
        self.registered().forget_prefixes();
    }

    /// The model of the configuration under an id; zero is the chain's default model.
    pub fn get(&self, id: B256) -> Result<&ActiveModel, Unavailable> {
        let id = if id.is_zero() { self.default_model } else { id };
        let slot = self.slots.get(&id).ok_or(Unavailable::Unknown)?;
        match slot.entry.status {
            ModelStatus::Active => self.load(slot).map_err(Unavailable::Failed),
            ModelStatus::Pending | ModelStatus::Deprecated => Err(Unavailable::NotActive),
        }
    }

    /// Whether the configuration lists a model.
    pub(crate) fn lists(&self, id: B256) -> bool {
        id.is_zero() || self.slots.contains_key(&id)
    }

    /// A registered model, loaded.
    pub(crate) fn registered_model(&self, id: B256) -> Result<Arc<ActiveModel>, RegisteredError> {
        if let Some(model) = self.registered().get(id) {
            return Ok(model);
        }
        // Not under the lock: hashing a bundle takes seconds.
        let model = self.library(id)?.model(id).map_err(|failure| RegisteredError::new(id, failure))?;
        let model = ActiveModel::new(id, model).map_err(|error| match error {
            ModelError::NotPriced { reason, .. } => RegisteredError::Refused(reason.to_string()),
            error => RegisteredError::Fatal(error),
        })?;
        let model = Arc::new(model);
        self.registered().insert(id, Arc::clone(&model));
        Ok(model)
    }

    /// Compares the bundle of a registered model with what is claimed of it: the first difference by its name in the contract. A model without
    /// one is loaded then.
    ///
    /// The tokenizer is not looked at before its length is known to be the one that was claimed, nor weights before all the rest is.
    pub(crate) fn compare_registered(
        &self,
        id: B256,
        claims: &Claims,
    ) -> Result<Option<&'static str>, RegisteredError> {
        if let Some(model) = self.registered().get(id) {
            return Ok(claims.difference(&model.claims()));
        }
        let library = self.library(id)?;
        let failed = |failure| RegisteredError::new(id, failure);
        let manifest = library.manifest(id).map_err(failed)?;
        let difference = claims.difference(&Claims::of_manifest(&manifest, claims.counts.spelled_bytes));
        if difference.is_some() {
            return Ok(difference);
        }
        let tokenizer = library.tokenizer(id, &manifest).map_err(failed)?;
        let costs = ModelCosts::of(&manifest, &tokenizer);
        let costs = costs.map_err(|reason| RegisteredError::Refused(reason.to_string()))?;
        let difference = claims.difference(&Claims::of(&manifest, &costs));
        if difference.is_none() {
            self.registered_model(id)?;
        }
        Ok(difference)
    }

    fn library(&self, id: B256) -> Result<&dyn Library, RegisteredError> {
        let none = || LoadFailure::Here("this node loads no registered models".into());
        self.library.as_deref().ok_or_else(|| RegisteredError::new(id, none()))
    }

    /// Lets go of a registered model that can no longer be called.
    pub(crate) fn release(&self, id: B256) {
        self.registered().remove(id);
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, Residents> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Why a registered model is not loaded.
#[derive(Debug)]
pub(crate) enum RegisteredError {
    /// On no node: what is to be done is the same everywhere.
    Refused(String),
    /// On this node.
    Fatal(ModelError),
}

impl RegisteredError {
    fn new(id: B256, failure: LoadFailure) -> Self {
        match failure {
            LoadFailure::Here(reason) => Self::Fatal(ModelError::Registered { id, reason }),
            LoadFailure::Everywhere(reason) => Self::Refused(reason),
        }
    }
}

impl fmt::Debug for ModelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSet")
            .field("slots", &self.slots)
            .field("default_model", &self.default_model)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}

impl ActiveModel {
    /// Checks that the model is the one that `id` names and that its calls have an honest price.
    pub fn new(id: B256, model: Arc<dyn InferenceModel>) -> Result<Self, ModelError> {
        if model.id() != id {
            return Err(ModelError::WrongModel { expected: id, actual: model.id() });
        }
        let costs = ModelCosts::of(model.manifest(), model.tokenizer())
            .map_err(|reason| ModelError::NotPriced { id, reason })?;
        // Checked with the costs.
        let context = model.manifest().context as u32;
        Ok(Self { costs, context, model })
    }

    /// Whether it continues texts; if not, it reads them.
    pub fn is_decoder(&self) -> bool {
        self.model.manifest().architecture.is_decoder()
    }

    /// What its registration must say.
    pub fn claims(&self) -> Claims {
        Claims::of(self.model.manifest(), &self.costs)
    }
}
