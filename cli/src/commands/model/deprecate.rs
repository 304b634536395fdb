//! `metisvm model deprecate` and `metisvm model withdraw`: how a model ends.

use std::process::ExitCode;

use alloy_primitives::{Address, B256, U256};
use alloy_rpc_types_eth::TransactionReceipt;
use anyhow::bail;
use clap::Args;
use metis_precompiles::REGISTRY_ADDRESS;
use serde_json::json;

use crate::author::client::{Call, Client};
use crate::author::costs::Costs;
use crate::author::money::coins;
use crate::author::sending::{Planned, Sending, waiting};
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
        let call = Call::new(REGISTRY_ADDRESS, &Registry::deprecateCall { model });
        let sent = self.sending.transact(&client, sender, call, "", report)?;
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

/// Gas of taking a bond back before it can be estimated, at most: `contracts/gas-snapshot.txt`.
const WITHDRAWAL_GAS: u64 = 100_000;

impl Withdraw {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let model = self.model;
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
        let bond = U256::from(known.bond);
        let withdraw = Call::new(REGISTRY_ADDRESS, &Registry::withdrawBondCall { model });
        let receipt = match ModelStatus::from_number(known.status) {
            Some(ModelStatus::Retired) if bond.is_zero() => {
                bail!("the bond of model {model} has been taken back already, or there was none")
            }
            Some(ModelStatus::Retired) => self.sending.transact(&client, sender, withdraw, "", report)?,
            Some(ModelStatus::Sunset) => self.evict_and_withdraw(&client, sender, withdraw, report)?,
            _ => bail!("model {model} is not deprecated: metisvm model deprecate {model}"),
        };
        let Some(receipt) = receipt else { return Ok(ExitCode::SUCCESS) };
        let value = json!({ "model": model, "bond_wei": bond, "transaction": receipt.transaction_hash });
        report.finish(&value, || format!("{} coins are back\n", coins(bond)))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Somebody has to take it out of the budget first. `None` if nothing was to be sent.
    fn evict_and_withdraw(
        &self,
        client: &Client,
        sender: Address,
        withdraw: Call,
        report: Report,
    ) -> anyhow::Result<Option<TransactionReceipt>> {
        let fees = client.fees()?;
        let evict = Call::new(REGISTRY_ADDRESS, &Registry::evictCall { model: self.model });
        let evict = Planned::new(client, evict)?;
        let costs = Costs::default().with_gas("taking it out of the budget", evict.gas, fees);
        let costs = costs.with_gas("taking the bond back", WITHDRAWAL_GAS, fees);
        if !self.sending.approve(client, sender, &costs, report)? {
            return Ok(None);
        }
        let progress = waiting(report);
        evict.send(client, fees, &progress)?;
        let receipt =
            Planned::new(client, withdraw)?.within(WITHDRAWAL_GAS)?.send(client, fees, &progress)?;
        progress.finish_and_clear();
        Ok(Some(receipt))
    }
}
