//! The manifest: everything that a model's identity commits to.
//!
//! Its bytes are canonical JSON (`docs/bundle.md`), so that one model has one manifest and one hash.

use alloy_primitives::{B256, keccak256};
use metis_kernels::bounds::{MAX_CONTEXT, MAX_INPUTS, MAX_OUTPUTS, within};
use metis_kernels::{AttentionShape, BoundsError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::BundleError;
use super::variant::{Architecture, Variant};
use super::{TOKENIZER_FILE, WEIGHTS_FILE};
use crate::chat::ChatFormat;

/// The version of the bundle format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Largest manifest in bytes.
pub const MAX_MANIFEST_BYTES: usize = 64 << 10;
/// Largest number of transformer layers.
pub const MAX_LAYERS: usize = 256;
/// Largest number of tokens that end a generation.
pub const MAX_EOS: usize = 16;
/// Longest model name in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Largest tokenizer in bytes.
pub const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Largest epsilon of a norm: one, in Q32.
const MAX_EPSILON_Q32: i64 = 1 << 32;

/// What a bundle is: names, shapes, number formats, work and files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The author's name for the model: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Which graph it has.
    pub architecture: Architecture,
    /// Rows of the embedding: token ids are below it.
    pub vocabulary: usize,
    /// Most tokens in a sequence.
    pub context: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated layer.
    pub intermediate: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// The epsilon of every norm, Q32.
    pub norm_epsilon_q32: i64,
    /// Whether the embedding is also the head.
    pub tied_embeddings: bool,
    /// Tokens that end a generation, ascending.
    pub eos: Vec<u32>,
    /// The token that starts every prompt, if the tokenizer adds one.
    pub bos: Vec<u32>,
    /// How conversations are written, if the checkpoint says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatFormat>,
    /// The number formats.
    pub formats: Formats,
    /// What it has besides its shapes; left out when there is nothing.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub variant: Variant,
    /// Multiply-accumulates, from which gas is computed.
    pub work: Work,
    /// The files and their Merkle roots, sorted by name.
    pub files: Vec<FileEntry>,
}

fn is_plain(variant: &Variant) -> bool {
    *variant == Variant::default()
}

/// The number formats of a model, by the names that `docs/numerics.md` gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formats {
    /// Of linear layers and the embedding.
    pub weights: String,
    /// Of what linear layers read.
    pub activations: String,
    /// Of cached keys.
    pub keys: String,
    /// Of cached values.
    pub values: String,
}

/// Weights with a scale for each output channel.
const PER_CHANNEL: &str = "int8-per-channel";
/// Weights that also have a multiplier for each group of 32 inputs.
const PER_GROUP: &str = "int8-per-group-of-32";

impl Formats {
    /// The same with groups of weights.
    pub fn grouped() -> Self {
        Self { weights: PER_GROUP.into(), ..Self::default() }
    }

    /// Whether weights have groups.
    pub fn has_groups(&self) -> bool {
        self.weights == PER_GROUP
    }
}

impl Default for Formats {
    /// The formats of this version, without groups of weights.
    fn default() -> Self {
        Self {
            weights: PER_CHANNEL.into(),
            activations: "int16-power-of-two".into(),
            keys: "int16-power-of-two".into(),
            values: "int8-per-head".into(),
        }
    }
}

/// Multiply-accumulates of a model. Derived from the shapes; a manifest that says otherwise is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Of all linear layers for one token, without the head.
    pub linear_macs: u64,
    /// Of attention for one pair of query and key positions, all layers and heads.
    pub attention_macs: u64,
    /// Of the head for one token.
    pub head_macs: u64,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// The [Merkle root](super::merkle) of its bytes.
    pub root: B256,
}

/// Checks the dimensions of a transformer (vocabulary, context, hidden, intermediate, layers; attention) against the bounds that the
/// number formats are proven for.
pub(crate) fn check_dimensions(
    [vocabulary, context, hidden, intermediate, layers]: [usize; 5],
    attention: AttentionShape,
) -> Result<(), BoundsError> {
    within("vocabulary", vocabulary, MAX_OUTPUTS)?;
    within("context", context, MAX_CONTEXT)?;
    within("hidden", hidden, MAX_INPUTS)?;
    within("intermediate", intermediate, MAX_INPUTS)?;
    within("layers", layers, MAX_LAYERS)?;
    attention.check()
}

impl Manifest {
    /// Reads a manifest and refuses anything but the canonical bytes of a valid one.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(BundleError::ManifestTooLarge { actual: bytes.len(), max: MAX_MANIFEST_BYTES });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        let canonical = manifest.encode()?;
        if canonical != bytes {
            let same = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            return Err(BundleError::NotCanonical { offset: same });
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        let mut out = Vec::new();
        write_canonical(&serde_json::to_value(self)?, &mut out)?;
        Ok(out)
    }

    /// The model's identity: the hash of the canonical bytes.
    pub fn id(&self) -> Result<B256, BundleError> {
        Ok(keccak256(self.encode()?))
    }

    /// Takes a format of conversations. The token that ends an assistant's turn ends a generation from now on.
    pub(crate) fn add_chat(&mut self, chat: Option<ChatFormat>) {
        let end = chat.as_ref().and_then(ChatFormat::end_of_turn);
        self.eos.extend(end.map(|token| token.0));
        self.eos.sort_unstable();
        self.eos.dedup();
        self.chat = chat;
    }

    /// The heads of the attention layers.
    pub const fn attention(&self) -> AttentionShape {
        AttentionShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    /// The work that follows from the shapes. Call it on checked shapes only: it assumes that products fit.
    pub(crate) const fn derived_work(&self) -> Work {
        let (hidden, attention) = (self.hidden as u64, self.attention());
        let (query, kv) = (attention.query_width() as u64, attention.kv_width() as u64);
        let mlp = match self.architecture {
            Architecture::Llama => 3,
            Architecture::Gpt2 | Architecture::Bert => 2,
        };
        let layer = hidden * (query + 2 * kv) + query * hidden + mlp * hidden * self.intermediate as u64;
        let head = match (self.architecture.is_decoder(), self.variant.classes.len() as u64) {
            (true, _) => self.vocabulary as u64 * hidden,
            (false, 0) => 0,
            (false, classes) => (hidden + classes) * hidden,
        };
        Work {
            linear_macs: self.layers as u64 * layer,
            attention_macs: 2 * self.layers as u64 * query,
            head_macs: head,
        }
    }

    /// The entry of a file.
    pub(crate) fn file(&self, name: &'static str) -> Result<&FileEntry, BundleError> {
        self.files.iter().find(|entry| entry.name == name).ok_or_else(|| file_set(&self.files))
    }

    /// Checks everything except [`files`](Self::files), which exist last.
    pub(crate) fn check_shapes(&self) -> Result<(), BundleError> {
        let wrong = |field, actual: &dyn ToString, rule: &str| {
            Err(BundleError::Manifest { field, actual: actual.to_string(), rule: rule.to_owned() })
        };
        if self.format_version != FORMAT_VERSION {
            return wrong("format_version", &self.format_version, "this build reads version 1");
        }
        if !valid_name(&self.name) {
            return wrong("name", &self.name, "1 to 64 of A-Z a-z 0-9 . _ -");
        }
        if ![Formats::default(), Formats::grouped()].contains(&self.formats) {
            let rule = "this build has one set of formats, with weights per channel or per group";
            return wrong("formats", &format!("{:?}", self.formats), rule);
        }
        let Self { vocabulary, context, hidden, intermediate, layers, .. } = *self;
        check_dimensions([vocabulary, context, hidden, intermediate, layers], self.attention())?;
        self.variant.check(self.architecture)?;
        if !(1..=MAX_EPSILON_Q32).contains(&self.norm_epsilon_q32) {
            return wrong("norm_epsilon_q32", &self.norm_epsilon_q32, "it must be between 1 and 2^32");
        }
        let ascending = self.eos.is_sorted_by(|a, b| a < b) && self.eos.len() <= MAX_EOS;
        if !ascending || self.eos.iter().any(|&id| id as usize >= self.vocabulary) {
            return wrong(
                "eos",
                &format!("{:?}", self.eos),
                "at most 16 ascending token ids of the vocabulary",
            );
        }
        if self.bos.len() > 1 || self.bos.iter().any(|&id| id as usize >= self.vocabulary) {
            return wrong("bos", &format!("{:?}", self.bos), "at most one token id of the vocabulary");
        }
        if self.work != self.derived_work() {
            let rule = format!("the shapes give {:?}", self.derived_work());
            return wrong("work", &format!("{:?}", self.work), &rule);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), BundleError> {
        self.check_shapes()?;
        if !self.files.iter().map(|entry| entry.name.as_str()).eq([TOKENIZER_FILE, WEIGHTS_FILE]) {
            return Err(file_set(&self.files));
        }
        let tokenizer = self.file(TOKENIZER_FILE)?;
        if tokenizer.length > MAX_TOKENIZER_BYTES {
            return Err(BundleError::Manifest {
                field: "files",
                actual: format!("a tokenizer.json of {} bytes", tokenizer.length),
                rule: format!("at most {MAX_TOKENIZER_BYTES} are allowed"),
            });
        }
        Ok(())
    }
}

/// Whether a name may stand in a manifest.
pub(crate) fn valid_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn file_set(files: &[FileEntry]) -> BundleError {
    let names: Vec<_> = files.iter().map(|entry| entry.name.as_str()).collect();
    BundleError::Manifest {
        field: "files",
        actual: format!("{names:?}"),
        rule: format!("it must be {TOKENIZER_FILE} and {WEIGHTS_FILE}, in this order"),
    }
}

/// Writes canonical JSON: sorted keys, no white space, integers in decimal, `serde_json`'s (minimal) escapes.
fn write_canonical(value: &Value, out: &mut Vec<u8>) -> Result<(), BundleError> {
    match value {
        Value::Object(map) => {
            // Sorted here: whether `serde_json` sorts depends on a feature that any crate can switch.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push(b'{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                write_canonical(value, out)?;
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_canonical(item, out)?;
            }
            out.push(b']');
        }
        leaf => serde_json::to_writer(out, leaf)?,
    }
    Ok(())
}
