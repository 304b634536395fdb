//! `generateChat` and `tokenizeChat`: conversations, written as the model was trained to read them.

use std::sync::Arc;

use alloy_sol_types::SolCall;
use metis_kernels::TokenId;
use metis_models::chat::{ChatError, ChatFormat, Message, Role};

use super::constrained::Form;
use super::generate::{Start, Wanted, finish, run};
use super::{Interrupt, cap, check_prompt, decoder, ids, model, saturated};
use crate::abi::{self, generateChatCall, tokenizeChatCall};
use crate::gas::Meter;
use crate::inference::Inference;
use crate::registry::ActiveModel;

pub(super) fn generate(
    inference: &Inference,
    call: generateChatCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let messages = messages(inference, &call.messages)?;
    let free = call.c.pattern.is_empty() && call.c.options.is_empty();
    let form = if free { None } else { Some(Form::check(inference, call.c)?) };
    let wanted = Wanted::check(inference, call.maxNew, &call.s, &[])?;
    let model = decoder::<generateChatCall>(inference, call.model)?;
    let format = format(model, generateChatCall::SELECTOR)?;
    let constraint = form.map(|form| form.build(inference, meter)).transpose()?.map(Arc::new);
    let prompt = tokens(inference, model, format, &messages, meter)?;
    check_prompt(model, prompt.len())?;
    let prompt_tokens = saturated(prompt.len());
    let start = Start { prompt, stop: Vec::new(), constraint };
    let generation = run(inference, model, start, wanted, meter)?;
    let answer = abi::generateChatReturn {
        text: model.model.tokenizer().decode(&generation.tokens).into(),
        tokens: ids(&generation.tokens),
        promptTokens: prompt_tokens,
        finish: finish(generation.finish),
    };
    Ok(generateChatCall::abi_encode_returns(&answer))
}

pub(super) fn tokenize(
    inference: &Inference,
    call: &tokenizeChatCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let messages = messages(inference, &call.messages)?;
    let model = model(inference, call.model)?;
    let format = format(model, tokenizeChatCall::SELECTOR)?;
    let tokens = tokens(inference, model, format, &messages, meter)?;
    meter.charge(inference.gas().tokens(tokens.len()))?;
    Ok(tokenizeChatCall::abi_encode_returns(&ids(&tokens)))
}

/// Messages within the chain's limits.
fn messages<'a>(inference: &Inference, messages: &'a [abi::Message]) -> Result<Vec<Message<'a>>, Interrupt> {
    cap(messages.len(), inference.caps().max_messages)?;
    let bytes = messages.iter().map(|message| message.content.len()).sum();
    cap(bytes, inference.caps().max_prompt_bytes)?;
    let message = |message: &'a abi::Message| {
        let role = match message.role {
            abi::Role::System => Role::System,
            abi::Role::User => Role::User,
            abi::Role::Assistant => Role::Assistant,
            abi::Role::__Invalid => return Err(Interrupt::bad_calldata()),
        };
        Ok(Message { role, content: &message.content })
    };
    messages.iter().map(message).collect()
}

/// The model's way to write conversations.
fn format(model: &ActiveModel, selector: [u8; 4]) -> Result<&ChatFormat, Interrupt> {
    let format = model.model.manifest().chat.as_ref();
    format.ok_or_else(|| Interrupt::revert(&abi::NotSupported { selector: selector.into() }))
}

/// A conversation as tokens: pays for all of its text, that of the format included.
fn tokens(
    inference: &Inference,
    model: &ActiveModel,
    format: &ChatFormat,
    messages: &[Message<'_>],
    meter: &mut Meter,
) -> Result<Vec<TokenId>, Interrupt> {
    let bytes = format.text_bytes(messages).map_err(refused)?;
    meter.charge(inference.gas().text(bytes))?;
    format.encode(model.model.tokenizer(), messages).map_err(refused)
}

fn refused(error: ChatError) -> Interrupt {
    match error {
        ChatError::Order(index) => Interrupt::revert(&abi::BadMessage { index: saturated(index) }),
        ChatError::Tokenizer(_) => Interrupt::bad_calldata(),
    }
}
