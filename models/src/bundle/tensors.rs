//! The tensors of `weights.safetensors`: which exist, of what type and shape, and what their elements may be.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use metis_kernels::formats::{GAIN_BITS, GROUP_INPUTS};
use metis_kernels::{LinearWeights, Scale, bounds};
use rayon::prelude::*;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::error::BundleError;
use super::manifest::Manifest;
use super::variant::Architecture;

/// Linear layers of a transformer layer, in the order of the forward pass.
pub const LAYER_MATRICES: [&str; 7] = ["query", "key", "value", "output", "gate", "up", "down"];
/// Norms of a transformer layer, in the order of the forward pass.
pub const LAYER_NORMS: [&str; 2] = ["attention_norm", "mlp_norm"];

/// Norms after attention and the MLP, of models that have them.
pub(crate) const POST_NORMS: [&str; 2] = ["attention_post_norm", "mlp_post_norm"];
/// Norms of heads, of models that have them.
pub(crate) const HEAD_NORMS: [&str; 2] = ["query_norm", "key_norm"];
/// Largest header: 256 layers have at most 8,000 tensors of about 110 bytes each.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Bytes before the header, which say how long it is.
const HEADER_LENGTH_BYTES: u64 = 8;

/// An int8 matrix of a bundle with a scale for each output channel and perhaps groups.
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
    /// The multipliers of the groups of each row, if the weights have groups.
    pub groups: Option<&'a [u8]>,
}

impl Matrix<'_> {
    /// The same as a backend takes it.
    pub fn weights(&self) -> LinearWeights<'_> {
        let Self { outputs, inputs, bytes, groups, .. } = *self;
        LinearWeights { outputs, inputs, bytes, scales: &self.scales, groups }
    }
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `w ^ 0x80`, never 0x00.
    Weights,
    /// Pairs of mantissa and exponent.
    Scales,
    /// Of groups of weights, never zero.
    Multipliers,
    /// Q20 gains.
    Gains,
    /// Q20 biases of a norm.
    NormBiases,
    /// Q16 biases of a linear layer.
    Biases,
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
            Content::Weights | Content::Multipliers => Dtype::U8,
            Content::Scales | Content::Gains | Content::NormBiases | Content::Biases => Dtype::I32,
            Content::Frequencies => Dtype::U64,
        }
    }
}

/// Every tensor of a model, in no particular order.
pub(crate) fn layout(manifest: &Manifest) -> Vec<TensorSpec> {
    let mut layout = Layout { manifest, specs: Vec::new() };
    layout.matrix("embedding", [manifest.vocabulary, manifest.hidden]);
    match manifest.architecture {
        Architecture::Llama => layout.llama(),
        Architecture::Gpt2 => layout.gpt2(),
        Architecture::Bert => layout.bert(),
    }
    layout.specs
}

/// The lengths that a weights file of these shapes can have: the tensors, and a header of any allowed length.
pub(crate) fn weights_lengths(manifest: &Manifest) -> RangeInclusive<u64> {
    let bytes = |spec: &TensorSpec| {
        let elements: u64 = spec.shape.iter().map(|&side| side as u64).product();
        elements * spec.dtype().bitsize() as u64 / 8
    };
    let data: u64 = layout(manifest).iter().map(bytes).sum();
    data..=data + HEADER_LENGTH_BYTES + MAX_HEADER_BYTES
}

struct Layout<'a> {
    manifest: &'a Manifest,
    specs: Vec<TensorSpec>,
}

impl Layout<'_> {
    fn llama(&mut self) {
        let m = self.manifest;
        self.head();
        for layer in 0..m.layers {
            for name in LAYER_MATRICES {
                self.layer_matrix(
                    layer,
                    name,
                    m.variant.qkv_bias && matches!(name, "query" | "key" | "value"),
                );
            }
            self.norms(layer, LAYER_NORMS.iter().chain(POST_NORMS.iter().filter(|_| m.variant.post_norms)));
            if m.variant.qk_norm {
                for norm in HEAD_NORMS {
                    self.add(format!("layers.{layer}.{norm}.gain"), Content::Gains, vec![m.head_dim]);
                }
            }
        }
        self.norm("final_norm".into());
        self.add("rope.frequencies".into(), Content::Frequencies, vec![m.head_dim / 2]);
        if m.variant.local_frequencies {
            self.add("rope.local_frequencies".into(), Content::Frequencies, vec![m.head_dim / 2]);
        }
    }

    fn gpt2(&mut self) {
        self.head();
        self.plain_layers();
        self.norm("final_norm".into());
    }

    fn bert(&mut self) {
        let (hidden, classes) = (self.manifest.hidden, self.manifest.variant.classes.len());
        self.norm("embedding_norm".into());
        self.plain_layers();
        if classes > 0 {
            for (name, outputs) in [("pooler", hidden), ("classifier", classes)] {
                self.matrix(name, [outputs, hidden]);
                self.add(format!("{name}.bias"), Content::Biases, vec![outputs]);
            }
        }
    }

    fn head(&mut self) {
        if !self.manifest.tied_embeddings {
            self.matrix("head", [self.manifest.vocabulary, self.manifest.hidden]);
        }
    }

    /// Learned positions, and layers without a gate in which everything has a bias.
    fn plain_layers(&mut self) {
        self.matrix("positions", [self.manifest.context, self.manifest.hidden]);
        for layer in 0..self.manifest.layers {
            for name in LAYER_MATRICES.into_iter().filter(|&name| name != "gate") {
                self.layer_matrix(layer, name, true);
            }
            self.norms(layer, &LAYER_NORMS);
        }
    }

    fn layer_matrix(&mut self, layer: usize, name: &str, bias: bool) {
        let shape = matrix_shape(self.manifest, name);
        let name = format!("layers.{layer}.{name}");
        self.matrix(&name, shape);
        if bias {
            self.add(format!("{name}.bias"), Content::Biases, vec![shape[0]]);
        }
    }

    fn norms<'n>(&mut self, layer: usize, names: impl IntoIterator<Item = &'n &'n str>) {
        names.into_iter().for_each(|name| self.norm(format!("layers.{layer}.{name}")));
    }

    fn norm(&mut self, name: String) {
        let width = vec![self.manifest.hidden];
        if self.manifest.architecture != Architecture::Llama {
            self.add(format!("{name}.bias"), Content::NormBiases, width.clone());
        }
        self.add(format!("{name}.gain"), Content::Gains, width);
    }

    fn matrix(&mut self, name: &str, [outputs, inputs]: [usize; 2]) {
        self.add(format!("{name}.weight"), Content::Weights, vec![outputs, inputs]);
        self.add(format!("{name}.scale"), Content::Scales, vec![outputs, 2]);
        if self.manifest.formats.has_groups() {
            let shape = vec![outputs, inputs.div_ceil(GROUP_INPUTS)];
            self.add(format!("{name}.multiplier"), Content::Multipliers, shape);
        }
    }

    fn add(&mut self, name: String, content: Content, shape: Vec<usize>) {
        self.specs.push(TensorSpec { name, content, shape });
    }
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
    let zero = || bytes.par_iter().with_min_len(1 << 20).position_any(|&b| b == 0);
    match spec.content {
        Content::Weights => match zero() {
            Some(index) => Err(element(index, "-128 is not a weight; weights are within -127 ..= 127")),
            None => Ok(()),
        },
        Content::Multipliers => match zero() {
            Some(index) => Err(element(index, "a group's multiplier must be within 1 ..= 255")),
            None => Ok(()),
        },
        Content::Scales => scales(bytes).map(drop).map_err(|index| {
            element(index, "a scale needs a mantissa in 2^22 .. 2^23 and an exponent in -1024 ..= 1024")
        }),
        Content::Gains | Content::NormBiases => {
            let limit = (bounds::MAX_GAIN as i32) << GAIN_BITS;
            match int32s(bytes).position(|gain| gain <= -limit || gain >= limit) {
                Some(index) => Err(element(index, "a norm's gain or bias must be within +-1024")),
                None => Ok(()),
            }
        }
        Content::Biases => match int32s(bytes).position(|bias| bias == i32::MIN) {
            Some(index) => Err(element(index, "a bias must be within +-(2^31 - 1)")),
            None => Ok(()),
        },
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
