//! A checkpoint's tensors as floats, under the names and in the layout that they have in a bundle: what [`quantise`](super::quantise) rounds.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::names::{Part, source};
use super::{Checkpoint, ImportError};
use crate::bundle::{Manifest, layout};

/// Reads a checkpoint of the Llama family in `f32`; of another it refuses the first tensor that is stored in a way of its own.
pub(crate) fn floats(
    checkpoint: &Checkpoint,
    manifest: &Manifest,
) -> Result<HashMap<String, Tensor>, ImportError> {
    let shape = &checkpoint.shape;
    let mut tensors = HashMap::new();
    for spec in layout(manifest) {
        let Some(source) = source(shape, manifest, &spec) else { continue };
        let failed = |error| ImportError::Tensor { name: source.name.clone(), source: error };
        let stored = checkpoint.tensor(&source.name, &source.shape)?;
        let tensor = match source.part {
            Part::Whole => stored,
            Part::Rotary => {
                let row = |row| shape.pairs.source_row(row, shape.head_dim) as u32;
                let rows: Vec<u32> = (0..spec.shape[0]).map(row).collect();
                Tensor::new(rows, &Device::Cpu)
                    .and_then(|rows| stored.index_select(&rows, 0))
                    .map_err(failed)?
            }
            Part::PlusOne => (stored + 1.0).map_err(failed)?,
            Part::Columns(_) | Part::From(_) | Part::PlusRow { .. } => {
                return Err(ImportError::unsupported(format!("`{}` as floats", spec.name)));
            }
        };
        tensors.insert(spec.name, tensor);
    }
    Ok(tensors)
}
