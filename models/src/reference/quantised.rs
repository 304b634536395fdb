//! candle's quantised Llama in a well-known shape: the peer that `bench model` runs beside the fixed-point model.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use metis_kernels::TokenId;
use rayon::ThreadPool;

use crate::bundle::{LAYER_MATRICES, LAYER_NORMS, Manifest, matrix_shape};

use super::ReferenceError;

/// candle's names for [`LAYER_MATRICES`].
const MATRICES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
/// candle's names for [`LAYER_NORMS`].
const NORMS: [&str; 2] = ["attn_norm", "ffn_norm"];

/// A model with random Q8_0 weights.
#[derive(Debug)]
pub struct QuantisedPeer {
    model: ModelWeights,
    pool: ThreadPool,
}

impl QuantisedPeer {
    /// A model of the manifest's shape that computes on `threads` threads.
    pub fn new(manifest: &Manifest, threads: usize) -> Result<Self, ReferenceError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| candle_core::Error::Msg(error.to_string()))?;
        let file = pool.install(|| gguf(manifest))?;
        let mut reader = Cursor::new(file);
        let content = Content::read(&mut reader)?;
        let model = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?;
        Ok(Self { model, pool })
    }

    /// Feeds tokens from `position` on (a sequence begins anew at zero) and returns the most likely next one.
    pub fn feed(&mut self, tokens: &[TokenId], position: usize) -> Result<TokenId, ReferenceError> {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let model = &mut self.model;
        self.pool.install(|| {
            let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
            let logits = model.forward(&input, position)?;
            Ok(TokenId(logits.flatten_all()?.argmax(0)?.to_scalar::<u32>()?))
        })
    }
}

/// The shape as a GGUF file in memory.
fn gguf(m: &Manifest) -> Result<Vec<u8>, ReferenceError> {
    let device = Device::Cpu;
    let random = |[outputs, inputs]: [usize; 2]| -> candle_core::Result<QTensor> {
        let deviation = 1.0 / (inputs as f32).sqrt();
        QTensor::quantize(&Tensor::randn(0f32, deviation, (outputs, inputs), &device)?, GgmlDType::Q8_0)
    };
    let ones =
        || QTensor::quantize(&Tensor::ones(m.hidden, candle_core::DType::F32, &device)?, GgmlDType::F32);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), random([m.vocabulary, m.hidden])?),
        ("output_norm.weight".to_owned(), ones()?),
    ];
    for layer in 0..m.layers {
        for (ours, name) in LAYER_MATRICES.into_iter().zip(MATRICES) {
            tensors.push((format!("blk.{layer}.{name}.weight"), random(matrix_shape(m, ours))?));
        }
        for (_, name) in LAYER_NORMS.into_iter().zip(NORMS) {
            tensors.push((format!("blk.{layer}.{name}.weight"), ones()?));
        }
    }
    let number = |n: usize| Value::U32(n as u32);
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.attention.head_count", number(m.heads)),
        ("llama.attention.head_count_kv", number(m.kv_heads)),
        ("llama.block_count", number(m.layers)),
        ("llama.embedding_length", number(m.hidden)),
        ("llama.rope.dimension_count", number(m.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors)?;
    Ok(file.into_inner())
}
