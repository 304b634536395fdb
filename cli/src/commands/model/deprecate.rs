//! `metisvm model deprecate` and `metisvm model withdraw`: how a model ends.

use std::process::ExitCode;

use alloy_primitives::{B256, U256};
use anyhow::bail;
use clap::Args;
use metis_precompiles::REGISTRY_ADDRESS;
use serde_json::json;

use crate::author::money::coins;
use crate::author::sending::Sending;
use crate::contracts::{ModelStatus, Registry};
use crate::report::Report;

/// Gives a model up. It stays callable for the chain's notice, if its rent is paid for so long.
#[derive(Debug, Args)]
pub struct Deprecate {
    /// The model's id.
    model: B256,
    #[command(flatten)]
    sending: Sending,
}

impl Deprecate {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let model = self.model;
        let (nothing, call) = (("", U256::ZERO), Registry::deprecateCall { model });
        let sent = self.sending.transact(&client, sender, REGISTRY_ADDRESS, nothing, call, report)?;
        let Some(receipt) = sent else { return Ok(ExitCode::SUCCESS) };
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let value = json!({
            "model": model, "active_until": known.activeUntil, "transaction": receipt.transaction_hash,
        });
        report.finish(&value, || match known.activeUntil {
            0 => format!("retired; its bond comes back with: metisvm model withdraw {model}\n"),
            until => {
                format!("callable until {until} (unix time); after that: metisvm model withdraw {model}\n")
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Takes the bond of a deprecated model back, once its notice is over.
#[derive(Debug, Args)]
pub struct Withdraw {
    /// The model's id.
    model: B256,
    #[command(flatten)]
    sending: Sending,
}

impl Withdraw {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let model = self.model;
        let (nothing, registry) = (("", U256::ZERO), REGISTRY_ADDRESS);
        let known = client.view(registry, &Registry::modelOfCall { model })?;
        match ModelStatus::from_number(known.status) {
            Some(ModelStatus::Retired) => {}
            Some(ModelStatus::Sunset) => {
                // Somebody has to take it out of the budget first.
                let evict = Registry::evictCall { model };
                if self.sending.transact(&client, sender, registry, nothing, evict, report)?.is_none() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            _ => bail!("model {model} is not deprecated: metisvm model deprecate {model}"),
        }
        let call = Registry::withdrawBondCall { model };
        let sent = self.sending.transact(&client, sender, registry, nothing, call, report)?;
        let Some(receipt) = sent else { return Ok(ExitCode::SUCCESS) };
        let bond = U256::from(known.bond);
        let value = json!({ "model": model, "bond_wei": bond, "transaction": receipt.transaction_hash });
        report.finish(&value, || format!("{} coins are back\n", coins(bond)))?;
        Ok(ExitCode::SUCCESS)
    }
}
