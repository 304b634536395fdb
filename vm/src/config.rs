//! What a chain fixes for every transaction: the rules and the block.

use alloy_primitives::{Address, B256, U256};
use revm::context::{BlockEnv, CfgEnv};
use serde::{Deserialize, Serialize};

use crate::fork::{self, SpecId};
use crate::metered::MeteredBlock;

/// The rules and the block under which transactions execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvmConfig {
    /// The hard fork. In JSON: its name.
    #[serde(with = "fork::serde_name")]
    pub fork: SpecId,
    /// The chain id (EIP-155, `CHAINID`).
    pub chain_id: u64,
    /// The most gas that one transaction may ask for. `None` is the fork's own rule: unlimited before Osaka,
    /// 2^24 from Osaka on (EIP-7825). Chains that run models raise it.
    pub tx_gas_limit_cap: Option<u64>,
    /// The block that the transactions are in.
    pub block: BlockInfo,
}

impl Default for EvmConfig {
    fn default() -> Self {
        Self { fork: fork::DEFAULT, chain_id: 1, tx_gas_limit_cap: None, block: BlockInfo::default() }
    }
}

impl EvmConfig {
    /// revm's configuration for these rules.
    pub(crate) fn cfg_env(&self) -> CfgEnv {
        let mut cfg = CfgEnv::new_with_spec(self.fork).with_chain_id(self.chain_id);
        cfg.tx_gas_limit_cap = self.tx_gas_limit_cap;
        cfg
    }
}

/// A block's header, as far as contracts can read it.
///
/// What is not here is fixed: no excess blob gas, slot number 0, and revm's stand-in for the hashes of past blocks
/// (the keccak of the decimal block number).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockInfo {
    /// `NUMBER`.
    pub number: u64,
    /// `TIMESTAMP`, seconds since 1970.
    pub timestamp: u64,
    /// `BASEFEE` in wei per gas (EIP-1559). Burnt from London on.
    pub base_fee: u64,
    /// `GASLIMIT`. No transaction may ask for more. Gas is not added up over the transactions of a block.
    pub gas_limit: u64,
    /// `PREVRANDAO`; before the Merge the same 32 bytes are `DIFFICULTY`.
    pub prevrandao: B256,
    /// `COINBASE`, which receives the fees.
    pub coinbase: Address,
    /// What precompiled contracts meter, where the chain has a price and a limit for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<MeteredBlock>,
}

impl Default for BlockInfo {
    fn default() -> Self {
        Self {
            number: 1,
            timestamp: 1,
            base_fee: 0,
            gas_limit: 1_000_000_000,
            prevrandao: B256::ZERO,
            coinbase: Address::ZERO,
            metered: None,
        }
    }
}

impl BlockInfo {
    /// revm's environment for this block.
    pub(crate) fn block_env(&self) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            beneficiary: self.coinbase,
            timestamp: U256::from(self.timestamp),
            gas_limit: self.gas_limit,
            basefee: self.base_fee,
            difficulty: U256::from_be_bytes(self.prevrandao.0),
            prevrandao: Some(self.prevrandao),
            ..BlockEnv::default()
        }
    }
}
