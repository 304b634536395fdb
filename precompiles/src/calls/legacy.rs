//! The Metis SDK's precompile: a prompt in, text out.

use metis_kernels::Sampling;

use super::generate::{Start, Wanted, run};
use super::{Ask, Interrupt, cap, prompt_tokens};
use crate::abi::generateCall;
use crate::meter::Meter;

/// The text with which the default model continues a prompt, greedily. Checks and pays as `generate` does.
pub(super) fn complete(
    ask: &Ask<'_>,
    prompt: &[u8],
    max_new: u32,
    meter: &mut Meter,
) -> Result<Vec<u8>, Interrupt> {
    if prompt.is_empty() {
        return Err(Interrupt::bad_calldata());
    }
    cap(prompt.len(), ask.caps().max_prompt_bytes)?;
    let model = ask.decoder::<generateCall>()?;
    let prompt = prompt_tokens(ask, model, prompt, meter)?;
    // That precompile answers with as much as fits.
    let room = super::generate::room(model.context, super::saturated(prompt.len()));
    let wanted = Wanted::new(max_new.min(room), Sampling::GREEDY);
    let start = Start { prompt, stop: Vec::new(), constraint: None };
    let generation = run(ask, model, start, wanted, meter)?;
    Ok(model.model.tokenizer().decode(&generation.tokens))
}
