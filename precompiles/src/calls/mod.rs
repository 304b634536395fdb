//! The functions of the precompile, one file for each family. They check and pay in the order that `docs/abi.md` gives: the
//! order decides which of several errors a caller sees.

mod chat;
mod constrained;
mod describe;
mod encode;
mod generate;
mod legacy;
mod rate;
mod text;
mod verify;

use std::cell::OnceCell;
use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_kernels::TokenId;
use metis_models::engine::InferenceError;

use crate::abi::{self, Call};
use crate::config::Caps;
use crate::gas::{Gas, GasSchedule};
use crate::inference::{FatalError, Inference, Kind};
use crate::meter::{Meter, OutOfGas};
use crate::registry::{ActiveModel, ModelError, RegisteredError, Unavailable};

pub(crate) use verify::{base_fee, verify_bundle};

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

/// A call that has a model look at something.
#[derive(Debug)]
pub(crate) enum Prompted {
    /// By the ABI.
    Abi(Call),
    /// As the Metis SDK's precompile is called.
    Legacy { prompt: Bytes, max_new: u32 },
}

impl Prompted {
    /// The model that is asked for.
    pub(crate) const fn model(&self) -> B256 {
        match self {
            Self::Abi(call) => call.model(),
            Self::Legacy { .. } => B256::ZERO,
        }
    }

    /// Checks, pays and answers.
    pub(crate) fn answer(self, ask: &Ask<'_>, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
        match self {
            Self::Legacy { prompt, max_new } => legacy::complete(ask, &prompt, max_new, meter),
            Self::Abi(call) => match call {
                Call::Generate(call) => generate::generate(ask, call, meter),
                Call::GenerateTokens(call) => generate::generate_tokens(ask, call, meter),
                Call::GenerateConstrained(call) => constrained::generate(ask, call, meter),
                Call::Choose(call) => constrained::choose(ask, call, meter),
                Call::GenerateChat(call) => chat::generate(ask, call, meter),
                Call::TokenizeChat(call) => chat::tokenize(ask, &call, meter),
                Call::Score(call) => rate::score(ask, call, meter),
                Call::Logits(call) => rate::logits(ask, call, meter),
                Call::Embed(call) => encode::embed(ask, call, meter),
                Call::Tokenize(call) => text::tokenize(ask, call, meter),
                Call::Detokenize(call) => text::detokenize(ask, call, meter),
                Call::ModelInfo(_) => describe::model_info(ask),
                Call::Quote(call) => describe::quote(ask, &call),
                // About the chain, not by a model.
                Call::VerifyBundle(_) | Call::InferenceBaseFee(_) => Err(Interrupt::bad_calldata()),
            },
        }
    }
}

/// What a function asks of the chain and of the model.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    inference: &'a Inference,
    id: B256,
    kind: Kind,
    /// What looking it up costs at most.
    look_up: Gas,
    /// The model, if it is a registered one.
    registered: OnceCell<Arc<ActiveModel>>,
}

impl<'a> Ask<'a> {
    pub(crate) const fn new(inference: &'a Inference, id: B256, kind: Kind, look_up: Gas) -> Self {
        Self { inference, id, kind, look_up, registered: OnceCell::new() }
    }

    fn gas(&self) -> &GasSchedule {
        self.inference.gas()
    }

    fn caps(&self) -> &Caps {
        self.inference.caps()
    }

    /// The model, to work.
    fn model(&self) -> Result<&ActiveModel, Interrupt> {
        match self.kind {
            Kind::Unpaid => Err(Interrupt::revert(&abi::PaymentRequired { model: self.id })),
            _ => self.description(),
        }
    }

    /// The model, to be looked at: its tokenizer and its facts are free of charge.
    fn description(&self) -> Result<&ActiveModel, Interrupt> {
        let model = self.id;
        match self.kind {
            Kind::Configured => self.inference.models().get(model).map_err(|why| match why {
                Unavailable::Unknown => Interrupt::revert(&abi::UnknownModel { model }),
                Unavailable::NotActive => Interrupt::revert(&abi::ModelNotActive { model }),
                Unavailable::Failed(error) => Interrupt::Fatal(error.into()),
            }),
            Kind::Unregistered => Err(Interrupt::revert(&abi::UnknownModel { model })),
            Kind::Inactive => Err(Interrupt::revert(&abi::ModelNotActive { model })),
            Kind::Unpaid | Kind::Active => {
                if self.registered.get().is_none() {
                    let loaded =
                        self.inference.models().registered_model(model).map_err(|error| match error {
                            RegisteredError::Fatal(error) => Interrupt::Fatal(error.into()),
                            // It was activated, so it was executable then: this is another build than the chain's.
                            RegisteredError::Refused(reason) => {
                                Interrupt::Fatal(ModelError::Registered { id: model, reason }.into())
                            }
                        })?;
                    let _ = self.registered.set(loaded);
                }
                self.registered
                    .get()
                    .map(|model| &**model)
                    .ok_or_else(|| Interrupt::Fatal(FatalError::Engine("a loaded model is gone".to_owned())))
            }
        }
    }

    /// A model that continues texts, for a function `C` that needs one.
    fn decoder<C: SolCall>(&self) -> Result<&ActiveModel, Interrupt> {
        let model = self.model()?;
        if model.is_decoder() { Ok(model) } else { Err(Interrupt::not_supported::<C>()) }
    }
}

/// Refuses an argument that is larger than the chain allows.
fn cap(actual: usize, max: u32) -> Result<(), Interrupt> {
    if actual > max as usize { Err(Interrupt::bad_calldata()) } else { Ok(()) }
}

/// A prompt as tokens: pays for the bytes, tokenises, and checks that they fit the model.
fn prompt_tokens(
    ask: &Ask<'_>,
    model: &ActiveModel,
    prompt: &[u8],
    meter: &mut Meter,
) -> Result<Vec<TokenId>, Interrupt> {
    meter.charge(ask.gas().text(prompt.len()))?;
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
