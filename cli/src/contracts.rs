//! The interfaces of a chain's system contracts, from their compiled artefacts.

#![allow(missing_docs, reason = "the macro's items; what they mean is in contracts/src/interfaces")]
#![allow(clippy::too_many_arguments, reason = "the macro makes constructors of all fields")]

use alloy_primitives::aliases::{U24, U40, U56};
use alloy_sol_types::sol;
use metis_precompiles::Claims;

pub use DataAnchoringToken as Shares;
pub use InferenceGateway as Gateway;
pub use ModelRegistry as Registry;

sol!(
    #[derive(Debug, PartialEq, Eq)]
    ModelRegistry,
    "../contracts/artifacts/ModelRegistry.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    InferenceGateway,
    "../contracts/artifacts/InferenceGateway.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    DataAnchoringToken,
    "../contracts/artifacts/DataAnchoringToken.json"
);

impl From<&Claims> for Registry::ModelClaims {
    fn from(claims: &Claims) -> Self {
        let Claims { weights_root, tokenizer_root, weights_bytes, tokenizer_bytes, counts } = *claims;
        Self {
            weightsRoot: weights_root,
            tokenizerRoot: tokenizer_root,
            weightsBytes: weights_bytes,
            tokenizerBytes: tokenizer_bytes,
            linearMacs: U56::saturating_from(counts.linear_macs),
            // Beyond what a bundle can have, these differ from it, and the bundle is refused.
            attentionMacs: u32::try_from(counts.attention_macs).unwrap_or(u32::MAX),
            headMacs: U40::saturating_from(counts.head_macs),
            layers: u16::try_from(counts.layers).unwrap_or(u16::MAX),
            vocabulary: U24::saturating_from(counts.vocabulary),
            context: U24::saturating_from(counts.context),
            spelledBytes: u32::try_from(counts.spelled_bytes).unwrap_or(u32::MAX),
            grouped: counts.grouped,
        }
    }
}

/// Where a model is in its life: `ModelStatus` of `contracts/src/interfaces/IModelRegistry.sol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelStatus {
    /// Nobody has registered it.
    None,
    /// Registered, not callable.
    Pending,
    /// Callable while its rent is paid.
    Active,
    /// Deprecated, and callable for its notice.
    Sunset,
    /// Deprecated and gone.
    Retired,
    /// The chain's configuration has it, and nobody can register it.
    Configured,
}

impl ModelStatus {
    /// The status of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Pending,
            2 => Self::Active,
            3 => Self::Sunset,
            4 => Self::Retired,
            5 => Self::Configured,
            _ => return None,
        })
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "not registered",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Sunset => "deprecated, in its notice",
            Self::Retired => "deprecated",
            Self::Configured => "of the chain's configuration",
        }
    }
}
