//! From a checkpoint to a bundle: read, quantise, write. The same checkpoint gives the same bytes on every machine.
//!
//! A checkpoint stores dyadic rationals (`f32`, `f16`, `bf16`, or blocks of integers with a scale); quantising works on their bits with integers, so there is no float
//! arithmetic here and nothing that could differ between platforms. `docs/bundle.md` is normative.

mod chat_template;
mod checkpoint;
mod config;
mod floats;
mod gguf;
mod hugging_face;
mod llama2c;
mod names;
mod numbers;
mod quantise;
mod rope;
mod sentencepiece;
pub mod smoothing;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use alloy_primitives::B256;
pub use chat_template::ChatTemplate;
pub use indicatif::ProgressBar;
use metis_kernels::weights::WeightError;
use thiserror::Error;

pub(crate) use checkpoint::{Checkpoint, Hyperparameters, RotaryPairs};
pub(crate) use floats::floats;
pub(crate) use names::used;
pub(crate) use numbers::epsilon_q32;
use smoothing::Folds;

use crate::bundle::{Bundle, BundleError, BundleParts, Formats, Manifest, refuse_existing, valid_name};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Where a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A llama2.c `.bin` file (version 0) and its tokenizer.
    Llama2c {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The `tokenizer.bin`.
        tokenizer: PathBuf,
    },
    /// A Hugging Face folder: `config.json`, `tokenizer.json` and `model.safetensors` (or its shards).
    HuggingFace(PathBuf),
    /// A GGUF file, which holds its tokenizer as well.
    Gguf(PathBuf),
}

impl Source {
    /// What a path is: a folder is Hugging Face's, a file that starts with `GGUF` is that, and any other is llama2.c's with
    /// `tokenizer` (default: `tokenizer.bin` beside it).
    pub fn detect(path: &Path, tokenizer: Option<&Path>) -> Result<Self, ImportError> {
        let metadata = path.metadata().map_err(ImportError::io(path))?;
        if metadata.is_dir() {
            return Ok(Self::HuggingFace(path.to_owned()));
        }
        let mut start = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(gguf::MAGIC.len() as u64).read_to_end(&mut start));
        read.map_err(ImportError::io(path))?;
        if start == gguf::MAGIC {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let tokenizer = tokenizer.map_or_else(|| path.with_file_name("tokenizer.bin"), Path::to_owned);
        Ok(Self::Llama2c { checkpoint: path.to_owned(), tokenizer })
    }

    /// The name that a model gets when none is given: that of the file or folder.
    fn default_name(&self) -> String {
        let name = match self {
            Self::Llama2c { checkpoint: file, .. } | Self::Gguf(file) => file.file_stem(),
            Self::HuggingFace(folder) => folder.file_name(),
        };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    fn chat_template(&self, json: &[u8], tokenizer: &Tokenizer) -> ChatTemplate {
        match self {
            Self::Llama2c { .. } => ChatTemplate::Missing,
            Self::HuggingFace(folder) => chat_template::of_folder(folder, json, tokenizer),
            Self::Gguf(file) => gguf::chat_template(file, json, tokenizer),
        }
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, ImportError> {
        match self {
            Self::Llama2c { checkpoint, .. } => llama2c::open(checkpoint),
            Self::HuggingFace(folder) => hugging_face::open(folder),
            Self::Gguf(file) => gguf::open(file),
        }
    }

    fn tokenizer(&self, vocabulary: usize) -> Result<Vec<u8>, ImportError> {
        match self {
            Self::Llama2c { tokenizer, .. } => sentencepiece::tokenizer_json(tokenizer, vocabulary),
            Self::HuggingFace(folder) => {
                let path = folder.join("tokenizer.json");
                std::fs::read(&path).map_err(ImportError::io(path))
            }
            Self::Gguf(file) => gguf::tokenizer_json(file, vocabulary),
        }
    }
}

/// What the author of a bundle decides.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model's name; by default that of the file or folder.
    pub name: Option<String>,
    /// A shorter context than the checkpoint's.
    pub context: Option<usize>,
    /// A multiplier for each group of 32 inputs of a weight row: closer to the checkpoint where a few weights are large.
    pub group_scales: bool,
}

/// A bundle that was written.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model's identity.
    pub id: B256,
    /// What the bundle says about itself.
    pub manifest: Manifest,
    /// Its directory.
    pub directory: PathBuf,
    /// What came of its chat template.
    pub chat_template: ChatTemplate,
}

/// Imports a checkpoint into the new directory `target`, which appears complete or not at all.
///
/// `progress` counts quantised weights; [`ProgressBar::hidden`] shows nothing.
pub fn import(
    source: &Source,
    target: &Path,
    options: &Options,
    progress: &ProgressBar,
) -> Result<Imported, ImportError> {
    // Before the work rather than after it; `write` checks again.
    refuse_existing(target)?;
    let (parts, chat_template) = convert_with_template(source, options, Folds::default(), progress)?;
    write(&parts, target, chat_template)
}

fn write(parts: &BundleParts, target: &Path, chat_template: ChatTemplate) -> Result<Imported, ImportError> {
    parts.write(target)?;
    // Reading it back is the proof that what was written is a bundle.
    let bundle = Bundle::open(target)?;
    bundle.tokenizer()?;
    let (id, manifest) = (bundle.id(), bundle.manifest().clone());
    Ok(Imported { id, manifest, directory: target.to_owned(), chat_template })
}

/// Converts a checkpoint to the contents of a bundle's files, in memory.
pub fn convert(
    source: &Source,
    options: &Options,
    progress: &ProgressBar,
) -> Result<BundleParts, ImportError> {
    convert_with_template(source, options, Folds::default(), progress).map(|(parts, _)| parts)
}

fn convert_with_template(
    source: &Source,
    options: &Options,
    folds: Folds,
    progress: &ProgressBar,
) -> Result<(BundleParts, ChatTemplate), ImportError> {
    let checkpoint = Checkpoint { folds, ..source.open()? };
    let name = options.name.clone().unwrap_or_else(|| source.default_name());
    if !valid_name(&name) {
        return Err(ImportError::Name(name));
    }
    let context = match options.context {
        Some(context) if context > checkpoint.shape.context => {
            return Err(ImportError::Context { wanted: context, trained: checkpoint.shape.context });
        }
        Some(context) => context,
        None => checkpoint.shape.context,
    };
    let tokenizer = source.tokenizer(checkpoint.shape.vocabulary)?;
    let built = Tokenizer::from_json(&tokenizer, checkpoint.shape.vocabulary)?;
    let bos = built.prompt_prefix().iter().map(|token| token.0).collect();
    let mut manifest = checkpoint.shape.manifest(name, context, bos);
    let chat_template = source.chat_template(&tokenizer, &built);
    manifest.add_chat(chat_template.clone().format());
    if options.group_scales {
        manifest.formats = Formats::grouped();
    }
    // Shapes before the long work.
    manifest.check_shapes()?;
    let tensors = quantise::tensors(&checkpoint, &manifest, progress)?;
    let parts = BundleParts::assemble(manifest, tensors, tokenizer)?;
    progress.finish();
    Ok((parts, chat_template))
}

/// The tensors, with their shapes, that a `config.json` in `folder` calls for.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn used_by(
    folder: &Path,
    config: &serde_json::Value,
) -> Result<Vec<(String, Vec<usize>)>, ImportError> {
    Ok(used(&config::read(&folder.join("config.json"), config)?))
}

/// Why a checkpoint could not be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what its place says.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// An architecture, or a variant of one, without a fixed-point graph.
    #[error(
        "{what} is not supported; supported model types: {}, their decoders but GPT-2 in GGUF files, and llama2.c version 0",
        config::MODEL_TYPES.join(", ")
    )]
    Unsupported {
        /// What was found.
        what: String,
    },
    /// The checkpoint lacks a tensor.
    #[error("the checkpoint has no tensor `{name}` (expected shape {expected:?})")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// The checkpoint has a tensor that the architecture does not use: leaving it out would be another model.
    #[error("the checkpoint has a tensor `{0}` that this architecture does not use")]
    UnknownTensor(String),
    /// A tensor has the wrong shape or type.
    #[error("tensor `{name}` is {actual}, the configuration needs {expected}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A tensor is stored in a way that is not read.
    #[error("tensor `{name}` is stored as {found}; supported: {supported}", supported = gguf::SUPPORTED_TYPES)]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// How it is stored.
        found: String,
    },
    /// A block of quantised numbers whose scale is infinite or not a number.
    #[error("tensor `{name}`: the scale of block {block} is not finite")]
    Block {
        /// The tensor.
        name: String,
        /// The block, from 0.
        block: usize,
    },
    /// A factor that RoPE's frequencies cannot be divided by.
    #[error("tensor `{tensor}`: the factor {0} is not one of 1 to 2^24", tensor = checkpoint::ROPE_FACTORS)]
    RopeFactor(f32),
    /// A number that cannot be quantised.
    #[error("tensor `{name}`, row {row}: {source}")]
    Weight {
        /// The tensor.
        name: String,
        /// The row (output channel).
        row: usize,
        /// What was wrong.
        source: WeightError,
    },
    /// The name may not stand in a manifest.
    #[error("`{0}` cannot be a model's name: choose 1 to 64 of A-Z a-z 0-9 . _ -")]
    Name(String),
    /// More context than the model was trained for.
    #[error("a context of {wanted} tokens is more than the checkpoint's {trained}")]
    Context {
        /// What was asked for.
        wanted: usize,
        /// What the checkpoint has.
        trained: usize,
    },
    /// The tensor library could not read a tensor.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What the library said.
        source: candle_core::Error,
    },
    /// The tokenizer cannot be used.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The bundle could not be made.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl ImportError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn format(path: &Path, reason: impl ToString) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "a test looks at the values behind the integers")]
pub(crate) mod tests;
