//! GGUF files (`.gguf`, versions 2 and 3): weights, shape and tokenizer in one file, as llama.cpp runs them.
//!
//! Quantised weights become the singles that they stand for, exactly defined, and then go the way of every checkpoint. What a
//! file says and this importer does not understand is refused by its name: leaving it out would be another model.

mod architecture;
mod families;
mod header;
mod storage;
mod tokenizer;

use std::path::Path;

use header::{Header, HeaderError, Value};

pub(super) use header::MAGIC;
pub(super) use storage::{SUPPORTED_TYPES, Storage};

use super::chat_template::{self, ChatTemplate};
use super::smoothing::Folds;
use super::{Checkpoint, ImportError};
use crate::bundle::FileBytes;
use crate::tokenizer::Tokenizer;

/// Opens a checkpoint.
pub(super) fn open(path: &Path) -> Result<Checkpoint, ImportError> {
    let file = FileBytes::map(path).map_err(ImportError::io(path))?;
    let (shape, tensors) = architecture::read(&read_header(&file, path)?, path)?;
    Ok(Checkpoint { shape, files: vec![file], tensors, folds: Folds::default() })
}

/// Converts the tokenizer in the file. The result depends on the file alone.
pub(super) fn tokenizer_json(path: &Path, vocabulary: usize) -> Result<Vec<u8>, ImportError> {
    let file = FileBytes::map(path).map_err(ImportError::io(path))?;
    tokenizer::json(&read_header(&file, path)?.metadata, path, vocabulary)
}

/// What comes of the chat template in the file.
pub(super) fn chat_template(path: &Path, json: &[u8], tokenizer: &Tokenizer) -> ChatTemplate {
    // The file was read before, for its tensors.
    let Ok(file) = FileBytes::map(path) else { return ChatTemplate::Missing };
    let Ok(header) = read_header(&file, path) else { return ChatTemplate::Missing };
    let Some(Value::String(source)) = header.metadata.get("tokenizer.chat_template") else {
        return ChatTemplate::Missing;
    };
    chat_template::of_text(source, &tokenizer::special_tokens(&header.metadata), json, tokenizer)
}

fn read_header<'a>(file: &'a FileBytes, path: &Path) -> Result<Header<'a>, ImportError> {
    Header::read(file.as_ref()).map_err(|error| match error {
        HeaderError::Broken(reason) => ImportError::format(path, reason),
        HeaderError::Type { tensor, found } => {
            ImportError::UnsupportedType { name: tensor, found: found.to_string() }
        }
    })
}

#[cfg(test)]
mod family_tests;
#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "a test looks at the values behind the integers")]
mod tests;
