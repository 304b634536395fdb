//! Models for tests: a tiny real one, and one that answers what a test wants to see.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall;
use metis_kernels::{BackendError, Scalar, TokenId};
use metis_models::constraint::{Constraint, Guide, Next};
use metis_models::engine::{EngineOptions, Finish, Generation, Request};
use metis_models::fixture::Fixture;
use metis_models::{Bundle, Engine, InferenceError, InferenceModel, Manifest, Tokenizer};
use metis_precompiles::abi::{self, generateCall};
use metis_precompiles::{ChainConfig, Gas, Inference, ModelSet, Outcome};
use revm::context::Context;
use revm::handler::MainnetContext;
use revm::primitives::hardfork::SpecId;
use revm::{Database, MainContext};

/// Osaka on a state, with room for any gas.
pub fn osaka<DB: Database>(db: DB) -> MainnetContext<DB> {
    Context::mainnet()
        .with_db(db)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA);
            cfg.tx_gas_limit_cap = Some(u64::MAX);
        })
        .modify_block_chained(|block| block.gas_limit = u64::MAX)
}

/// The fixture's bundle, made once.
pub fn bundle() -> &'static Bundle {
    static BUNDLE: OnceLock<Bundle> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        Fixture::default().bundle(folder.path()).unwrap().into_bundle().unwrap()
    })
}

/// The fixture on the scalar backend.
pub fn real() -> Arc<dyn InferenceModel> {
    static ENGINE: OnceLock<Arc<Engine<Scalar>>> = OnceLock::new();
    ENGINE.get_or_init(|| engine(EngineOptions::default())).clone()
}

/// The same with options and a prefix cache of its own.
pub fn engine(options: EngineOptions) -> Arc<Engine<Scalar>> {
    Arc::new(Engine::load_with(bundle(), Arc::new(Scalar::new()), options).unwrap())
}

/// A model with the fixture's shape and tokenizer whose answers are a hash of the request: they end anywhere, in every way.
#[derive(Debug)]
pub struct Mock {
    pub manifest: Manifest,
    pub tokenizer: Tokenizer,
    /// How often a model was asked.
    pub asked: AtomicUsize,
    /// Whether the device is lost.
    pub broken: bool,
}

impl Mock {
    pub fn new() -> Self {
        let bundle = bundle();
        Self {
            manifest: bundle.manifest().clone(),
            tokenizer: bundle.tokenizer().unwrap(),
            asked: AtomicUsize::new(0),
            broken: false,
        }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn ask(&self) -> Result<(), InferenceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.broken {
            let device = "mock".to_owned();
            return Err(BackendError::Device { device, reason: "it is lost".into() }.into());
        }
        Ok(())
    }

    fn hash(&self, tokens: &[TokenId], salt: u64) -> u64 {
        tokens
            .iter()
            .fold(salt, |h, t| (h ^ u64::from(t.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    /// An answer of the form that was asked for: a hash chooses among what is allowed.
    fn follow(&self, request: &Request, constraint: &Arc<Constraint>) -> Generation {
        let spelling = Arc::clone(self.tokenizer.spelling());
        let mut guide = Guide::new(Arc::clone(constraint), spelling, &self.manifest.eos);
        let mut tokens = Vec::new();
        let finish = loop {
            let mask = match guide.look() {
                Next::Choose(mask) => mask,
                Next::Complete => break Finish::Complete,
                Next::Stuck => break Finish::Stuck,
            };
            if tokens.len() == request.max_new {
                break Finish::Length;
            }
            let h = self.hash(&[&request.prompt[..], &tokens].concat(), request.sampling.seed);
            let token = mask.tokens().nth(h as usize % mask.tokens().count()).unwrap();
            if !guide.advance(token) {
                break Finish::Eos;
            }
            tokens.push(token);
        };
        Generation { tokens, finish }
    }

    fn row(&self, tokens: &[TokenId]) -> Vec<i32> {
        (0..self.manifest.vocabulary as u64).map(|i| (self.hash(tokens, i) >> 44) as i32).collect()
    }
}

impl InferenceModel for Mock {
    fn id(&self) -> B256 {
        self.manifest.id().unwrap()
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn generate_batch(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>> {
        let one = |request: &Request| {
            self.ask()?;
            let mut tokens = Vec::new();
            if let Some(constraint) = &request.constraint {
                return Ok(self.follow(request, constraint));
            }
            while tokens.len() < request.max_new {
                let h = self.hash(&[&request.prompt[..], &tokens].concat(), request.sampling.seed);
                let token = TokenId((h >> 32) as u32 % self.manifest.vocabulary as u32);
                if h.is_multiple_of(8) {
                    return Ok(Generation { tokens, finish: Finish::Eos });
                }
                if h % 8 == 1 || request.stop.contains(&token) {
                    return Ok(Generation { tokens, finish: Finish::Stop });
                }
                tokens.push(token);
            }
            Ok(Generation { tokens, finish: Finish::Length })
        };
        requests.iter().map(one).collect()
    }

    fn all_logits(&self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError> {
        self.ask()?;
        Ok((1..=tokens.len()).map(|n| self.row(&tokens[..n])).collect())
    }

    fn last_logits(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.ask()?;
        Ok(self.row(tokens))
    }

    fn score(&self, prompt: &[TokenId], labels: &[Vec<TokenId>]) -> Result<Vec<i64>, InferenceError> {
        self.ask()?;
        let salt = self.hash(prompt, 7);
        Ok(labels.iter().map(|label| -((self.hash(label, salt) >> 60) as i64)).collect())
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.last_logits(tokens)
    }

    fn classify(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.last_logits(tokens)
    }
}

/// A chain with one model, which is its default.
pub fn chain(model: Arc<dyn InferenceModel>) -> Inference {
    chain_with(model, |_| ())
}

/// The same with changes to the default configuration.
pub fn chain_with(model: Arc<dyn InferenceModel>, change: impl FnOnce(&mut ChainConfig)) -> Inference {
    let mut config = ChainConfig::embedded(model.id());
    change(&mut config);
    let mut models = ModelSet::new(&config);
    models.insert(model).unwrap();
    Inference::new(&config, models)
}

pub const PLENTY: Gas = Gas(u64::MAX);

/// The outcome of a call with more gas than it can need.
pub fn call(inference: &Inference, call: &impl SolCall) -> Outcome {
    inference.call(&call.abi_encode(), PLENTY).unwrap()
}

/// The answer of a call that must succeed, and its gas.
pub fn answer<C: SolCall>(inference: &Inference, asked: &C) -> (C::Return, Gas) {
    match call(inference, asked) {
        Outcome::Return { output, gas } => (C::abi_decode_returns_validate(&output).unwrap(), gas),
        other => panic!("{other:?}"),
    }
}

/// The error of a call that must revert, and its gas.
pub fn error(inference: &Inference, asked: &impl SolCall) -> (Bytes, Gas) {
    match call(inference, asked) {
        Outcome::Revert { output, gas } => (output, gas),
        other => panic!("{other:?}"),
    }
}

pub const GREEDY: abi::Sampling = abi::Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 };

/// A greedy generation on the default model.
pub fn generate(prompt: impl Into<Vec<u8>>, max_new: u32) -> generateCall {
    generateCall {
        model: B256::ZERO,
        prompt: Bytes::from(prompt.into()),
        maxNew: max_new,
        s: GREEDY,
        stopIds: Vec::new(),
    }
}
