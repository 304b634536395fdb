//! `metisvm model earnings` and `metisvm model claim`: what a model's shares have earned.

use std::fmt::Write as _;
use std::process::ExitCode;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolEvent;
use anyhow::{bail, ensure};
use clap::Args;
use metis_precompiles::{REGISTRY_ADDRESS, SHARES_ADDRESS};
use serde_json::{Value, json};

use crate::author::client::{Client, Endpoint};
use crate::author::money::coins;
use crate::author::sending::Sending;
use crate::contracts::{Registry, Shares};
use crate::report::Report;

/// Shows what a model has earned, and what each of its tokens has to get.
#[derive(Debug, Args)]
pub struct Earnings {
    /// The model's id.
    model: B256,
    /// The ERC-20 in which it was earned; without it, the chain's own money.
    #[arg(long, value_name = "ADDRESS", default_value_t = Address::ZERO)]
    asset: Address,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl Earnings {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.endpoint, None)?;
        let class = class_of(&client, self.model)?;
        let tokens = tokens(&client, class, self.asset)?;
        let (settled, settlements) = settled(&client, class, self.asset)?;
        let value = json!({
            "model": self.model, "class": class, "asset": self.asset, "settled": settled, "settlements": settlements,
            "tokens": tokens.iter().map(Token::json).collect::<Vec<_>>(),
        });
        report.finish(&value, || {
            let mut text = format!("{} earned in {settlements} payments\n", amount(self.asset, settled));
            for token in &tokens {
                let _ = writeln!(text, "{}", token.text(self.asset));
            }
            text
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Pays out what tokens of a model's class have to get: all of the sender's, or one.
#[derive(Debug, Args)]
pub struct Claim {
    /// The model's id.
    model: B256,
    /// One token; without it, all that are the sender's.
    #[arg(long, value_name = "ID")]
    token: Option<U256>,
    /// Who gets it; without it, the sender.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    /// The ERC-20 that is paid out; without it, the chain's own money.
    #[arg(long, value_name = "ADDRESS", default_value_t = Address::ZERO)]
    asset: Address,
    #[command(flatten)]
    sending: Sending,
}

impl Claim {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (client, sender) = self.sending.connect()?;
        let class = class_of(&client, self.model)?;
        let mut tokens = tokens(&client, class, self.asset)?;
        match self.token {
            Some(id) => tokens.retain(|token| token.id == id),
            None => tokens.retain(|token| token.owner == sender),
        }
        ensure!(!tokens.is_empty(), "{sender} has no such token of model {}", self.model);
        tokens.retain(|token| !token.pending.is_zero());
        if tokens.is_empty() {
            bail!("there is nothing to pay out yet; see: metisvm model earnings {}", self.model);
        }
        let (to, asset) = (self.to.unwrap_or(sender), self.asset);
        let (mut claimed, mut transactions) = (U256::ZERO, Vec::new());
        for token in tokens {
            let call = Shares::claimCall { tokenId: token.id, asset, to };
            let nothing = ("", U256::ZERO);
            let sent = self.sending.transact(&client, sender, SHARES_ADDRESS, nothing, call, report)?;
            let Some(receipt) = sent else { return Ok(ExitCode::SUCCESS) };
            let logs = receipt.inner.logs().iter();
            let amounts = logs.filter_map(|log| Shares::Claimed::decode_log(&log.inner).ok());
            claimed += amounts.map(|event| event.amount).sum::<U256>();
            transactions.push(receipt.transaction_hash);
        }
        let value = json!({
            "model": self.model, "asset": asset, "claimed": claimed, "to": to, "transactions": transactions,
        });
        report.finish(&value, || format!("{} paid out to {to}\n", amount(asset, claimed)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A token of a model's class.
#[derive(Debug)]
struct Token {
    id: U256,
    owner: Address,
    share: U256,
    quota: U256,
    expire_at: u64,
    pending: U256,
}

impl Token {
    fn json(&self) -> Value {
        let Self { id, owner, share, quota, expire_at, pending } = self;
        json!({
            "token": id, "owner": owner, "share": share, "quota": quota, "expire_at": expire_at, "pending": pending,
        })
    }

    fn text(&self, asset: Address) -> String {
        let Self { id, owner, share, expire_at, pending, .. } = self;
        let until = if *expire_at == 0 { String::new() } else { format!(" until {expire_at}") };
        format!("token {id} of {owner}: {share} shares{until}, {} to get", amount(asset, *pending))
    }
}

fn amount(asset: Address, units: U256) -> String {
    match asset {
        Address::ZERO => format!("{} coins", coins(units)),
        asset => format!("{units} units of {asset}"),
    }
}

fn class_of(client: &Client, model: B256) -> anyhow::Result<U256> {
    let class = client.view(REGISTRY_ADDRESS, &Registry::billingOfCall { model })?.classId;
    ensure!(!class.is_zero(), "model {model} is not registered on chain {}", client.chain_id);
    Ok(class)
}

/// The tokens of a class.
fn tokens(client: &Client, class: U256, asset: Address) -> anyhow::Result<Vec<Token>> {
    let count = client.view(SHARES_ADDRESS, &Shares::tokenCountOfCall { classId: class })?;
    (1..=count.saturating_to::<u64>())
        .map(|number| {
            let id = (class << 64) | U256::from(number);
            Ok(Token {
                id,
                owner: client.view(SHARES_ADDRESS, &Shares::ownerOfCall { tokenId: id })?,
                share: client.view(SHARES_ADDRESS, &Shares::shareRatioOfCall { tokenId: id })?,
                quota: client.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: id })?,
                expire_at: client.view(SHARES_ADDRESS, &Shares::expireAtOfCall { tokenId: id })?,
                pending: client.view(SHARES_ADDRESS, &Shares::pendingRevenueCall { tokenId: id, asset })?,
            })
        })
        .collect()
}

/// What a class has earned in an asset, and in how many payments.
fn settled(client: &Client, class: U256, asset: Address) -> anyhow::Result<(U256, usize)> {
    let topics = [Shares::RevenueSettled::SIGNATURE_HASH, B256::from(class)];
    let logs = client.logs(SHARES_ADDRESS, topics, 0)?;
    let events = logs.iter().filter_map(|log| Shares::RevenueSettled::decode_log(log).ok());
    let amounts: Vec<U256> = events.filter(|event| event.asset == asset).map(|event| event.amount).collect();
    Ok((amounts.iter().sum(), amounts.len()))
}
