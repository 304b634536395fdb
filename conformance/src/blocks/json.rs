//! Blocks, transactions and accounts as the recording writes them: JSON-RPC's objects, without the fields that
//! execution does not need.

use alloy_primitives::{
    Address, B256, Bloom, Bytes, U64, U128, U256,
    map::{AddressMap, HashMap},
};
use revm::context::transaction::{AccessList, SignedAuthorization};
use serde::Deserialize;

/// `eth_getBlockByNumber` with whole transactions.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The block's number.
    pub number: U64,
    /// Seconds since 1970.
    pub timestamp: U64,
    /// Who receives the fees.
    pub miner: Address,
    /// The most gas that the block may use.
    pub gas_limit: U64,
    /// The gas that it used.
    pub gas_used: U64,
    /// Proof of work's difficulty; 0 after the Merge.
    #[serde(default)]
    pub difficulty: U256,
    /// After the Merge: the beacon chain's randomness (EIP-4399).
    pub mix_hash: Option<B256>,
    /// Base fee in wei per gas (EIP-1559).
    pub base_fee_per_gas: Option<U64>,
    /// Blob gas above target so far (EIP-4844).
    pub excess_blob_gas: Option<U64>,
    /// The root that goes to the beacon roots contract (EIP-4788).
    pub parent_beacon_block_root: Option<B256>,
    /// The hash that goes to the history contract (EIP-2935).
    pub parent_hash: B256,
    /// Root of the trie of receipts.
    pub receipts_root: B256,
    /// Union of the receipts' blooms.
    pub logs_bloom: Bloom,
    /// The transactions, in order.
    pub transactions: Vec<Transaction>,
}

/// A transaction of any type, with its sender.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// EIP-2718 type: 0 legacy, 1 access list, 2 fee market, 3 blobs, 4 set code.
    #[serde(rename = "type", default)]
    pub kind: U64,
    /// The sender.
    pub from: Address,
    /// The callee; none creates a contract.
    pub to: Option<Address>,
    /// Wei that goes along.
    pub value: U256,
    /// Price in wei per gas. From type 2 on it is the price that was paid, which follows from the fees below.
    pub gas_price: Option<U128>,
    /// Most gas.
    pub gas: U64,
    /// Most that the sender pays per gas (EIP-1559).
    pub max_fee_per_gas: Option<U128>,
    /// Most of it that goes to the miner (EIP-1559).
    pub max_priority_fee_per_gas: Option<U128>,
    /// Most that the sender pays per blob gas (EIP-4844).
    pub max_fee_per_blob_gas: Option<U128>,
    /// Calldata, or initcode.
    pub input: Bytes,
    /// The sender's nonce.
    pub nonce: U64,
    /// The chain that it is for; none before EIP-155.
    pub chain_id: Option<U64>,
    /// Addresses and slots that are warm from the start (EIP-2930).
    #[serde(default)]
    pub access_list: AccessList,
    /// Versioned hashes of the blobs (EIP-4844).
    #[serde(default)]
    pub blob_versioned_hashes: Vec<B256>,
    /// Accounts that borrow code (EIP-7702).
    #[serde(default)]
    pub authorization_list: Vec<SignedAuthorization>,
}

/// The accounts that a block reads, as they are before its first transaction.
pub type PreState = AddressMap<Account>;

/// An account, with the slots that the block reads.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// Wei.
    pub balance: U256,
    /// Nonce: a JSON number.
    pub nonce: u64,
    /// Which of the recording's codes it has; none for an account without code.
    pub code_hash: Option<B256>,
    /// Slots and their values; zeros are recorded too.
    pub storage: HashMap<U256, U256>,
}
