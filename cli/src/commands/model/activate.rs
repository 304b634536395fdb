//! `metisvm model activate`.

use std::process::ExitCode;

use alloy_primitives::B256;
use clap::Args;
use metis_precompiles::REGISTRY_ADDRESS;
use serde_json::json;

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
    #[command(flatten)]
    sending: Sending,
}

impl Activate {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let (model, days) = (self.model, self.days);
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let rent = client.view(REGISTRY_ADDRESS, &Registry::rentForCall { model, daysPaid: days })?;
        let paid = ("rent", rent);
        let extended = ModelStatus::from_number(known.status) == Some(ModelStatus::Active);
        let receipt = if extended {
            let call = Registry::extendCall { model, daysPaid: days };
            self.sending.transact(&client, sender, REGISTRY_ADDRESS, paid, call, report)?
        } else {
            let call = Registry::activateCall { model, daysPaid: days };
            self.sending.transact(&client, sender, REGISTRY_ADDRESS, paid, call, report)?
        };
        let Some(receipt) = receipt else { return Ok(ExitCode::SUCCESS) };
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let value = json!({
            "model": model, "active_until": known.activeUntil, "rent_wei": rent, "extended": extended,
            "transaction": receipt.transaction_hash,
        });
        report.finish(&value, || format!("active until {} (unix time)\n", known.activeUntil))?;
        Ok(ExitCode::SUCCESS)
    }
}
