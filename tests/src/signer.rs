//! People who sign for calls of the gateway.

use alloy_primitives::{Address, Bytes};
use alloy_sol_types::{SolStruct, eip712_domain, sol};
use k256::ecdsa::SigningKey;
use metisvm::contracts::Gateway;

sol! {
    /// As in `contracts/src/interfaces/IInferenceGateway.sol`.
    #[allow(missing_docs, reason = "the contract's own words")]
    #[derive(Debug, PartialEq, Eq)]
    struct Authorization {
        address signer;
        bytes32 callHash;
        uint256 tokenId;
        uint256 maxPrice;
        uint256 nonce;
        uint256 deadline;
    }
}

impl From<&Authorization> for Gateway::Authorization {
    fn from(authorization: &Authorization) -> Self {
        let Authorization { signer, callHash, tokenId, maxPrice, nonce, deadline } = authorization.clone();
        Self { signer, callHash, tokenId, maxPrice, nonce, deadline }
    }
}

/// A key.
#[derive(Clone, Debug)]
pub struct Signer {
    key: SigningKey,
    /// Whose it is.
    pub address: Address,
}

impl Signer {
    /// A key for tests: that of the number, which is not 0.
    pub fn new(number: u8) -> Self {
        let key = SigningKey::from_slice(&[number; 32]).expect("bytes below the group's order, not 0");
        let address = Address::from_public_key(key.verifying_key());
        Self { key, address }
    }

    /// EIP-712's signature for a gateway on a chain, 65 bytes.
    pub fn sign(&self, chain_id: u64, gateway: Address, authorization: &Authorization) -> Bytes {
        let domain = eip712_domain! {
            name: "MetisVM InferenceGateway",
            version: "1",
            chain_id: chain_id,
            verifying_contract: gateway,
        };
        let hash = authorization.eip712_signing_hash(&domain);
        let (signature, recovery) = self.key.sign_prehash_recoverable(hash.as_slice()).expect("32 bytes");
        let mut bytes = signature.to_vec();
        bytes.push(27 + recovery.to_byte());
        bytes.into()
    }
}
