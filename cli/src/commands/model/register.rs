//! `metisvm model register`.

use std::path::PathBuf;
use std::process::ExitCode;

use alloy_primitives::{B256, U256, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolValue;
use anyhow::{Context, ensure};
use clap::Args;
use indicatif::ProgressBar;
use metis_models::Bundle;
use metis_precompiles::costs::ModelCosts;
use metis_precompiles::{Claims, REGISTRY_ADDRESS};
use serde_json::json;

use crate::author::client::{Call, Client};
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
/// Bytes that the registry takes of a licence and of an address, at most.
const MOST_LICENCE: usize = 128;
const MOST_URI: usize = 512;

impl Register {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let (licence, uri) = (self.licence.len(), self.uri.len());
        ensure!(
            (1..=MOST_LICENCE).contains(&licence),
            "--licence has {licence} bytes; the registry takes 1 to {MOST_LICENCE}"
        );
        ensure!(uri <= MOST_URI, "--uri has {uri} bytes; the registry takes at most {MOST_URI}");
        let per_call = price(self.per_call)?;
        let bundle =
            Bundle::open(&self.bundle).with_context(|| format!("bundle {}", self.bundle.display()))?;
        let id = bundle.id();
        let costs = ModelCosts::of(bundle.manifest(), &bundle.tokenizer()?)
            .with_context(|| format!("model {id} cannot be active on any chain"))?;
        let claims = Registry::ModelClaims::from(&Claims::of(bundle.manifest(), &costs));
        let mebibytes = (claims.weightsBytes + claims.tokenizerBytes).div_ceil(1 << 20);

        let (client, signer) = self.sending.connect_signer()?;
        let sender = signer.address();
        self.check_registry(&client, id, mebibytes)?;
        let bond = Registry::bondForCall { mebibytes: U256::from(mebibytes) };
        let bond = client.view(REGISTRY_ADDRESS, &bond)?;
        // What it hides is not sent before it counts.
        let salt = salt(&signer, client.chain_id, id)?;
        let commitment = keccak256((id, sender, salt).abi_encode());
        let terms = Registry::ModelTerms {
            parent: self.parent,
            perCall: per_call,
            perGas: self.per_gas,
            founderShare: self.founder_share,
            licence: self.licence.clone(),
            uri: self.uri.clone(),
        };
        let register = Registry::registerCall { model: id, claims, terms, salt };
        let register = Call::new(REGISTRY_ADDRESS, &register).with_value(bond);
        let commit = Call::new(REGISTRY_ADDRESS, &Registry::commitCall { commitment });
        let commit = match client.estimate(&commit) {
            Ok(gas) => Some(Planned::with_estimate(&client, commit, gas)?),
            // Announced before and not registered: it goes on from there.
            Err(error) if error.is::<Registry::AlreadyCommitted>() => None,
            Err(error) => return Err(error).context(commit.name),
        };

        let fees = client.fees()?;
        let mut costs = Costs::default().with("bond, back when it is retired", bond);
        if let Some(commit) = &commit {
            costs = costs.with_gas("announcement", commit.gas, fees);
        }
        let costs = costs.with_gas("registration", REGISTRATION_GAS, fees);
        if !self.sending.approve(&client, sender, &costs, report)? {
            return Ok(ExitCode::SUCCESS);
        }

        let progress = waiting(report);
        if let Some(commit) = &commit {
            commit.send(&client, fees, &progress)?;
        }
        let register = when_announced(&client, register, &progress)?.within(REGISTRATION_GAS)?;
        let receipt = register.send(&client, fees, &progress)?;
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

    /// What would make the registration fail after the announcement has been paid for.
    fn check_registry(&self, client: &Client, id: B256, mebibytes: u64) -> anyhow::Result<()> {
        let chain = client.chain_id;
        let status_of = |model| -> anyhow::Result<_> {
            let known = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model })?;
            Ok((ModelStatus::from_number(known.status), known))
        };
        let (status, known) = status_of(id)?;
        ensure!(
            status != Some(ModelStatus::Configured),
            "model {id} is one of chain {chain}'s own: its configuration has it, and nobody registers it"
        );
        // An id that was given up, bond and all, is free again.
        let is_free = match status {
            Some(ModelStatus::None) => true,
            Some(ModelStatus::Retired) => known.bond.is_zero(),
            _ => false,
        };
        ensure!(
            is_free,
            "model {id} is registered on chain {chain} already, by {} ({}); see: metisvm model status {id}",
            known.owner,
            status.map_or("unknown", ModelStatus::name)
        );
        if self.parent != B256::ZERO {
            let (status, _) = status_of(self.parent)?;
            ensure!(
                status != Some(ModelStatus::None),
                "--parent {}: no such model is registered on chain {chain}",
                self.parent
            );
        }
        let most = client.view(REGISTRY_ADDRESS, &Registry::rulesCall {})?.maxModelMebibytes;
        ensure!(
            U256::from(mebibytes) <= U256::from(most),
            "model {id} has {mebibytes} MiB, and chain {chain} takes models of at most {most} MiB"
        );
        Ok(())
    }
}

/// The registration, once the announcement is in an earlier block.
fn when_announced(client: &Client, call: Call, progress: &ProgressBar) -> anyhow::Result<Planned> {
    progress.set_message("waiting for the next block");
    let estimated = client.until(|| match client.estimate(&call) {
        Ok(gas) => Ok(Some(gas)),
        Err(error) if error.is::<Registry::NotCommitted>() => Ok(None),
        Err(error) => Err(error).context(call.name),
    })?;
    let gas = estimated.context(
        "the announcement is in a block, and no block came after it; the same command goes on from there",
    )?;
    Planned::with_estimate(client, call, gas)
}

/// A number that only who has the key can make, and makes again: an attempt that was interrupted goes on with the same announcement.
fn salt(signer: &PrivateKeySigner, chain_id: u64, model: B256) -> anyhow::Result<B256> {
    let message = format!("MetisVM: the salt of the registration of model {model} on chain {chain_id}");
    Ok(keccak256(signer.sign_message_sync(message.as_bytes())?.as_bytes()))
}
