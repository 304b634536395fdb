//! A chain with a model registry, asked and changed through JSON-RPC.

use std::time::Duration;

use alloy_network::{EthereumWallet, TransactionBuilder};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_provider::{DynProvider, Provider, ProviderBuilder};
use alloy_rpc_types_eth::{TransactionReceipt, TransactionRequest};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use alloy_transport::TransportError;
use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use metis_precompiles::REGISTRY_ADDRESS;
use reqwest::Url;
use tokio::runtime::Runtime;

use super::costs::Fees;
use crate::errors::describe_error;

/// The chain that is talked to.
#[derive(Clone, Debug, Args)]
pub struct Endpoint {
    /// The chain's JSON-RPC, http or https.
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// Seconds to wait for an answer, and for a transaction to be in a block.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// A chain.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    provider: DynProvider,
    endpoint: Endpoint,
    /// Whose transactions it sends; nobody's if it only asks.
    pub sender: Option<Address>,
    /// The chain's id.
    pub chain_id: u64,
}

impl Client {
    /// A chain with a model registry, for who only asks (no signer) or signs.
    pub fn connect(endpoint: &Endpoint, signer: Option<PrivateKeySigner>) -> anyhow::Result<Self> {
        let at = || format!("--rpc {}", endpoint.rpc);
        let url: Url = endpoint.rpc.parse().with_context(at)?;
        ensure!(matches!(url.scheme(), "http" | "https"), "{}: only http and https are spoken here", at());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = crate::http::asynchronous(Duration::from_secs(endpoint.timeout))?;
        let sender = signer.as_ref().map(PrivateKeySigner::address);
        let builder = ProviderBuilder::new();
        let provider = match signer {
            Some(signer) => builder.wallet(EthereumWallet::from(signer)).connect_reqwest(http, url).erased(),
            None => builder.connect_reqwest(http, url).erased(),
        };
        let mut client = Self { runtime, provider, endpoint: endpoint.clone(), sender, chain_id: 0 };
        client.chain_id = client.wait(client.provider.get_chain_id()).with_context(at)?;
        let code = client.wait(client.provider.get_code_at(REGISTRY_ADDRESS)).with_context(at)?;
        ensure!(
            !code.is_empty(),
            "{}: chain {} has no model registry at {REGISTRY_ADDRESS}",
            at(),
            client.chain_id
        );
        Ok(client)
    }

    /// Asks a contract.
    pub fn view<C: SolCall>(&self, to: Address, call: &C) -> anyhow::Result<C::Return> {
        self.view_paid(to, U256::ZERO, call)
    }

    /// Asks a contract as if money were sent along.
    pub fn view_paid<C: SolCall>(&self, to: Address, value: U256, call: &C) -> anyhow::Result<C::Return> {
        let request = self.request(to, value, call);
        let output = self.wait(async { self.provider.call(request).await }).context(C::SIGNATURE)?;
        C::abi_decode_returns(&output).with_context(|| format!("the answer of {}", C::SIGNATURE))
    }

    /// What gas costs now.
    pub fn fees(&self) -> anyhow::Result<Fees> {
        let fees = self.wait(self.provider.estimate_eip1559_fees()).context("fees")?;
        Ok(Fees { max_fee: fees.max_fee_per_gas, tip: fees.max_priority_fee_per_gas })
    }

    /// Gas that a transaction needs, or why it would fail.
    pub fn estimate(&self, to: Address, value: U256, call: &impl SolCall) -> anyhow::Result<u64> {
        let request = self.request(to, value, call);
        self.wait(async { self.provider.estimate_gas(request).await })
    }

    /// Money of an account.
    pub fn balance(&self, of: Address) -> anyhow::Result<U256> {
        self.wait(async { self.provider.get_balance(of).await }).context("the balance")
    }

    /// The latest block's time.
    pub fn time(&self) -> anyhow::Result<u64> {
        let block = self.wait(async { self.provider.get_block(alloy_eips::BlockId::latest()).await })?;
        Ok(block.context("the chain has no latest block")?.header.timestamp)
    }

    /// Sends a transaction and waits until it is in a block.
    ///
    /// # Errors
    /// Why it was not sent, or did not succeed. One that was sent and is not in a block in time is named by its hash.
    pub fn send<C: SolCall>(
        &self,
        to: Address,
        value: U256,
        call: &C,
        gas: u64,
        fees: Fees,
        progress: &ProgressBar,
    ) -> anyhow::Result<TransactionReceipt> {
        let name = C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE);
        progress.set_message(format!("{name}: sending"));
        let request = self.request(to, value, call);
        let request = request
            .with_gas_limit(gas)
            .with_max_fee_per_gas(fees.max_fee)
            .with_max_priority_fee_per_gas(fees.tip);
        let pending =
            self.wait(async { self.provider.send_transaction(request).await }).context(name.to_owned())?;
        let hash: B256 = *pending.tx_hash();
        progress.set_message(format!("{name}: waiting for {hash}"));
        let timeout = Duration::from_secs(self.endpoint.timeout);
        let receipt = self.runtime.block_on(async move {
            let watch = pending.with_timeout(Some(timeout));
            watch.get_receipt().await
        });
        let receipt = receipt.with_context(|| {
            format!(
                "{name}: transaction {hash} was sent and is in no block after {} s; look for it before you send it again",
                self.endpoint.timeout
            )
        })?;
        if !receipt.status() {
            bail!("{name}: transaction {hash} is in block {} and failed", receipt.block_number.unwrap_or(0));
        }
        Ok(receipt)
    }

    /// Logs of a contract since genesis with this first topic and second.
    pub fn logs(&self, address: Address, topics: [B256; 2]) -> anyhow::Result<Vec<alloy_primitives::Log>> {
        let filter = alloy_rpc_types_eth::Filter::new()
            .address(address)
            .event_signature(topics[0])
            .topic1(topics[1])
            .from_block(0u64);
        let logs = self.wait(async { self.provider.get_logs(&filter).await }).context("logs")?;
        Ok(logs.into_iter().map(|log| log.inner).collect())
    }

    fn request(&self, to: Address, value: U256, call: &impl SolCall) -> TransactionRequest {
        let request = TransactionRequest::default()
            .with_to(to)
            .with_value(value)
            .with_input(Bytes::from(call.abi_encode()));
        match self.sender {
            Some(sender) => request.with_from(sender),
            None => request,
        }
    }

    fn wait<T>(&self, asked: impl IntoFuture<Output = Result<T, TransportError>>) -> anyhow::Result<T> {
        let asked = asked.into_future();
        self.runtime.block_on(asked).map_err(|error| explain(&error))
    }
}

/// What a chain answered, with a contract's error by its name.
fn explain(error: &TransportError) -> anyhow::Error {
    let Some(answer) = error.as_error_resp() else { return anyhow!("{error}") };
    match answer.as_revert_data().and_then(|data| describe_error(&data)) {
        Some(reason) => anyhow!("it would revert with {reason}"),
        None => anyhow!("{}", answer.message),
    }
}
