//! `score` and `logits`: what a model thinks of given continuations.

use alloy_sol_types::SolCall;
use metis_kernels::TokenId;

use super::{Ask, Interrupt, cap, encode, in_vocabulary, prompt_tokens, saturated, too_long};
use crate::abi::{self, logitsCall, scoreCall};
use crate::gas::Work;
use crate::inference::FatalError;
use crate::meter::Meter;

pub(super) fn score(ask: &Ask<'_>, call: scoreCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    let caps = ask.caps();
    if call.prompt.is_empty() || call.labels.is_empty() || call.labels.iter().any(|label| label.is_empty()) {
        return Err(Interrupt::bad_calldata());
    }
    cap(call.prompt.len(), caps.max_prompt_bytes)?;
    cap(call.labels.len(), caps.max_labels)?;
    call.labels.iter().try_for_each(|label| cap(label.len(), caps.max_label_bytes))?;

    let model = ask.model()?;
    if !model.is_decoder() {
        return encode::score(ask, model, &call, meter);
    }
    let label_bytes = call.labels.iter().map(|label| label.len()).sum();
    meter.charge(ask.gas().text(label_bytes))?;
    let prompt = prompt_tokens(ask, model, &call.prompt, meter)?;
    let tokenizer = model.model.tokenizer();
    let labels = call
        .labels
        .iter()
        .map(|label| tokenizer.encode_continuation(label).ok().filter(|tokens| !tokens.is_empty()))
        .collect::<Option<Vec<Vec<TokenId>>>>()
        .ok_or_else(Interrupt::bad_calldata)?;
    let longest = labels.iter().map(Vec::len).max().unwrap_or(0);
    let positions = prompt.len() + longest.saturating_sub(1);
    if positions > model.context as usize {
        return Err(too_long(positions, model.context));
    }

    let work = Work::scoring(prompt.len(), labels.iter().map(Vec::len));
    meter.charge(ask.gas().work(&model.costs, work))?;
    let log_probabilities = model.model.score(&prompt, &labels)?;
    let best = highest(&log_probabilities);
    let answer = abi::scoreReturn { logProbQ16: log_probabilities, best };
    Ok(scoreCall::abi_encode_returns(&answer))
}

/// The index of the highest value; the lowest of equals.
pub(super) fn highest(values: &[i64]) -> u32 {
    let best = values.iter().enumerate().max_by(|(i, a), (j, b)| a.cmp(b).then(j.cmp(i)));
    best.map_or(0, |(index, _)| saturated(index))
}

pub(super) fn logits(ask: &Ask<'_>, call: logitsCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    if call.prompt.is_empty() {
        return Err(Interrupt::bad_calldata());
    }
    cap(call.prompt.len(), ask.caps().max_prompt_bytes)?;
    cap(call.ids.len(), ask.caps().max_ids)?;
    let model = ask.decoder::<logitsCall>()?;
    let ids = in_vocabulary(model, &call.ids)?;
    let prompt = prompt_tokens(ask, model, &call.prompt, meter)?;
    meter.charge(ask.gas().work(&model.costs, Work::last_logits(prompt.len())))?;
    let row = model.model.last_logits(&prompt)?;
    let chosen: Option<Vec<i32>> = ids.iter().map(|id| row.get(id.index()).copied()).collect();
    let chosen = chosen.ok_or_else(|| {
        Interrupt::Fatal(FatalError::Engine(format!(
            "{} logits for {} tokens",
            row.len(),
            model.costs.vocabulary
        )))
    })?;
    Ok(logitsCall::abi_encode_returns(&chosen))
}

#[cfg(test)]
mod tests {
    use super::highest;

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(highest(&[-3, -1, -1, -2]), 1);
        assert_eq!(highest(&[i64::MIN]), 0);
    }
}
