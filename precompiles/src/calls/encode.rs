//! `embed`, and `score` by a classifier: what an encoder makes of a text.

use alloy_sol_types::SolCall;
use metis_kernels::softmax::log_probability_q16;

use super::rate::highest;
use super::{Ask, Interrupt, cap, prompt_tokens};
use crate::abi::{self, embedCall, scoreCall};
use crate::gas::Work;
use crate::meter::Meter;
use crate::registry::ActiveModel;

pub(super) fn embed(ask: &Ask<'_>, call: embedCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    if call.text.is_empty() {
        return Err(Interrupt::bad_calldata());
    }
    cap(call.text.len(), ask.caps().max_prompt_bytes)?;
    let model = ask.model()?;
    if model.is_decoder() {
        return Err(Interrupt::not_supported::<embedCall>());
    }
    let tokens = prompt_tokens(ask, model, &call.text, meter)?;
    meter.charge(ask.gas().work(&model.costs, Work::reading(tokens.len())))?;
    Ok(embedCall::abi_encode_returns(&model.model.embed(&tokens)?))
}

/// `score` by a classifier, whose labels are names of classes. The shape of the call has been checked.
pub(super) fn score(
    ask: &Ask<'_>,
    model: &ActiveModel,
    call: &scoreCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let classes = &model.model.manifest().variant.classes;
    if classes.is_empty() {
        return Err(Interrupt::not_supported::<scoreCall>());
    }
    let position = |label: &[u8]| classes.iter().position(|class| class.as_bytes() == label);
    let labels: Option<Vec<usize>> = call.labels.iter().map(|label| position(label)).collect();
    let labels = labels.ok_or_else(Interrupt::bad_calldata)?;
    let tokens = prompt_tokens(ask, model, &call.prompt, meter)?;
    let work = Work { rows: 1, ..Work::reading(tokens.len()) };
    meter.charge(ask.gas().work(&model.costs, work))?;
    let logits = model.model.classify(&tokens)?;
    let log_probabilities: Vec<i64> =
        labels.into_iter().map(|class| log_probability_q16(&logits, class).unwrap_or(i64::MIN)).collect();
    let best = highest(&log_probabilities);
    Ok(scoreCall::abi_encode_returns(&abi::scoreReturn { logProbQ16: log_probabilities, best }))
}
