//! For which reasons a transaction may be rejected.

use revm::context::result::InvalidTransaction;

/// Why a transaction was rejected.
#[derive(Debug)]
pub(super) enum Rejection {
    /// Before any rule of the EVM.
    Undecodable(String),
    /// By a rule of the EVM.
    Invalid(InvalidTransaction),
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Undecodable(problem) => write!(f, "undecodable, {problem}"),
            Self::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

/// Whether a test that names this exception, or several between `|`, allows the rejection.
///
/// A transaction may break several rules at once; the test then lists them all.
///
/// # Errors
/// A name that is not known here: it would allow every rejection, or none.
pub(super) fn allows(expected: &str, rejection: &Rejection) -> Result<bool, UnknownException> {
    expected.split('|').map(str::trim).try_fold(false, |allowed, name| {
        let one = allows_one(name, rejection).ok_or_else(|| UnknownException(name.to_owned()))?;
        Ok(allowed || one)
    })
}

/// A test names an exception that is not known here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown exception name {0}")]
pub(super) struct UnknownException(String);

/// The names are those of execution-spec-tests and, next to them, the older ones of ethereum/tests. `None` for others.
fn allows_one(name: &str, rejection: &Rejection) -> Option<bool> {
    use InvalidTransaction as I;
    let name = name.strip_prefix("TransactionException.").unwrap_or(name);
    let invalid = match rejection {
        Rejection::Invalid(invalid) => Some(invalid),
        Rejection::Undecodable(_) => None,
    };
    let allowed = match name {
        "RLP_INVALID_VALUE"
        | "TR_RLP_WRONGVALUE"
        | "TYPE_3_TX_CONTRACT_CREATION"
        | "TYPE_4_TX_CONTRACT_CREATION" => invalid.is_none(),
        "INSUFFICIENT_ACCOUNT_FUNDS" | "GASLIMIT_PRICE_PRODUCT_OVERFLOW" | "TR_NoFunds" | "TR_NoFundsX" => {
            matches!(invalid, Some(I::LackOfFundForMaxFee { .. } | I::OverflowPaymentInTransaction))
        }
        "INTRINSIC_GAS_TOO_LOW" | "IntrinsicGas" | "TR_IntrinsicGas" => {
            matches!(invalid, Some(I::CallGasCostMoreThanGasLimit { .. }))
        }
        "TR_NoFundsOrGas" => {
            return Some(allows_one("TR_NoFunds", rejection)? || allows_one("TR_IntrinsicGas", rejection)?);
        }
        "INTRINSIC_GAS_BELOW_FLOOR_GAS_COST" => matches!(invalid, Some(I::GasFloorMoreThanGasLimit { .. })),
        "GAS_ALLOWANCE_EXCEEDED" => matches!(invalid, Some(I::CallerGasLimitMoreThanBlock)),
        "GAS_LIMIT_EXCEEDS_MAXIMUM" => matches!(invalid, Some(I::TxGasLimitGreaterThanCap { .. })),
        "NONCE_IS_MAX" => matches!(invalid, Some(I::NonceOverflowInTransaction)),
        "NONCE_MISMATCH_TOO_HIGH" => matches!(invalid, Some(I::NonceTooHigh { .. })),
        "NONCE_MISMATCH_TOO_LOW" => matches!(invalid, Some(I::NonceTooLow { .. })),
        "SENDER_NOT_EOA" | "SenderNotEOA" => matches!(invalid, Some(I::RejectCallerWithCode)),
        "INITCODE_SIZE_EXCEEDED" | "TR_InitCodeLimitExceeded" => {
            matches!(invalid, Some(I::CreateInitCodeSizeLimit))
        }
        "INSUFFICIENT_MAX_FEE_PER_GAS" | "TR_FeeCapLessThanBlocks" => {
            matches!(invalid, Some(I::GasPriceLessThanBasefee))
        }
        "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS" | "TR_TipGtFeeCap" => {
            matches!(invalid, Some(I::PriorityFeeGreaterThanMaxFee))
        }
        "TR_TypeNotSupported" => matches!(
            invalid,
            Some(
                I::Eip2930NotSupported
                    | I::Eip1559NotSupported
                    | I::Eip4844NotSupported
                    | I::Eip7702NotSupported
            )
        ),
        "TYPE_1_TX_PRE_FORK" => matches!(invalid, Some(I::Eip2930NotSupported)),
        "TYPE_2_TX_PRE_FORK" => matches!(invalid, Some(I::Eip1559NotSupported)),
        "TYPE_3_TX_PRE_FORK" => matches!(invalid, Some(I::Eip4844NotSupported)),
        "TYPE_4_TX_PRE_FORK" => matches!(invalid, Some(I::Eip7702NotSupported)),
        "INSUFFICIENT_MAX_FEE_PER_BLOB_GAS" => matches!(invalid, Some(I::BlobGasPriceGreaterThanMax { .. })),
        "TYPE_3_TX_ZERO_BLOBS" | "TR_EMPTYBLOB" => matches!(invalid, Some(I::EmptyBlobs)),
        "TYPE_3_TX_INVALID_BLOB_VERSIONED_HASH" => matches!(invalid, Some(I::BlobVersionNotSupported)),
        "TYPE_3_TX_BLOB_COUNT_EXCEEDED" | "TYPE_3_TX_MAX_BLOB_GAS_ALLOWANCE_EXCEEDED" => {
            matches!(invalid, Some(I::TooManyBlobs { .. }))
        }
        "TYPE_4_EMPTY_AUTHORIZATION_LIST" => matches!(invalid, Some(I::EmptyAuthorizationList)),
        _ => return None,
    };
    Some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_for_another_reason_is_not_allowed() {
        let floor = InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor: 2, gas_limit: 1 };
        let floor = Rejection::Invalid(floor);
        let allowed = |expected| allows(expected, &floor).unwrap();
        assert!(allowed("TransactionException.INTRINSIC_GAS_BELOW_FLOOR_GAS_COST"));
        assert!(allowed("TransactionException.SENDER_NOT_EOA|INTRINSIC_GAS_BELOW_FLOOR_GAS_COST"));
        assert!(!allowed("TransactionException.SENDER_NOT_EOA"));
        assert!(!allowed("TR_RLP_WRONGVALUE") && !allowed("TR_NoFundsOrGas"));

        let undecodable = Rejection::Undecodable("value".to_owned());
        assert_eq!(allows("TR_RLP_WRONGVALUE", &undecodable), Ok(true));
        assert_eq!(allows("TR_NoFunds", &undecodable), Ok(false));
    }

    #[test]
    fn an_unknown_name_allows_nothing_even_beside_one_that_fits() {
        let funds = Rejection::Invalid(InvalidTransaction::OverflowPaymentInTransaction);
        let unknown = |name: &str| Err(UnknownException(name.to_owned()));
        for (expected, name) in [
            ("TransactionException.NAMED_TOMORROW", "TransactionException.NAMED_TOMORROW"),
            ("TR_NoFunds | TR_NoFund", "TR_NoFund"),
            ("", ""),
        ] {
            assert_eq!(allows(expected, &funds), unknown(name));
        }
    }

    /// All that the suite of `tests/statetest.rs` names.
    #[test]
    fn the_names_of_ethereums_tests_are_known() {
        let funds = Rejection::Invalid(InvalidTransaction::OverflowPaymentInTransaction);
        let modern = [
            "GASLIMIT_PRICE_PRODUCT_OVERFLOW",
            "INITCODE_SIZE_EXCEEDED",
            "INSUFFICIENT_ACCOUNT_FUNDS",
            "INSUFFICIENT_MAX_FEE_PER_GAS",
            "INTRINSIC_GAS_BELOW_FLOOR_GAS_COST",
            "INTRINSIC_GAS_TOO_LOW",
            "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS",
            "RLP_INVALID_VALUE",
            "SENDER_NOT_EOA",
            "TYPE_3_TX_BLOB_COUNT_EXCEEDED",
            "TYPE_3_TX_MAX_BLOB_GAS_ALLOWANCE_EXCEEDED",
            "TYPE_3_TX_ZERO_BLOBS",
            "TYPE_4_EMPTY_AUTHORIZATION_LIST",
            "TYPE_4_TX_CONTRACT_CREATION",
            "TYPE_4_TX_PRE_FORK",
        ];
        let older = [
            "IntrinsicGas",
            "SenderNotEOA",
            "TR_EMPTYBLOB",
            "TR_FeeCapLessThanBlocks",
            "TR_InitCodeLimitExceeded",
            "TR_IntrinsicGas",
            "TR_NoFunds",
            "TR_NoFundsOrGas",
            "TR_NoFundsX",
            "TR_RLP_WRONGVALUE",
            "TR_TypeNotSupported",
        ];
        for name in modern.iter().map(|name| format!("TransactionException.{name}")) {
            assert!(allows(&name, &funds).is_ok(), "{name}");
        }
        for name in older {
            assert!(allows(name, &funds).is_ok(), "{name}");
        }
    }
}
