//! A checkpoint's tensors in the bundle's formats.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use metis_kernels::Scale;
use metis_kernels::formats::GROUP_INPUTS;
use metis_kernels::weights::{WeightError, biases_q16, gains_q20, quantise_grouped_row, quantise_row};
use rayon::prelude::*;

use super::names::{Part, SourceTensor, source};
use super::{Checkpoint, ImportError};
use crate::bundle::{Content, Manifest, TensorSpec, layout};

/// All tensors of a bundle by name.
pub(super) fn tensors(
    checkpoint: &Checkpoint,
    manifest: &Manifest,
    progress: &ProgressBar,
) -> Result<BTreeMap<String, Vec<u8>>, ImportError> {
    let layout = layout(manifest);
    let weights = layout.iter().filter(|spec| spec.content == Content::Weights);
    progress.set_length(weights.map(|spec| spec.shape.iter().product::<usize>() as u64).sum());

    let mut tensors = BTreeMap::new();
    for spec in &layout {
        let Some(source) = source(&checkpoint.shape, manifest, spec) else {
            if spec.content == Content::Frequencies {
                tensors.insert(spec.name.clone(), frequencies(checkpoint, spec)?);
            }
            continue;
        };
        let vector = |values: Vec<i32>| values.into_iter().flat_map(i32::to_le_bytes).collect();
        let bytes = match spec.content {
            Content::Weights => {
                let has_groups = manifest.formats.has_groups();
                let matrix = quantise_matrix(checkpoint, &source, spec, has_groups)?;
                tensors.insert(spec.name.replace(".weight", ".scale"), matrix.scales);
                if has_groups {
                    tensors.insert(spec.name.replace(".weight", ".multiplier"), matrix.multipliers);
                }
                progress.inc(matrix.bytes.len() as u64);
                matrix.bytes
            }
            Content::Biases => vector(numbers(checkpoint, &source, spec, biases_q16)?),
            _ => {
                let plus = i64::from(source.part == Part::PlusOne);
                let mut gains = numbers(checkpoint, &source, spec, |bits| gains_q20(bits, plus))?;
                if plus == 1 {
                    checkpoint.folds.scale_ones(&source.name, &mut gains);
                }
                vector(gains)
            }
        };
        tensors.insert(spec.name.clone(), bytes);
    }
    Ok(tensors)
}

fn frequencies(checkpoint: &Checkpoint, spec: &TensorSpec) -> Result<Vec<u8>, ImportError> {
    let shape = &checkpoint.shape;
    let frequencies = match spec.name.as_str() {
        "rope.local_frequencies" => shape.rope.local_frequencies(shape.head_dim),
        _ => checkpoint.rope_frequencies()?,
    };
    Ok(frequencies.into_iter().flat_map(u64::to_le_bytes).collect())
}

/// A vector: biases or what belongs to a norm.
fn numbers(
    checkpoint: &Checkpoint,
    source: &SourceTensor,
    spec: &TensorSpec,
    convert: impl Fn(&[u32]) -> Result<Vec<i32>, WeightError>,
) -> Result<Vec<i32>, ImportError> {
    let mut bits = checkpoint.bits(&source.name, &source.shape)?;
    let length = spec.shape[0];
    match source.part {
        Part::From(first) => bits = bits[first..first + length].to_vec(),
        Part::Rotary => {
            let row = |row| checkpoint.shape.pairs.source_row(row, checkpoint.shape.head_dim);
            bits = (0..length).map(|i| bits[row(i)]).collect();
        }
        _ => {}
    }
    convert(&bits).map_err(|error| ImportError::Weight { name: source.name.clone(), row: 0, source: error })
}

/// The tensors of a matrix.
struct QuantisedMatrix {
    bytes: Vec<u8>,
    scales: Vec<u8>,
    /// A placeholder for each row if there are no groups.
    multipliers: Vec<u8>,
}

fn quantise_matrix(
    checkpoint: &Checkpoint,
    source: &SourceTensor,
    spec: &TensorSpec,
    has_groups: bool,
) -> Result<QuantisedMatrix, ImportError> {
    let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
    let bits = checkpoint.bits(&source.name, &source.shape)?;
    let addend = match &source.part {
        Part::PlusRow { name, rows } => checkpoint.bits(name, &[*rows, inputs])?,
        _ => Vec::new(),
    };
    let mut bytes = vec![0; outputs * inputs];
    let per_row = if has_groups { inputs.div_ceil(GROUP_INPUTS) } else { 1 };
    let mut multipliers = vec![0; outputs * per_row];
    let quantise = |(output, (out, groups)): (usize, (&mut [u8], &mut [u8]))| {
        let mut quantise_row = |bits: &[u32], out: &mut [u8]| match has_groups {
            true => quantise_grouped_row(bits, out, groups),
            false => quantise_row(bits, out),
        };
        let row = match source.part {
            Part::Rotary => checkpoint.shape.pairs.source_row(output, checkpoint.shape.head_dim),
            Part::From(first) => first + output,
            _ => output,
        };
        let stored = || &bits[row * inputs..(row + 1) * inputs];
        let scale = match source.part {
            Part::Columns(first) => {
                let column: Vec<u32> =
                    bits[first + output..].iter().step_by(source.shape[1]).copied().collect();
                quantise_row(&column, out)
            }
            Part::PlusRow { .. } => {
                let sums: Vec<u32> = stored().iter().zip(&addend).map(|(&a, &b)| single_sum(a, b)).collect();
                quantise_row(&sums, out)
            }
            _ => quantise_row(stored(), out),
        };
        scale.map_err(|error| ImportError::Weight { name: source.name.clone(), row, source: error })
    };
    let rows = bytes.par_chunks_mut(inputs).zip(multipliers.par_chunks_mut(per_row));
    let scales: Vec<Scale> = rows.enumerate().map(quantise).collect::<Result<_, _>>()?;
    let scales = scales.iter().flat_map(|scale| {
        [scale.mantissa().to_le_bytes(), scale.exponent().to_le_bytes()].into_iter().flatten()
    });
    Ok(QuantisedMatrix { bytes, scales: scales.collect(), multipliers })
}

/// The bits of the sum of two IEEE singles.
#[allow(clippy::float_arithmetic, reason = "one addition, which IEEE 754 rounds in the same way everywhere")]
fn single_sum(a: u32, b: u32) -> u32 {
    (f32::from_bits(a) + f32::from_bits(b)).to_bits()
}
