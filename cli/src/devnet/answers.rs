//! Blocks, transactions and logs as JSON-RPC shows them.

use alloy_consensus::{ReceiptEnvelope, Transaction as _, TxEnvelope};
use alloy_primitives::B256;
use alloy_rpc_types_eth as rpc;

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
    let (tx, _) = block.transaction.as_ref()?;
    Some(rpc::Transaction {
        inner: tx.clone(),
        block_hash: Some(block.header.hash()),
        block_number: Some(block.header.number),
        transaction_index: Some(0),
        effective_gas_price: Some(tx.effective_gas_price(block.header.base_fee_per_gas)),
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
        effective_gas_price: tx.effective_gas_price(block.header.base_fee_per_gas),
        blob_gas_used: None,
        blob_gas_price: None,
        from: tx.signer(),
        to: tx.to(),
        contract_address: outcome.created_address,
    })
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
