//! A checkpoint of any source, under Hugging Face's names for its tensors.

use candle_core::{DType, Device, Tensor};

use metis_kernels::{AttentionShape, BoundsError};

use super::ImportError;
use crate::bundle::{ARCHITECTURE, FORMAT_VERSION, FileBytes, Formats, Manifest, Work, check_dimensions};

/// The numbers that make a transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hyperparameters {
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) norm_epsilon_q32: i64,
    pub(crate) rope_theta: u64,
    pub(crate) tied: bool,
    pub(crate) eos: Vec<u32>,
    pub(crate) pairs: RotaryPairs,
}

/// Which channels of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RotaryPairs {
    /// `(i, i + head_dim / 2)`: Hugging Face's and the kernels'.
    Halves,
    /// `(2i, 2i + 1)`: llama2.c's.
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
    pub(super) fn manifest(&self, name: String, context: usize, bos: Vec<u32>) -> Manifest {
        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            name,
            architecture: ARCHITECTURE.to_owned(),
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

    /// Every tensor of the checkpoint with its shape.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden])];
        for layer in 0..self.layers {
            let shapes = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![query, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, query]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ];
            tensors
                .extend(shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tied {
            tensors.push(("lm_head.weight".to_owned(), vec![self.vocabulary, hidden]));
        }
        tensors
    }
}

/// A checkpoint's shapes and, mapped into memory, its tensors.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) shape: Hyperparameters,
    pub(super) files: Vec<FileBytes>,
    pub(super) tensors: std::collections::HashMap<String, StoredTensor>,
}

/// Where a tensor is and how it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) file: usize,
    pub(super) bytes: std::ops::Range<usize>,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

impl Checkpoint {
    /// A tensor as `f32`: exact, for every stored type is a subset of it.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ImportError> {
        let missing = || ImportError::MissingTensor { name: name.to_owned(), expected: shape.to_vec() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        if stored.shape != shape || !matches!(stored.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(ImportError::TensorShape {
                name: name.to_owned(),
                expected: format!("{shape:?} of f32, f16 or bf16"),
                actual: format!("{:?} of {}", stored.shape, stored.dtype.as_str()),
            });
        }
        let bytes = self.files[stored.file].as_ref().get(stored.bytes.clone()).ok_or_else(missing)?;
        Tensor::from_raw_buffer(bytes, stored.dtype, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .map_err(|source| ImportError::Tensor { name: name.to_owned(), source })
    }

    /// The same as the bits of IEEE singles, row by row.
    pub(super) fn bits(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, ImportError> {
        let values = self
            .tensor(name, shape)?
            .flatten_all()
            .and_then(|tensor| tensor.to_vec1::<f32>())
            .map_err(|source| ImportError::Tensor { name: name.to_owned(), source })?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    }
}
