//! `generateChat` and `tokenizeChat`: conversations, written as the model was trained to read them.

use std::sync::Arc;

use alloy_sol_types::SolCall;
use metis_kernels::TokenId;
use metis_models::chat::{ChatError, ChatFormat, Message, Role};

use super::constrained::Form;
use super::generate::{Start, Wanted, finish, run};
use super::{Ask, Interrupt, cap, check_prompt, ids, saturated};
use crate::abi::{self, generateChatCall, tokenizeChatCall};
use crate::meter::Meter;
use crate::registry::ActiveModel;

pub(super) fn generate(
    ask: &Ask<'_>,
    call: generateChatCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let messages = messages(ask, &call.messages)?;
    let free = call.c.pattern.is_empty() && call.c.options.is_empty();
    let form = if free { None } else { Some(Form::check(ask, call.c)?) };
    let wanted = Wanted::check(ask, call.maxNew, &call.s, &[])?;
    let model = ask.decoder::<generateChatCall>()?;
    let format = format(model, generateChatCall::SELECTOR)?;
    let constraint = form.map(|form| form.build(ask, meter)).transpose()?.map(Arc::new);
    let prompt = tokens(ask, model, format, &messages, meter)?;
    check_prompt(model, prompt.len())?;
    let prompt_tokens = saturated(prompt.len());
    let start = Start { prompt, stop: Vec::new(), constraint };
    let generation = run(ask, model, start, wanted, meter)?;
    let answer = abi::generateChatReturn {
        text: model.model.tokenizer().decode(&generation.tokens).into(),
        tokens: ids(&generation.tokens),
        promptTokens: prompt_tokens,
        finish: finish(generation.finish),
    };
    Ok(generateChatCall::abi_encode_returns(&answer))
}

pub(super) fn tokenize(
    ask: &Ask<'_>,
    call: &tokenizeChatCall,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    let messages = messages(ask, &call.messages)?;
    let model = ask.description()?;
    let format = format(model, tokenizeChatCall::SELECTOR)?;
    let tokens = tokens(ask, model, format, &messages, meter)?;
    meter.charge(ask.gas().tokens(tokens.len()))?;
    Ok(tokenizeChatCall::abi_encode_returns(&ids(&tokens)))
}

/// Messages within the chain's limits.
fn messages<'a>(ask: &Ask<'_>, messages: &'a [abi::Message]) -> Result<Vec<Message<'a>>, Interrupt> {
    cap(messages.len(), ask.caps().max_messages)?;
    let bytes = messages.iter().map(|message| message.content.len()).sum();
    cap(bytes, ask.caps().max_prompt_bytes)?;
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
    ask: &Ask<'_>,
    model: &ActiveModel,
    format: &ChatFormat,
    messages: &[Message<'_>],
    meter: &mut Meter,
) -> Result<Vec<TokenId>, Interrupt> {
    let bytes = format.text_bytes(messages).map_err(refused)?;
    meter.charge(ask.gas().text(bytes))?;
    format.encode(model.model.tokenizer(), messages).map_err(refused)
}

fn refused(error: ChatError) -> Interrupt {
    match error {
        ChatError::Order(index) => Interrupt::revert(&abi::BadMessage { index: saturated(index) }),
        ChatError::Tokenizer(_) => Interrupt::bad_calldata(),
    }
}
