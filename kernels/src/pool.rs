//! The threads of a CPU backend. They are parked when there is nothing to do: nothing spins beside other work on the machine.

use std::sync::Arc;

use rayon::ThreadPool;

use crate::backend::BackendError;

/// Zero or more helpers of the calling thread.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Option<Arc<ThreadPool>>);

impl Pool {
    /// The calling thread alone.
    pub(crate) const ALONE: Self = Self(None);

    /// `threads` threads; one is the calling thread alone.
    pub(crate) fn new(threads: usize) -> Result<Self, BackendError> {
        if threads <= 1 {
            return Ok(Self::ALONE);
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("metis-kernel-{i}"))
            .build()
            .map_err(|error| BackendError::Device { device: "cpu".into(), reason: error.to_string() })?;
        Ok(Self(Some(Arc::new(pool))))
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Runs `f` on one of the threads, so that it shares its work with the others without waking anyone for the first part.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }
}
