//! `generate` and `generateTokens`: continuing a prompt.

use std::sync::Arc;

use alloy_sol_types::SolCall;
use metis_kernels::{Sampling, TokenId};
use metis_models::constraint::Constraint;
use metis_models::engine::{Finish, Generation, Request};

use super::{Ask, Interrupt, cap, check_prompt, ids, in_vocabulary, prompt_tokens, saturated};
use crate::abi::{self, generateCall, generateTokensCall};
use crate::gas::Work;
use crate::meter::Meter;
use crate::registry::ActiveModel;

pub(super) fn generate(ask: &Ask<'_>, call: generateCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    if call.prompt.is_empty() {
        return Err(Interrupt::bad_calldata());
    }
    cap(call.prompt.len(), ask.caps().max_prompt_bytes)?;
    let wanted = Wanted::check(ask, call.maxNew, &call.s, &call.stopIds)?;
    let model = ask.decoder::<generateCall>()?;
    let stop = in_vocabulary(model, &call.stopIds)?;
    let prompt = prompt_tokens(ask, model, &call.prompt, meter)?;
    let prompt_tokens = saturated(prompt.len());
    let start = Start { prompt, stop, constraint: None };
    let generation = run(ask, model, start, wanted, meter)?;
    let answer = abi::generateReturn {
        text: model.model.tokenizer().decode(&generation.tokens).into(),
        tokens: ids(&generation.tokens),
        promptTokens: prompt_tokens,
        finish: finish(generation.finish),
    };
    Ok(generateCall::abi_encode_returns(&answer))
}

pub(super) fn generate_tokens(
    ask: &Ask<'_>,
    call: generateTokensCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let wanted = Wanted::check(ask, call.maxNew, &call.s, &call.stopIds)?;
    let model = ask.decoder::<generateTokensCall>()?;
    let stop = in_vocabulary(model, &call.stopIds)?;
    check_prompt(model, call.prompt.len())?;
    let prompt = in_vocabulary(model, &call.prompt)?;
    let start = Start { prompt, stop, constraint: None };
    let generation = run(ask, model, start, wanted, meter)?;
    let answer =
        abi::generateTokensReturn { tokens: ids(&generation.tokens), finish: finish(generation.finish) };
    Ok(generateTokensCall::abi_encode_returns(&answer))
}

/// What is asked for besides the prompt, as far as it can be checked without a model.
pub(super) struct Wanted {
    max_new: u32,
    sampling: Sampling,
}

impl Wanted {
    pub(super) const fn new(max_new: u32, sampling: Sampling) -> Self {
        Self { max_new, sampling }
    }

    pub(super) fn check(
        ask: &Ask<'_>,
        max_new: u32,
        s: &abi::Sampling,
        stop: &[u32],
    ) -> Result<Self, Interrupt> {
        cap(stop.len(), ask.caps().max_stop_ids)?;
        check_new(max_new, ask.caps().max_new_tokens)?;
        let sampling =
            Sampling { temperature_q16: s.temperatureQ16, top_p_q16: s.topPQ16, top_k: s.topK, seed: s.seed };
        sampling.check().map_err(|_| Interrupt::revert(&abi::BadSampling {}))?;
        Ok(Self { max_new, sampling })
    }
}

/// Refuses more new tokens than the chain or the model's context allows.
pub(super) fn check_new(requested: u32, max: u32) -> Result<(), Interrupt> {
    if requested > max { Err(Interrupt::revert(&abi::TooManyNewTokens { requested, max })) } else { Ok(()) }
}

/// The most new tokens after a prompt that fits: the last of them is chosen, not fed.
pub(super) const fn room(context: u32, prompt_tokens: u32) -> u32 {
    context.saturating_sub(prompt_tokens).saturating_add(1)
}

/// Where an answer starts, how it may end, and the form that it must have.
pub(super) struct Start {
    pub(super) prompt: Vec<TokenId>,
    pub(super) stop: Vec<TokenId>,
    pub(super) constraint: Option<Arc<Constraint>>,
}

pub(super) fn run(
    ask: &Ask<'_>,
    model: &ActiveModel,
    start: Start,
    wanted: Wanted,
    meter: &mut Meter,
) -> Result<Generation, Interrupt> {
    let Start { prompt, stop, constraint } = start;
    check_new(wanted.max_new, room(model.context, saturated(prompt.len())))?;
    if wanted.max_new == 0 {
        return Ok(Generation { tokens: Vec::new(), finish: Finish::Length });
    }
    let (prompt_tokens, max_new, free) = (prompt.len(), wanted.max_new as usize, constraint.is_none());
    let price = |new: usize, answer: usize| {
        let work = match free {
            true => Work::generation(prompt_tokens, new),
            false => Work::constrained(prompt_tokens, new, answer),
        };
        ask.gas().work(&model.costs, work)
    };
    meter.reserve(price(max_new, max_new))?;
    let request = Request { prompt, max_new, sampling: wanted.sampling, stop, constraint };
    let generation = model.model.generate(&request)?;
    meter.charge(price(generation.sampled(), generation.tokens.len()))?;
    match generation.finish {
        Finish::Stuck => {
            Err(Interrupt::revert(&abi::CannotSpell { tokens: saturated(generation.tokens.len()) }))
        }
        _ => Ok(generation),
    }
}

/// Why an answer ended, for callers. A stuck one is no answer: [`run`] made it an error.
pub(super) const fn finish(finish: Finish) -> abi::Finish {
    match finish {
        Finish::Eos => abi::Finish::Eos,
        Finish::Length | Finish::Stuck => abi::Finish::Length,
        Finish::Complete => abi::Finish::Complete,
        Finish::Stop => abi::Finish::Stop,
    }
}
