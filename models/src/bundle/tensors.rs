//! The tensors of `weights.safetensors`: which exist, of what type and shape, and what their elements may be.

use std::collections::HashMap;
use std::ops::Range;

use metis_kernels::formats::GAIN_BITS;
use metis_kernels::{LinearWeights, Scale, bounds};
use rayon::prelude::*;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::error::BundleError;
use super::manifest::Manifest;

/// Linear layers of a transformer layer, in the order of the forward pass.
pub const LAYER_MATRICES: [&str; 7] = ["query", "key", "value", "output", "gate", "up", "down"];
/// Norms of a transformer layer, in the order of the forward pass.
pub const LAYER_NORMS: [&str; 2] = ["attention_norm", "mlp_norm"];

/// Largest header: 256 layers have about 4,100 tensors of about 110 bytes each.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// An int8 matrix of a bundle with a scale for each output channel.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// `outputs * inputs` bytes, each `w ^ 0x80`.
    pub bytes: &'a [u8],
    /// One scale per row.
    pub scales: Vec<Scale>,
}

impl Matrix<'_> {
    /// The same as a backend takes it.
    pub fn weights(&self) -> LinearWeights<'_> {
        LinearWeights { outputs: self.outputs, inputs: self.inputs, bytes: self.bytes, scales: &self.scales }
    }
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `w ^ 0x80`, never 0x00.
    Weights,
    /// Pairs of mantissa and exponent.
    Scales,
    /// Q20 gains.
    Gains,
    /// Turns per token, Q64.
    Frequencies,
}

/// A tensor that the architecture needs.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) content: Content,
    pub(crate) shape: Vec<usize>,
}

impl TensorSpec {
    pub(crate) const fn dtype(&self) -> Dtype {
        match self.content {
            Content::Weights => Dtype::U8,
            Content::Scales | Content::Gains => Dtype::I32,
            Content::Frequencies => Dtype::U64,
        }
    }
}

/// Every tensor of a model, in no particular order.
pub(crate) fn layout(manifest: &Manifest) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    let mut add = |name: String, content, shape| specs.push(TensorSpec { name, content, shape });
    let mut add_matrix = |name: &str, [outputs, inputs]: [usize; 2]| {
        add(format!("{name}.weight"), Content::Weights, vec![outputs, inputs]);
        add(format!("{name}.scale"), Content::Scales, vec![outputs, 2]);
    };
    add_matrix("embedding", [manifest.vocabulary, manifest.hidden]);
    if !manifest.tied_embeddings {
        add_matrix("head", [manifest.vocabulary, manifest.hidden]);
    }
    for layer in 0..manifest.layers {
        for name in LAYER_MATRICES {
            add_matrix(&format!("layers.{layer}.{name}"), matrix_shape(manifest, name));
        }
    }
    for layer in 0..manifest.layers {
        for norm in LAYER_NORMS {
            add(format!("layers.{layer}.{norm}.gain"), Content::Gains, vec![manifest.hidden]);
        }
    }
    add("final_norm.gain".into(), Content::Gains, vec![manifest.hidden]);
    add("rope.frequencies".into(), Content::Frequencies, vec![manifest.head_dim / 2]);
    specs
}

/// `[outputs, inputs]` of a layer's matrix.
pub(crate) fn matrix_shape(manifest: &Manifest, name: &str) -> [usize; 2] {
    let attention = manifest.attention();
    match name {
        "query" => [attention.query_width(), manifest.hidden],
        "key" | "value" => [attention.kv_width(), manifest.hidden],
        "output" => [manifest.hidden, attention.query_width()],
        "down" => [manifest.hidden, manifest.intermediate],
        _ => [manifest.intermediate, manifest.hidden],
    }
}

/// Where each tensor of a checked file is.
#[derive(Debug)]
pub(crate) struct TensorIndex {
    places: HashMap<String, Range<usize>>,
}

impl TensorIndex {
    /// Reads the header and checks that the file holds exactly the tensors of the manifest with allowed elements.
    pub(crate) fn read(file: &[u8], manifest: &Manifest) -> Result<Self, BundleError> {
        let metadata = read_header(file)?;
        let data_start = file.len() - metadata.data_len();
        let specs = layout(manifest);
        let mut places = HashMap::with_capacity(specs.len());
        for spec in &specs {
            let info =
                metadata.info(&spec.name).ok_or_else(|| BundleError::MissingTensor(spec.name.clone()))?;
            if info.dtype != spec.dtype() || info.shape != spec.shape {
                return Err(BundleError::TensorShape {
                    name: spec.name.clone(),
                    expected: format!("{:?} {:?}", spec.dtype(), spec.shape),
                    actual: format!("{:?} {:?}", info.dtype, info.shape),
                });
            }
            let (start, end) = info.data_offsets;
            places.insert(spec.name.clone(), data_start + start..data_start + end);
        }
        if let Some(unknown) = metadata.offset_keys().into_iter().find(|name| !places.contains_key(name)) {
            return Err(BundleError::UnknownTensor(unknown));
        }
        let index = Self { places };
        specs.par_iter().try_for_each(|spec| check_elements(spec, index.bytes(file, &spec.name)?))?;
        Ok(index)
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes<'a>(&self, file: &'a [u8], name: &str) -> Result<&'a [u8], BundleError> {
        self.places
            .get(name)
            .and_then(|range| file.get(range.clone()))
            .ok_or_else(|| BundleError::MissingTensor(name.to_owned()))
    }
}

fn read_header(file: &[u8]) -> Result<Metadata, BundleError> {
    let length = file.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if length.is_some_and(|length| length > MAX_HEADER_BYTES) {
        return Err(BundleError::Tensors(format!("the header is longer than {MAX_HEADER_BYTES} bytes")));
    }
    let (_, metadata) =
        SafeTensors::read_metadata(file).map_err(|error| BundleError::Tensors(error.to_string()))?;
    if metadata.metadata().is_some() {
        return Err(BundleError::Tensors("`__metadata__` is not allowed".into()));
    }
    Ok(metadata)
}

fn check_elements(spec: &TensorSpec, bytes: &[u8]) -> Result<(), BundleError> {
    let element = |index, rule| BundleError::Element { name: spec.name.clone(), index, rule };
    match spec.content {
        Content::Weights => match bytes.par_iter().with_min_len(1 << 20).position_any(|&b| b == 0) {
            Some(index) => Err(element(index, "-128 is not a weight; weights are within -127 ..= 127")),
            None => Ok(()),
        },
        Content::Scales => scales(bytes).map(drop).map_err(|index| {
            element(index, "a scale needs a mantissa in 2^22 .. 2^23 and an exponent in -1024 ..= 1024")
        }),
        Content::Gains => {
            let limit = (bounds::MAX_GAIN as i32) << GAIN_BITS;
            match int32s(bytes).position(|gain| gain <= -limit || gain >= limit) {
                Some(index) => Err(element(index, "a gain must be within +-1024")),
                None => Ok(()),
            }
        }
        Content::Frequencies => Ok(()),
    }
}

/// The scales of a matrix, or the index of the first that is none.
pub(crate) fn scales(bytes: &[u8]) -> Result<Vec<Scale>, usize> {
    let mut parts = int32s(bytes);
    let mut scales = Vec::with_capacity(bytes.len() / 8);
    while let (Some(mantissa), Some(exponent)) = (parts.next(), parts.next()) {
        let scale = u32::try_from(mantissa).ok().and_then(|mantissa| Scale::new(mantissa, exponent));
        scales.push(scale.ok_or(scales.len())?);
    }
    Ok(scales)
}

/// Little-endian `i32`s.
pub(crate) fn int32s(bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes))
}

/// Little-endian `u64`s.
pub(crate) fn uint64s(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}
