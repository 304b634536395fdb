//! `metisvm model price`.

use std::process::ExitCode;

use alloy_primitives::aliases::U96;
use alloy_primitives::{B256, U256};
use anyhow::Context;
use clap::Args;
use metis_precompiles::REGISTRY_ADDRESS;
use serde_json::json;

use crate::author::client::Call;
use crate::author::money::{coins, wei};
use crate::author::sending::Sending;
use crate::contracts::Registry;
use crate::report::Report;

/// Sets what calls of a model cost from now on. With a price, they go through the gateway.
#[derive(Debug, Args)]
pub struct Price {
    /// The model's id.
    model: B256,
    /// What each call costs, such as 1000, 3gwei or 0.001coin; without it, what it costs now.
    #[arg(long, value_name = "AMOUNT", value_parser = wei, required_unless_present = "per_gas")]
    per_call: Option<u128>,
    /// What each unit of gas that an inference takes costs, in wei; without it, what it costs now.
    #[arg(long, value_name = "WEI")]
    per_gas: Option<u64>,
    #[command(flatten)]
    sending: Sending,
}

impl Price {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: self.model })?;
        let per_call = self.per_call.map_or(Ok(known.perCall), price)?;
        let per_gas = self.per_gas.unwrap_or(known.perGas);
        report.notice(&format!(
            "{} coins each call and {} wei each gas, instead of {} and {}",
            coins(U256::from(per_call)),
            per_gas,
            coins(U256::from(known.perCall)),
            known.perGas
        ))?;
        let call = Registry::setPriceCall { model: self.model, perCall: per_call, perGas: per_gas };
        let call = Call::new(REGISTRY_ADDRESS, &call);
        let sent = self.sending.transact(&client, sender, call, "", report)?;
        let Some(receipt) = sent else { return Ok(ExitCode::SUCCESS) };
        let value = json!({
            "model": self.model, "per_call_wei": U256::from(per_call), "per_gas_wei": per_gas,
            "transaction": receipt.transaction_hash,
        });
        report.finish(&value, || "the price is set\n".to_owned())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A price as the registry holds it.
pub(super) fn price(wei: u128) -> anyhow::Result<U96> {
    let fits = wei < 1 << 96;
    fits.then(|| U96::from(wei))
        .with_context(|| format!("--per-call: {wei} wei is more than the registry can hold"))
}
