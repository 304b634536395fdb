//! Registered models that this node has loaded.

use std::sync::Arc;

use alloy_primitives::B256;

use crate::registry::ActiveModel;

/// Loaded models, the last used one first. The chain's budget for active models bounds them: beyond it, what was not used for longest goes.
#[derive(Debug)]
pub(crate) struct Residents {
    models: Vec<(B256, Arc<ActiveModel>)>,
    mebibytes: u64,
}

impl Residents {
    /// None yet.
    pub(crate) fn new(mebibytes: u32) -> Self {
        Self { models: Vec::new(), mebibytes: mebibytes.into() }
    }

    pub(crate) fn get(&mut self, id: B256) -> Option<Arc<ActiveModel>> {
        let at = self.models.iter().position(|(known, _)| *known == id)?;
        self.models[..=at].rotate_right(1);
        Some(Arc::clone(&self.models[0].1))
    }

    pub(crate) fn insert(&mut self, id: B256, model: Arc<ActiveModel>) {
        self.remove(id);
        self.models.insert(0, (id, model));
        // The newest stays whatever its size: the registry may be about to let it in.
        let sizes = self.models.iter().map(|(_, model)| u64::from(model.claims().counts.mebibytes));
        let sums = sizes.scan(0, |sum, size| {
            *sum += size;
            Some(*sum)
        });
        let kept = sums.take_while(|&sum| sum <= self.mebibytes).count().max(1);
        self.models.truncate(kept);
    }

    pub(crate) fn remove(&mut self, id: B256) {
        self.models.retain(|(known, _)| *known != id);
    }

    pub(crate) fn forget_prefixes(&self) {
        self.models.iter().for_each(|(_, active)| active.model.forget_prefixes());
    }
}
