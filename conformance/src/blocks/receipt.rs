//! Receipts: their encoding, the root of their trie, and the logs bloom.

use crate::trie;
use alloy_primitives::{B256, Bloom, Log, logs_bloom};
use alloy_rlp::{Encodable, Header};

/// What a block keeps of a transaction, from Byzantium on (EIP-658).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// EIP-2718 type of the transaction.
    pub kind: u8,
    /// Whether it succeeded.
    pub success: bool,
    /// Gas of the block up to and with this transaction.
    pub cumulative_gas_used: u64,
    /// The bloom of `logs`.
    pub logs_bloom: Bloom,
    /// The logs.
    pub logs: Vec<Log>,
}

impl Receipt {
    /// A receipt with its bloom.
    pub fn new(kind: u8, success: bool, cumulative_gas_used: u64, logs: Vec<Log>) -> Self {
        Self { kind, success, cumulative_gas_used, logs_bloom: logs_bloom(&logs), logs }
    }

    /// The receipt as the trie holds it: the type's byte, unless it is 0, then RLP (EIP-2718).
    pub fn encode(&self) -> Vec<u8> {
        let fields: [&dyn Encodable; 4] =
            [&self.success, &self.cumulative_gas_used, &self.logs_bloom, &self.logs];
        let payload_length = fields.iter().map(|field| field.length()).sum();
        let mut out = Vec::with_capacity(payload_length + 10);
        if self.kind != 0 {
            out.push(self.kind);
        }
        Header { list: true, payload_length }.encode(&mut out);
        for field in fields {
            field.encode(&mut out);
        }
        out
    }
}

/// The header's receipts root.
pub fn root(receipts: &[Receipt]) -> B256 {
    let encoded: Vec<Vec<u8>> = receipts.iter().map(Receipt::encode).collect();
    trie::list_root(&encoded)
}

/// The header's logs bloom: the union of the receipts' blooms.
pub fn bloom(receipts: &[Receipt]) -> Bloom {
    receipts.iter().fold(Bloom::ZERO, |all, receipt| all | receipt.logs_bloom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn a_transfer_alone_in_its_block_has_the_well_known_root() {
        // One legacy transfer of 21,000 gas without logs.
        let receipt = Receipt::new(0, true, 21_000, Vec::new());
        let encoded = receipt.encode();
        assert_eq!(encoded[..8], hex!("f9010801825208b9"));
        assert_eq!(*encoded.last().unwrap(), 0xc0);
        let expected = hex!("056b23fbba480696b65fe5a59b8f2148a1299103c4f57df839233af2cf4ca2d2");
        assert_eq!(root(&[receipt]), expected);
    }

    #[test]
    fn the_type_stands_before_the_list() {
        let legacy = Receipt::new(0, false, 1, Vec::new());
        let typed = Receipt { kind: 2, ..legacy.clone() };
        assert_eq!(typed.encode(), [&[2], legacy.encode().as_slice()].concat());
    }
}
