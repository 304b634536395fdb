//! The fixed-point layers as candle modules: any float model can run with some of its layers replaced.
//!
//! A module takes floats on the CPU, rounds them to the formats of `docs/numerics.md`, runs the same kernel on the same [`Backend`](metis_kernels::Backend) as an
//! [`Engine`](crate::Engine) does, and gives floats back. It is for measuring: nothing here reaches a block.
//!
//! | module | replaces | reads | gives |
//! |---|---|---|---|
//! | [`FixedLinear`] | [`candle_nn::Linear`] | `[.., inputs]` | `[.., outputs]` |
//! | [`FixedNorm`] | [`candle_nn::RmsNorm`], [`candle_nn::LayerNorm`] | `[.., channels]` | `[.., channels]` |
//! | [`FixedAttention`] | softmax of scores times values | `[batch, heads, tokens, head_dim]` thrice | the same |
//! | [`MixedLlama`] | a whole Llama, Mistral, Qwen or Gemma | tokens | `[tokens, vocabulary]` |
//!
//! What the modules give is exact in `f32` but for Q16 numbers beyond `+-256`, so a chain of them computes what the engine computes.
//!
//! ```
//! use std::sync::Arc;
//!
//! use candle_core::{Device, Tensor};
//! use candle_nn::{Activation, Linear, Module, seq};
//! use metis_kernels::Cpu;
//! use metis_models::candle::FixedLinear;
//!
//! let random = |shape: (usize, usize)| Tensor::randn(0f32, 0.2, shape, &Device::Cpu);
//! let (up, down) = (Linear::new(random((96, 64))?, None), Linear::new(random((64, 96))?, None));
//! let backend = Arc::new(Cpu::new(1)?);
//!
//! let float = seq().add(up.clone()).add(Activation::Silu).add(down.clone());
//! let mixed = seq().add(up).add(Activation::Silu).add(FixedLinear::from_linear(&down, backend)?);
//!
//! let x = random((5, 64))?;
//! let error = (float.forward(&x)? - mixed.forward(&x)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(error < 0.1, "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(clippy::float_arithmetic, reason = "the float side of evaluation; nothing here reaches a block")]

mod attention;
mod linear;
mod llama;
mod norm;
mod rows;

use metis_kernels::BackendError;
use metis_kernels::weights::WeightError;
use thiserror::Error;

pub use attention::FixedAttention;
pub use linear::FixedLinear;
pub use llama::{MixedLlama, Part};
pub use norm::FixedNorm;

use crate::bundle::BundleError;
use crate::import::ImportError;

/// Why a layer could not be made or run.
#[derive(Debug, Error)]
pub enum FixedError {
    /// A weight, gain or bias that its format cannot hold.
    #[error("{what}, row {row}: {source}")]
    Number {
        /// What it belongs to.
        what: &'static str,
        /// Its row (output channel); of a vector 0.
        row: usize,
        /// What was wrong.
        source: WeightError,
    },
    /// A number that is infinite or not a number.
    #[error("{0} in a row that should become fixed-point numbers")]
    NotFinite(f32),
    /// An epsilon that is not one of `0 ..= 1`.
    #[error("a norm's epsilon must be between 0 and 1, not {0}")]
    Epsilon(f64),
    /// Tensors that do not fit together.
    #[error("{what}: expected {expected}, got {actual:?}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// The shape that it should have.
        expected: String,
        /// The shape that it has.
        actual: Vec<usize>,
    },
    /// The backend refused the weights or failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] ImportError),
    /// The bundle's tensors cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A bundle of a family whose parts cannot be replaced.
    #[error(
        "no float model of the architecture `{0}` whose parts can be replaced: only the Llama family (Llama, Mistral, Qwen, Gemma) has one"
    )]
    Architecture(&'static str),
    /// A bundle that was not made from the checkpoint.
    #[error(
        "the bundle was not made from this checkpoint: its {field} is {bundle}, the checkpoint's {checkpoint}"
    )]
    OtherCheckpoint {
        /// What differs.
        field: &'static str,
        /// In the bundle.
        bundle: String,
        /// In the checkpoint.
        checkpoint: String,
    },
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<FixedError> for candle_core::Error {
    fn from(error: FixedError) -> Self {
        match error {
            FixedError::Candle(error) => error,
            error => Self::wrap(error),
        }
    }
}
