//! Answers that were written down, so that whoever executes again can check them instead of generating them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::{B256, Keccak256};
use metis_kernels::TokenId;
use serde::{Deserialize, Serialize};

use super::{Difference, Finish, Generation, InferenceError, InferenceModel, Request, Verdict};
use crate::bundle::Manifest;
use crate::tokenizer::Tokenizer;

/// Generations by the hash of model and request. The same question has the same answer, so one entry is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(BTreeMap<B256, Answer>);

/// A generation as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    tokens: Vec<u32>,
    finish: Finish,
}

impl Answers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, key: &B256) -> Option<Generation> {
        self.0.get(key).map(|answer| Generation {
            tokens: answer.tokens.iter().copied().map(TokenId).collect(),
            finish: answer.finish,
        })
    }

    fn insert(&mut self, key: B256, generation: &Generation) {
        let tokens = generation.tokens.iter().map(|token| token.0).collect();
        self.0.insert(key, Answer { tokens, finish: generation.finish });
    }
}

/// The hash of a question: model, sampling, length, prompt and stop tokens, each at its full width, and the form of the answer if it must
/// have one.
fn question(model: B256, request: &Request) -> B256 {
    let mut hash = Keccak256::new();
    hash.update(model);
    hash.update((request.max_new as u64).to_le_bytes());
    hash.update(request.sampling.temperature_q16.to_le_bytes());
    hash.update(request.sampling.top_p_q16.to_le_bytes());
    hash.update(request.sampling.top_k.to_le_bytes());
    hash.update(request.sampling.seed.to_le_bytes());
    for tokens in [&request.prompt, &request.stop] {
        hash.update((tokens.len() as u64).to_le_bytes());
        tokens.iter().for_each(|token| hash.update(token.0.to_le_bytes()));
    }
    if let Some(constraint) = &request.constraint {
        constraint.hash_into(&mut hash);
    }
    hash.finalize()
}

/// Answers that somebody else wrote down.
#[derive(Debug, Default)]
pub struct Claims {
    answers: Answers,
    forged: Mutex<Option<Difference>>,
}

impl Claims {
    /// Claims to check.
    pub fn new(answers: Answers) -> Self {
        Self { answers, forged: Mutex::default() }
    }

    /// Where the first answer that was checked and is not the model's differs from it.
    pub fn forged(&self) -> Option<Difference> {
        self.forged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a [`Witnessed`] model does with answers.
#[derive(Clone, Debug)]
pub enum Witness {
    /// Writes down what it generates.
    Write(Arc<Mutex<Answers>>),
    /// Checks what was written down, in one pass; what was not is generated.
    Check(Arc<Claims>),
}

/// A model with a witness.
#[derive(Debug)]
pub struct Witnessed {
    model: Arc<dyn InferenceModel>,
    witness: Witness,
}

impl Witnessed {
    /// Adds a witness to a model.
    pub fn new(model: Arc<dyn InferenceModel>, witness: Witness) -> Self {
        Self { model, witness }
    }

    fn checked(
        &self,
        claims: &Claims,
        request: &Request,
        claimed: Generation,
    ) -> Result<Generation, InferenceError> {
        match self.model.verify(request, &claimed)? {
            Verdict::Same => Ok(claimed),
            Verdict::Differs(difference) => {
                let mut forged = claims.forged.lock().unwrap_or_else(PoisonError::into_inner);
                forged.get_or_insert_with(|| difference.clone());
                Err(InferenceError::Forged(difference))
            }
        }
    }
}

impl InferenceModel for Witnessed {
    fn id(&self) -> B256 {
        self.model.id()
    }

    fn manifest(&self) -> &Manifest {
        self.model.manifest()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.model.tokenizer()
    }

    fn generate_batch(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>> {
        match &self.witness {
            Witness::Write(answers) => {
                let generations = self.model.generate_batch(requests);
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                for (request, generation) in requests.iter().zip(&generations) {
                    if let Ok(generation) = generation {
                        answers.insert(question(self.id(), request), generation);
                    }
                }
                generations
            }
            Witness::Check(claims) => {
                let claimed = |request| claims.answers.get(&question(self.id(), request));
                let claimed: Vec<_> = requests.iter().map(claimed).collect();
                let unclaimed = requests.iter().zip(&claimed).filter(|(_, claim)| claim.is_none());
                let unclaimed: Vec<Request> = unclaimed.map(|(request, _)| request.clone()).collect();
                let mut generated = self.model.generate_batch(&unclaimed).into_iter();
                let answer = |(request, claim): (&Request, Option<Generation>)| match claim {
                    Some(claim) => self.checked(claims, request, claim),
                    None => generated.next().unwrap_or(Err(InferenceError::EmptyPrompt)),
                };
                requests.iter().zip(claimed).map(answer).collect()
            }
        }
    }

    fn verify(&self, request: &Request, claimed: &Generation) -> Result<Verdict, InferenceError> {
        self.model.verify(request, claimed)
    }

    fn all_logits(&self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError> {
        self.model.all_logits(tokens)
    }

    fn last_logits(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.model.last_logits(tokens)
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.model.embed(tokens)
    }

    fn classify(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.model.classify(tokens)
    }

    fn score(&self, prompt: &[TokenId], labels: &[Vec<TokenId>]) -> Result<Vec<i64>, InferenceError> {
        self.model.score(prompt, labels)
    }

    fn forget_prefixes(&self) {
        self.model.forget_prefixes();
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { position, expected, claimed } = self;
        write!(f, "at position {position} the model gives {expected}, the answer has {claimed}")
    }
}
