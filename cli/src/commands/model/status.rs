//! `metisvm model status`.

use std::fmt::Write as _;
use std::process::ExitCode;

use alloy_primitives::{B256, U256};
use anyhow::ensure;
use clap::Args;
use metis_precompiles::{REGISTRY_ADDRESS, SHARES_ADDRESS};
use serde_json::json;

use crate::author::client::{Client, Endpoint};
use crate::author::money::coins;
use crate::contracts::{ModelStatus, Registry, Shares};
use crate::report::{Report, printable};

/// Shows what a chain's registry knows of a model.
#[derive(Debug, Args)]
pub struct Status {
    /// The model's id.
    model: B256,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl Status {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.endpoint, None)?;
        let id = self.model;
        let model = client.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: id })?;
        let status = ModelStatus::from_number(model.status).unwrap_or(ModelStatus::None);
        ensure!(
            status != ModelStatus::None,
            "model {id} is not registered on chain {}; register it with: metisvm model register <bundle>",
            client.chain_id
        );
        ensure!(
            status != ModelStatus::Configured,
            "model {id} is {}: it has no owner and no price",
            status.name()
        );
        let (now, resident) =
            (client.latest()?.0, client.view(REGISTRY_ADDRESS, &Registry::residentMebibytesCall {})?);
        let rules = client.view(REGISTRY_ADDRESS, &Registry::rulesCall {})?;
        let class = U256::from(model.classId);
        let meta = client.view(SHARES_ADDRESS, &Shares::getClassMetaCall { classId: class })?;
        let shares = client.view(SHARES_ADDRESS, &Shares::totalShareOfCall { classId: class })?;
        let callable = now < model.activeUntil;
        let value = json!({
            "model": id, "status": status.name(), "callable": callable, "active_until": model.activeUntil, "now": now,
            "owner": model.owner, "pending_owner": model.pendingOwner, "matures_at": model.maturesAt,
            "per_call_wei": U256::from(model.perCall), "per_gas_wei": model.perGas, "mebibytes": model.mebibytes,
            "bond_wei": U256::from(model.bond), "class": class, "total_share": shares, "parent": model.parent,
            "licence": model.licence, "uri": meta.metadataURI,
            "resident_mebibytes": resident, "resident_budget_mebibytes": rules.residentMebibytes,
        });
        report.finish(&value, || {
            let mut text = String::new();
            let mut line = |name: &str, value: String| {
                let _ = writeln!(text, "{name:<12} {value}");
            };
            line("model", id.to_string());
            line("status", status.name().to_owned());
            line("callable", when(callable, now, model.activeUntil));
            if status == ModelStatus::Pending {
                let matures = model.maturesAt.to::<u64>();
                let ready = if now >= matures {
                    "it can be activated".into()
                } else {
                    format!("in {} s", matures - now)
                };
                line("matures", format!("at {matures}: {ready}"));
            }
            line("owner", model.owner.to_string());
            line(
                "price",
                format!(
                    "{} coins each call, {} wei each gas",
                    coins(U256::from(model.perCall)),
                    model.perGas
                ),
            );
            line(
                "size",
                format!(
                    "{} MiB; active models have {resident} of {} MiB",
                    model.mebibytes, rules.residentMebibytes
                ),
            );
            line("bond", format!("{} coins", coins(U256::from(model.bond))));
            line("shares", format!("{shares} of 10000, class {class}"));
            line("licence", printable(&model.licence));
            line("files", printable(&meta.metadataURI));
            if model.parent != B256::ZERO {
                line("parent", model.parent.to_string());
            }
            text
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn when(callable: bool, now: u64, until: u64) -> String {
    match (callable, until) {
        (true, _) => format!("until {until}, for {} s", until - now),
        (false, 0) => "no".to_owned(),
        (false, _) => format!("no, not since {until}"),
    }
}
