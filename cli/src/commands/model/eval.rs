//! `metisvm model eval`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use metis_kernels::{Backend, TokenId};
use metis_models::candle::{FixedError, MixedLlama};
use metis_models::engine::Processor;
use metis_models::eval::{EncoderReport, EvalReport, PartReport, evaluate, evaluate_encoder, evaluate_parts};
use metis_models::import::Source;
use metis_models::reference::Reference;
use metis_models::{Bundle, Engine, InferenceModel};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::report::Report;

/// Tokens that see each other with `--layers`, where every part needs passes of its own.
const LAYERS_WINDOW: usize = 512;

/// Compares a bundle with the float checkpoint that it was made from, on a text.
///
/// A model that continues texts is compared by its predictions. An encoder is compared by its vectors; each line that is not empty is a text.
/// docs/evaluation.md says how to read the figures.
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
    /// Tokens that see each other; by default the model's context, and with `--layers` at most 512. An encoder reads lines as they are.
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Show what each part of each layer costs: the float model runs with that part alone in fixed point, once for every part, so a page of text
    /// is enough. For the Llama family (Llama, Mistral, Qwen, Gemma).
    #[arg(long)]
    layers: bool,
}

impl Eval {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let text = std::fs::read(&self.text).with_context(|| format!("text {}", self.text.display()))?;
        let bundle = super::open(&self.bundle)?;
        let source = Source::detect(&self.reference, None)?;
        if self.layers {
            match global.processor()? {
                Processor::Scalar(backend) => self.layers(&bundle, &source, &backend, &text, report)?,
                Processor::Cpu(backend) => self.layers(&bundle, &source, &backend, &text, report)?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let model = global
            .processor()?
            .load(&bundle, global.engine_options())
            .with_context(|| format!("bundle {}", self.bundle.display()))?;
        if model.manifest().architecture.is_decoder() {
            self.predictions(&*model, &source, &text, report)?;
        } else {
            self.vectors(&*model, &source, &text, report)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn predictions(
        &self,
        model: &dyn InferenceModel,
        source: &Source,
        text: &[u8],
        report: Report,
    ) -> anyhow::Result<()> {
        let mut reference = Reference::load(source)?;
        let tokens = model.tokenizer().encode_continuation(text)?;
        let window = self.window.unwrap_or(model.manifest().context);
        let eval =
            evaluate(&mut |window| model.all_logits(window), &mut reference, &tokens, bos(model), window)?;
        report.finish(&figures(model, &eval), || summary(&eval))
    }

    fn layers<B: Backend>(
        &self,
        bundle: &Bundle,
        source: &Source,
        backend: &Arc<B>,
        text: &[u8],
        report: Report,
    ) -> anyhow::Result<()> {
        let mixed = MixedLlama::load(source, bundle, backend).map_err(|error| match error {
            FixedError::Architecture(_) => {
                anyhow!("--layers: {error}; leave out --layers to compare the whole model")
            }
            error => anyhow::Error::new(error).context("--layers"),
        })?;
        let model = Engine::load(bundle, Arc::clone(backend))?;
        let tokens = model.tokenizer().encode_continuation(text)?;
        let window = self.window.unwrap_or(model.manifest().context.min(LAYERS_WINDOW));
        let progress = report.progress("passes");
        let mut fixed = |window: &[TokenId]| model.all_logits(window);
        let costs = evaluate_parts(&mut fixed, &mixed, &tokens, bos(&model), window, &progress)?;
        progress.finish_and_clear();
        let mut value = figures(&model, &costs.whole);
        value["parts"] = costs.parts.iter().map(part).collect();
        value["sum_of_kl"] = costs.sum_of_kl().into();
        report.finish(&value, || format!("{costs}\n{}", summary(&costs.whole)))
    }

    fn vectors(
        &self,
        model: &dyn InferenceModel,
        source: &Source,
        text: &[u8],
        report: Report,
    ) -> anyhow::Result<()> {
        ensure!(
            self.window.is_none(),
            "--window is for models that continue texts; an encoder reads whole lines"
        );
        let mut reference = Reference::load(source)?;
        let context = model.manifest().context;
        let mut texts = Vec::new();
        for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let tokens = model.tokenizer().encode_prompt(line)?;
            ensure!(
                tokens.len() <= context,
                "line {} has {} tokens; the model reads at most {context}",
                number + 1,
                tokens.len()
            );
            texts.push(tokens);
        }
        let EncoderReport { texts, mean_cosine, worst_cosine } =
            evaluate_encoder(&mut |tokens| model.embed(tokens), &mut reference, &texts)?;
        let value = json!({
            "model": model.id(), "texts": texts, "mean_cosine": mean_cosine, "worst_cosine": worst_cosine,
        });
        report.finish(&value, || {
            format!("{texts} texts\ncosine(float, fixed)  mean {mean_cosine:.6}, worst {worst_cosine:.6}\n")
        })
    }
}

fn bos(model: &dyn InferenceModel) -> Option<TokenId> {
    model.manifest().bos.first().copied().map(TokenId)
}

fn figures(model: &dyn InferenceModel, eval: &EvalReport) -> Value {
    json!({
        "model": model.id(), "tokens": eval.tokens, "perplexity": eval.perplexity,
        "reference_perplexity": eval.reference_perplexity,
        "perplexity_ratio": eval.perplexity / eval.reference_perplexity, "kl": eval.kl,
        "top1_agreement": eval.top1_agreement,
    })
}

fn part(PartReport { part, report }: &PartReport) -> Value {
    json!({
        "layer": part.layer(), "part": part.name(), "kl": report.kl, "top1_agreement": report.top1_agreement,
        "perplexity_ratio": report.perplexity / report.reference_perplexity,
    })
}

fn summary(eval: &EvalReport) -> String {
    let EvalReport { tokens, perplexity, reference_perplexity, kl, top1_agreement } = eval;
    let ratio = perplexity / reference_perplexity;
    format!(
        "{tokens} predicted tokens\nperplexity       {perplexity:.4} fixed point, {reference_perplexity:.4} float, ratio {ratio:.5}\nKL(float, fixed) {kl:.3e} nats\ntop-1 agreement  {:.2} %\n",
        100.0 * top1_agreement
    )
}
