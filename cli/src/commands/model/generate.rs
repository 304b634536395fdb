//! `metisvm model generate`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use metis_kernels::{Sampling, TokenId};
use metis_models::InferenceModel;
use metis_models::chat::{Message, Role};
use metis_models::constraint::{Constraint, ConstraintError};
use metis_models::engine::{Finish, Request};
use serde_json::json;

use crate::cli::Global;
use crate::report::Report;

/// Continues a prompt.
#[derive(Debug, Args)]
pub struct Generate {
    /// A bundle's directory, or `default` for the embedded model.
    bundle: PathBuf,
    /// The text to continue.
    #[arg(long)]
    prompt: String,
    /// At most this many new tokens.
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new: usize,
    /// Temperature, 1/64 to 64; 0 takes the most likely token.
    #[arg(long, default_value = "0", value_parser = q16)]
    temperature: u32,
    /// Keep the most likely tokens up to this probability.
    #[arg(long, default_value = "1", value_parser = q16)]
    top_p: u32,
    /// Keep this many most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u16,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The prompt is a user's message to a model that chats.
    #[arg(long)]
    chat: bool,
    /// What the system says before it.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// The answer must match this pattern (docs/constraints.md).
    #[arg(long, conflicts_with = "option")]
    pattern: Option<String>,
    /// The answer must be this; repeat it for more to choose from.
    #[arg(long, value_name = "TEXT")]
    option: Vec<String>,
}

/// Automata may be as large as on a chain with default caps.
const MAX_STATES: usize = 1_024;

impl Generate {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let sampling = Sampling {
            temperature_q16: self.temperature,
            top_p_q16: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
        };
        sampling.check()?;
        let constraint = self.constraint()?.map(Arc::new);
        let model = super::load(&self.bundle, global)?;
        let prompt = self.tokens(&*model)?;
        let context = model.manifest().context;
        if prompt.len() > context {
            bail!(
                "the prompt has {} tokens, the model's context is {context}: shorten the prompt",
                prompt.len()
            );
        }
        let room = context - prompt.len() + 1;
        if self.max_new > room {
            bail!(
                "--max-new {} does not fit: after a prompt of {} tokens, {room} are left in the context of {context}",
                self.max_new,
                prompt.len()
            );
        }
        let start = Instant::now();
        let prompt_tokens = prompt.len();
        let request = Request { prompt, max_new: self.max_new, sampling, stop: Vec::new(), constraint };
        let answer = model.generate(&request)?;
        let seconds = start.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&model.tokenizer().decode(&answer.tokens)).into_owned();
        let finish = match answer.finish {
            Finish::Eos => "eos",
            Finish::Length => "length",
            Finish::Stop => "stop",
            Finish::Complete => "complete",
            Finish::Stuck => "stuck",
        };
        let tokens: Vec<u32> = answer.tokens.iter().map(|&TokenId(id)| id).collect();
        let rate = (prompt_tokens + tokens.len()) as f64 / seconds;
        let value = json!({
            "model": model.id(), "prompt": self.prompt, "prompt_tokens": prompt_tokens, "text": text,
            "tokens": tokens, "finish": finish, "seconds": seconds,
        });
        report.finish(&value, || {
            format!("{}{text}\n\n[{} tokens, {finish}, {rate:.0} tokens/s]\n", self.prompt, tokens.len())
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The prompt, as a conversation if it is one.
    fn tokens(&self, model: &dyn InferenceModel) -> anyhow::Result<Vec<TokenId>> {
        if !self.chat {
            return Ok(model.tokenizer().encode_prompt(self.prompt.as_bytes())?);
        }
        let Some(format) = &model.manifest().chat else {
            bail!("the model does not chat: its bundle has no chat format; leave --chat out");
        };
        let system = self.system.iter().map(|text| (Role::System, text));
        let messages: Vec<Message<'_>> = system
            .chain([(Role::User, &self.prompt)])
            .map(|(role, text)| Message { role, content: text.as_bytes() })
            .collect();
        Ok(format.encode(model.tokenizer(), &messages)?)
    }

    /// The form of the answer.
    fn constraint(&self) -> Result<Option<Constraint>, ConstraintError> {
        let options = || self.option.iter().map(|option| option.clone().into_bytes()).collect();
        match &self.pattern {
            Some(pattern) => Constraint::pattern(pattern.as_bytes(), MAX_STATES).map(Some),
            None if self.option.is_empty() => Ok(None),
            None => Constraint::options(options(), MAX_STATES).map(Some),
        }
    }
}

/// A decimal such as `0.8` as Q16, without passing through a float.
fn q16(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is not a decimal such as 0.8");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    let number = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u64>().map_err(|_| bad()) };
    let scale = 10u64.pow(fraction.len() as u32);
    let fraction = (2 * (number(fraction)? << 16) + scale) / (2 * scale);
    number(whole)?
        .checked_mul(1 << 16)
        .and_then(|whole| u32::try_from(whole + fraction).ok())
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::q16;

    #[test]
    fn decimals_become_q16() {
        assert_eq!(q16("0"), Ok(0));
        assert_eq!(q16("1"), Ok(65_536));
        assert_eq!(q16("0.8"), Ok(52_429));
        assert_eq!(q16(".5"), Ok(32_768));
        for bad in ["", ".", "-1", "1e3", "a", "99999", "1.0000000001"] {
            assert!(q16(bad).is_err(), "{bad}");
        }
    }
}
