//! Ragged batches: the tokens of all examples one after the other, without padding.

use crate::instructions::Instructions;
use crate::tokenizer::{self, TokenizerError};
use std::sync::Arc;
use tokenizers::Tokenizer;

/// Sequences longer than this are not trained on.
pub const LONGEST: usize = 112;

/// The token ids of one example.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `<s> instruction <sep>`
    pub prompt: Vec<u32>,
    /// `answer </s>`
    pub answer: Vec<u32>,
}

/// The next `count` examples of `stream` that are short enough.
///
/// # Errors
/// What the tokenizer reports.
pub fn encode(
    tokenizer: &Tokenizer,
    stream: &mut Instructions,
    count: usize,
) -> Result<Vec<Encoded>, TokenizerError> {
    let mut out = Vec::with_capacity(count);
    for example in stream {
        let encoded = Encoded {
            prompt: tokenizer::prompt(tokenizer, &example.instruction)?,
            answer: tokenizer::answer(tokenizer, &example.command.to_string())?,
        };
        if encoded.prompt.len() + encoded.answer.len() <= LONGEST {
            out.push(encoded);
        }
        if out.len() == count {
            break;
        }
    }
    Ok(out)
}

/// Some examples, ready for the forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// All tokens but each sequence's last, which predicts nothing.
    pub tokens: Vec<u32>,
    /// How many tokens each sequence has.
    pub lengths: Arc<[usize]>,
    /// The rows of `tokens` that predict a token of an answer.
    pub predicting: Vec<u32>,
    /// What each of those rows must predict.
    pub targets: Arc<[u32]>,
    /// How many of them each sequence has.
    pub answers: Vec<usize>,
}

impl Batch {
    /// The batch of `examples`.
    #[must_use]
    pub fn new(examples: &[Encoded]) -> Self {
        let (mut tokens, mut lengths, mut predicting) = (Vec::new(), Vec::new(), Vec::new());
        let mut targets = Vec::new();
        for Encoded { prompt, answer } in examples {
            let first = (tokens.len() + prompt.len() - 1) as u32;
            predicting.extend(first..first + answer.len() as u32);
            tokens.extend(prompt.iter().chain(&answer[..answer.len() - 1]));
            lengths.push(prompt.len() + answer.len() - 1);
            targets.extend_from_slice(answer);
        }
        let answers = examples.iter().map(|example| example.answer.len()).collect();
        Self { tokens, lengths: lengths.into(), predicting, targets: targets.into(), answers }
    }
}
