//! The CPU backend that a user asked for, or the fastest there is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use metis_kernels::golden::{SelfTestError, SelfTestReport, selftest};
use metis_kernels::{BackendError, Cpu, CpuKind, Scalar, TokenId};

use super::{Engine, EngineOptions, InferenceModel, LoadError, LocateError, Located, locate};
use crate::bundle::Bundle;

/// Which CPU backend to use. The answers do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The fastest that this processor has.
    #[default]
    Auto,
    /// The reference.
    Scalar,
    /// Particular instructions.
    Kind(CpuKind),
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Scalar => f.write_str("scalar"),
            Self::Kind(kind) => kind.fmt(f),
        }
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "scalar" => Ok(Self::Scalar),
            name => {
                CpuKind::ALL.into_iter().find(|kind| kind.name() == name).map(Self::Kind).ok_or_else(|| {
                    let kinds: Vec<_> = CpuKind::ALL.iter().map(|kind| kind.name()).collect();
                    format!("unknown backend `{name}`; known: auto, scalar, {}", kinds.join(", "))
                })
            }
        }
    }
}

/// A CPU backend with its threads, shared by all models that are loaded on it.
#[derive(Clone, Debug)]
pub enum Processor {
    /// The reference.
    Scalar(Arc<Scalar>),
    /// SIMD.
    Cpu(Arc<Cpu>),
}

impl Processor {
    /// The backend on `threads` threads. An error if this processor does not have the instructions.
    pub fn new(choice: BackendChoice, threads: usize) -> Result<Self, BackendError> {
        Ok(match choice {
            BackendChoice::Auto => Self::Cpu(Arc::new(Cpu::new(threads)?)),
            BackendChoice::Scalar => Self::Scalar(Arc::new(Scalar::with_threads(threads)?)),
            BackendChoice::Kind(kind) => Self::Cpu(Arc::new(Cpu::with_kind(kind, threads)?)),
        })
    }

    /// The name of the instruction set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            Self::Cpu(cpu) => cpu.kind().name(),
        }
    }

    /// Loads a verified bundle, to use so much of the machine.
    pub fn load(
        &self,
        bundle: &Bundle,
        options: EngineOptions,
    ) -> Result<Arc<dyn InferenceModel>, LoadError> {
        Ok(match self {
            Self::Scalar(backend) => Arc::new(Engine::load_with(bundle, Arc::clone(backend), options)?),
            Self::Cpu(backend) => Arc::new(Engine::load_with(bundle, Arc::clone(backend), options)?),
        })
    }

    /// Runs a model on the reference and on this backend in step.
    pub fn locate(&self, bundle: &Bundle, prompt: Vec<TokenId>) -> Result<Located, LocateError> {
        match self {
            Self::Scalar(backend) => locate(bundle, Arc::clone(backend), prompt),
            Self::Cpu(backend) => locate(bundle, Arc::clone(backend), prompt),
        }
    }

    /// Compares the backend with the golden vectors.
    pub fn selftest(&self) -> Result<SelfTestReport, SelfTestError> {
        match self {
            Self::Scalar(backend) => selftest(&**backend),
            Self::Cpu(backend) => selftest(&**backend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        let kinds = CpuKind::ALL.into_iter().map(BackendChoice::Kind);
        for choice in [BackendChoice::Auto, BackendChoice::Scalar].into_iter().chain(kinds) {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("sse2".parse::<BackendChoice>().is_err_and(|error| error.contains("auto, scalar, avx512")));
    }
}
