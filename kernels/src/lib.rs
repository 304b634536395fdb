//! The fixed-point number system of MetisVM and its CPU kernels.
//!
//! For a given bundle and input the logits are one exact sequence of integers, on every machine. This crate is where
//! that sequence is defined in code; `docs/numerics.md` defines it in words, and a second implementation under
//! `tests/reference/` is written from those words alone.
//!
//! How data flows through it: a model file becomes [`weights`] (int8 rows with a scale each), a [`Backend`] loads them
//! into its own opaque buffers, and a transformer graph calls the backend's kernels in order:
//! `embed -> (norm -> linear -> rope -> attention -> linear -> add -> norm -> linear -> gate -> linear -> add)* -> norm -> linear ->
//! argmax or sample`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`formats`] | the number formats as types: [`TokenId`], [`Scale`], fractional bits |
//! | [`rounding`] | the one rounding function, saturation, integer square root |
//! | [`tables`] | exp2, sigmoid, log2 and RoPE tables from integer formulas |
//! | [`weights`] | weight rows from exact dyadic rationals |
//! | [`quantise`](mod@quantise) | activations to int16 with a power-of-two exponent |
//! | [`softmax`] | order-free softmax weights and log-probabilities |
//! | [`sampling`] | greedy and seeded sampling, the counter-based PRF |
//! | [`activation`] | SiLU, GELU and the soft cap |
//! | [`mask`] | the tokens that may be chosen |
//! | [`backend`] | the [`Backend`] trait: what a device must compute |
//! | [`scalar`] | the reference backend |
//! | [`cpu`] | the processor's backend: the same integers by SIMD |
//! | [`buffers`] | rows of the CPU backends |
//! | [`extent`], [`cache`] | what every device's buffers and caches are checked for |
//! | [`pooling`] | an encoder's vector |
//! | [`bounds`] | shapes for which no sum can overflow |
//! | [`paired`] | two backends in step, to find where they differ |
//! | [`golden`] | known-answer vectors per kernel and the self-test that any backend must pass |
#![deny(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod activation;
pub mod backend;
pub mod bounds;
pub mod buffers;
pub mod cache;
#[allow(unsafe_code, reason = "instructions of particular processors")]
pub mod cpu;
pub mod extent;
pub mod formats;
pub mod golden;
pub mod mask;
pub mod paired;
mod pool;
pub mod pooling;
pub mod quantise;
pub mod rounding;
pub mod sampling;
pub mod scalar;
pub mod softmax;
pub mod tables;
pub mod weights;

pub use activation::{Activation, SoftCap};
pub use backend::{
    Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
};
pub use bounds::{AttentionShape, BoundsError};
pub use cpu::{Cpu, CpuKind};
pub use extent::Extent;
pub use formats::{ACTIVATION_LIMIT, Scale, TokenId};
pub use mask::TokenMask;
pub use paired::Paired;
pub use sampling::{Sampling, SamplingError};
pub use scalar::Scalar;
