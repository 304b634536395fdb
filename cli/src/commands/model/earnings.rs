//! `metisvm model earnings` and `metisvm model claim`: what a model's shares have earned.

use std::fmt::Write as _;
use std::process::ExitCode;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolEvent;
use anyhow::{Context, bail, ensure};
use clap::Args;
use metis_precompiles::{REGISTRY_ADDRESS, SHARES_ADDRESS};
use serde_json::{Value, json};

use crate::author::client::{Call, Client, Endpoint};
use crate::author::costs::Costs;
use crate::author::error::ChainError;
use crate::author::money::coins;
use crate::author::sending::{Planned, Sending, waiting};
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
    /// Count what was earned from this block on.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from_block: u64,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl Earnings {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.endpoint, None)?;
        let class = class_of(&client, self.model)?;
        let (tokens, count) = tokens(&client, class, self.asset, report)?;
        let settled = match settled(&client, class, self.asset, self.from_block) {
            Ok(settled) => Some(settled),
            // Nodes answer for the logs of so many blocks as they like.
            Err(error) => {
                tracing::warn!("what was earned is not known: {error}; --from-block asks for less");
                None
            }
        };
        let value = json!({
            "model": self.model, "class": class, "asset": self.asset, "from_block": self.from_block,
            "settled": settled.map(|(amount, _)| amount), "settlements": settled.map(|(_, payments)| payments),
            "token_count": count, "tokens": tokens.iter().map(Token::json).collect::<Vec<_>>(),
        });
        report.finish(&value, || {
            let mut text = settled.map_or_else(String::new, |(settled, payments)| {
                format!("{} earned in {payments} payments\n", amount(self.asset, settled))
            });
            for token in &tokens {
                let _ = writeln!(text, "{}", token.text(self.asset));
            }
            if count > U256::from(tokens.len()) {
                let _ = writeln!(text, "and more: there are {count} tokens");
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
        let (to, asset) = (self.to.unwrap_or(sender), self.asset);
        let mut tokens = match self.token {
            Some(id) if id >> 64 == class => vec![token(&client, id, asset)?],
            Some(id) => bail!("--token {id}: it is not of model {}, whose class is {class}", self.model),
            None => {
                let (tokens, count) = tokens(&client, class, asset, report)?;
                ensure!(
                    count <= U256::from(tokens.len()),
                    "model {} has {count} tokens, too many to look through; name yours with --token",
                    self.model
                );
                tokens.into_iter().filter(|token| token.owner == sender).collect()
            }
        };
        ensure!(!tokens.is_empty(), "{sender} has no token of model {}", self.model);
        tokens.retain(|token| !token.pending.is_zero());
        if tokens.is_empty() {
            bail!("there is nothing to pay out yet; see: metisvm model earnings {}", self.model);
        }
        let claims = tokens.iter().map(|token| {
            let call = Shares::claimCall { tokenId: token.id, asset, to };
            Planned::new(&client, Call::new(SHARES_ADDRESS, &call))
        });
        let claims = claims.collect::<anyhow::Result<Vec<_>>>()?;
        let fees = client.fees()?;
        let gas = claims.iter().fold(0, |sum: u64, claim| sum.saturating_add(claim.gas));
        let costs = Costs::default().with_gas("gas", gas, fees);
        if !self.sending.approve(&client, sender, &costs, report)? {
            return Ok(ExitCode::SUCCESS);
        }
        let (mut claimed, mut transactions) = (U256::ZERO, Vec::new());
        let progress = waiting(report);
        for claim in &claims {
            let receipt = claim.send(&client, fees, &progress).with_context(|| {
                format!("{} of {} tokens were paid out: {transactions:?}", transactions.len(), claims.len())
            })?;
            let logs = receipt.inner.logs().iter();
            // An asset's own contract may say anything.
            let own = logs.filter(|log| log.address() == SHARES_ADDRESS);
            let amounts = own.filter_map(|log| Shares::Claimed::decode_log(&log.inner).ok());
            claimed = amounts.fold(claimed, |sum, event| sum.saturating_add(event.amount));
            transactions.push(receipt.transaction_hash);
        }
        progress.finish_and_clear();
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

/// Tokens of a class that are looked at, at most.
const MOST_TOKENS: u64 = 10_000;

/// The first tokens of a class, and how many it has.
fn tokens(
    client: &Client,
    class: U256,
    asset: Address,
    report: Report,
) -> anyhow::Result<(Vec<Token>, U256)> {
    let count = client.view(SHARES_ADDRESS, &Shares::tokenCountOfCall { classId: class })?;
    let looked_at = count.saturating_to::<u64>().min(MOST_TOKENS);
    let progress = report.progress("tokens");
    progress.set_length(looked_at);
    let of = |number| {
        let token = token(client, (class << 64) | U256::from(number), asset)?;
        progress.inc(1);
        Ok(token)
    };
    let tokens = (1..=looked_at).map(of).collect::<anyhow::Result<Vec<_>>>()?;
    progress.finish_and_clear();
    Ok((tokens, count))
}

fn token(client: &Client, id: U256, asset: Address) -> anyhow::Result<Token> {
    Ok(Token {
        id,
        owner: client.view(SHARES_ADDRESS, &Shares::ownerOfCall { tokenId: id })?,
        share: client.view(SHARES_ADDRESS, &Shares::shareRatioOfCall { tokenId: id })?,
        quota: client.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: id })?,
        expire_at: client.view(SHARES_ADDRESS, &Shares::expireAtOfCall { tokenId: id })?,
        pending: client.view(SHARES_ADDRESS, &Shares::pendingRevenueCall { tokenId: id, asset })?,
    })
}

/// What a class has earned in an asset, and in how many payments.
fn settled(
    client: &Client,
    class: U256,
    asset: Address,
    from_block: u64,
) -> Result<(U256, usize), ChainError> {
    let topics = [Shares::RevenueSettled::SIGNATURE_HASH, B256::from(class)];
    let logs = client.logs(SHARES_ADDRESS, topics, from_block)?;
    let events = logs.iter().filter_map(|log| Shares::RevenueSettled::decode_log(log).ok());
    let amounts: Vec<U256> = events.filter(|event| event.asset == asset).map(|event| event.amount).collect();
    Ok((amounts.iter().fold(U256::ZERO, |sum, amount| sum.saturating_add(*amount)), amounts.len()))
}
