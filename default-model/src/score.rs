//! The score that counts: exact match on the held-out set through the fixed-point engine.

use crate::heldout::Item;
use metis_kernels::{Sampling, Scalar, TokenId};
use metis_models::Bundle;
use metis_models::engine::{Engine, Finish, InferenceError, InferenceModel, LoadError, Request};
use metis_models::tokenizer::TokenizerError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// New tokens that an answer may have; IntentWallet asks for as many.
pub const MAX_NEW: usize = 24;
/// Instructions that share a batch. It changes no answer.
const BATCH: usize = 16;

/// How many answers were right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// The model.
    pub model: String,
    /// Items of the set.
    pub items: usize,
    /// Items whose answer is the expected one, byte for byte, ended by the model itself.
    pub right: usize,
    /// The same for each kind of command: `[right, items]`.
    pub kinds: BTreeMap<String, [usize; 2]>,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// What the user wrote.
    pub instruction: String,
    /// What the model should have answered.
    pub expected: String,
    /// What it answered.
    pub answer: String,
}

/// A set that could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An instruction cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An instruction does not fit the model.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// Answers every item greedily and counts.
///
/// # Errors
/// [`ScoreError`].
pub fn score(
    bundle: &Bundle,
    items: &[Item],
    mut progress: impl FnMut(usize),
) -> Result<(Score, Vec<Miss>), ScoreError> {
    let model = Engine::load(bundle, Arc::new(Scalar::new()))?;
    let mut score =
        Score { model: model.id().to_string(), items: items.len(), right: 0, kinds: BTreeMap::new() };
    let mut misses = Vec::new();
    for batch in items.chunks(BATCH) {
        let requests = batch
            .iter()
            .map(|item| {
                let prompt: Vec<TokenId> = model.tokenizer().encode_prompt(item.instruction.as_bytes())?;
                Ok(Request {
                    prompt,
                    max_new: MAX_NEW,
                    sampling: Sampling::GREEDY,
                    stop: Vec::new(),
                    constraint: None,
                })
            })
            .collect::<Result<Vec<Request>, ScoreError>>()?;
        for (item, generation) in batch.iter().zip(model.generate_batch(&requests)) {
            let generation = generation?;
            let expected = item.expected.to_string();
            let answer = String::from_utf8_lossy(&model.tokenizer().decode(&generation.tokens)).into_owned();
            let right = generation.finish == Finish::Eos && answer == expected;
            let kind = expected.split(' ').next().unwrap_or_default().to_owned();
            let [of_kind, all] = score.kinds.entry(kind).or_default();
            *of_kind += usize::from(right);
            *all += 1;
            score.right += usize::from(right);
            if !right {
                misses.push(Miss { instruction: item.instruction.clone(), expected, answer });
            }
        }
        progress(batch.len());
    }
    Ok((score, misses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bundle, heldout};

    #[test]
    fn the_committed_score_is_what_the_engine_reaches_and_is_enough() {
        let items = heldout::from_text(include_str!("../heldout.tsv")).unwrap();
        let committed: Score = serde_json::from_str(include_str!("../score.json")).unwrap();
        let (score, _) = score(&bundle().unwrap(), &items, |_| ()).unwrap();
        assert_eq!(score, committed);
        assert!(100 * score.right >= 95 * score.items);
    }
}
