//! A command that changes the chain: what it takes, what it says before, and what it says after.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_rpc_types_eth::TransactionReceipt;
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::client::{Call, Client, Endpoint};
use super::costs::{Costs, Fees};
use super::keys::{KeySource, Password};
use super::money::{coins, wei};
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
    /// The id of the chain that this is for: send nothing if the node's is another one.
    #[arg(long, value_name = "ID")]
    chain_id: Option<u64>,
    /// Send without asking if all of it costs at most so much, and nothing if it may cost more.
    #[arg(long, value_name = "AMOUNT", value_parser = wei)]
    max_cost: Option<u128>,
    /// Send without asking.
    #[arg(long, short)]
    yes: bool,
    /// Say what it would cost, check what can be checked before, and send nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Parts of its estimate by which a transaction's gas limit is above it: the state may change until it is executed.
const SPARE: u64 = 8;

/// A transaction that is about to be sent.
#[derive(Debug)]
pub struct Planned {
    call: Call,
    /// Its gas limit.
    pub gas: u64,
}

impl Planned {
    /// A transaction of which is known that it would succeed now.
    pub fn new(client: &Client, call: Call) -> anyhow::Result<Self> {
        let estimate = client.estimate(&call).context(call.name)?;
        Self::with_estimate(client, call, estimate)
    }

    /// The same with what a node says that it needs.
    pub fn with_estimate(client: &Client, call: Call, estimate: u64) -> anyhow::Result<Self> {
        let (_, most) = client.latest()?;
        ensure!(estimate <= most, "{}: it needs {estimate} gas, and a block has {most}", call.name);
        Ok(Self { call, gas: estimate.saturating_add(estimate / SPARE).min(most) })
    }

    /// The same within the gas that was announced for it.
    ///
    /// # Errors
    /// It needs more.
    pub fn within(self, announced: u64) -> anyhow::Result<Self> {
        let least = self.gas - self.gas / (SPARE + 1);
        ensure!(
            least <= announced,
            "{}: the node says now that it needs {least} gas, and {announced} were announced",
            self.call.name
        );
        Ok(Self { gas: self.gas.min(announced), ..self })
    }

    /// Sends it, and waits until it is in a block.
    pub fn send(
        &self,
        client: &Client,
        fees: Fees,
        progress: &ProgressBar,
    ) -> anyhow::Result<TransactionReceipt> {
        client.send(&self.call, self.gas, fees, progress)
    }
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
        let client = Client::connect(&self.endpoint, Some(signer.clone()))?;
        if let Some(id) = self.chain_id {
            ensure!(client.chain_id == id, "the node's chain is {}, not --chain-id {id}", client.chain_id);
        }
        Ok((client, signer))
    }

    /// Says what everything costs, and asks whether to go on if nobody has said so yet. Returns whether something is to be sent; if not, that
    /// has been reported.
    ///
    /// # Errors
    /// The sender has not so much, or it is more than the sender wants to pay, or nobody can be asked.
    pub fn approve(
        &self,
        client: &Client,
        sender: Address,
        costs: &Costs,
        report: Report,
    ) -> anyhow::Result<bool> {
        report.notice(&format!("chain {}, as {sender}\n{}", client.chain_id, costs.text()))?;
        let (balance, total) = (client.balance(sender)?, costs.total());
        ensure!(
            balance >= total,
            "{sender} has {} coins on chain {} and needs {}",
            coins(balance),
            client.chain_id,
            coins(total)
        );
        if let Some(most) = self.max_cost.map(U256::from) {
            ensure!(
                total <= most,
                "it may cost {} coins, more than --max-cost {}",
                coins(total),
                coins(most)
            );
        }
        if self.dry_run {
            let value = json!({ "dry_run": true, "costs": costs.json() });
            report.finish(&value, || "nothing was sent\n".to_owned())?;
            return Ok(false);
        }
        if !self.yes && self.max_cost.is_none() {
            ask()?;
        }
        Ok(true)
    }

    /// Plans a transaction, says what it costs, sends it and waits until it is in a block. `None` if nothing was to be sent, which has been
    /// reported then. `what` says what its money is for.
    pub fn transact(
        &self,
        client: &Client,
        sender: Address,
        call: Call,
        what: &'static str,
        report: Report,
    ) -> anyhow::Result<Option<TransactionReceipt>> {
        let fees = client.fees()?;
        let mut costs = Costs::default();
        if !call.value.is_zero() {
            costs = costs.with(what, call.value);
        }
        let planned = Planned::new(client, call)?;
        let costs = costs.with_gas("gas", planned.gas, fees);
        if !self.approve(client, sender, &costs, report)? {
            return Ok(None);
        }
        let progress = waiting(report);
        let receipt = planned.send(client, fees, &progress)?;
        progress.finish_and_clear();
        Ok(Some(receipt))
    }
}

/// Asks whoever sits at the terminal.
fn ask() -> anyhow::Result<()> {
    let (input, mut output) = (std::io::stdin(), std::io::stderr());
    if !(input.is_terminal() && output.is_terminal()) {
        bail!("nobody can be asked here whether to send it: give --yes, or --max-cost AMOUNT");
    }
    write!(output, "send? [y/N] ")?;
    output.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was sent");
    Ok(())
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
