//! Blocks, transactions and logs as JSON-RPC shows them.

use alloy_consensus::{ReceiptEnvelope, Transaction as _, TxEnvelope};
use alloy_primitives::B256;
use alloy_rpc_types_eth as rpc;
use metis_vm::Outcome;

use super::chain::{Block, receipt};

/// A block, with whole transactions or their hashes.
pub fn block(block: &Block, whole: bool) -> rpc::Block {
    let header = rpc::Header::from_consensus(block.header.clone(), None, None);
    let transactions = match (&block.transaction, whole) {
        (None, true) => rpc::BlockTransactions::Full(Vec::new()),
        (None, false) => rpc::BlockTransactions::Hashes(Vec::new()),
        (Some(_), true) => rpc::BlockTransactions::Full(transaction(block).into_iter().collect()),
        (Some((tx, _)), false) => rpc::BlockTransactions::Hashes(vec![*tx.tx_hash()]),
    };
    rpc::Block { header, uncles: Vec::new(), transactions, withdrawals: None }
}

/// A block's transaction.
pub fn transaction(block: &Block) -> Option<rpc::Transaction> {
    let (tx, outcome) = block.transaction.as_ref()?;
    Some(rpc::Transaction {
        inner: tx.clone(),
        block_hash: Some(block.header.hash()),
        block_number: Some(block.header.number),
        transaction_index: Some(0),
        effective_gas_price: Some(gas_price(block, tx, outcome)),
        block_timestamp: Some(block.header.timestamp),
    })
}

/// The receipt of a block's transaction.
pub fn transaction_receipt(block: &Block) -> Option<rpc::TransactionReceipt<ReceiptEnvelope<rpc::Log>>> {
    let (tx, outcome) = block.transaction.as_ref()?;
    let hash = *tx.tx_hash();
    let mut index = 0;
    let inner = receipt(tx, outcome).map_logs(|log| {
        index += 1;
        rpc_log(block, hash, index - 1, log)
    });
    Some(rpc::TransactionReceipt {
        inner,
        transaction_hash: hash,
        transaction_index: Some(0),
        block_hash: Some(block.header.hash()),
        block_number: Some(block.header.number),
        gas_used: outcome.gas_used,
        effective_gas_price: gas_price(block, tx, outcome),
        blob_gas_used: None,
        blob_gas_price: None,
        from: tx.signer(),
        to: tx.to(),
        contract_address: outcome.created_address,
    })
}

/// What a transaction paid for each unit of gas, rounded up: inference may have had a price of its own (`docs/market.md`, section 3).
fn gas_price(block: &Block, tx: &TxEnvelope, outcome: &Outcome) -> u128 {
    let base_fee = block.header.base_fee_per_gas;
    let price = tx.effective_gas_price(base_fee);
    let metered_price = tx.effective_gas_price(block.inference_base_fee.or(base_fee));
    let metered = outcome.metered_gas_used.min(outcome.gas_used);
    let paid = price
        .saturating_mul((outcome.gas_used - metered).into())
        .saturating_add(metered_price.saturating_mul(metered.into()));
    if outcome.gas_used == 0 { price } else { paid.div_ceil(outcome.gas_used.into()) }
}

/// The logs of a block.
pub fn logs(block: &Block) -> Vec<rpc::Log> {
    let Some((tx, outcome)) = &block.transaction else { return Vec::new() };
    let hash = *TxEnvelope::tx_hash(tx);
    let logs = super::chain::logs(outcome).into_iter().zip(0..);
    logs.map(|(log, index)| rpc_log(block, hash, index, log)).collect()
}

fn rpc_log(block: &Block, transaction: B256, index: u64, log: alloy_primitives::Log) -> rpc::Log {
    rpc::Log {
        inner: log,
        block_hash: Some(block.header.hash()),
        block_number: Some(block.header.number),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(transaction),
        transaction_index: Some(0),
        log_index: Some(index),
        removed: false,
    }
}
