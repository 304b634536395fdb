//! A checkpoint's tensors in the bundle's formats.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use metis_kernels::Scale;
use metis_kernels::weights::{gains_q20, quantise_row};
use rayon::prelude::*;

use super::{Checkpoint, ImportError, RotaryPairs};
use crate::bundle::{Content, LAYER_MATRICES, LAYER_NORMS, Manifest, layout, matrix_shape};

/// Hugging Face's names for [`LAYER_MATRICES`].
const MATRIX_SOURCES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
/// Hugging Face's names for [`LAYER_NORMS`].
const NORM_SOURCES: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];

/// All tensors of a bundle by name.
pub(super) fn tensors(
    checkpoint: &Checkpoint,
    manifest: &Manifest,
    progress: &ProgressBar,
) -> Result<BTreeMap<String, Vec<u8>>, ImportError> {
    let weights = layout(manifest).into_iter().filter(|spec| spec.content == Content::Weights);
    progress.set_length(weights.map(|spec| spec.shape.iter().product::<usize>() as u64).sum());

    let mut tensors = BTreeMap::new();
    let embedding = [manifest.vocabulary, manifest.hidden];
    let mut matrix = |name: &str, source: &str, shape: [usize; 2], pairs| {
        let (bytes, scales) = quantise_matrix(checkpoint, source, shape, pairs)?;
        tensors.insert(format!("{name}.weight"), bytes);
        tensors.insert(format!("{name}.scale"), scales);
        progress.inc((shape[0] * shape[1]) as u64);
        Ok::<_, ImportError>(())
    };
    matrix("embedding", "model.embed_tokens.weight", embedding, None)?;
    for layer in 0..manifest.layers {
        for (name, source) in LAYER_MATRICES.into_iter().zip(MATRIX_SOURCES) {
            // RoPE sees the outputs of these two.
            let pairs = matches!(name, "query" | "key").then_some(checkpoint.shape.pairs);
            let source = format!("model.layers.{layer}.{source}.weight");
            matrix(&format!("layers.{layer}.{name}"), &source, matrix_shape(manifest, name), pairs)?;
        }
    }
    if !manifest.tied_embeddings {
        matrix("head", "lm_head.weight", embedding, None)?;
    }

    let mut norm = |name: String, source: String| {
        let bits = checkpoint.bits(&source, &[manifest.hidden])?;
        let gains =
            gains_q20(&bits).map_err(|error| ImportError::Weight { name: source, row: 0, source: error })?;
        tensors.insert(format!("{name}.gain"), gains.into_iter().flat_map(i32::to_le_bytes).collect());
        Ok::<_, ImportError>(())
    };
    for layer in 0..manifest.layers {
        for (name, source) in LAYER_NORMS.into_iter().zip(NORM_SOURCES) {
            norm(format!("layers.{layer}.{name}"), format!("model.layers.{layer}.{source}.weight"))?;
        }
    }
    norm("final_norm".into(), "model.norm.weight".into())?;

    let frequencies = checkpoint.rope_frequencies()?;
    tensors.insert("rope.frequencies".into(), frequencies.into_iter().flat_map(u64::to_le_bytes).collect());
    Ok(tensors)
}

/// The bytes and scales of a matrix; rows of queries and keys move to the kernels' order of rotary pairs.
fn quantise_matrix(
    checkpoint: &Checkpoint,
    name: &str,
    [outputs, inputs]: [usize; 2],
    pairs: Option<RotaryPairs>,
) -> Result<(Vec<u8>, Vec<u8>), ImportError> {
    let bits = checkpoint.bits(name, &[outputs, inputs])?;
    let mut bytes = vec![0; outputs * inputs];
    let quantise = |(row, out): (usize, &mut [u8])| {
        let row = pairs.map_or(row, |pairs| pairs.source_row(row, checkpoint.shape.head_dim));
        quantise_row(&bits[row * inputs..(row + 1) * inputs], out).map_err(|source| ImportError::Weight {
            name: name.to_owned(),
            row,
            source,
        })
    };
    let scales: Vec<Scale> =
        bytes.par_chunks_mut(inputs).enumerate().map(quantise).collect::<Result<_, _>>()?;
    let scales = scales.iter().flat_map(|scale| {
        [scale.mantissa().to_le_bytes(), scale.exponent().to_le_bytes()].into_iter().flatten()
    });
    Ok((bytes, scales.collect()))
}
