//! A block, executed again.

use super::{
    BlocksError, PreState, RecordedBlock, Unrecorded, digest,
    json::Transaction,
    receipt::{self, Receipt},
};
use crate::blob_price;
use alloy_primitives::{Address, B256, TxKind, U256, address};
use metis_vm::{FusionCache, SpecId, WithFusion};
use revm::{
    Context, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    context_interface::{block::BlobExcessGasAndPrice, either::Either},
    database::CacheDB,
    handler::{Handler, MainnetHandler, SystemCallTx},
    primitives::eip4844::{BLOB_BASE_FEE_UPDATE_FRACTION_CANCUN, BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE},
};
use std::sync::Arc;

/// Mainnet's chain id.
const CHAIN_ID: u64 = 1;

/// The contract that keeps the beacon chain's roots, from Cancun on (EIP-4788).
const BEACON_ROOTS: Address = address!("0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02");

/// The contract that keeps the hashes of past blocks, from Prague on (EIP-2935).
const BLOCK_HISTORY: Address = address!("0x0000F90827F1C53a10cb7A02335B175320002935");

/// What came of a block, next to what its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockReport {
    /// The block.
    pub number: u64,
    /// Its fork.
    pub fork: SpecId,
    /// The gas that the transactions used.
    pub gas_used: u64,
    /// The gas that the header says.
    pub header_gas_used: u64,
    /// Whether the logs bloom is the header's.
    pub logs_bloom_matches: bool,
    /// The root of the receipts; `None` before Byzantium, where it cannot be computed from a part of the state.
    pub receipts_root: Option<B256>,
    /// The receipts root that the header says.
    pub header_receipts_root: B256,
    /// What came of each transaction.
    pub transactions: Vec<Executed>,
    /// What all of them did ([`digest::sequence`]).
    pub digest: B256,
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Status, gas, output and logs.
    pub result: ExecutionResult<HaltReason>,
    /// The same and the changes of the state, as 32 bytes ([`digest::transaction`]).
    pub digest: B256,
}

impl BlockReport {
    /// Whether the gas is the header's.
    pub fn gas_matches(&self) -> bool {
        self.gas_used == self.header_gas_used
    }

    /// Whether the receipts root is the header's; `None` where it cannot be computed.
    pub fn receipts_match(&self) -> Option<bool> {
        self.receipts_root.map(|root| root == self.header_receipts_root)
    }

    /// Whether everything that can be compared is as the header says.
    pub fn matches(&self) -> bool {
        self.gas_matches() && self.logs_bloom_matches && self.receipts_match() != Some(false)
    }
}

impl RecordedBlock {
    /// Executes the block from its recorded state, with the interpreter that `cache` names.
    ///
    /// # Errors
    /// [`BlocksError`] when the block cannot be executed: a malformed header or transaction, one that is not valid at its
    /// place, or a read that the recording cannot answer.
    pub fn replay(&self, cache: &FusionCache) -> Result<BlockReport, BlocksError> {
        let block = self.number();
        let cfg = CfgEnv::new_with_spec(self.fork).with_chain_id(CHAIN_ID);
        let mut evm = Context::mainnet()
            .with_db(CacheDB::new(Arc::<PreState>::clone(&self.state)))
            .with_block(self.block_env()?)
            .with_cfg(cfg)
            .build_mainnet()
            .with_fusion(cache.clone());

        for (contract, word) in self.system_calls()? {
            evm.ctx.tx = TxEnv::new_system_tx(contract, word.into());
            MainnetHandler::default()
                .run_system_call(&mut evm)
                .map_err(|source| BlocksError::SystemCall { block, source: Box::new(source) })?;
            let changed = evm.finalize();
            evm.commit(changed);
        }

        let mut gas_used = 0_u64;
        let mut receipts = Vec::with_capacity(self.block.transactions.len());
        let mut transactions = Vec::with_capacity(self.block.transactions.len());
        for (index, tx) in self.block.transactions.iter().enumerate() {
            let invalid = |problem| BlocksError::Transaction { block, index, problem };
            let failed = |source: EVMError<Unrecorded, InvalidTransaction>| BlocksError::Execution {
                block,
                index,
                source: Box::new(source),
            };
            let tx = tx_env(tx).map_err(invalid)?;
            let kind = tx.tx_type;
            let done = evm.transact(tx).map_err(failed)?;
            let digest = digest::transaction(&done.result, &done.state);
            evm.commit(done.state);
            let result = done.result;
            gas_used = gas_used.saturating_add(result.gas().tx_gas_used());
            receipts.push(Receipt::new(kind, result.is_success(), gas_used, result.logs().to_vec()));
            transactions.push(Executed { result, digest });
        }

        let digests: Vec<B256> = transactions.iter().map(|executed| executed.digest).collect();
        let root = self.fork.is_enabled_in(SpecId::BYZANTIUM).then(|| receipt::root(&receipts));
        Ok(BlockReport {
            number: block,
            fork: self.fork,
            gas_used,
            header_gas_used: self.block.gas_used.to(),
            logs_bloom_matches: receipt::bloom(&receipts) == self.block.logs_bloom,
            receipts_root: root,
            header_receipts_root: self.block.receipts_root,
            digest: digest::sequence(&digests),
            transactions,
        })
    }

    fn block_env(&self) -> Result<BlockEnv, BlocksError> {
        let header = &self.block;
        let basefee = match self.since(SpecId::LONDON) {
            true => self.required(header.base_fee_per_gas, "baseFeePerGas")?.to(),
            false => 0,
        };
        let prevrandao = match self.since(SpecId::MERGE) {
            true => Some(self.required(header.mix_hash, "mixHash")?),
            false => None,
        };
        let blob_excess_gas_and_price = match self.since(SpecId::CANCUN) {
            true => Some(self.blob_gas()?),
            false => None,
        };
        Ok(BlockEnv {
            number: U256::from(header.number),
            beneficiary: header.miner,
            timestamp: U256::from(header.timestamp),
            gas_limit: header.gas_limit.to(),
            basefee,
            difficulty: header.difficulty,
            prevrandao,
            blob_excess_gas_and_price,
            slot_num: 0,
        })
    }

    fn blob_gas(&self) -> Result<BlobExcessGasAndPrice, BlocksError> {
        const FIELD: &str = "excessBlobGas";
        let excess: u64 = self.required(self.block.excess_blob_gas, FIELD)?.to();
        let fraction = match self.since(SpecId::PRAGUE) {
            true => BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE,
            false => BLOB_BASE_FEE_UPDATE_FRACTION_CANCUN,
        };
        self.required(blob_price::of(excess, fraction), FIELD)
    }

    /// The contracts that the block itself calls before its first transaction, with the word that each gets.
    fn system_calls(&self) -> Result<Vec<(Address, B256)>, BlocksError> {
        let mut calls = Vec::new();
        if self.since(SpecId::CANCUN) {
            let root = self.required(self.block.parent_beacon_block_root, "parentBeaconBlockRoot")?;
            calls.push((BEACON_ROOTS, root));
        }
        if self.since(SpecId::PRAGUE) {
            calls.push((BLOCK_HISTORY, self.block.parent_hash));
        }
        Ok(calls)
    }

    fn since(&self, fork: SpecId) -> bool {
        self.fork.is_enabled_in(fork)
    }

    fn required<T>(&self, value: Option<T>, field: &'static str) -> Result<T, BlocksError> {
        value.ok_or(BlocksError::Header { block: self.number(), field })
    }
}

/// revm's form of a transaction. Whether it is valid in its block is for the handler to say.
fn tx_env(tx: &Transaction) -> Result<TxEnv, &'static str> {
    let tx_type = match tx.kind.to::<u64>() {
        known @ 0..=4 => known as u8,
        _ => return Err("unknown transaction type"),
    };
    // From type 2 on, what the sender offers; `gasPrice` is then what came of it.
    let (price, priority) = match tx_type {
        0 | 1 => (tx.gas_price.ok_or("no gasPrice")?, None),
        _ => {
            let tip = tx.max_priority_fee_per_gas.ok_or("no maxPriorityFeePerGas")?;
            (tx.max_fee_per_gas.ok_or("no maxFeePerGas")?, Some(tip.to()))
        }
    };
    Ok(TxEnv {
        tx_type,
        caller: tx.from,
        gas_limit: tx.gas.to(),
        gas_price: price.to(),
        kind: tx.to.map_or(TxKind::Create, TxKind::Call),
        value: tx.value,
        data: tx.input.clone(),
        nonce: tx.nonce.to(),
        chain_id: tx.chain_id.map(|id| id.to()),
        access_list: tx.access_list.clone(),
        gas_priority_fee: priority,
        blob_hashes: tx.blob_versioned_hashes.clone(),
        max_fee_per_blob_gas: tx.max_fee_per_blob_gas.unwrap_or_default().to(),
        authorization_list: tx.authorization_list.iter().cloned().map(Either::Left).collect(),
    })
}
