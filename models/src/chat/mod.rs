//! Conversations as a model was trained to read them: fixed text and special tokens between the messages.
//!
//! A checkpoint brings a template, which is a program. It runs once, when the checkpoint is [imported](crate::import), to find what
//! it writes between messages; the bundle's manifest keeps that ([`ChatFormat`]), and nothing that runs on a chain interprets templates.
//! Special tokens come from the format alone: their strings in a message are text, so no message can close its turn.
//! `docs/bundle.md` is normative.

use metis_kernels::TokenId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Most pieces between two messages.
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes of text between two messages.
pub const MAX_SEGMENT_BYTES: usize = 1_024;

/// What stands around the messages of a conversation: perhaps one of the system, then a user's, then an assistant's and a user's in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatFormat {
    /// Before the first message of a user, when there is none of the system.
    pub begin: Vec<Segment>,
    /// Around a message of the system; without it there can be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemFormat>,
    /// Between a message of a user and one of an assistant.
    pub reply: Vec<Segment>,
    /// Between a message of an assistant and one of a user.
    pub turn: Vec<Segment>,
    /// After the last message, before the answer.
    pub answer: Vec<Segment>,
    /// Whether white space around messages is taken away.
    pub trim: bool,
    /// Whether the tokenizer's leading space is put before text that follows a special token.
    pub leading_space: bool,
}

/// What stands around a message of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFormat {
    /// Before it.
    pub begin: Vec<Segment>,
    /// Between it and the first message of a user.
    pub end: Vec<Segment>,
}

/// A piece of what stands between messages: in JSON a number or a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Segment {
    /// A special token.
    Token(u32),
    /// Text.
    Text(String),
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever set the conversation up.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// One message: bytes, read as any text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: &'a [u8],
}

/// A conversation that cannot be put to a model.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The roles are in another order than the format's, or the last message is not a user's.
    #[error("message {0} is not the one that could come there")]
    Order(usize),
    /// The text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A format that is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChatFormatError {
    /// A token that is not special, or is none.
    #[error("token {0} is not a special token")]
    NotSpecial(u32),
    /// Between two messages is no special token, so a message could pretend to be the next.
    #[error("there is no special token in `{0}`, so a message could pretend to be another")]
    Open(&'static str),
    /// More segments or text than there may be, or an empty text, or two texts in a row.
    #[error("`{0}` is too long, or holds an empty text or two in a row")]
    Segments(&'static str),
}

impl ChatFormat {
    /// Checks what a tokenizer says of the format: its tokens are special, and there is one between any two messages.
    pub fn check(&self, is_special: impl Fn(TokenId) -> bool) -> Result<(), ChatFormatError> {
        let system = self.system.iter();
        let system = system.flat_map(|s| [("system.begin", &s.begin, false), ("system.end", &s.end, true)]);
        let parts = [
            ("begin", &self.begin, false),
            ("reply", &self.reply, true),
            ("turn", &self.turn, true),
            ("answer", &self.answer, true),
        ];
        for (name, segments, closes) in parts.into_iter().chain(system) {
            let bytes: usize = segments.iter().map(Segment::bytes).sum();
            let texts = |pair: &[Segment]| pair.iter().all(|s| matches!(s, Segment::Text(_)));
            if segments.len() > MAX_SEGMENTS
                || bytes > MAX_SEGMENT_BYTES
                || segments.contains(&Segment::Text(String::new()))
                || segments.windows(2).any(texts)
            {
                return Err(ChatFormatError::Segments(name));
            }
            let mut tokens = segments.iter().filter_map(Segment::token);
            if closes && tokens.clone().next().is_none() {
                return Err(ChatFormatError::Open(name));
            }
            if let Some(TokenId(id)) = tokens.find(|&token| !is_special(token)) {
                return Err(ChatFormatError::NotSpecial(id));
            }
        }
        Ok(())
    }

    /// The token that ends an assistant's turn.
    pub fn end_of_turn(&self) -> Option<TokenId> {
        self.turn.iter().find_map(Segment::token)
    }

    /// Bytes of text that a conversation gives the tokenizer: its messages and what stands between them.
    pub fn text_bytes(&self, messages: &[Message<'_>]) -> Result<usize, ChatError> {
        let fixed = self.around(messages)?.into_iter().flatten().map(Segment::bytes).sum::<usize>();
        Ok(messages.iter().map(|message| message.content.len()).fold(fixed, usize::saturating_add))
    }

    /// A conversation as tokens, up to where the answer begins.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message<'_>]) -> Result<Vec<TokenId>, ChatError> {
        let around = self.around(messages)?;
        let contents = messages.iter().map(|message| String::from_utf8_lossy(message.content));
        let contents = contents.map(Some).chain([None]);
        let mut writer =
            Writer { tokenizer, leading_space: self.leading_space, text: String::new(), tokens: vec![] };
        for (segments, content) in around.into_iter().zip(contents) {
            writer.segments(segments)?;
            if let Some(content) = content {
                writer.text.push_str(if self.trim { content.trim() } else { &content });
            }
        }
        writer.flush()?;
        Ok(writer.tokens)
    }

    /// What stands before each message, and after the last.
    fn around(&self, messages: &[Message<'_>]) -> Result<Vec<&[Segment]>, ChatError> {
        let mut around: Vec<&[Segment]> = Vec::with_capacity(messages.len() + 1);
        let mut previous = None;
        for (index, message) in messages.iter().enumerate() {
            around.push(match (previous, message.role, &self.system) {
                (None, Role::System, Some(system)) => &system.begin,
                (None, Role::User, _) => &self.begin,
                (Some(Role::System), Role::User, Some(system)) => &system.end,
                (Some(Role::User), Role::Assistant, _) => &self.reply,
                (Some(Role::Assistant), Role::User, _) => &self.turn,
                _ => return Err(ChatError::Order(index)),
            });
            previous = Some(message.role);
        }
        if previous != Some(Role::User) {
            return Err(ChatError::Order(messages.len()));
        }
        around.push(&self.answer);
        Ok(around)
    }
}

impl Segment {
    const fn token(&self) -> Option<TokenId> {
        match self {
            Self::Token(id) => Some(TokenId(*id)),
            Self::Text(_) => None,
        }
    }

    const fn bytes(&self) -> usize {
        match self {
            Self::Token(_) => 0,
            Self::Text(text) => text.len(),
        }
    }
}

/// Tokens so far, and the text after the last special token: it is encoded as a whole.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    leading_space: bool,
    text: String,
    tokens: Vec<TokenId>,
}

impl Writer<'_> {
    fn segments(&mut self, segments: &[Segment]) -> Result<(), TokenizerError> {
        for segment in segments {
            match segment {
                Segment::Text(text) => self.text.push_str(text),
                Segment::Token(id) => {
                    self.flush()?;
                    self.tokens.push(TokenId(*id));
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TokenizerError> {
        if !self.text.is_empty() {
            self.tokens.extend(self.tokenizer.encode_run(self.text.as_bytes(), self.leading_space)?);
            self.text.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
