//! `metisvm model ask`.

use std::process::ExitCode;

use alloy_primitives::B256;
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::Context;
use clap::Args;
use metis_precompiles::abi::{Sampling, generateCall, quoteCall, tokenizeCall};
use metis_precompiles::{GATEWAY_ADDRESS, INFERENCE_ADDRESS, REGISTRY_ADDRESS};
use serde_json::json;

use crate::author::client::Call;
use crate::author::money::coins;
use crate::author::sending::Sending;
use crate::contracts::{Gateway, Registry};
use crate::report::{Report, printable_lines};

/// Asks a registered model on a chain, in a transaction that pays for it.
#[derive(Debug, Args)]
pub struct Ask {
    /// The model's id.
    model: B256,
    /// The text to continue.
    #[arg(long)]
    prompt: String,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new: u32,
    #[command(flatten)]
    sending: Sending,
}

impl Ask {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let model = self.model;
        let billing = client.view(REGISTRY_ADDRESS, &Registry::billingOfCall { model })?;
        // What it costs at most is known from the tokens of the prompt.
        let text = self.prompt.clone().into_bytes().into();
        let tokens = client.view(INFERENCE_ADDRESS, &tokenizeCall { model, text })?.len();
        let prompt_tokens = u32::try_from(tokens).context("--prompt has too many tokens")?;
        let quote = quoteCall { model, promptTokens: prompt_tokens, maxNew: self.max_new };
        let gas = client.view(INFERENCE_ADDRESS, &quote)?;
        let quote = Gateway::quoteCall { model, promptTokens: prompt_tokens, maxNew: self.max_new };
        let most = client.view(GATEWAY_ADDRESS, &quote)?;

        let data = generateCall {
            model,
            prompt: self.prompt.clone().into_bytes().into(),
            maxNew: self.max_new,
            s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
            stopIds: Vec::new(),
        };
        let call = Call::new(GATEWAY_ADDRESS, &Gateway::callCall { data: data.abi_encode().into() });
        let call = call.with_value(most);
        // The answer of a transaction is only in its trace; the same call on the same state has the same answer.
        let answer = Gateway::callCall::abi_decode_returns(&client.output(&call)?).context("the answer")?;
        let answer = generateCall::abi_decode_returns(&answer).context("the answer")?;
        let sent = self.sending.transact(&client, sender, call, "price, at most", report)?;
        let Some(receipt) = sent else { return Ok(ExitCode::SUCCESS) };
        let logs = receipt.inner.logs().iter();
        let called = logs
            .filter(|log| log.address() == GATEWAY_ADDRESS)
            .filter_map(|log| Gateway::Called::decode_log(&log.inner).ok())
            .next();
        let called = called.context("the gateway did not say what it took")?;
        let text = String::from_utf8_lossy(&answer.text).into_owned();
        let value = json!({
            "model": model, "text": text, "tokens": answer.tokens, "prompt_tokens": answer.promptTokens,
            "quoted_gas": gas, "inference_gas": called.gasUsed, "price_wei": called.price,
            "per_call_wei": billing.perCall, "per_gas_wei": billing.perGas,
            "transaction": receipt.transaction_hash, "gas_used": receipt.gas_used, "payer": called.payer,
        });
        report.finish(&value, || {
            format!(
                "{}{}\n\n[{} tokens, {} gas of inference, {} coins paid]\n",
                self.prompt,
                printable_lines(&text),
                answer.tokens.len(),
                called.gasUsed,
                coins(called.price)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
