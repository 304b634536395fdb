//! `tokenize` and `detokenize`: text to tokens and back, without a model.

use alloy_sol_types::SolCall;

use super::{Interrupt, cap, ids, in_vocabulary, model};
use crate::abi::{detokenizeCall, tokenizeCall};
use crate::gas::Meter;
use crate::inference::Inference;

pub(super) fn tokenize(
    inference: &Inference,
    call: tokenizeCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    cap(call.text.len(), inference.caps().max_prompt_bytes)?;
    let model = model(inference, call.model)?;
    meter.charge(inference.gas().text(call.text.len()))?;
    let tokens = model.model.tokenizer().encode_prompt(&call.text).map_err(|_| Interrupt::bad_calldata())?;
    meter.charge(inference.gas().tokens(tokens.len()))?;
    Ok(tokenizeCall::abi_encode_returns(&ids(&tokens)))
}

pub(super) fn detokenize(
    inference: &Inference,
    call: detokenizeCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    cap(call.ids.len(), inference.caps().max_ids)?;
    let model = model(inference, call.model)?;
    let tokens = in_vocabulary(model, &call.ids)?;
    meter.charge(inference.gas().tokens(tokens.len()))?;
    let text = model.model.tokenizer().decode(&tokens);
    Ok(detokenizeCall::abi_encode_returns(&text.into()))
}
