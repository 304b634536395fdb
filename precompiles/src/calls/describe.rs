//! `modelInfo` and `quote`: what can be known without asking a model.

use alloy_primitives::B256;
use alloy_sol_types::SolCall;

use super::generate::{check_new, room};
use super::{Ask, Interrupt, check_prompt, saturated};
use crate::abi::{self, modelInfoCall, quoteCall};
use crate::gas::Gas;

pub(super) fn model_info(ask: &Ask<'_>) -> Result<Vec<u8>, Interrupt> {
    let model = ask.description()?;
    let manifest = model.model.manifest();
    let info = abi::ModelInfo {
        modelId: model.model.id(),
        architecture: left_aligned(manifest.architecture.name().as_bytes()),
        vocab: model.costs.vocabulary,
        context: model.context,
        layers: saturated(manifest.layers),
        hidden: saturated(manifest.hidden),
        bundleBytes: manifest.files.iter().map(|file| file.length).fold(0, u64::saturating_add),
        linearMacs: model.costs.linear_macs,
        attentionMacs: model.costs.attention_macs,
        headMacs: model.costs.head_macs,
        name: manifest.name.clone(),
    };
    Ok(modelInfoCall::abi_encode_returns(&info))
}

/// The first 32 bytes of a name, zeros after it.
fn left_aligned(name: &[u8]) -> B256 {
    let length = name.len().min(32);
    B256::right_padding_from(&name[..length])
}

pub(super) fn quote(ask: &Ask<'_>, call: &quoteCall) -> Result<Vec<u8>, Interrupt> {
    check_new(call.maxNew, ask.caps().max_new_tokens)?;
    let model = ask.description()?;
    check_prompt(model, call.promptTokens as usize)?;
    check_new(call.maxNew, room(model.context, call.promptTokens))?;
    let quote = ask.gas().quote(&model.costs, ask.caps(), call.promptTokens, call.maxNew);
    let Gas(gas) = quote.plus(ask.look_up);
    Ok(quoteCall::abi_encode_returns(&gas))
}
