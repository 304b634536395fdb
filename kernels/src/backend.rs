//! What a device must compute. One trait; the scalar reference, SIMD and CUDA implementations fill it.
//!
//! Buffers are opaque: a backend decides where they live and how they are packed. Every kernel takes several rows (tokens)
//! per call; each row's result depends on that row alone and, in attention, on the key-value cache of its own sequence.
//! So batch composition, tiling and threads cannot change a bit.

use core::fmt::Debug;
use core::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::activation::{Activation, SoftCap};
use crate::bounds::{AttentionShape, BoundsError, MAX_CONTEXT, MAX_INPUTS, MAX_OUTPUTS, length, within};
use crate::formats::{GROUP_INPUTS, Scale, TokenId};
use crate::mask::TokenMask;
use crate::sampling::Sampling;
use crate::softmax::attention_scale;

/// A failure of the device, never of the numbers: there is no "other answer".
#[derive(Clone, Debug, Error)]
pub enum BackendError {
    /// The shape could overflow an accumulator or exceeds what the formats are proven for.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// Buffers that do not fit together: a bug in the graph, or weights of the wrong shape.
    #[error("{kernel}: expected {expected}, got {actual}")]
    Shape {
        /// The kernel that was called.
        kernel: &'static str,
        /// What it needs.
        expected: String,
        /// What it was given.
        actual: String,
    },
    /// A token that is not in the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    TokenOutOfRange {
        /// The offending token.
        token: TokenId,
        /// The number of rows of the embedding.
        vocabulary: usize,
    },
    /// A position past the end of a key-value cache.
    #[error("position {position} is outside a key-value cache of {capacity} tokens")]
    CacheFull {
        /// The position that was to be written.
        position: usize,
        /// The tokens that the cache can hold.
        capacity: usize,
    },
    /// The device has no memory left for what was asked; it works on, for those who need less.
    #[error("{device}: out of memory, {bytes} bytes more were asked for")]
    OutOfMemory {
        /// The name of the device.
        device: String,
        /// What was asked for.
        bytes: usize,
    },
    /// The device itself failed, and is not to be used any more.
    #[error("{device}: {reason}")]
    Device {
        /// The name of the device.
        device: String,
        /// What the driver said.
        reason: String,
    },
}

/// An int8 matrix `[outputs, inputs]`, row-major, with a [`Scale`] for each output channel and perhaps a multiplier for each group of
/// [`GROUP_INPUTS`] neighbours in a row.
#[derive(Clone, Copy, Debug)]
pub struct LinearWeights<'a> {
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// `outputs * inputs` bytes, each `w ^ 0x80` with `-127 <= w <= 127`.
    pub bytes: &'a [u8],
    /// One scale per output channel.
    pub scales: &'a [Scale],
    /// The groups' multipliers, `[outputs, ceil(inputs / 32)]`, row-major, none zero: a weight stands for `w * multiplier * scale`. Without
    /// them it stands for `w * scale`.
    pub groups: Option<&'a [u8]>,
}

impl LinearWeights<'_> {
    /// Checks the shape against the accumulator bounds and the weights against their range.
    pub fn check(&self) -> Result<(), BoundsError> {
        within("linear inputs", self.inputs, MAX_INPUTS)?;
        within("linear outputs", self.outputs, MAX_OUTPUTS)?;
        length("weights", self.outputs * self.inputs, self.bytes.len())?;
        length("scales", self.outputs, self.scales.len())?;
        if let Some(index) = self.bytes.iter().position(|&byte| byte == 0) {
            return Err(BoundsError::Weight { index });
        }
        let Some(groups) = self.groups else { return Ok(()) };
        length("multipliers", self.outputs * self.inputs.div_ceil(GROUP_INPUTS), groups.len())?;
        match groups.iter().position(|&multiplier| multiplier == 0) {
            Some(index) => Err(BoundsError::Multiplier { index }),
            None => Ok(()),
        }
    }
}

/// The weights of an RMSNorm or a LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// One gain per channel, Q20.
    pub gains_q20: &'a [i32],
    /// One bias per channel, Q20: a LayerNorm, which also takes the mean away. `None` for an RMSNorm.
    pub biases_q20: Option<&'a [i32]>,
    /// The norm's epsilon, Q32.
    pub epsilon_q32: i64,
}

/// The size of one sequence's key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer layers.
    pub layers: usize,
    /// Head counts and dimension.
    pub attention: AttentionShape,
    /// Tokens that the cache can hold.
    pub capacity: usize,
}

impl KvShape {
    /// Checks heads, capacity and layers against the bounds.
    pub fn check(self) -> Result<(), BoundsError> {
        self.attention.check()?;
        within("cache capacity", self.capacity, MAX_CONTEXT)?;
        within("layers", self.layers, 1 << 10)
    }
}

/// Which sequence a row belongs to and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index into the caches of the call.
    pub sequence: usize,
    /// Position of the token in its sequence, from zero.
    pub position: usize,
}

/// What a query of one attention layer sees, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The layer whose keys and values are written and read.
    pub layer: usize,
    /// What makes scores of dot products: [`attention_scale`].
    pub scale: Scale,
    /// Whether a query sees the positions up to its own only. If not, all of its sequence that has been written.
    pub causal: bool,
    /// Of those, only so many last ones: a sliding window (Beltagy et al., arXiv:2004.05150). Causal layers only.
    pub window: Option<usize>,
    /// A bound on scores, in log2 units.
    pub soft_cap: Option<SoftCap>,
}

impl Attention {
    /// Causal attention of heads of `head_dim` channels without window and cap.
    pub const fn causal(layer: usize, head_dim: usize) -> Self {
        Self { layer, scale: attention_scale(head_dim), causal: true, window: None, soft_cap: None }
    }

    /// The positions that the query at `position` sees in a sequence of `length`.
    pub fn sees(&self, position: usize, length: usize) -> Range<usize> {
        let end = if self.causal { position + 1 } else { length };
        let first = self.window.map_or(0, |window| end.saturating_sub(window.max(1)));
        first..end
    }
}

/// One token to choose from a row of logits.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    /// The row of logits.
    pub row: usize,
    /// How to choose.
    pub sampling: Sampling,
    /// Position in the sequence of the token that is chosen.
    pub position: u64,
    /// The tokens to choose from; all if there is none. It allows at least one.
    pub mask: Option<Arc<TokenMask>>,
}

/// The kernels of a transformer on one device.
///
/// Every function is exact: two implementations that disagree in one bit are not both backends. `docs/numerics.md` gives
/// each kernel's formula under the kernel's name.
pub trait Backend: Send + Sync + Debug + 'static {
    /// An int8 matrix with per-channel scales and perhaps groups, in the layout that the device likes.
    type Linear: Send + Sync + Debug;
    /// Gains, biases and epsilon of a norm.
    type Norm: Send + Sync + Debug;
    /// A number for each channel, Q16.
    type Bias: Send + Sync + Debug;
    /// Cosines and sines for each position.
    type Rope: Send + Sync + Debug;
    /// `[rows, width]` of `i32` in Q16: residual stream, linear outputs, logits.
    type Residual: Send + Sync + Debug;
    /// `[rows, width]` of `i16` with an exponent of two per row: what linear layers read.
    type Activations: Send + Sync + Debug;
    /// Quantised keys and values of one sequence, all layers.
    type KvCache: Send + Sync + Debug;

    /// The name that `selftest` and logs print.
    fn name(&self) -> String;

    /// Runs a whole step. A backend with threads runs it on one of them, so that each kernel of the step shares out its work without
    /// handing over first.
    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// What follows is of this layer; of none before the first and after the last one. For those who report where something happened, or
    /// begin what was asked for so far.
    fn begin_layer(&self, _layer: Option<usize>) {}

    /// Takes a matrix over. Checks its shape against the accumulator bounds.
    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Self::Linear, BackendError>;
    /// Takes a bias over: Q16 numbers within `+-(2^31 - 1)`.
    fn load_bias(&self, values_q16: &[i32]) -> Result<Self::Bias, BackendError>;
    /// Takes a norm's weights over.
    fn load_norm(&self, weights: NormWeights<'_>) -> Result<Self::Norm, BackendError>;
    /// Builds the rotation table for positions `0 .. context` from frequencies in turns per token (Q64).
    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<Self::Rope, BackendError>;

    /// A Q16 buffer for up to `rows` rows; a kernel that writes it sets how many are in use.
    fn residual(&self, rows: usize, width: usize) -> Result<Self::Residual, BackendError>;
    /// A buffer for the quantised activations of up to `rows` rows.
    fn activations(&self, rows: usize, width: usize) -> Result<Self::Activations, BackendError>;
    /// An empty cache for one sequence.
    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, BackendError>;
    /// Bytes that a cache of this shape takes when it is full, for those who bound them.
    fn kv_bytes(&self, shape: KvShape) -> usize;
    /// Copies positions of `from`, all layers, to `at` and after it in `to`, which has at least `at` positions and the same heads; what `to`
    /// has after them is forgotten. They are then what they would be had the rows that wrote them been written to `to` as well.
    fn copy_positions(
        &self,
        from: &Self::KvCache,
        positions: Range<usize>,
        to: &mut Self::KvCache,
        at: usize,
    ) -> Result<(), BackendError>;

    /// Row `i` of `out` becomes row `tokens[i]` of the embedding, times `factor`.
    fn embed(
        &self,
        table: &Self::Linear,
        tokens: &[TokenId],
        factor: Scale,
        out: &mut Self::Residual,
    ) -> Result<(), BackendError>;
    /// Norm of each row with its gains, quantised per row.
    fn norm(
        &self,
        x: &Self::Residual,
        norm: &Self::Norm,
        out: &mut Self::Activations,
    ) -> Result<(), BackendError>;
    /// Norm of each run of channels as wide as the norm (a row, or each head of a row), in place.
    fn normalise(&self, x: &mut Self::Residual, norm: &Self::Norm) -> Result<(), BackendError>;
    /// Quantises each row as it is.
    fn quantise(&self, x: &Self::Residual, out: &mut Self::Activations) -> Result<(), BackendError>;
    /// `out = x * weights^T`, requantised to Q16.
    fn linear(
        &self,
        x: &Self::Activations,
        weights: &Self::Linear,
        out: &mut Self::Residual,
    ) -> Result<(), BackendError>;
    /// The output of `x * weights^T` with the largest requantised value for each row, the lowest of equals: greedy choices by a head
    /// without a row of logits.
    fn argmax(
        &self,
        x: &Self::Activations,
        weights: &Self::Linear,
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError>;
    /// Rotates each head of each row by its position, in place; pairs are `(i, i + head_dim / 2)`.
    fn rope(
        &self,
        rope: &Self::Rope,
        rows: &[Row],
        head_dim: usize,
        x: &mut Self::Residual,
    ) -> Result<(), BackendError>;
    /// Writes the keys and values of `rows` into their caches, then attends each query to the positions that it sees. The concatenated
    /// heads are quantised per row.
    #[allow(
        clippy::too_many_arguments,
        reason = "one argument per operand of the formula; a struct would only rename them"
    )]
    fn attention(
        &self,
        attention: Attention,
        rows: &[Row],
        q: &Self::Residual,
        k: &Self::Residual,
        v: &Self::Residual,
        caches: &mut [&mut Self::KvCache],
        out: &mut Self::Activations,
    ) -> Result<(), BackendError>;
    /// `activation(gate) * up`, or `activation(gate)` without `up`, quantised per row.
    fn gate(
        &self,
        activation: Activation,
        gate: &Self::Residual,
        up: Option<&Self::Residual>,
        out: &mut Self::Activations,
    ) -> Result<(), BackendError>;
    /// `x += y`, saturating.
    fn add(&self, x: &mut Self::Residual, y: &Self::Residual) -> Result<(), BackendError>;
    /// Adds the bias to each row, saturating.
    fn add_bias(&self, x: &mut Self::Residual, bias: &Self::Bias) -> Result<(), BackendError>;
    /// Bounds each number, in place.
    fn soft_cap(&self, x: &mut Self::Residual, cap: SoftCap) -> Result<(), BackendError>;
    /// Copies the rows named by `rows` to the top of `out`.
    fn select_rows(
        &self,
        x: &Self::Residual,
        rows: &[usize],
        out: &mut Self::Residual,
    ) -> Result<(), BackendError>;
    /// Chooses one token per request. Only token ids leave the device.
    fn sample(
        &self,
        logits: &Self::Residual,
        requests: &[SampleRequest],
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError>;
    /// Replaces `out` by one row, for callers that want logits rather than a token.
    fn read_row(&self, x: &Self::Residual, row: usize, out: &mut Vec<i32>) -> Result<(), BackendError>;
    /// Fills `out` from row-major host values, for self-tests.
    fn write_residual(&self, values: &[i32], out: &mut Self::Residual) -> Result<(), BackendError>;
    /// Fills `out` from row-major host values and one exponent per row, for self-tests.
    fn write_activations(
        &self,
        values: &[i16],
        exponents: &[i32],
        out: &mut Self::Activations,
    ) -> Result<(), BackendError>;
    /// Replaces `out` by one row of activations and returns its exponent, for self-tests.
    fn read_activations(
        &self,
        x: &Self::Activations,
        row: usize,
        out: &mut Vec<i16>,
    ) -> Result<i32, BackendError>;
}
