//! The devices of this machine that inference runs on.

use std::sync::Arc;

use anyhow::{Context, ensure};
use metis_gpu::{Cuda, DeviceRequest, Gpu};
use metis_kernels::golden::{SelfTestReport, selftest};
use metis_kernels::{BackendError, TokenId};
use metis_models::Bundle;
use metis_models::engine::{
    BackendChoice, Engine, EngineOptions, Failover, InferenceModel, LoadError, LocateError, Located,
    Processor, locate,
};

/// Memory of a GPU that the self-test needs.
const LEAST_MEMORY: usize = 8 << 20;

/// The CPU, and a GPU if there is one that may compute.
#[derive(Clone, Debug)]
pub struct Machine {
    processor: Processor,
    gpu: Option<Arc<Gpu<Cuda>>>,
}

impl From<Processor> for Machine {
    fn from(processor: Processor) -> Self {
        Self { processor, gpu: None }
    }
}

impl Machine {
    /// The devices that were asked for. `auto` goes without a GPU that there is not, or that cannot be used; one that was named must be there.
    ///
    /// A GPU has passed the self-test before it computes anything. `memory` bounds what is taken of its memory, in bytes.
    pub fn new(
        request: DeviceRequest,
        backend: BackendChoice,
        threads: usize,
        memory: Option<usize>,
    ) -> anyhow::Result<Self> {
        let processor = Processor::new(backend, threads).with_context(|| format!("--backend {backend}"))?;
        let gpu = match request {
            DeviceRequest::Cpu => None,
            // Instructions of the CPU were asked for by name.
            DeviceRequest::Auto if backend != BackendChoice::Auto => None,
            DeviceRequest::Auto => match Cuda::count() {
                Err(error) => {
                    tracing::info!("cuda: {error}; inference runs on the CPU");
                    None
                }
                Ok(_) => match gpu(0, memory).and_then(Unchecked::checked) {
                    Ok(gpu) => Some(gpu),
                    Err(error) => {
                        tracing::error!("cuda: {error:#}; inference runs on the CPU");
                        None
                    }
                },
            },
            DeviceRequest::Cuda(ordinal) => {
                Some(gpu(ordinal, memory).with_context(|| unavailable(request))?.checked()?)
            }
        };
        Ok(Self { processor, gpu })
    }

    /// The CPU's backend.
    pub const fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The name of what computes.
    pub fn name(&self) -> String {
        match &self.gpu {
            Some(gpu) => metis_kernels::Backend::name(&**gpu),
            None => self.processor.name().to_owned(),
        }
    }

    /// The GPU that computes, if one does.
    pub(crate) const fn gpu(&self) -> Option<&Arc<Gpu<Cuda>>> {
        self.gpu.as_ref()
    }

    /// Compares the CPU's backend with the golden vectors; a GPU's was when it was opened.
    pub fn selftest(&self) -> anyhow::Result<SelfTestReport> {
        self.processor.selftest().with_context(|| format!("backend {}", self.processor.name()))
    }

    /// Loads a verified bundle on what [`name`](Self::name) says, and nowhere else: what the GPU cannot do is an error, so that a figure is of
    /// what it says.
    pub(crate) fn load_here(
        &self,
        bundle: Bundle,
        options: EngineOptions,
    ) -> Result<Arc<dyn InferenceModel>, LoadError> {
        match &self.gpu {
            Some(gpu) => Ok(Arc::new(Engine::load_with(&bundle, Arc::clone(gpu), options.for_devices())?)),
            None => self.processor.load(&bundle, options),
        }
    }

    /// Loads a verified bundle: on the GPU if there is one and it has the memory, and on the CPU where the GPU cannot go on.
    pub fn load(&self, bundle: Bundle, options: EngineOptions) -> Result<Arc<dyn InferenceModel>, LoadError> {
        let Some(gpu) = &self.gpu else { return self.processor.load(&bundle, options) };
        match Engine::load_with(&bundle, Arc::clone(gpu), options.for_devices()) {
            Ok(model) => {
                let processor = self.processor.clone();
                let load = move || processor.load(&bundle, options);
                Ok(Arc::new(Failover::new(Arc::new(model), load)))
            }
            Err(LoadError::Backend(
                error @ (BackendError::OutOfMemory { .. } | BackendError::Device { .. }),
            )) => {
                tracing::warn!("{error}; model {} is loaded on the CPU", bundle.id());
                self.processor.load(&bundle, options)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether there is a device that was asked for by name.
pub(crate) fn find(request: DeviceRequest) -> anyhow::Result<()> {
    match request {
        DeviceRequest::Auto | DeviceRequest::Cpu => Ok(()),
        DeviceRequest::Cuda(ordinal) => Cuda::find(ordinal).with_context(|| unavailable(request)),
    }
}

fn unavailable(request: DeviceRequest) -> String {
    format!("--device {request} (--device cpu computes the same results without it)")
}

/// A GPU that has not been checked.
#[derive(Debug)]
pub(crate) struct Unchecked(Arc<Gpu<Cuda>>);

/// Opens a GPU.
pub(crate) fn gpu(ordinal: u32, memory: Option<usize>) -> anyhow::Result<Unchecked> {
    let cuda = Cuda::open(ordinal)?;
    let free = cuda.free_memory()?;
    let budget = memory.unwrap_or(free).min(free);
    ensure!(
        budget >= LEAST_MEMORY,
        "{}: {budget} bytes of memory, and the self-test alone needs {} MiB",
        metis_gpu::Driver::name(&cuda),
        LEAST_MEMORY >> 20
    );
    Ok(Unchecked(Arc::new(Gpu::new(cuda, budget)?)))
}

impl Unchecked {
    /// Compares it with the golden vectors.
    pub(crate) fn check(&self) -> anyhow::Result<SelfTestReport> {
        selftest(&*self.0).with_context(|| {
            let name = metis_kernels::Backend::name(&*self.0);
            format!(
                "{name} does not compute what it must: it is not used, and must not be used for consensus"
            )
        })
    }

    /// It, if it computes what it must.
    fn checked(self) -> anyhow::Result<Arc<Gpu<Cuda>>> {
        self.check()?;
        Ok(self.0)
    }

    /// Runs a model on the reference and on it in step.
    pub(crate) fn locate(&self, bundle: &Bundle, prompt: Vec<TokenId>) -> Result<Located, LocateError> {
        locate(bundle, Arc::clone(&self.0), prompt)
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        metis_kernels::Backend::name(&*self.0)
    }
}
