//! `metisvm model eval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use metis_kernels::TokenId;
use metis_models::eval::{EvalReport, evaluate};
use metis_models::import::Source;
use metis_models::reference::Reference;
use serde_json::json;

use crate::cli::Global;
use crate::report::Report;

/// Compares a bundle with the float checkpoint that it was made from, on a text.
#[derive(Debug, Args)]
pub struct Eval {
    /// A bundle's directory.
    bundle: PathBuf,
    /// The checkpoint: a GGUF file, a llama2.c `.bin` file or a Hugging Face folder.
    #[arg(long, value_name = "CHECKPOINT")]
    reference: PathBuf,
    /// The text.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens that see each other; by default the model's context.
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
}

impl Eval {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let text = std::fs::read(&self.text).with_context(|| format!("text {}", self.text.display()))?;
        let model = super::load(&self.bundle, global)?;
        let source = Source::detect(&self.reference, None)?;
        let mut reference = Reference::load(&source)?;
        let tokens = model.tokenizer().encode_continuation(&text)?;
        let bos = model.manifest().bos.first().copied().map(TokenId);
        let window = self.window.unwrap_or(model.manifest().context);
        let EvalReport { tokens, perplexity, reference_perplexity, kl, top1_agreement } =
            evaluate(&mut |window| model.all_logits(window), &mut reference, &tokens, bos, window)?;
        let ratio = perplexity / reference_perplexity;
        let value = json!({
            "model": model.id(), "tokens": tokens, "perplexity": perplexity,
            "reference_perplexity": reference_perplexity, "perplexity_ratio": ratio, "kl": kl,
            "top1_agreement": top1_agreement,
        });
        report.finish(&value, || {
            format!(
                "{tokens} predicted tokens\nperplexity       {perplexity:.4} fixed point, {reference_perplexity:.4} float, ratio {ratio:.5}\nKL(float, fixed) {kl:.3e} nats\ntop-1 agreement  {:.2} %\n",
                100.0 * top1_agreement
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
