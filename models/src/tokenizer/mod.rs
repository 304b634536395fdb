//! Text to tokens and back, the same on every machine.
//!
//! Text comes from calldata, so it is bytes: what is not UTF-8 is replaced as [`String::from_utf8_lossy`] does (normative). The
//! strings of special tokens are plain text in it: a prompt that contains `</s>` or `<|im_start|>` cannot close a turn or
//! open one. Special tokens come only from the tokenizer's own template. Answers are bytes as well: byte-level
//! vocabularies may end inside a UTF-8 character, so [`decode`](Tokenizer::decode) never goes through a `String`.

mod json;
mod markers;
mod pieces;
mod spelling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use metis_kernels::TokenId;
use thiserror::Error;

use json::Definition;
pub(crate) use json::{LLAMA3_PATTERN, QWEN2_PATTERN};
use pieces::Pieces;

pub(crate) use markers::Markers;
pub use spelling::Spelling;

use crate::chat::ChatFormatError;

/// Why a tokenizer was refused or a text could not be encoded.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// Not JSON, or a field of the wrong kind.
    #[error("it cannot be read: {0}")]
    Syntax(String),
    /// A component that has no exact, bounded implementation here.
    #[error("{place} of type `{found}` is not supported (supported: {supported})")]
    Unsupported {
        /// The component.
        place: &'static str,
        /// Its type.
        found: String,
        /// What there is.
        supported: &'static str,
    },
    /// A token that the model has no row for, or two tokens with one id.
    #[error("token {piece:?} has id {id}: {rule}")]
    BadId {
        /// The token.
        piece: String,
        /// Its id.
        id: u64,
        /// What is required.
        rule: String,
    },
    /// The tokenizer starts prompts with other tokens than the manifest says.
    #[error("it starts prompts with tokens {tokenizer:?}, the manifest says {manifest:?}")]
    Bos {
        /// What the manifest says.
        manifest: Vec<u32>,
        /// What the template of the tokenizer adds.
        tokenizer: Vec<u32>,
    },
    /// The manifest's format of conversations does not fit the tokenizer.
    #[error("its chat format is refused: {0}")]
    Chat(#[from] ChatFormatError),
    /// The text's encoding would contain a special token.
    #[error("the text encodes to the special token {0}, which only the template may add")]
    SpecialInText(TokenId),
    /// The tokenizer library gave up (its regular expressions are bounded).
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}

/// The tokenizer of a model.
#[derive(Debug)]
pub struct Tokenizer {
    prompt: tokenizers::Tokenizer,
    /// The same without the leading space, when there is one.
    continuation: Option<tokenizers::Tokenizer>,
    pieces: Arc<Pieces>,
    /// Made when it is first asked for.
    spelling: OnceLock<Arc<Spelling>>,
    prefix: Vec<TokenId>,
    suffix: Vec<TokenId>,
    vocabulary: usize,
}

impl Tokenizer {
    /// Reads the contents of a `tokenizer.json` for a model of `vocabulary` tokens.
    pub fn from_json(json: &[u8], vocabulary: usize) -> Result<Self, TokenizerError> {
        let definition = Definition::parse(json, vocabulary)?;
        Ok(Self {
            prompt: definition.build()?,
            continuation: definition.without_leading_space().map(|d| d.build()).transpose()?,
            pieces: Arc::new(definition.pieces(vocabulary)?),
            spelling: OnceLock::new(),
            prefix: definition.prefix,
            suffix: definition.suffix,
            vocabulary,
        })
    }

    /// A whole prompt: the template's special tokens around the text.
    pub fn encode_prompt(&self, text: &[u8]) -> Result<Vec<TokenId>, TokenizerError> {
        let body = self.encode_text(&self.prompt, text)?;
        Ok([self.prefix.as_slice(), &body, &self.suffix].concat())
    }

    /// Text that follows other text: no special tokens, no leading space that the text does not have.
    pub fn encode_continuation(&self, text: &[u8]) -> Result<Vec<TokenId>, TokenizerError> {
        self.encode_text(self.continuation.as_ref().unwrap_or(&self.prompt), text)
    }

    /// Text between special tokens, with the space before it that a prompt gets or without.
    pub(crate) fn encode_run(
        &self,
        text: &[u8],
        leading_space: bool,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        if leading_space { self.encode_text(&self.prompt, text) } else { self.encode_continuation(text) }
    }

    /// The bytes that tokens stand for. Special tokens and ids without a piece stand for nothing.
    ///
    /// `decode(a ++ b) == decode(a) ++ decode(b)`, except that the space which `encode_prompt` puts before a text is taken away again
    /// after the special token that starts a prompt.
    pub fn decode(&self, tokens: &[TokenId]) -> Vec<u8> {
        let mut text: Vec<u8> = tokens.iter().flat_map(|&token| self.pieces.bytes(token)).copied().collect();
        let starts_prompt = tokens.first().is_some_and(|&token| self.pieces.is_special(token));
        if self.continuation.is_some() && starts_prompt && text.first() == Some(&b' ') {
            text.remove(0);
        }
        text
    }

    /// The special tokens that start every prompt.
    pub fn prompt_prefix(&self) -> &[TokenId] {
        &self.prefix
    }

    /// Token ids are below this.
    pub const fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Whether a token is special: control, not text.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.pieces.is_special(token)
    }

    /// The tokens by their bytes.
    pub fn spelling(&self) -> &Arc<Spelling> {
        self.spelling.get_or_init(|| Arc::new(Spelling::new(Arc::clone(&self.pieces))))
    }

    fn encode_text(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &[u8],
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let text = String::from_utf8_lossy(text);
        let encoding =
            guarded(|| tokenizer.encode_fast(text.as_ref(), false)).map_err(TokenizerError::Encode)?;
        let tokens: Vec<TokenId> = encoding.get_ids().iter().map(|&id| TokenId(id)).collect();
        match tokens.iter().find(|&&token| self.pieces.is_control(token)) {
            // A vocabulary may hide a special token behind merges; the library's own guard does not look there.
            Some(&token) => Err(TokenizerError::SpecialInText(token)),
            None => Ok(tokens),
        }
    }
}

/// Runs the library on foreign bytes. It returns errors; should it panic instead, that is an error as well, not the end of a node.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library panicked".into()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod word_piece_tests;
