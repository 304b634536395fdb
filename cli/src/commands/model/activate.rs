//! `metisvm model activate`.

use std::process::ExitCode;

use alloy_primitives::B256;
use anyhow::bail;
use clap::Args;
use metis_precompiles::REGISTRY_ADDRESS;
use serde_json::json;

use crate::author::client::Call;
use crate::author::sending::Sending;
use crate::contracts::{ModelStatus, Registry};
use crate::report::Report;

/// Pays a model's rent: makes a matured model callable, or an active one for longer.
#[derive(Debug, Args)]
pub struct Activate {
    /// The model's id.
    model: B256,
    /// Days of rent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
    /// The model is active: pay for these days on top of those that are paid.
    #[arg(long)]
    extend: bool,
    #[command(flatten)]
    sending: Sending,
}

impl Activate {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let (model, days) = (self.model, self.days);
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let rent = client.view(REGISTRY_ADDRESS, &Registry::rentForCall { model, daysPaid: days })?;
        let is_active = ModelStatus::from_number(known.status) == Some(ModelStatus::Active);
        match (is_active, self.extend) {
            // Who runs the command again because the first answer was lost does not pay twice.
            (true, false) => bail!(
                "model {model} is active, paid for until {} (unix time); to pay for {days} more days: --extend",
                known.activeUntil
            ),
            (false, true) => bail!("--extend: model {model} is not active"),
            _ => {}
        }
        let call = match self.extend {
            true => Call::new(REGISTRY_ADDRESS, &Registry::extendCall { model, daysPaid: days }),
            false => Call::new(REGISTRY_ADDRESS, &Registry::activateCall { model, daysPaid: days }),
        };
        let receipt = self.sending.transact(&client, sender, call.with_value(rent), "rent", report)?;
        let Some(receipt) = receipt else { return Ok(ExitCode::SUCCESS) };
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let value = json!({
            "model": model, "active_until": known.activeUntil, "rent_wei": rent, "extended": self.extend,
            "transaction": receipt.transaction_hash,
        });
        report.finish(&value, || format!("active until {} (unix time)\n", known.activeUntil))?;
        Ok(ExitCode::SUCCESS)
    }
}
