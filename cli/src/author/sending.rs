//! A command that changes the chain: what it takes, what it says before, and what it says after.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_rpc_types_eth::TransactionReceipt;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::client::{Client, Endpoint};
use super::costs::{Costs, Fees};
use super::keys::{KeySource, Password};
use super::money::coins;
use crate::report::Report;

/// What a command that changes the chain takes.
#[derive(Clone, Debug, Args)]
pub struct Sending {
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(flatten)]
    key: KeySource,
    #[command(flatten)]
    password: Password,
    /// Say what it would cost, check that it would work, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Parts of its estimate by which a transaction's gas limit is above it: the state may change until it is executed.
const SPARE: u64 = 8;

/// A transaction that is about to be sent.
#[derive(Debug)]
pub struct Planned<C> {
    /// To whom.
    pub to: Address,
    /// With how much, in wei.
    pub value: U256,
    /// What is asked.
    pub call: C,
    /// Its gas limit.
    pub gas: u64,
}

impl Sending {
    /// The chain, and whose transactions it gets.
    pub fn connect(&self) -> anyhow::Result<(Client, Address)> {
        let (client, signer) = self.connect_signer()?;
        Ok((client, signer.address()))
    }

    /// The same with the key.
    pub fn connect_signer(&self) -> anyhow::Result<(Client, PrivateKeySigner)> {
        let signer = self.key.signer(&self.password)?;
        Ok((Client::connect(&self.endpoint, Some(signer.clone()))?, signer))
    }

    /// A transaction of which is known that it would succeed now.
    pub fn plan<C: SolCall>(
        client: &Client,
        to: Address,
        value: U256,
        call: C,
    ) -> anyhow::Result<Planned<C>> {
        let gas = client.estimate(to, value, &call)?;
        Ok(Planned { to, value, call, gas: gas + gas / SPARE })
    }

    /// Says what everything costs, and whether the sender has it. Returns whether to go on.
    pub fn announce(
        &self,
        client: &Client,
        sender: Address,
        costs: &Costs,
        report: Report,
    ) -> anyhow::Result<bool> {
        report.line(&format!("chain {}, as {sender}\n{}", client.chain_id, costs.text()))?;
        let (balance, total) = (client.balance(sender)?, costs.total());
        ensure!(
            balance >= total,
            "{sender} has {} coins on chain {} and needs {}",
            coins(balance),
            client.chain_id,
            coins(total)
        );
        Ok(!self.dry_run)
    }

    /// Plans a transaction, says what it costs, sends it and waits until it is in a block. `None` if nothing was to be sent, which has been
    /// reported then.
    pub fn transact<C: SolCall>(
        &self,
        client: &Client,
        sender: Address,
        to: Address,
        (what, value): (&'static str, U256),
        call: C,
        report: Report,
    ) -> anyhow::Result<Option<TransactionReceipt>> {
        let fees = client.fees()?;
        let planned = Self::plan(client, to, value, call)?;
        let mut costs = Costs::default();
        if !value.is_zero() {
            costs = costs.with(what, value);
        }
        let costs = costs.with_gas("gas", planned.gas, fees);
        if !self.announce(client, sender, &costs, report)? {
            Self::report_dry(&costs, report)?;
            return Ok(None);
        }
        let progress = waiting(report);
        let receipt = Self::send(client, &planned, fees, &progress)?;
        progress.finish_and_clear();
        Ok(Some(receipt))
    }

    /// Says that nothing was sent.
    pub fn report_dry(costs: &Costs, report: Report) -> anyhow::Result<()> {
        let value = json!({ "dry_run": true, "costs": costs.json() });
        report.finish(&value, || "nothing was sent\n".to_owned())
    }

    /// Sends one, and waits until it is in a block.
    pub fn send<C: SolCall>(
        client: &Client,
        planned: &Planned<C>,
        fees: Fees,
        progress: &ProgressBar,
    ) -> anyhow::Result<TransactionReceipt> {
        client.send(planned.to, planned.value, &planned.call, planned.gas, fees, progress)
    }
}

/// What is being waited for, on a terminal.
pub fn waiting(report: Report) -> ProgressBar {
    let bar = report.progress("");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
