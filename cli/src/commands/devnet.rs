//! `metisvm devnet`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use alloy_primitives::Address;
use anyhow::Context;
use clap::Args;
use jsonrpsee::server::ServerBuilder;
use metis_precompiles::{ChainConfig, Market, RegistryConfig};
use serde_json::json;

use crate::cli::Global;
use crate::devnet::methods::{Shared, module};
use crate::devnet::{ACCOUNTS, COINS, KEYS};
use crate::node::{Node, embedded_bundle};
use crate::report::Report;

/// Answers of models that the chain remembers: estimating gas asks the same again and again.
const MEMO: usize = 256;

/// Runs a chain on this machine, for those who make models and contracts, until it is interrupted.
///
/// Everything is in memory; each transaction is a block at once. Without `--chain`: chain 59001 with a model registry whose models mature
/// in ten seconds, a market for inference, and bundles in `./models`.
#[derive(Debug, Args)]
pub struct Devnet {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8545")]
    listen: SocketAddr,
    /// Where registered models' bundles are; by default where the chain's configuration says.
    #[arg(long, value_name = "FOLDER")]
    bundles: Option<PathBuf>,
    /// Write each block as a record that `metisvm verify` re-executes, to this folder.
    #[arg(long, value_name = "FOLDER")]
    records: Option<PathBuf>,
}

impl Devnet {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let embedded = embedded_bundle()?.id();
        let mut config = match &global.chain {
            Some(path) => ChainConfig::load(path, embedded)?,
            None => preset(embedded),
        };
        if let Some(bundles) = self.bundles {
            let registry = config.registry.as_mut();
            registry.context("--bundles: this chain has no [registry]")?.bundles = bundles;
        }
        if let Some(folder) = &self.records {
            std::fs::create_dir_all(folder).with_context(|| format!("--records {}", folder.display()))?;
        }
        let node = Node::for_production(config, global, MEMO)?;
        let (chain_id, bundles) = (
            node.config().chain_id,
            node.config().registry.as_ref().map(|registry| registry.bundles.clone()),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let server = ServerBuilder::default().build(self.listen).await;
            let server = server.with_context(|| {
                format!(
                    "cannot listen on {}: is another chain running? --listen names another port",
                    self.listen
                )
            })?;
            let address = server.local_addr()?;
            let (chain, ended) = Shared::start(node, self.records);
            let handle = server.start(module(chain)?);
            let url = format!("http://{address}");
            let accounts: Vec<_> =
                ACCOUNTS.iter().zip(KEYS).map(|(a, key)| json!({ "address": a, "key": key })).collect();
            let value = json!({ "url": url, "chain_id": chain_id, "bundles": bundles, "accounts": accounts });
            report.finish(&value, || text(&url, chain_id, bundles.as_deref()))?;
            let ended = tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted.map_err(anyhow::Error::from),
                reason = ended => {
                    Err(anyhow::anyhow!(reason.unwrap_or_else(|_| "the chain has stopped; the log says why".into())))
                }
            };
            // Who has asked last gets the answer.
            handle.stop().ok();
            handle.stopped().await;
            ended.map(|()| ExitCode::SUCCESS)
        })
    }
}

/// The chain without a configuration.
fn preset(embedded: alloy_primitives::B256) -> ChainConfig {
    ChainConfig {
        chain_id: 59_001,
        tx_gas_cap: Some(500_000_000),
        registry: Some(RegistryConfig {
            maturity_seconds: 10,
            notice_seconds: 60,
            max_model_mebibytes: 2_048,
            bond_gwei: 1_000_000_000,
            collector: Address::ZERO,
            ..RegistryConfig::default()
        }),
        market: Some(Market::default()),
        ..ChainConfig::embedded(embedded)
    }
}

fn text(url: &str, chain_id: u64, bundles: Option<&std::path::Path>) -> String {
    let mut text = format!("chain {chain_id} at {url}, until ctrl-c\n");
    if let Some(bundles) = bundles {
        let _ = writeln!(text, "bundles of registered models in {}", bundles.display());
    }
    let _ = writeln!(
        text,
        "\naccounts with {COINS} coins each (their keys are public: never use them elsewhere)"
    );
    for (address, key) in ACCOUNTS.iter().zip(KEYS) {
        let _ = writeln!(text, "{address}  {key}");
    }
    text
}
