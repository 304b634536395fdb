//! The tokenizer: a byte-level BPE trained on the corpus, in the Hugging Face `tokenizer.json` format.
//!
//! - Text is lower-cased; digits are tokens of their own, so that amounts are copied digit by digit.
//! - The token symbols (`METIS`, `ETH`, …) are added tokens that match before lower-casing, because the
//!   answer has them in upper case.
//! - The post-processor makes a prompt of an instruction: `<s> instruction <sep>`. The answer is encoded
//!   without special tokens and ends with `</s>`.

use crate::grammar::Token;
use crate::instructions::{Instructions, Split};
use std::collections::HashSet;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper, Tokenizer, models::TrainerWrapper};

/// Begin of the prompt.
pub const BOS: &str = "<s>";
/// End of the answer.
pub const EOS: &str = "</s>";
/// Between the instruction and the answer.
pub const SEP: &str = "<sep>";
/// The ids of the three special tokens: they are the vocabulary's first.
pub const BOS_ID: u32 = 0;
/// See [`BOS_ID`].
pub const EOS_ID: u32 = 1;
/// See [`BOS_ID`].
pub const SEP_ID: u32 = 2;

/// The trained vocabulary's size: three special tokens, 256 bytes, the rest merges, then the symbols.
pub const VOCABULARY: usize = 640;

/// How many examples of the training split the merges are counted on.
const EXAMPLES: usize = 30_000;

/// Trains the tokenizer on the training split under `seed`. Equal seeds give equal files.
///
/// # Errors
/// What the `tokenizers` library reports.
pub fn train(seed: u64) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    let split_digits = PreTokenizerWrapper::Digits(Digits::new(true));
    let bytes = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
    tokenizer.with_normalizer(Some(Lowercase)).map_err(error)?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split_digits, bytes])));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));

    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let special = [BOS, EOS, SEP].map(|token| AddedToken::from(token, true));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(VOCABULARY - Token::ALL.len())
        .initial_alphabet(alphabet)
        .special_tokens(special.to_vec())
        .build();
    let lines = Instructions::new(Split::Train, seed)
        .take(EXAMPLES)
        .flat_map(|example| [example.instruction, example.command.to_string()])
        .flat_map(|line| between_symbols(&line));
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), lines).map_err(error)?;

    let symbols = Token::ALL.iter().map(|token| symbol(*token));
    tokenizer.add_tokens(symbols).map_err(error)?;
    let prompt = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A {SEP}").as_str())
        .map_err(TokenizerError)?
        .special_tokens(vec![(BOS, BOS_ID), (SEP, SEP_ID)])
        .build()
        .map_err(|problem| TokenizerError(problem.to_string()))?;
    tokenizer.with_post_processor(Some(prompt));
    Ok(tokenizer)
}

/// The ids of the prompt: `<s> instruction <sep>`.
///
/// # Errors
/// What the `tokenizers` library reports.
pub fn prompt(tokenizer: &Tokenizer, instruction: &str) -> Result<Vec<u32>, TokenizerError> {
    Ok(tokenizer.encode(instruction, true).map_err(error)?.get_ids().to_vec())
}

/// The ids of an answer, with the end token.
///
/// # Errors
/// What the `tokenizers` library reports.
pub fn answer(tokenizer: &Tokenizer, answer: &str) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = tokenizer.encode(answer, false).map_err(error)?.get_ids().to_vec();
    ids.push(EOS_ID);
    Ok(ids)
}

/// The text of an answer's ids, up to the end token.
///
/// # Errors
/// What the `tokenizers` library reports.
pub fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, TokenizerError> {
    let end = ids.iter().position(|id| *id == EOS_ID).unwrap_or(ids.len());
    tokenizer.decode(&ids[..end], false).map_err(error)
}

/// The tokenizer could not be trained, read or applied.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct TokenizerError(String);

fn error(problem: tokenizers::Error) -> TokenizerError {
    TokenizerError(problem.to_string())
}

fn symbol(token: Token) -> AddedToken {
    AddedToken::from(token.as_str(), false).normalized(false).single_word(true)
}

/// What is left of a line for the BPE: in the finished tokenizer the symbols never reach it, and they must not
/// earn merges here.
fn between_symbols(line: &str) -> Vec<String> {
    Token::ALL.iter().fold(vec![line.to_owned()], |parts, token| {
        parts.iter().flat_map(|part| part.split(token.as_str()).map(str::to_owned)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_is_deterministic_and_every_command_round_trips() {
        let tokenizer = train(1).unwrap();
        let json = tokenizer.to_string(true).unwrap();
        assert_eq!(json, train(1).unwrap().to_string(true).unwrap());
        assert_eq!(tokenizer.get_vocab_size(true), VOCABULARY);
        for (id, token) in [(BOS_ID, BOS), (EOS_ID, EOS), (SEP_ID, SEP)] {
            assert_eq!(tokenizer.token_to_id(token), Some(id));
        }

        for split in [Split::Train, Split::HeldOut] {
            for example in Instructions::new(split, 5).take(2_000) {
                let line = example.command.to_string();
                assert_eq!(decode(&tokenizer, &answer(&tokenizer, &line).unwrap()).unwrap(), line);
                let prompt = prompt(&tokenizer, &example.instruction).unwrap();
                assert_eq!((prompt[0], prompt[prompt.len() - 1]), (BOS_ID, SEP_ID));
            }
        }
    }
}
