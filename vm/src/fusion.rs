//! Fusion for any revm: one line, `evm.with_fusion(cache)`.

pub mod analysis;

mod dispatch;
mod engine;
mod evm;
mod handlers;
mod heat;
mod intrinsics;
mod local;
mod machine;
mod memo;
mod near;
mod tables;
mod words;

pub use evm::{FusedEvm, WithFusion};
pub use metis_opcode_opt::CacheStats;

use heat::Heat;
use metis_opcode_opt::CodeCache;

use std::{fmt, str::FromStr, sync::Arc};

/// Which interpreter executes a frame. The results cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// revm's loop while code is cold, a fused program once it has burnt enough gas. For production.
    Fused,
    /// A fused program from the first execution on, initcode too. For tests.
    FusedAlways,
    /// MetisVM's interpreter without fusion, one stream op per instruction, from the first execution on.
    Plain,
    /// revm's own loop, untouched.
    Revm,
}

impl Interpreter {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fused, Self::FusedAlways, Self::Plain, Self::Revm];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::FusedAlways => "fused-always",
            Self::Plain => "plain",
            Self::Revm => "revm",
        }
    }
}

impl Default for Interpreter {
    /// [`Fused`](Self::Fused) where handlers jump to one another; [`Revm`](Self::Revm) in release builds for other processors, where
    /// programs are executed by a loop that is slower than revm's.
    fn default() -> Self {
        let fused = cfg!(any(
            debug_assertions,
            feature = "loop-dispatch",
            target_arch = "x86_64",
            target_arch = "aarch64"
        ));
        if fused { Self::Fused } else { Self::Revm }
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Interpreter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|interpreter| interpreter.name() == text)
            .ok_or_else(|| format!("unknown interpreter `{text}`; known: fused, fused-always, plain, revm"))
    }
}

/// How code becomes programs, and how much memory they may take.
#[derive(Clone, Copy, Debug)]
pub struct FusionConfig {
    /// Which interpreter executes.
    pub interpreter: Interpreter,
    /// Most bytes that the programs of one cache may take.
    pub max_bytes: usize,
    /// Gas that code must have burnt in several frames, of any machine that shares the cache, before it is fused.
    pub hot_gas: u64,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self { interpreter: Interpreter::default(), max_bytes: 256 << 20, hot_gas: 500_000 }
    }
}

/// Fused programs, shared between any number of EVMs and threads. Cloning it is cheap and shares it.
#[derive(Clone, Debug)]
pub struct FusionCache {
    config: Arc<FusionConfig>,
    programs: CodeCache,
    heat: Arc<Heat>,
}

impl FusionCache {
    /// An empty cache.
    pub fn new(config: FusionConfig) -> Self {
        Self { config: Arc::new(config), programs: CodeCache::new(config.max_bytes), heat: Arc::default() }
    }

    /// The configuration.
    pub fn config(&self) -> &FusionConfig {
        &self.config
    }

    /// Waits until the background fuser has nothing left to do.
    pub fn wait(&self) {
        self.programs.wait();
    }

    /// What is in it: programs, bytes, evictions.
    pub fn stats(&self) -> CacheStats {
        self.programs.stats()
    }

    fn programs(&self) -> &CodeCache {
        &self.programs
    }

    fn heat(&self) -> &Heat {
        &self.heat
    }
}

impl Default for FusionCache {
    fn default() -> Self {
        Self::new(FusionConfig::default())
    }
}
