//! Blocks, and transactions that become blocks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::transaction::{Recovered, SignerRecoverable};
use alloy_consensus::{
    Eip658Value, Header, Receipt, ReceiptEnvelope, Sealable, Sealed, SignableTransaction, Transaction as _,
    TxEnvelope, TypedTransaction,
};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_network::TxSignerSync;
use alloy_primitives::{Address, B256, Bloom, Bytes, LogData, TxKind, U256, logs_bloom};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context;
use metis_precompiles::{MarketHeader, MetisPrecompiles};
use metis_vm::{Account, BlockInfo, Outcome, Record, State, Transaction, Vm, VmError};
use thiserror::Error;

use super::{ACCOUNTS, COINS, KEYS};
use crate::node::Node;
use crate::wallet::UNIT;

/// Wei per gas that every block burns.
pub const BASE_FEE: u64 = 1_000_000_000;
/// Blocks that can be asked for; older ones are forgotten.
const KEPT: usize = 100_000;

/// A chain.
#[derive(Debug)]
pub struct Chain {
    node: Node,
    vm: Vm<MetisPrecompiles>,
    blocks: Vec<Block>,
    /// The number of the first block that is kept.
    first: u64,
    transactions: BTreeMap<B256, u64>,
    market: MarketHeader,
    /// Seconds by which this chain's time is ahead of the clock.
    ahead: u64,
    /// Where each block is written as a record.
    records: Option<PathBuf>,
    /// Why it cannot go on.
    broken: Option<String>,
}

/// A block of at most one transaction.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its header.
    pub header: Sealed<Header>,
    /// The transaction with its sender, and what came of it.
    pub transaction: Option<(Recovered<TxEnvelope>, Outcome)>,
    /// What inference cost in it, wei per gas; without a market as much as everything else.
    pub inference_base_fee: Option<u64>,
}

/// A transaction that does not become a block.
#[derive(Debug, Error)]
pub enum SendError {
    /// Not a signed transaction.
    #[error("not a signed transaction: {0}")]
    Malformed(String),
    /// For another chain, or for any.
    #[error("signed for {}, and this is chain {expected}; sign with chain id {expected} (EIP-155)", chain(.actual))]
    OtherChain {
        /// This chain's id.
        expected: u64,
        /// The transaction's.
        actual: Option<u64>,
    },
    /// A kind of transaction that this chain does not execute.
    #[error("transactions of type {0} are not executed here; send one of type 0 or 2 without an access list")]
    Unsupported(u8),
    /// It may not be in a block, or this node cannot execute it.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A time that no contract expects.
    #[error("this chain's time cannot be more than {MOST_AHEAD} seconds ahead of the clock")]
    FarAhead,
    /// It is in a block whose record cannot be written; the chain ends with it.
    #[error("{0}")]
    Record(String),
}

/// Seconds by which a chain's time may be ahead of the clock: a hundred years.
const MOST_AHEAD: u64 = 100 * 365 * 86_400;

fn chain(id: &Option<u64>) -> String {
    id.map_or("any chain".to_owned(), |id| format!("chain {id}"))
}

impl Chain {
    /// A chain at its genesis, on which [`ACCOUNTS`] have money.
    pub fn new(node: Node, records: Option<PathBuf>) -> Self {
        let rich = Account { balance: U256::from(COINS) * U256::from(UNIT), ..Account::default() };
        let state = State::from_iter(ACCOUNTS.map(|address| (address, rich.clone())));
        let vm = node.vm(state);
        let mut chain = Self {
            node,
            vm,
            blocks: Vec::new(),
            first: 0,
            transactions: BTreeMap::new(),
            market: MarketHeader::default(),
            ahead: 0,
            records,
            broken: None,
        };
        let genesis = BlockInfo { number: 0, timestamp: now(), ..chain.next_block() };
        chain.vm.set_block(genesis);
        chain.seal(None);
        chain
    }

    /// The node behind it.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The last block.
    pub fn latest(&self) -> &Block {
        // The genesis is sealed when the chain is made.
        &self.blocks[self.blocks.len() - 1]
    }

    /// A block by its number.
    pub fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// A block by its hash.
    pub fn block_by_hash(&self, hash: B256) -> Option<&Block> {
        self.blocks.iter().rev().find(|block| block.header.hash() == hash)
    }

    /// The block of a transaction.
    pub fn block_of(&self, transaction: B256) -> Option<&Block> {
        self.block(*self.transactions.get(&transaction)?)
    }

    /// The machine, on the state after the last block.
    pub fn vm(&self) -> &Vm<MetisPrecompiles> {
        &self.vm
    }

    /// Executes a transaction in the block that would come now, and keeps nothing.
    pub fn simulate(&mut self, tx: &Transaction) -> Result<Outcome, VmError> {
        let block = self.next_block();
        self.vm.set_block(block);
        let outcome = self.vm.simulate(tx);
        if self.records.is_none() {
            // Nobody reads them.
            self.node.forget_answers();
        }
        outcome
    }

    /// The most gas that a transaction can have.
    pub fn most_gas(&self) -> u64 {
        self.vm.complete(&Transaction::call(Address::ZERO, Address::ZERO, Bytes::new())).gas
    }

    /// Why the chain cannot go on, if it cannot.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Executes a signed transaction and makes it a block. One that may not be in a block, or that this node cannot execute, changes nothing.
    pub fn send(&mut self, raw: &[u8]) -> Result<B256, SendError> {
        let envelope = TxEnvelope::decode_2718_exact(raw).map_err(|e| SendError::Malformed(e.to_string()))?;
        let expected = self.node.config().chain_id;
        if envelope.chain_id() != Some(expected) {
            return Err(SendError::OtherChain { expected, actual: envelope.chain_id() });
        }
        let is_known = matches!(envelope, TxEnvelope::Legacy(_) | TxEnvelope::Eip1559(_));
        if !is_known || envelope.access_list().is_some_and(|list| !list.is_empty()) {
            return Err(SendError::Unsupported(envelope.tx_type().into()));
        }
        let sender = envelope.recover_signer().map_err(|e| SendError::Malformed(e.to_string()))?;
        let tx = transaction(sender, &envelope);
        let block = self.next_block();
        self.vm.set_block(block);
        let chain = self.node.chain().unwrap_or_default();
        let record = self.records.is_some().then(|| (Record::begin(&self.vm, chain), self.vm.complete(&tx)));
        let outcome = self.vm.transact(&tx)?;
        let hash = *envelope.tx_hash();
        let executed = outcome.clone();
        self.seal(Some((Recovered::new_unchecked(envelope, sender), outcome)));
        self.transactions.insert(hash, self.latest().header.number);
        if let Some((mut record, complete)) = record {
            record.push(complete, executed);
            record.end(&self.vm);
            // Those of simulations are among them: what is estimated first is remembered, and not answered again.
            let written = self.node.take_answers().and_then(|answers| {
                record.answers = answers;
                self.write_record(&record)
            });
            if let Err(error) = written {
                // What was promised to be written down is not: nothing more is added.
                let reason =
                    format!("transaction {hash} is in a block, and its record cannot be written: {error:#}");
                self.broken = Some(reason.clone());
                return Err(SendError::Record(reason));
            }
        }
        Ok(hash)
    }

    /// Signs a transaction as one of [`ACCOUNTS`] and sends it; what it leaves open is filled in.
    pub fn send_as(&mut self, from: Address, request: TransactionRequest) -> Result<B256, SendError> {
        let malformed = |error: String| SendError::Malformed(error);
        let known = ACCOUNTS.iter().zip(KEYS).find(|(account, _)| **account == from);
        let (_, key) = known.ok_or_else(|| malformed(format!("this node has no key of {from}")))?;
        let signer: PrivateKeySigner = key.parse().map_err(|_| malformed("its key".to_owned()))?;
        let mut request = request;
        // As in calls, no receiver makes a contract.
        request.to.get_or_insert(TxKind::Create);
        request.nonce.get_or_insert(self.vm.nonce(from));
        request.chain_id.get_or_insert(self.node.config().chain_id);
        if request.gas_price.is_none() {
            let fee = u128::from(BASE_FEE.max(self.next_inference_fee()));
            let tip = *request.max_priority_fee_per_gas.get_or_insert(fee.min(u128::from(BASE_FEE)));
            request.max_fee_per_gas.get_or_insert(fee.saturating_mul(2).saturating_add(tip));
        }
        let most = self.most_gas();
        request.gas.get_or_insert(most);
        let unsigned = request.build_typed_tx().map_err(|_| malformed("parts are missing".to_owned()))?;
        let signed = |signature: alloy_signer::Result<_>| signature.map_err(|e| malformed(e.to_string()));
        let envelope = match unsigned {
            TypedTransaction::Legacy(mut tx) => {
                let signature = signed(signer.sign_transaction_sync(&mut tx))?;
                TxEnvelope::from(tx.into_signed(signature))
            }
            TypedTransaction::Eip1559(mut tx) => {
                let signature = signed(signer.sign_transaction_sync(&mut tx))?;
                TxEnvelope::from(tx.into_signed(signature))
            }
            other => return Err(SendError::Unsupported(other.tx_type().into())),
        };
        self.send(&envelope.encoded_2718())
    }

    /// Makes an empty block.
    pub fn mine(&mut self) {
        let block = self.next_block();
        self.vm.set_block(block);
        self.seal(None);
    }

    /// Puts the chain's time ahead. Returns by how much it is ahead of the clock.
    pub fn increase_time(&mut self, seconds: u64) -> Result<u64, SendError> {
        // Blocks that came faster than one each second are ahead already.
        let ahead = self.ahead.max(self.latest().header.timestamp.saturating_sub(now()));
        let ahead = ahead.checked_add(seconds).filter(|ahead| *ahead <= MOST_AHEAD);
        self.ahead = ahead.ok_or(SendError::FarAhead)?;
        Ok(self.ahead)
    }

    /// What inference costs in the block that would come now, wei per gas.
    pub fn next_inference_fee(&self) -> u64 {
        self.next_block().metered.map_or(0, |metered| metered.base_fee)
    }

    /// The block that would come now.
    fn next_block(&self) -> BlockInfo {
        let rules = self.node.rules().block.clone();
        let Some(parent) = self.blocks.last() else { return BlockInfo { base_fee: BASE_FEE, ..rules } };
        let metered = self.node.config().market.map(|market| {
            let excess = market.next_excess(self.market, BASE_FEE);
            market.block(excess, BASE_FEE)
        });
        BlockInfo {
            number: parent.header.number + 1,
            timestamp: now().saturating_add(self.ahead).max(parent.header.timestamp.saturating_add(1)),
            base_fee: BASE_FEE,
            metered,
            ..rules
        }
    }

    /// Ends the block that the machine is in.
    fn seal(&mut self, transaction: Option<(Recovered<TxEnvelope>, Outcome)>) {
        let info = self.vm.config().block.clone();
        let receipts: Vec<ReceiptEnvelope> =
            transaction.iter().map(|(tx, outcome)| receipt(tx, outcome)).collect();
        let transactions: Vec<&TxEnvelope> = transaction.iter().map(|(tx, _)| tx.inner()).collect();
        let header = Header {
            parent_hash: self.blocks.last().map_or(B256::ZERO, |parent| parent.header.hash()),
            beneficiary: info.coinbase,
            // This chain's digest of the state: not a Merkle root (docs/evm.md).
            state_root: self.vm.state().digest(),
            transactions_root: calculate_transaction_root(&transactions),
            receipts_root: calculate_receipt_root(&receipts),
            logs_bloom: transaction.as_ref().map_or(Bloom::ZERO, |(_, outcome)| bloom(outcome)),
            number: info.number,
            gas_limit: info.gas_limit,
            gas_used: transaction.as_ref().map_or(0, |(_, outcome)| outcome.gas_used),
            timestamp: info.timestamp,
            mix_hash: info.prevrandao,
            base_fee_per_gas: Some(info.base_fee),
            ..Header::default()
        };
        if let (Some(market), Some(_)) = (self.node.config().market, self.blocks.last()) {
            let excess_gas = market.next_excess(self.market, BASE_FEE);
            self.market = MarketHeader { excess_gas, used_gas: self.vm.metered() };
        }
        let inference_base_fee = info.metered.map(|metered| metered.base_fee);
        self.blocks.push(Block { header: header.seal_slow(), transaction, inference_base_fee });
        if self.blocks.len() > KEPT {
            let block = self.blocks.remove(0);
            self.first += 1;
            if let Some((tx, _)) = &block.transaction {
                self.transactions.remove(tx.tx_hash());
            }
        }
    }

    fn write_record(&self, record: &Record) -> anyhow::Result<()> {
        let Some(folder) = &self.records else { return Ok(()) };
        let path = folder.join(format!("block-{}.json", record.block.number));
        std::fs::write(&path, record.to_json()?).with_context(|| path.display().to_string())
    }
}

/// A transaction as the machine takes it.
fn transaction(from: Address, envelope: &TxEnvelope) -> Transaction {
    let tx = match envelope.to() {
        Some(to) => Transaction::call(from, to, envelope.input().clone()),
        None => Transaction::create(from, envelope.input().clone()),
    };
    Transaction {
        gas: Some(envelope.gas_limit()),
        gas_price: Some(envelope.max_fee_per_gas()),
        max_priority_fee: envelope.max_priority_fee_per_gas(),
        nonce: Some(envelope.nonce()),
        ..tx.with_value(envelope.value())
    }
}

/// An outcome's events.
pub(super) fn logs(outcome: &Outcome) -> Vec<alloy_primitives::Log> {
    let log = |log: &metis_vm::Log| alloy_primitives::Log {
        address: log.address,
        data: LogData::new_unchecked(log.topics.clone(), log.data.clone()),
    };
    outcome.logs.iter().map(log).collect()
}

fn bloom(outcome: &Outcome) -> Bloom {
    logs_bloom(&logs(outcome))
}

/// The receipt of a block's only transaction.
pub(super) fn receipt(tx: &TxEnvelope, outcome: &Outcome) -> ReceiptEnvelope {
    let status = Eip658Value::Eip658(outcome.is_success());
    let receipt = Receipt { status, cumulative_gas_used: outcome.gas_used, logs: logs(outcome) };
    match tx {
        TxEnvelope::Eip1559(_) => ReceiptEnvelope::Eip1559(receipt.with_bloom()),
        _ => ReceiptEnvelope::Legacy(receipt.with_bloom()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
