//! `generateConstrained` and `choose`: answers of a form that the caller gives. `docs/constraints.md` is normative for forms.

use std::sync::Arc;

use alloy_primitives::Bytes;
use alloy_sol_types::SolCall;
use metis_models::constraint::{Constraint, ConstraintError, Draft};
use metis_models::engine::Generation;

use super::generate::{Start, Wanted, finish, run};
use super::{Ask, Interrupt, cap, ids, prompt_tokens, saturated};
use crate::abi::{self, chooseCall, generateConstrainedCall};
use crate::gas::AutomatonSize;
use crate::inference::FatalError;
use crate::meter::Meter;
use crate::registry::ActiveModel;

pub(super) fn generate(
    ask: &Ask<'_>,
    call: generateConstrainedCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    check_prompt_bytes(ask, &call.prompt)?;
    let form = Form::check(ask, call.c)?;
    let wanted = Wanted::check(ask, call.maxNew, &call.s, &[])?;
    let model = ask.decoder::<generateConstrainedCall>()?;
    let (prompt_tokens, generation) = answer(ask, model, &call.prompt, form, wanted, meter)?;
    let answer = abi::generateConstrainedReturn {
        text: model.model.tokenizer().decode(&generation.tokens).into(),
        tokens: ids(&generation.tokens),
        promptTokens: prompt_tokens,
        finish: finish(generation.finish),
    };
    Ok(generateConstrainedCall::abi_encode_returns(&answer))
}

pub(super) fn choose(ask: &Ask<'_>, call: chooseCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    check_prompt_bytes(ask, &call.prompt)?;
    let longest = call.options.iter().map(|option| option.len()).max().unwrap_or(0);
    let c = abi::Constraint { pattern: Bytes::new(), options: call.options.clone() };
    let form = Form::check(ask, c)?;
    // A token has at least one byte: with as many tokens as the longest option has bytes, every answer is one of them.
    let wanted = Wanted::check(ask, saturated(longest), &call.s, &[])?;
    let model = ask.decoder::<chooseCall>()?;
    let (_, generation) = answer(ask, model, &call.prompt, form, wanted, meter)?;
    let text = model.model.tokenizer().decode(&generation.tokens);
    let index = call.options.iter().position(|option| **option == text[..]).ok_or_else(|| {
        Interrupt::Fatal(FatalError::Engine("the answer is none of the options".to_owned()))
    })?;
    Ok(chooseCall::abi_encode_returns(&saturated(index)))
}

fn check_prompt_bytes(ask: &Ask<'_>, prompt: &[u8]) -> Result<(), Interrupt> {
    if prompt.is_empty() {
        return Err(Interrupt::bad_calldata());
    }
    cap(prompt.len(), ask.caps().max_prompt_bytes)
}

/// A constraint within the chain's limits, not read yet.
pub(super) enum Form {
    Pattern(Bytes),
    Options(Vec<Bytes>),
}

impl Form {
    pub(super) fn check(ask: &Ask<'_>, c: abi::Constraint) -> Result<Self, Interrupt> {
        let caps = ask.caps();
        match (c.pattern.is_empty(), c.options.is_empty()) {
            (false, true) => {
                cap(c.pattern.len(), caps.max_pattern_bytes)?;
                Ok(Self::Pattern(c.pattern))
            }
            (true, false) => {
                cap(c.options.len(), caps.max_labels)?;
                if c.options.iter().any(|option| option.is_empty()) {
                    return Err(Interrupt::bad_calldata());
                }
                c.options.iter().try_for_each(|option| cap(option.len(), caps.max_label_bytes))?;
                Ok(Self::Options(c.options))
            }
            _ => Err(Interrupt::bad_calldata()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Pattern(pattern) => pattern.len(),
            Self::Options(options) => options.iter().map(|option| option.len()).sum(),
        }
    }

    fn read(self, max_states: usize) -> Result<Draft, ConstraintError> {
        match self {
            Self::Pattern(pattern) => Draft::pattern(&pattern, max_states),
            Self::Options(options) => {
                Draft::options(options.iter().map(|option| option.to_vec()).collect(), max_states)
            }
        }
    }

    /// Reads the constraint and builds its automaton, each after it is paid or reserved.
    pub(super) fn build(self, ask: &Ask<'_>, meter: &mut Meter) -> Result<Constraint, Interrupt> {
        let gas = ask.gas();
        meter.charge(gas.constraint(self.bytes()))?;
        let draft = self.read(ask.caps().max_automaton_states as usize).map_err(refused)?;
        let (classes, positions) = (draft.classes(), draft.positions());
        let price = |states| gas.automaton(AutomatonSize { states, classes, positions });
        let most = draft.most_states();
        meter.reserve(price(most))?;
        let built = draft.build();
        meter.charge(price(built.as_ref().map_or(most, Constraint::states)))?;
        built.map_err(refused)
    }
}

fn refused(error: ConstraintError) -> Interrupt {
    match error {
        ConstraintError::Syntax { position } => {
            Interrupt::revert(&abi::BadConstraint { position: saturated(position) })
        }
        ConstraintError::EmptyOption(_) => Interrupt::bad_calldata(),
        ConstraintError::TooLarge { max } => {
            Interrupt::revert(&abi::ConstraintTooLarge { max: saturated(max) })
        }
    }
}

/// The number of prompt tokens, and the answer.
fn answer(
    ask: &Ask<'_>,
    model: &ActiveModel,
    prompt: &[u8],
    form: Form,
    wanted: Wanted,
    meter: &mut Meter,
) -> Result<(u32, Generation), Interrupt> {
    let constraint = Some(Arc::new(form.build(ask, meter)?));
    let prompt = prompt_tokens(ask, model, prompt, meter)?;
    let prompt_tokens = saturated(prompt.len());
    let start = Start { prompt, stop: Vec::new(), constraint };
    Ok((prompt_tokens, run(ask, model, start, wanted, meter)?))
}
