//! A tiny random checkpoint for tests: nothing to download, the same on every machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use crate::bundle::BundleParts;
use crate::import::{ImportError, Options, ProgressBar, Source, convert};

/// The shape of a fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Where the weights come from.
    pub seed: u64,
    /// Whether the embedding is the head.
    pub tied: bool,
    /// Number of tokens: at least [`TOKENS`].
    pub vocabulary: usize,
    /// Width.
    pub hidden: usize,
    /// Width of the gated layer.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Context.
    pub context: usize,
}

/// Tokens of the fixture's tokenizer: three special, 256 bytes, and the merges.
pub const TOKENS: usize = 3 + 256 + MERGES.len();

/// Merges of the fixture's byte-level tokenizer, each into the token that follows from it (`Ġ` is a space).
const MERGES: [(&str, &str); 13] = [
    ("h", "e"),
    ("Ġ", "t"),
    ("Ġt", "he"),
    ("i", "n"),
    ("Ġ", "a"),
    ("o", "n"),
    ("e", "r"),
    ("l", "l"),
    ("he", "ll"),
    ("hell", "o"),
    ("Ġ", "w"),
    ("o", "r"),
    ("Ġw", "or"),
];

impl Default for Fixture {
    fn default() -> Self {
        Self {
            seed: 1,
            tied: true,
            vocabulary: 300,
            hidden: 64,
            intermediate: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            context: 128,
        }
    }
}

impl Fixture {
    /// Writes `config.json`, `tokenizer.json` and `model.safetensors` into `folder`.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.json"), self.config().to_string())?;
        fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string())?;
        fs::write(folder.join("model.safetensors"), self.weights())
    }

    /// The bundle of this checkpoint, imported through `folder`.
    pub fn bundle(&self, folder: &Path) -> Result<BundleParts, ImportError> {
        self.write(folder).map_err(ImportError::io(folder))?;
        let options = Options { name: Some("fixture".into()), ..Options::default() };
        convert(&Source::HuggingFace(folder.to_owned()), &options, &ProgressBar::hidden())
    }

    /// `config.json`.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 1,
            "eos_token_id": 2,
        })
    }

    /// `model.safetensors`, in `f32`.
    pub fn weights(&self) -> Vec<u8> {
        let mut random = self.seed;
        let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = self
            .shapes()
            .into_iter()
            .map(|(name, shape)| {
                let gain = name.contains("norm");
                let bytes = (0..shape.iter().product::<usize>())
                    .flat_map(|_| weight(splitmix64(&mut random), gain).to_le_bytes())
                    .collect();
                (name, (shape, bytes))
            })
            .collect();
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor has its shape"))
        });
        safetensors::serialize(views, None).expect("distinct tensors serialise")
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let head_dim = self.hidden / self.heads;
        let (kv, hidden, intermediate) = (self.kv_heads * head_dim, self.hidden, self.intermediate);
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        if !self.tied {
            shapes.push(("lm_head.weight".to_owned(), vec![self.vocabulary, hidden]));
        }
        for layer in 0..self.layers {
            let layer_shapes = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ];
            shapes.extend(
                layer_shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
            );
        }
        shapes
    }
}

/// A byte-level `tokenizer.json`: `<unk>` 0, `<s>` 1, `</s>` 2, bytes from 3, merges after them; prompts start with `<s>`.
pub fn tokenizer_json() -> Value {
    let mut vocab = Map::new();
    let mut add = |piece: String| {
        let id = vocab.len();
        vocab.insert(piece, id.into());
    };
    ["<unk>", "<s>", "</s>"].iter().for_each(|special| add((*special).into()));
    (0..=255u8).for_each(|byte| add(byte_character(byte).into()));
    MERGES.iter().for_each(|(left, right)| add(format!("{left}{right}")));
    debug_assert_eq!(vocab.len(), TOKENS);
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        // Settings that must not survive.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
        },
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab,
            "merges": MERGES.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    })
}

/// GPT-2's character for a byte.
fn byte_character(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return byte.into();
    }
    let nth = (0..byte).filter(|byte| !printable(byte)).count();
    char::from_u32(0x100 + nth as u32).unwrap_or_default()
}

/// The bits of a single in `+-[1/8, 1/4)`, or of a gain in `[1, 2)`: random fraction, fixed exponent, no arithmetic.
const fn weight(random: u64, gain: bool) -> u32 {
    let (fraction, sign) = ((random >> 41) as u32, (random & 1) as u32);
    if gain { 127 << 23 | fraction } else { sign << 31 | 124 << 23 | fraction }
}

/// Steele, Lea and Flood's generator.
const fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
