//! `metisvm demo`: the main job, offline.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall;
use anyhow::{Context, bail};
use clap::Args;
use metis_precompiles::abi::{Finish, Sampling, generateCall, quoteCall};
use metis_precompiles::{Gas, Inference};
use metis_vm::{Recorder, State, VerifyError};
use serde::Serialize;

use crate::cli::Global;
use crate::errors::{describe_error, describe_revert};
use crate::node::Node;
use crate::report::Report;
use crate::wallet::{Wallet, decimal, digest};

/// What the wallet is told unless the user says something else.
const INSTRUCTIONS: [&str; 3] = [
    "Hi! Please send twelve and a half METIS to alice, I still owe her for dinner.",
    "swap 250 usdc for eth",
    "could you stake one hundred metis for me?",
];
/// New tokens that IntentWallet asks for.
const MAX_NEW: u32 = 24;

/// Deploys a wallet that understands English, tells it three things, and re-executes it all from genesis.
#[derive(Debug, Args)]
pub struct Demo {
    /// Tell the wallet this instead; may be given several times.
    #[arg(long = "say", value_name = "TEXT")]
    instructions: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    model: B256,
    calls: Vec<Call>,
    transactions: usize,
    state_digest: B256,
    reexecution: String,
}

#[derive(Serialize)]
struct Call {
    prompt: String,
    answer: String,
    moved: Vec<String>,
    status: String,
    gas_quote: u64,
    gas_used: u64,
    transaction_gas_used: u64,
    prompt_tokens: usize,
    new_tokens: usize,
    tokens_per_second: f64,
    digest: B256,
}

impl Demo {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let node = Node::new(global)?;
        let model = node.default_model()?;
        let m = model.manifest();
        report.line(&format!(
            "model {} ({} layers of width {})\n   id {}\n",
            m.name,
            m.layers,
            m.hidden,
            model.id()
        ))?;

        let recorder = Recorder::new(node.vm(State::default()), node.chain()?);
        let mut wallet = Wallet::deploy(recorder)?;
        report.line(&format!("IntentWallet deployed at {}\n", wallet.address))?;

        let instructions = if self.instructions.is_empty() {
            INSTRUCTIONS.map(str::to_owned).to_vec()
        } else {
            self.instructions
        };
        let mut calls = Vec::new();
        for instruction in instructions {
            let call = ask(&node, &mut wallet, instruction)?;
            report.line(&text(&call))?;
            calls.push(call);
        }

        let (record, _) = wallet.recorder.finish();
        // Fresh models, fresh state: nothing of the first run is left.
        let again = Node::new(global)?;
        let (reexecution, code) = match record.verify(again.precompiles()) {
            Ok(()) => ("identical".to_owned(), ExitCode::SUCCESS),
            Err(VerifyError::Differs(difference)) => (difference.to_string(), ExitCode::FAILURE),
            Err(error) => return Err(error.into()),
        };
        let answer = Answer {
            model: model.id(),
            calls,
            transactions: record.transactions.len(),
            state_digest: record.post_state_digest,
            reexecution,
        };
        report.finish(&answer, || {
            format!(
                "re-executed {} transactions from genesis: {}\nstate digest {}\n",
                answer.transactions, answer.reexecution, answer.state_digest
            )
        })?;
        Ok(code)
    }
}

fn ask(node: &Node, wallet: &mut Wallet, instruction: String) -> anyhow::Result<Call> {
    let tokenizer_model = node.default_model()?;
    let prompt = tokenizer_model.tokenizer().encode_prompt(instruction.as_bytes())?;
    let start = Instant::now();
    let outcome = wallet.ask(&instruction)?;
    let seconds = start.elapsed().as_secs_f64();

    let inference = node.inference();
    // The same call as the wallet's, for its price alone: the precompile is a pure function.
    let generate = generateCall {
        model: B256::ZERO,
        prompt: Bytes::copy_from_slice(instruction.as_bytes()),
        maxNew: MAX_NEW,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    };
    let (output, gas_used) = precompile(inference, &generate.abi_encode())?;
    let generated = generateCall::abi_decode_returns(&output).context("the precompile's answer")?;
    let prompt_tokens = u32::try_from(prompt.len())?;
    let quote = quoteCall { model: B256::ZERO, promptTokens: prompt_tokens, maxNew: MAX_NEW };
    let (output, _) = precompile(inference, &quote.abi_encode())?;
    let gas_quote = quoteCall::abi_decode_returns(&output).context("the precompile's quote")?;

    let moved = wallet
        .movements(&outcome)
        .iter()
        .map(|m| {
            format!("{} {} from {} to {}", decimal(m.value), m.symbol, wallet.name(m.from), wallet.name(m.to))
        })
        .collect();
    let status = match describe_revert(&outcome) {
        Some(reason) => format!("{}: {reason}", outcome.status),
        None => outcome.status.to_string(),
    };
    let new_tokens = generated.tokens.len() + usize::from(generated.finish != Finish::Length);
    Ok(Call {
        prompt: instruction,
        answer: String::from_utf8_lossy(&generated.text).into_owned(),
        moved,
        status,
        gas_quote,
        gas_used: gas_used.0,
        transaction_gas_used: outcome.gas_used,
        prompt_tokens: prompt.len(),
        new_tokens,
        tokens_per_second: (prompt.len() + new_tokens) as f64 / seconds,
        digest: digest(&outcome)?,
    })
}

fn precompile(inference: &Inference, calldata: &[u8]) -> anyhow::Result<(Bytes, Gas)> {
    match inference.call(calldata, Gas(u64::MAX))? {
        metis_precompiles::Outcome::Return { output, gas } => Ok((output, gas)),
        metis_precompiles::Outcome::Revert { output, .. } => {
            bail!(
                "the model refuses this instruction: {}",
                describe_error(&output).unwrap_or_else(|| output.to_string())
            )
        }
        metis_precompiles::Outcome::OutOfGas => bail!("the precompile has no price for this call"),
    }
}

fn text(call: &Call) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:>8}  {value}");
    };
    line("prompt", &format!("{:?}", call.prompt));
    line("answer", &call.answer);
    match call.moved.as_slice() {
        [] => line("moved", &format!("nothing ({})", call.status)),
        moved => moved.iter().for_each(|movement| line("moved", movement)),
    }
    line(
        "gas",
        &format!(
            "{} quoted, {} used for inference; {} for the whole transaction",
            call.gas_quote, call.gas_used, call.transaction_gas_used
        ),
    );
    let tokens = format!("{} in, {} out", call.prompt_tokens, call.new_tokens);
    line("speed", &format!("{:.0} tokens/s ({tokens})", call.tokens_per_second));
    line("digest", &call.digest.to_string());
    text
}
