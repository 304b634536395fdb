//! A checkpoint of any source, under Hugging Face's names for its tensors.

use candle_core::{DType, Device, Tensor};

use metis_kernels::{AttentionShape, BoundsError};

use super::gguf::Storage;
pub(crate) use super::names::Names;
use super::rope::Rope;
use super::smoothing::Folds;
use super::{ImportError, numbers};
use crate::bundle::{
    Architecture, FORMAT_VERSION, FileBytes, Formats, Manifest, Variant, Work, check_dimensions,
};

/// What makes a transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hyperparameters {
    pub(crate) architecture: Architecture,
    pub(crate) variant: Variant,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) norm_epsilon_q32: i64,
    pub(crate) rope: Rope,
    pub(crate) tied: bool,
    pub(crate) eos: Vec<u32>,
    pub(crate) pairs: RotaryPairs,
    pub(crate) names: Names,
}

/// Which channels of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RotaryPairs {
    /// `(i, i + head_dim / 2)`: Hugging Face's and the kernels'.
    Halves,
    /// `(2i, 2i + 1)`: llama2.c's, and that of GGUF's `llama`.
    Neighbours,
}

impl RotaryPairs {
    /// The row of the checkpoint's query or key matrix that becomes row `row` of the bundle's.
    pub(crate) const fn source_row(self, row: usize, head_dim: usize) -> usize {
        let (head, channel, half) = (row / head_dim, row % head_dim, head_dim / 2);
        match self {
            Self::Halves => row,
            Self::Neighbours => head * head_dim + 2 * (channel % half) + channel / half,
        }
    }
}

impl Hyperparameters {
    /// The manifest, still without files.
    pub(crate) fn manifest(&self, name: String, context: usize, bos: Vec<u32>) -> Manifest {
        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            name,
            architecture: self.architecture,
            vocabulary: self.vocabulary,
            context,
            hidden: self.hidden,
            intermediate: self.intermediate,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            norm_epsilon_q32: self.norm_epsilon_q32,
            tied_embeddings: self.tied,
            eos: self.eos.clone(),
            bos,
            chat: None,
            formats: Formats::default(),
            variant: self.variant.clone(),
            work: Work::default(),
            files: Vec::new(),
        };
        manifest.work = manifest.derived_work();
        manifest
    }

    /// Checks every dimension before anything is computed from it or allocated for it.
    pub(crate) fn check(&self) -> Result<(), BoundsError> {
        let Self { vocabulary, context, hidden, intermediate, layers, heads, kv_heads, head_dim, .. } = *self;
        let attention = AttentionShape { heads, kv_heads, head_dim };
        check_dimensions([vocabulary, context, hidden, intermediate, layers], attention)
    }
}

/// A checkpoint's shapes and, mapped into memory, its tensors.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) shape: Hyperparameters,
    pub(super) files: Vec<FileBytes>,
    pub(super) tensors: std::collections::HashMap<String, StoredTensor>,
    /// By what its tensors are multiplied on their way into a bundle.
    pub(super) folds: Folds,
}

/// The tensor, one number per pair, by which RoPE's frequencies are divided, if the checkpoint has it.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Where a tensor is and how it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) file: usize,
    pub(super) bytes: std::ops::Range<usize>,
    pub(super) storage: Storage,
    pub(super) shape: Vec<usize>,
}

impl Checkpoint {
    /// A tensor as `f32`: exact, for every stored type is a subset of it, or as `docs/numerics.md` rounds blocks.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ImportError> {
        let failed = |source| ImportError::Tensor { name: name.to_owned(), source };
        let (storage, bytes) = self.stored(name, shape)?;
        match storage {
            Storage::Float(dtype) => Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(DType::F32))
                .map_err(failed),
            Storage::Blocks(_) => {
                let values = self.stored_bits(name, shape)?.into_iter().map(f32::from_bits).collect();
                Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).map_err(failed)
            }
        }
    }

    /// The same as the bits of IEEE singles, row by row, multiplied by the powers of two that smoothing chose.
    pub(super) fn bits(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, ImportError> {
        let mut bits = self.stored_bits(name, shape)?;
        self.folds.apply(name, &mut bits);
        Ok(bits)
    }

    fn stored_bits(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, ImportError> {
        let (storage, bytes) = self.stored(name, shape)?;
        if let Storage::Blocks(format) = storage {
            let not_finite = |block| ImportError::Block { name: name.to_owned(), block };
            return format.singles(bytes).map_err(not_finite);
        }
        let values = self
            .tensor(name, shape)?
            .flatten_all()
            .and_then(|tensor| tensor.to_vec1::<f32>())
            .map_err(|source| ImportError::Tensor { name: name.to_owned(), source })?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    }

    /// The bits of the singles by which RoPE's frequencies are divided; `None` if they stay as they are.
    pub(crate) fn rope_factors(&self) -> Result<Option<Vec<u32>>, ImportError> {
        let some = self.tensors.contains_key(ROPE_FACTORS);
        some.then(|| self.bits(ROPE_FACTORS, &[self.shape.head_dim / 2])).transpose()
    }

    /// RoPE's frequencies in turns per token, Q64.
    pub(super) fn rope_frequencies(&self) -> Result<Vec<u64>, ImportError> {
        let frequencies = self.shape.rope.frequencies(self.shape.head_dim);
        let Some(factors) = self.rope_factors()? else { return Ok(frequencies) };
        let slowed = |(frequency, factor)| {
            numbers::slowed(frequency, factor).ok_or(ImportError::RopeFactor(f32::from_bits(factor)))
        };
        frequencies.into_iter().zip(factors).map(slowed).collect()
    }

    /// The bytes of a tensor of this shape.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<(Storage, &[u8]), ImportError> {
        let missing = || ImportError::MissingTensor { name: name.to_owned(), expected: shape.to_vec() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let readable = match stored.storage {
            Storage::Float(dtype) => matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            Storage::Blocks(_) => true,
        };
        if stored.shape != shape || !readable {
            return Err(ImportError::TensorShape {
                name: name.to_owned(),
                expected: format!("{shape:?} of f32, f16 or bf16"),
                actual: format!("{:?} of {}", stored.shape, stored.storage),
            });
        }
        let bytes = self.files[stored.file].as_ref().get(stored.bytes.clone()).ok_or_else(missing)?;
        Ok((stored.storage, bytes))
    }
}
