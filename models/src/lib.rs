//! Models of MetisVM: from a checkpoint on disk to tokens out of a transaction.
//!
//! How data flows through it: [`import`] reads a checkpoint (llama2.c, Hugging Face or GGUF), quantises it exactly and writes a
//! [`bundle`], whose `modelId` is the hash of its canonical manifest. A node opens the bundle ([`Bundle::open`]), which
//! verifies every byte, and hands matrices, gains and frequencies to a [`graph`], which an [`engine`] runs on a backend; the [`tokenizer`] turns bytes
//! into tokens and back. [`eval`] compares the fixed-point logits with a float [`mod@reference`] of the original checkpoint.
//!
//! | module | what it holds |
//! |---|---|
//! | [`bundle`] | manifest, Merkle roots, tensors; `docs/bundle.md` is normative |
//! | [`store`] | bundles under the hashes of their contents, published and fetched |
//! | [`graph`] | the transformer, one file per family |
//! | [`engine`] | a graph on a backend: generation, logits, scores |
//! | [`chat`] | conversations as tokens, without a template engine |
//! | [`constraint`] | answers of a form that the caller gives: automata over bytes, masks of tokens |
//! | [`tokenizer`] | text as bytes to tokens and back, without prompt injection |
//! | [`import`] | checkpoints to bundles, bit for bit the same everywhere |
//! | [`mod@reference`] | the original checkpoint in floats, for evaluation only |
//! | [`synthetic`] | random weights in well-known shapes, to measure with |
//! | [`candle`] | the fixed-point layers as candle modules, and a float model whose parts they replace; for evaluation only |
//! | [`eval`] | perplexity, divergence and agreement of fixed point and float |
#![deny(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod bundle;
pub mod candle;
pub mod chat;
pub mod constraint;
pub mod engine;
pub mod eval;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
pub mod graph;
pub mod import;
pub mod reference;
pub mod store;
pub mod synthetic;
pub mod tokenizer;

pub use bundle::{Bundle, BundleError, Manifest, Matrix};
pub use engine::{Engine, InferenceError, InferenceModel};
pub use tokenizer::{Tokenizer, TokenizerError};
