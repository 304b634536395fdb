//! A chain with a model registry, asked and changed through JSON-RPC. The node is not trusted with more than what it is asked: which chain a
//! transaction is for is fixed before it is signed, and who sends bounds what it may cost and says which chain is meant (`sending`).

use std::time::{Duration, Instant};

use alloy_eips::Encodable2718;
use alloy_network::{Ethereum, EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_provider::{DynProvider, Provider, ProviderBuilder};
use alloy_rpc_client::RpcClient;
use alloy_rpc_types_eth::{BlockId, Filter, TransactionReceipt, TransactionRequest};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use alloy_transport::TransportError;
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use metis_precompiles::REGISTRY_ADDRESS;
use reqwest::Url;
use tokio::runtime::Runtime;

use super::costs::Fees;
use super::error::ChainError;
use super::transport::Transport;
use crate::http;

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
    timeout: Duration,
    signer: Option<PrivateKeySigner>,
    /// The chain's id.
    pub chain_id: u64,
}

/// What a contract is asked, or told by a transaction.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function's name, for people.
    pub name: &'static str,
    /// The contract.
    pub to: Address,
    /// Money that goes along, in wei.
    pub value: U256,
    data: Bytes,
}

impl Call {
    /// A call without money.
    pub fn new<C: SolCall>(to: Address, call: &C) -> Self {
        let name = C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE);
        Self { name, to, value: U256::ZERO, data: call.abi_encode().into() }
    }

    /// With money.
    #[must_use]
    pub fn with_value(self, value: U256) -> Self {
        Self { value, ..self }
    }
}

/// How long the chain is left alone between two questions about the same thing, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

impl Client {
    /// A chain with a model registry, for who only asks (no signer) or signs.
    pub fn connect(endpoint: &Endpoint, signer: Option<PrivateKeySigner>) -> anyhow::Result<Self> {
        let at = || format!("--rpc {}", http::shown_text(&endpoint.rpc));
        let url: Url = endpoint.rpc.parse().with_context(at)?;
        ensure!(matches!(url.scheme(), "http" | "https"), "{}: only http and https are spoken here", at());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let timeout = Duration::from_secs(endpoint.timeout);
        let rpc = RpcClient::new(Transport::new(url, timeout)?, false);
        // Nothing is filled in by who answers: a transaction is complete when it is signed.
        let provider = ProviderBuilder::new().disable_recommended_fillers().connect_client(rpc).erased();
        let mut client = Self { runtime, provider, timeout, signer, chain_id: 0 };
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
        let output = self.output(&Call::new(to, call))?;
        C::abi_decode_returns(&output).with_context(|| format!("the answer of {}", C::SIGNATURE))
    }

    /// What a call would return now.
    pub fn output(&self, call: &Call) -> anyhow::Result<Bytes> {
        let request = self.request(call);
        self.wait(async { self.provider.call(request).await }).context(call.name)
    }

    /// What gas costs now.
    pub fn fees(&self) -> anyhow::Result<Fees> {
        let fees = self.wait(self.provider.estimate_eip1559_fees()).context("fees")?;
        Ok(Fees { max_fee: fees.max_fee_per_gas, tip: fees.max_priority_fee_per_gas })
    }

    /// Gas that a transaction needs, or why it would fail.
    pub fn estimate(&self, call: &Call) -> Result<u64, ChainError> {
        let request = self.request(call);
        self.wait(async { self.provider.estimate_gas(request).await })
    }

    /// Money of an account.
    pub fn balance(&self, of: Address) -> anyhow::Result<U256> {
        self.wait(async { self.provider.get_balance(of).await }).context("the balance")
    }

    /// The latest block's time and gas limit.
    pub fn latest(&self) -> anyhow::Result<(u64, u64)> {
        let block = self.wait(async { self.provider.get_block(BlockId::latest()).await })?;
        let header = block.context("the chain has no latest block")?.header;
        Ok((header.timestamp, header.gas_limit))
    }

    /// Asks again and again until there is something, for as long as the user waits for a block. `None`: there was nothing until then.
    pub fn until<T>(&self, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
        let (start, mut pause) = (Instant::now(), PAUSES[0]);
        loop {
            if let Some(found) = ask()? {
                return Ok(Some(found));
            }
            if start.elapsed() >= self.timeout {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Signs a transaction for this chain, sends it and waits until it is in a block.
    ///
    /// # Errors
    /// Why it was not sent, or did not succeed. One that may be on its way is named by its hash.
    pub fn send(
        &self,
        call: &Call,
        gas: u64,
        fees: Fees,
        progress: &ProgressBar,
    ) -> anyhow::Result<TransactionReceipt> {
        let name = call.name;
        let signer = self.signer.clone().context("there is no key to sign with")?;
        let sender = signer.address();
        progress.set_message(format!("{name}: sending"));
        let nonce = self
            .wait(async { self.provider.get_transaction_count(sender).pending().await })
            .with_context(|| format!("{name}: the account's nonce"))?;
        let request = self
            .request(call)
            .with_nonce(nonce)
            .with_chain_id(self.chain_id)
            .with_gas_limit(gas)
            .with_max_fee_per_gas(fees.max_fee)
            .with_max_priority_fee_per_gas(fees.tip);
        let wallet = EthereumWallet::from(signer);
        let signed =
            self.runtime.block_on(NetworkTransactionBuilder::<Ethereum>::build(request.clone(), &wallet));
        let signed = signed.with_context(|| format!("{name}: signing"))?;
        let (hash, raw) = (*signed.tx_hash(), signed.encoded_2718());
        match self.wait(async { self.provider.send_raw_transaction(&raw).await }) {
            Ok(_) => {}
            Err(error @ ChainError::NoAnswer(_)) => bail!(
                "{name}: transaction {hash} may have been sent ({error}); look for it before you send it again"
            ),
            // A node may refuse what it has passed on, or what it knows already.
            Err(error) => {
                let known = self.wait(async { self.provider.get_transaction_by_hash(hash).await });
                ensure!(
                    matches!(known, Ok(None)),
                    "{name}: transaction {hash} may have been sent ({error}); look for it before you send it again"
                );
                return Err(error).with_context(|| format!("{name}: transaction {hash} was not sent"));
            }
        }
        progress.set_message(format!("{name}: waiting for {hash}"));
        let receipt = self.receipt(name, hash)?;
        if !receipt.status() {
            let number = receipt.block_number.unwrap_or_default();
            // The state may be another one by now; then the same call says something else, or nothing.
            let replayed =
                self.wait(async { self.provider.call(request).block(BlockId::number(number)).await });
            let why = replayed.err().map_or_else(String::new, |error| format!(": {error}"));
            bail!("{name}: transaction {hash} is in block {number} and failed{why}");
        }
        Ok(receipt)
    }

    /// The receipt of a transaction that was sent.
    fn receipt(&self, name: &str, hash: B256) -> anyhow::Result<TransactionReceipt> {
        let mut last = None;
        let receipt = self.until(|| {
            match self.wait(async { self.provider.get_transaction_receipt(hash).await }) {
                Ok(found) => {
                    last = None;
                    Ok(found)
                }
                // It does not undo the transaction: ask again.
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        })?;
        receipt.with_context(|| {
            let seconds = self.timeout.as_secs();
            let why = match last {
                Some(error) => format!("the chain has not said for {seconds} s where it is ({error})"),
                None => format!("is in no block after {seconds} s"),
            };
            format!("{name}: transaction {hash} was sent, and {why}; look for it before you send it again")
        })
    }

    /// Logs of a contract from a block on, with this first topic and second.
    pub fn logs(
        &self,
        address: Address,
        topics: [B256; 2],
        from: u64,
    ) -> Result<Vec<alloy_primitives::Log>, ChainError> {
        let filter =
            Filter::new().address(address).event_signature(topics[0]).topic1(topics[1]).from_block(from);
        let logs = self.wait(async { self.provider.get_logs(&filter).await })?;
        Ok(logs.into_iter().map(|log| log.inner).collect())
    }

    fn request(&self, call: &Call) -> TransactionRequest {
        let request = TransactionRequest::default()
            .with_to(call.to)
            .with_value(call.value)
            .with_input(call.data.clone());
        match &self.signer {
            Some(signer) => request.with_from(signer.address()),
            None => request,
        }
    }

    fn wait<T>(&self, asked: impl IntoFuture<Output = Result<T, TransportError>>) -> Result<T, ChainError> {
        self.runtime.block_on(asked.into_future()).map_err(ChainError::from)
    }
}
