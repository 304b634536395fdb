//! What reverted calls say: the errors of Solidity, of the inference precompile and of the system contracts, by name.

use std::sync::OnceLock;

use alloy_dyn_abi::{DynSolValue, ErrorExt};
use alloy_json_abi::{Error, JsonAbi};
use alloy_primitives::hex;
use metis_vm::{Outcome, Status};
use serde::Deserialize;

/// An error with its causes. Some errors say their cause themselves; it is not said twice.
pub fn explained(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// What a reverted call says, when it is an error that this program knows.
pub fn describe_revert(outcome: &Outcome) -> Option<String> {
    if outcome.status == Status::Revert { describe_error(&outcome.output) } else { None }
}

/// What revert data says, when it is an error that this program knows.
pub fn describe_error(data: &[u8]) -> Option<String> {
    let selector = data.get(..4)?;
    known().iter().filter(|error| error.selector() == selector).find_map(|error| {
        let decoded = error.decode_error(data).ok()?;
        let arguments: Vec<String> = decoded.body.iter().map(show).collect();
        Some(format!("{}({})", error.name, arguments.join(", ")))
    })
}

fn known() -> &'static [Error] {
    /// The part of a compiler artefact that is needed.
    #[derive(Deserialize)]
    struct Artefact {
        abi: JsonAbi,
    }
    const ARTEFACTS: [&str; 4] = [
        include_str!("../../contracts/artifacts/IMetisInference.json"),
        include_str!("../../contracts/artifacts/ModelRegistry.json"),
        include_str!("../../contracts/artifacts/InferenceGateway.json"),
        include_str!("../../contracts/artifacts/DataAnchoringToken.json"),
    ];
    const SOLIDITYS: [&str; 2] = ["Error(string)", "Panic(uint256)"];
    static KNOWN: OnceLock<Vec<Error>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let artefacts = ARTEFACTS.iter().filter_map(|text| serde_json::from_str::<Artefact>(text).ok());
        let errors = artefacts.flat_map(|artefact| artefact.abi.errors.into_values().flatten());
        errors.chain(SOLIDITYS.iter().filter_map(|signature| Error::parse(signature).ok())).collect()
    })
}

/// A value as people write it.
pub(crate) fn show(value: &DynSolValue) -> String {
    let list = |values: &[DynSolValue], open: char, close: char| {
        let values: Vec<String> = values.iter().map(show).collect();
        format!("{open}{}{close}", values.join(", "))
    };
    match value {
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::Int(value, _) => value.to_string(),
        DynSolValue::Uint(value, _) => value.to_string(),
        DynSolValue::FixedBytes(word, size) => hex::encode_prefixed(&word[..*size]),
        DynSolValue::Address(address) => address.to_string(),
        DynSolValue::Function(function) => function.to_string(),
        DynSolValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => format!("{text:?}"),
            _ => hex::encode_prefixed(bytes),
        },
        DynSolValue::String(text) => format!("{text:?}"),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) => list(values, '[', ']'),
        DynSolValue::Tuple(values) => list(values, '(', ')'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::U256;
    use metis_precompiles::abi;

    #[test]
    fn causes_are_said_once() {
        let file = std::io::Error::other("no such file");
        let error = anyhow::Error::new(file).context("a.json: no such file").context("bundle a");
        assert_eq!(explained(&error), "bundle a: a.json: no such file");
        assert_eq!(explained(&anyhow::anyhow!("alone")), "alone");
    }

    #[test]
    fn known_reverts_are_named() {
        let error = Error::parse("PromptTooLong(uint32,uint32)").unwrap();
        let values = [DynSolValue::Uint(U256::from(900), 32), DynSolValue::Uint(U256::from(256), 32)];
        let output =
            [error.selector().as_slice(), &DynSolValue::Tuple(values.to_vec()).abi_encode_params()].concat();
        let outcome = Outcome {
            status: Status::Revert,
            gas_used: 0,
            gas_refunded: 0,
            metered_gas_used: 0,
            output: output.into(),
            logs: Vec::new(),
            created_address: None,
        };
        assert_eq!(describe_revert(&outcome).as_deref(), Some("PromptTooLong(900, 256)"));
    }

    #[test]
    fn all_errors_of_the_precompile_and_the_contracts_are_known() {
        assert!(known().len() > 60, "{}", known().len());
        let error = crate::contracts::Registry::OverBudget { mebibytes: U256::from(3), free: U256::ZERO };
        let data = alloy_sol_types::SolError::abi_encode(&error);
        assert_eq!(describe_error(&data).as_deref(), Some("OverBudget(3, 0)"));
        let error = abi::BlockInferenceLimit { left: 7 };
        let data = alloy_sol_types::SolError::abi_encode(&error);
        assert_eq!(describe_error(&data).as_deref(), Some("BlockInferenceLimit(7)"));
        assert_eq!(describe_error(&[1, 2, 3]), None);
    }
}
