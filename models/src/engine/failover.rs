//! A model on a device that may fail, and the CPU to go on with.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use metis_kernels::{BackendError, TokenId};

use super::{Generation, InferenceError, InferenceModel, LoadError, Request, Verdict};
use crate::bundle::Manifest;
use crate::tokenizer::Tokenizer;

/// Loads the model on the CPU.
type Load = Box<dyn Fn() -> Result<Arc<dyn InferenceModel>, LoadError> + Send + Sync>;

/// A model on a device. What the device cannot do is done again on the CPU, with the same answer: every backend gives the same bits.
///
/// A device that has no memory left for a request is asked again next time; one that failed is not. A CPU that fails is an error, as ever.
pub struct Failover {
    device: Arc<dyn InferenceModel>,
    /// Whether the device has failed.
    lost: AtomicBool,
    /// Loaded when it is needed first.
    cpu: Mutex<Option<Arc<dyn InferenceModel>>>,
    load: Load,
}

impl fmt::Debug for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("device", &self.device)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Failover {
    /// A model on a device, which `load` loads on the CPU.
    pub fn new(
        device: Arc<dyn InferenceModel>,
        load: impl Fn() -> Result<Arc<dyn InferenceModel>, LoadError> + Send + Sync + 'static,
    ) -> Self {
        Self { device, lost: AtomicBool::new(false), cpu: Mutex::new(None), load: Box::new(load) }
    }

    /// Whether the device has failed.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn cpu(&self) -> Result<Arc<dyn InferenceModel>, BackendError> {
        let mut cpu = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*cpu {
            return Ok(Arc::clone(model));
        }
        let model = (self.load)().map_err(|error| BackendError::Device {
            device: "cpu".into(),
            reason: format!("{}: {error}", self.device.id()),
        })?;
        Ok(Arc::clone(cpu.insert(model)))
    }

    fn generate_on_cpu(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>> {
        match self.cpu() {
            Ok(cpu) => cpu.generate_batch(requests),
            Err(error) => requests.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    /// Whether an error is the device's, and not the request's. Says so.
    fn is_device(&self, error: &InferenceError) -> bool {
        match error {
            InferenceError::Backend(BackendError::Device { .. }) => {
                if !self.lost.swap(true, Ordering::Relaxed) {
                    tracing::error!("{error}; model {} goes on on the CPU", self.device.id());
                }
                true
            }
            InferenceError::Backend(BackendError::OutOfMemory { .. }) => {
                tracing::warn!("{error}; a call of model {} is done on the CPU", self.device.id());
                true
            }
            _ => false,
        }
    }

    fn run<R>(
        &self,
        f: impl Fn(&dyn InferenceModel) -> Result<R, InferenceError>,
    ) -> Result<R, InferenceError> {
        if !self.is_lost() {
            match f(&*self.device) {
                Err(error) if self.is_device(&error) => {}
                answer => return answer,
            }
        }
        f(&*self.cpu()?)
    }
}

impl InferenceModel for Failover {
    fn id(&self) -> B256 {
        self.device.id()
    }

    fn manifest(&self) -> &Manifest {
        self.device.manifest()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.device.tokenizer()
    }

    fn generate_batch(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>> {
        if self.is_lost() {
            return self.generate_on_cpu(requests);
        }
        let mut answers = self.device.generate_batch(requests);
        let is_left = |answer: &Result<_, _>| answer.as_ref().is_err_and(|error| self.is_device(error));
        let left: Vec<bool> = answers.iter().map(is_left).collect();
        let again: Vec<Request> = requests
            .iter()
            .zip(&left)
            .filter(|(_, left)| **left)
            .map(|(request, _)| request.clone())
            .collect();
        if again.is_empty() {
            return answers;
        }
        let places = answers.iter_mut().zip(left).filter(|(_, left)| *left);
        places.zip(self.generate_on_cpu(&again)).for_each(|((place, _), answer)| *place = answer);
        answers
    }

    fn verify(&self, request: &Request, claimed: &Generation) -> Result<Verdict, InferenceError> {
        self.run(|model| model.verify(request, claimed))
    }

    fn all_logits(&self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError> {
        self.run(|model| model.all_logits(tokens))
    }

    fn last_logits(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.run(|model| model.last_logits(tokens))
    }

    fn score(&self, prompt: &[TokenId], labels: &[Vec<TokenId>]) -> Result<Vec<i64>, InferenceError> {
        self.run(|model| model.score(prompt, labels))
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.run(|model| model.embed(tokens))
    }

    fn classify(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.run(|model| model.classify(tokens))
    }

    fn forget_prefixes(&self) {
        self.device.forget_prefixes();
        if let Some(cpu) = &*self.cpu.lock().unwrap_or_else(PoisonError::into_inner) {
            cpu.forget_prefixes();
        }
    }
}
