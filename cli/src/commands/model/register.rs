//! `metisvm model register`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alloy_primitives::{B256, U256, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail, ensure};
use clap::Args;
use metis_models::Bundle;
use metis_precompiles::costs::ModelCosts;
use metis_precompiles::{Claims, REGISTRY_ADDRESS};
use serde_json::json;

use crate::author::client::Client;
use crate::author::costs::Costs;
use crate::author::money::wei;
use crate::author::sending::{Planned, Sending, waiting};
use crate::contracts::{ModelStatus, Registry};
use crate::report::Report;

use super::price::price;

/// Registers a bundle in a chain's model registry: two transactions, an announcement that nobody can copy, and the registration with its bond.
#[derive(Debug, Args)]
pub struct Register {
    /// A bundle's directory.
    bundle: PathBuf,
    #[command(flatten)]
    sending: Sending,
    /// The licence: an SPDX expression, or a name.
    #[arg(long)]
    licence: String,
    /// Where the bundle's files are, as `model publish` wrote them: what validators give to `model fetch --from`.
    #[arg(long, value_name = "URL", default_value = "")]
    uri: String,
    /// The registered model that this one was made from.
    #[arg(long, value_name = "ID", default_value_t = B256::ZERO)]
    parent: B256,
    /// What each call costs, such as 1000, 3gwei or 0.001coin. With a price, calls go through the gateway.
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = wei)]
    per_call: u128,
    /// What each unit of gas that an inference takes costs, in wei.
    #[arg(long, value_name = "WEI", default_value_t = 0)]
    per_gas: u64,
    /// Shares of the founder's token, of at most 10,000: others can be minted until all together have 10,000.
    #[arg(long, value_name = "SHARES", default_value_t = 6_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    founder_share: u16,
}

/// Gas of a registration before it can be estimated, at most: `contracts/gas-snapshot.txt`, and the longest texts.
const REGISTRATION_GAS: u64 = 1_200_000;
/// How often the chain is asked whether the announcement counts.
const PATIENCE: u32 = 240;

impl Register {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let bundle =
            Bundle::open(&self.bundle).with_context(|| format!("bundle {}", self.bundle.display()))?;
        let id = bundle.id();
        let costs = ModelCosts::of(bundle.manifest(), &bundle.tokenizer()?)
            .with_context(|| format!("model {id} cannot be active on any chain"))?;
        let claims = Registry::ModelClaims::from(&Claims::of(bundle.manifest(), &costs));

        let (client, signer) = self.sending.connect_signer()?;
        let sender = signer.address();
        let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: id })?;
        let status = ModelStatus::from_number(known.status);
        ensure!(
            status == Some(ModelStatus::None),
            "model {id} is registered on chain {} already, by {} ({}); see: metisvm model status {id}",
            client.chain_id,
            known.owner,
            status.map_or("unknown", ModelStatus::name)
        );
        let rules = client.view(REGISTRY_ADDRESS, &Registry::rulesCall {})?;
        let mebibytes =
            client.view(REGISTRY_ADDRESS, &Registry::mebibytesOfCall { claims: claims.clone() })?;
        ensure!(
            mebibytes <= U256::from(rules.maxModelMebibytes),
            "model {id} has {mebibytes} MiB, and chain {} takes models of at most {} MiB",
            client.chain_id,
            rules.maxModelMebibytes
        );
        let bond = client.view(REGISTRY_ADDRESS, &Registry::bondForCall { mebibytes })?;
        let per_call = price(self.per_call)?;

        let salt = salt(&signer, client.chain_id, id)?;
        let commitment = Registry::commitmentOfCall { model: id, author: sender, salt };
        let commitment = client.view(REGISTRY_ADDRESS, &commitment)?;
        let terms = Registry::ModelTerms {
            parent: self.parent,
            perCall: per_call,
            perGas: self.per_gas,
            founderShare: self.founder_share,
            licence: self.licence.clone(),
            uri: self.uri.clone(),
        };
        let register = Registry::registerCall { model: id, claims, terms, salt };
        let fees = client.fees()?;
        // Announced before and not registered: it goes on from there.
        let announced = client.estimate(REGISTRY_ADDRESS, bond, &register).is_ok();
        let commit = Registry::commitCall { commitment };
        let commit = if announced {
            None
        } else {
            Some(Sending::plan(&client, REGISTRY_ADDRESS, U256::ZERO, commit)?)
        };
        let mut costs = Costs::default().with("bond, back when it is retired", bond);
        if let Some(commit) = &commit {
            costs = costs.with_gas("announcement", commit.gas, fees);
        }
        let costs = costs.with_gas("registration", REGISTRATION_GAS, fees);
        if !self.sending.announce(&client, sender, &costs, report)? {
            Sending::report_dry(&costs, report)?;
            return Ok(ExitCode::SUCCESS);
        }

        let progress = waiting(report);
        if let Some(commit) = &commit {
            Sending::send(&client, commit, fees, &progress)?;
        }
        let register = self.when_announced(&client, bond, register, &progress)?;
        let receipt = Sending::send(&client, &register, fees, &progress)?;
        progress.finish_and_clear();
        let model = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: id })?;
        let value = json!({
            "model": id, "class": model.classId, "matures_at": model.maturesAt, "owner": model.owner,
            "bond_wei": bond, "transaction": receipt.transaction_hash, "gas_used": receipt.gas_used,
        });
        report.finish(&value, || {
            format!(
                "registered {id}\nclass {}, matures at {} (unix time); then: metisvm model activate {id} --days <N>\n",
                model.classId, model.maturesAt
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The registration, once the announcement is in an earlier block.
    fn when_announced(
        &self,
        client: &Client,
        bond: U256,
        call: Registry::registerCall,
        progress: &indicatif::ProgressBar,
    ) -> anyhow::Result<Planned<Registry::registerCall>> {
        let mut last = None;
        for _ in 0..PATIENCE {
            match client.estimate(REGISTRY_ADDRESS, bond, &call) {
                Ok(gas) => {
                    return Ok(Planned { to: REGISTRY_ADDRESS, value: bond, call, gas: gas + gas / 8 });
                }
                Err(error) if error.is::<Registry::NotCommitted>() => last = Some(error),
                Err(error) => return Err(error.into()),
            }
            progress.set_message("waiting for the next block");
            std::thread::sleep(Duration::from_millis(500));
        }
        match last {
            Some(error) => Err(error)
                .context("the announcement is in a block, and no block came after it; try again later"),
            None => bail!("the registration was not tried"),
        }
    }
}

/// A number that only who has the key can make, and makes again: an attempt that was interrupted goes on with the same announcement.
fn salt(signer: &PrivateKeySigner, chain_id: u64, model: B256) -> anyhow::Result<B256> {
    let message = format!("MetisVM: the salt of the registration of model {model} on chain {chain_id}");
    Ok(keccak256(signer.sign_message_sync(message.as_bytes())?.as_bytes()))
}
