//! llama2.c's `.bin` checkpoints, version 0: seven `i32` and then the weights as `f32`, all little-endian.
//!
//! Source: <https://github.com/karpathy/llama2.c>, `export.py` (`legacy_export`) and `run.c`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;

use super::checkpoint::StoredTensor;
use super::names::Names;
use super::rope::Rope;
use super::smoothing::Folds;
use super::{Checkpoint, Hyperparameters, ImportError, RotaryPairs, numbers};
use crate::bundle::{Architecture, FileBytes, MAX_LAYERS, Variant};

const HEADER_BYTES: usize = 7 * 4;
/// What `ak42` files of later versions start with.
const VERSIONED_MAGIC: i32 = 0x616b_3432;
/// RoPE's base; the format has no field for it.
const ROPE_THETA: u64 = 10_000;
/// The norms' epsilon; the format has no field for it.
const NORM_EPSILON: f64 = 1e-5;
/// `run.c` stops at either of BOS and EOS.
const EOS: [u32; 2] = [1, 2];

/// Opens a checkpoint.
pub(super) fn open(path: &Path) -> Result<Checkpoint, ImportError> {
    let file = FileBytes::map(path).map_err(ImportError::io(path))?;
    let shape = read_header(file.as_ref()).map_err(|reason| ImportError::format(path, reason))?;
    let (tensors, length) =
        places(&shape).ok_or_else(|| ImportError::format(path, "the header's shapes are too large"))?;
    if file.as_ref().len() != length {
        let reason = format!("the header needs {length} bytes, the file has {}", file.as_ref().len());
        return Err(ImportError::format(path, reason));
    }
    Ok(Checkpoint { shape, files: vec![file], tensors, folds: Folds::default() })
}

fn read_header(file: &[u8]) -> Result<Hyperparameters, String> {
    let header = file.get(..HEADER_BYTES).ok_or("the file is shorter than its header of 28 bytes")?;
    let mut numbers = header.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or_default();
    let [dim, hidden_dim, layers, heads, kv_heads, vocabulary, context] = std::array::from_fn(|_| next());
    if dim == VERSIONED_MAGIC {
        return Err("this is a versioned (ak42) file; export it again with `--version 0`".into());
    }
    let positive = |what: &str, value: i32| match usize::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(format!("{what} is {value}; is this a llama2.c checkpoint of version 0?")),
    };
    let (hidden, heads) = (positive("dim", dim)?, positive("n_heads", heads)?);
    let layers = positive("n_layers", layers)?;
    if !hidden.is_multiple_of(heads) || !(hidden / heads).is_multiple_of(2) || layers > MAX_LAYERS {
        return Err(format!("{layers} layers, a width of {hidden} and {heads} heads do not fit together"));
    }
    let shape = Hyperparameters {
        // A negative size means a head of its own.
        vocabulary: positive("vocab_size", vocabulary.saturating_abs())?,
        tied: vocabulary > 0,
        context: positive("seq_len", context)?,
        hidden,
        intermediate: positive("hidden_dim", hidden_dim)?,
        layers,
        heads,
        kv_heads: positive("n_kv_heads", kv_heads)?,
        head_dim: hidden / heads,
        norm_epsilon_q32: numbers::epsilon_q32(NORM_EPSILON).ok_or("epsilon")?,
        rope: Rope { theta: ROPE_THETA, ..Rope::default() },
        eos: EOS.to_vec(),
        pairs: RotaryPairs::Neighbours,
        names: Names::Llama,
        architecture: Architecture::Llama,
        variant: Variant::default(),
    };
    shape.check().map_err(|error| error.to_string())?;
    Ok(shape)
}

/// Where each tensor is, in the order of the file, and the length of the file; `None` when a product overflows.
fn places(shape: &Hyperparameters) -> Option<(HashMap<String, StoredTensor>, usize)> {
    let (dim, hidden_dim) = (shape.hidden, shape.intermediate);
    let kv_dim = shape.kv_heads.checked_mul(shape.head_dim)?;
    let mut tensors = HashMap::new();
    let mut at = HEADER_BYTES;
    let mut take = |names: Vec<String>, tensor_shape: &[usize]| {
        let elements = tensor_shape.iter().try_fold(4usize, |product, &n| product.checked_mul(n))?;
        for name in names {
            let bytes = at..at.checked_add(elements)?;
            at = bytes.end;
            let shape = tensor_shape.to_vec();
            tensors.insert(name, StoredTensor { file: 0, bytes, storage: DType::F32.into(), shape });
        }
        Some(())
    };
    let layers =
        |name: &str| (0..shape.layers).map(|i| format!("model.layers.{i}.{name}.weight")).collect::<Vec<_>>();
    take(vec!["model.embed_tokens.weight".into()], &[shape.vocabulary, dim])?;
    take(layers("input_layernorm"), &[dim])?;
    take(layers("self_attn.q_proj"), &[dim, dim])?;
    take(layers("self_attn.k_proj"), &[kv_dim, dim])?;
    take(layers("self_attn.v_proj"), &[kv_dim, dim])?;
    take(layers("self_attn.o_proj"), &[dim, dim])?;
    take(layers("post_attention_layernorm"), &[dim])?;
    take(layers("mlp.gate_proj"), &[hidden_dim, dim])?;
    take(layers("mlp.down_proj"), &[dim, hidden_dim])?;
    take(layers("mlp.up_proj"), &[hidden_dim, dim])?;
    take(vec!["model.norm.weight".into()], &[dim])?;
    // Old tables of cosines and sines, unused since.
    for table in ["freq_cis_real", "freq_cis_imag"] {
        take(vec![table.into()], &[shape.context, shape.head_dim / 2])?;
    }
    if !shape.tied {
        take(vec!["lm_head.weight".into()], &[shape.vocabulary, dim])?;
    }
    Some((tensors, at))
}
