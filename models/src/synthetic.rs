//! Models with the true shapes of well-known ones and random weights, to measure with: nothing to download.

mod tokenizer;

use std::collections::BTreeMap;

use metis_kernels::formats::GAIN_BITS;
use metis_kernels::tables::rope_frequencies;

pub use tokenizer::{TOKENS, tokenizer_json};

use crate::bundle::manifest::{FORMAT_VERSION, Formats, Manifest, Work};
use crate::bundle::tensors::{Content, TensorSpec, layout};
use crate::bundle::{Architecture, BundleError, BundleParts, Variant};

/// A well-known shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// SmolLM2-135M: 30 layers of width 576.
    SmolLm2,
    /// Qwen2.5-0.5B: 24 layers of width 896 (without its biases).
    Qwen25,
    /// Llama-3.2-1B: 16 layers of width 2048.
    Llama32,
}

impl Shape {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::SmolLm2, Self::Qwen25, Self::Llama32];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SmolLm2 => "smollm2-135m",
            Self::Qwen25 => "qwen2.5-0.5b",
            Self::Llama32 => "llama3.2-1b",
        }
    }

    /// The manifest of a model of this shape with so much context, without work and files.
    fn manifest(self, context: usize) -> Manifest {
        let [vocabulary, hidden, intermediate, layers, heads, kv_heads] = match self {
            Self::SmolLm2 => [49_152, 576, 1_536, 30, 9, 3],
            Self::Qwen25 => [151_936, 896, 4_864, 24, 14, 2],
            Self::Llama32 => [128_256, 2_048, 8_192, 16, 32, 8],
        };
        Manifest {
            format_version: FORMAT_VERSION,
            name: format!("synthetic-{}", self.name()),
            architecture: Architecture::Llama,
            vocabulary,
            context,
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim: 64,
            norm_epsilon_q32: 42_950,
            tied_embeddings: true,
            eos: Vec::new(),
            bos: vec![1],
            chat: None,
            formats: Formats::default(),
            variant: Variant::default(),
            work: Work::default(),
            files: Vec::new(),
        }
    }

    /// A bundle with random weights, such that activations stay in the range of a trained model's.
    pub fn bundle(self, context: usize) -> Result<BundleParts, BundleError> {
        let manifest = self.manifest(context);
        let mut random = 1;
        let tensors: BTreeMap<String, Vec<u8>> = layout(&manifest)
            .into_iter()
            .map(|spec| (spec.name.clone(), contents(&spec, &manifest, &mut random)))
            .collect();
        BundleParts::assemble(manifest, tensors, tokenizer_json().to_string().into_bytes())
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|shape| shape.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|shape| shape.name()).collect();
            format!("unknown shape `{name}`; known: {}", names.join(", "))
        })
    }
}

fn contents(spec: &TensorSpec, manifest: &Manifest, random: &mut u64) -> Vec<u8> {
    let elements: usize = spec.shape.iter().product();
    match spec.content {
        Content::Weights | Content::Multipliers => {
            let mut bytes: Vec<u8> =
                (0..elements.div_ceil(8)).flat_map(|_| splitmix64(random).to_le_bytes()).collect();
            bytes.truncate(elements);
            // 0x00 is no weight and no multiplier.
            bytes.iter_mut().for_each(|byte| *byte = (*byte).max(1));
            bytes
        }
        // Weights spread over +-127 have a deviation of about 2^6: rows of n inputs should sum to about one.
        Content::Scales => {
            let inputs = if spec.name.contains("down") { manifest.intermediate } else { manifest.hidden };
            let exponent: i32 = -22 - 6 - (inputs.ilog2() as i32).div_euclid(2);
            let scale = [(1i32 << 22).to_le_bytes(), exponent.to_le_bytes()].concat();
            scale.repeat(elements / 2)
        }
        Content::Biases | Content::NormBiases => vec![0; 4 * elements],
        Content::Gains => (1i32 << GAIN_BITS).to_le_bytes().repeat(elements),
        Content::Frequencies => {
            rope_frequencies(100_000, manifest.head_dim).into_iter().flat_map(u64::to_le_bytes).collect()
        }
    }
}

/// Steele, Lea and Flood's generator.
pub(crate) const fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
