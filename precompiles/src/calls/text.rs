//! `tokenize` and `detokenize`: text to tokens and back, without a model.

use alloy_sol_types::SolCall;

use super::{Ask, Interrupt, cap, ids, in_vocabulary};
use crate::abi::{detokenizeCall, tokenizeCall};
use crate::meter::Meter;

pub(super) fn tokenize(ask: &Ask<'_>, call: tokenizeCall, meter: &mut Meter) -> Result<Vec<u8>, Interrupt> {
    cap(call.text.len(), ask.caps().max_prompt_bytes)?;
    let model = ask.description()?;
    meter.charge(ask.gas().text(call.text.len()))?;
    let tokens = model.model.tokenizer().encode_prompt(&call.text).map_err(|_| Interrupt::bad_calldata())?;
    meter.charge(ask.gas().tokens(tokens.len()))?;
    Ok(tokenizeCall::abi_encode_returns(&ids(&tokens)))
}

pub(super) fn detokenize(
    ask: &Ask<'_>,
    call: detokenizeCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    cap(call.ids.len(), ask.caps().max_ids)?;
    let model = ask.description()?;
    let tokens = in_vocabulary(model, &call.ids)?;
    meter.charge(ask.gas().tokens(tokens.len()))?;
    let text = model.model.tokenizer().decode(&tokens);
    Ok(detokenizeCall::abi_encode_returns(&text.into()))
}
