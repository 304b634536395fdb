//! The functions of the precompile, one file for each family. They check and pay in the order that `docs/abi.md` gives: the
//! order decides which of several errors a caller sees.

mod chat;
mod constrained;
mod describe;
mod encode;
mod generate;
mod rate;
mod text;

use alloy_primitives::B256;
use alloy_sol_types::{SolCall, SolError};
use metis_kernels::TokenId;
use metis_models::engine::InferenceError;

use crate::abi::{self, Call};
use crate::gas::{Meter, OutOfGas};
use crate::inference::{FatalError, Inference};
use crate::registry::{ActiveModel, Unavailable};

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// A typed error, encoded.
    Revert(Vec<u8>),
    OutOfGas,
    Fatal(FatalError),
}

impl Interrupt {
    fn revert(error: &impl SolError) -> Self {
        Self::Revert(error.abi_encode())
    }

    fn bad_calldata() -> Self {
        Self::revert(&abi::BadCalldata {})
    }

    fn not_supported<C: SolCall>() -> Self {
        Self::revert(&abi::NotSupported { selector: C::SELECTOR.into() })
    }
}

impl From<OutOfGas> for Interrupt {
    fn from(_: OutOfGas) -> Self {
        Self::OutOfGas
    }
}

/// Everything that a request could be blamed for has been checked: what is left is this node's failure.
impl From<InferenceError> for Interrupt {
    fn from(error: InferenceError) -> Self {
        Self::Fatal(FatalError::Engine(error.to_string()))
    }
}

/// Answers a call: pays for reading it, reads it, and leaves the rest to its function.
pub(crate) fn answer(
    inference: &Inference,
    calldata: &[u8],
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    meter.charge(inference.gas().input(calldata.len()))?;
    match Call::decode(calldata).ok_or_else(Interrupt::bad_calldata)? {
        Call::Generate(call) => generate::generate(inference, call, meter),
        Call::GenerateTokens(call) => generate::generate_tokens(inference, call, meter),
        Call::GenerateConstrained(call) => constrained::generate(inference, call, meter),
        Call::Choose(call) => constrained::choose(inference, call, meter),
        Call::GenerateChat(call) => chat::generate(inference, call, meter),
        Call::TokenizeChat(call) => chat::tokenize(inference, &call, meter),
        Call::Score(call) => rate::score(inference, call, meter),
        Call::Logits(call) => rate::logits(inference, call, meter),
        Call::Embed(call) => encode::embed(inference, call, meter),
        Call::Tokenize(call) => text::tokenize(inference, call, meter),
        Call::Detokenize(call) => text::detokenize(inference, call, meter),
        Call::ModelInfo(call) => describe::model_info(inference, &call),
        Call::Quote(call) => describe::quote(inference, &call),
    }
}

/// The model under an id.
fn model(inference: &Inference, id: B256) -> Result<&ActiveModel, Interrupt> {
    inference.models().get(id).map_err(|why| match why {
        Unavailable::Unknown => Interrupt::revert(&abi::UnknownModel { model: id }),
        Unavailable::NotActive => Interrupt::revert(&abi::ModelNotActive { model: id }),
        Unavailable::Failed(error) => Interrupt::Fatal(error.into()),
    })
}

/// A model that continues texts, for a function `C` that needs one.
fn decoder<C: SolCall>(inference: &Inference, id: B256) -> Result<&ActiveModel, Interrupt> {
    let model = model(inference, id)?;
    if model.is_decoder() { Ok(model) } else { Err(Interrupt::not_supported::<C>()) }
}

/// Refuses an argument that is larger than the chain allows.
fn cap(actual: usize, max: u32) -> Result<(), Interrupt> {
    if actual > max as usize { Err(Interrupt::bad_calldata()) } else { Ok(()) }
}

/// A prompt as tokens: pays for the bytes, tokenises, and checks that they fit the model.
fn prompt_tokens(
    inference: &Inference,
    model: &ActiveModel,
    prompt: &[u8],
    meter: &mut Meter,
) -> Result<Vec<TokenId>, Interrupt> {
    meter.charge(inference.gas().text(prompt.len()))?;
    let tokens = model.model.tokenizer().encode_prompt(prompt).map_err(|_| Interrupt::bad_calldata())?;
    check_prompt(model, tokens.len())?;
    Ok(tokens)
}

fn check_prompt(model: &ActiveModel, tokens: usize) -> Result<(), Interrupt> {
    match tokens {
        0 => Err(Interrupt::bad_calldata()),
        _ if tokens > model.context as usize => Err(too_long(tokens, model.context)),
        _ => Ok(()),
    }
}

fn too_long(tokens: usize, max: u32) -> Interrupt {
    Interrupt::revert(&abi::PromptTooLong { tokens: saturated(tokens), max })
}

/// Token ids, checked against the vocabulary.
fn in_vocabulary(model: &ActiveModel, ids: &[u32]) -> Result<Vec<TokenId>, Interrupt> {
    let vocab = model.costs.vocabulary;
    match ids.iter().find(|&&id| id >= vocab) {
        Some(&id) => Err(Interrupt::revert(&abi::TokenOutOfRange { id, vocab })),
        None => Ok(ids.iter().copied().map(TokenId).collect()),
    }
}

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
