//! What the precompile says of the chain: whether a bundle is what its registration claims, and what inference costs in this block.

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolError};

use crate::abi::{self, inferenceBaseFeeCall, verifyBundleCall};
use crate::gas::Gas;
use crate::inference::{Answer, FatalError, Inference};
use crate::meter::Meter;
use crate::registration::{Claims, REGISTRY_ADDRESS};
use crate::registry::RegisteredError;
use crate::site::Site;

pub(crate) fn base_fee(site: &Site<'_>) -> Answer {
    let base_fee = U256::from(site.terms.map_or(0, |terms| terms.base_fee));
    let output = Bytes::from(inferenceBaseFeeCall::abi_encode_returns(&base_fee));
    Answer { reverted: false, output, charged: Gas(0), steps: Vec::new() }
}

/// Compares a bundle with its registration, for the registry. The registration is read, its size paid, then the bundle looked for: that is the order in which
/// every validator does it, and only the last can be fatal.
pub(crate) fn verify_bundle(
    inference: &Inference,
    model: B256,
    limit: Gas,
    site: &mut Site<'_>,
) -> Result<Answer, FatalError> {
    if site.asker != REGISTRY_ADDRESS {
        // Nobody else makes validators look for a bundle.
        return Ok(Answer::error(&abi::NotSupported { selector: verifyBundleCall::SELECTOR.into() }));
    }
    let Some(storage) = site.registry.as_deref_mut() else {
        return Ok(Answer::error(&abi::UnknownModel { model }));
    };
    let (claims, look_up) = Claims::load(storage, model)?;
    let price = claims.map_or(Gas(0), |claims| inference.gas().verification(claims.counts.mebibytes));
    let mut meter = Meter::new(limit);
    let paid = meter.charge(look_up).and_then(|()| meter.charge(price));
    let (reverted, output) = match (paid, claims) {
        (Err(_), _) => (true, Vec::new()),
        (_, None) => (true, abi::UnknownModel { model }.abi_encode()),
        (_, Some(claims)) => match inference.models().registered_model(model) {
            Ok(bundle) => match claims.difference(&bundle.claims()) {
                None => (false, verifyBundleCall::abi_encode_returns(&true)),
                Some(field) => {
                    let field = B256::right_padding_from(field.as_bytes());
                    (true, abi::BundleMismatch { model, field }.abi_encode())
                }
            },
            Err(RegisteredError::Refused(reason)) => {
                tracing::warn!("the bundle of model {model} is refused, here and everywhere: {reason}");
                (true, abi::BundleRefused { model }.abi_encode())
            }
            Err(RegisteredError::Fatal(error)) => return Err(error.into()),
        },
    };
    let charged = meter.charged();
    Ok(Answer { reverted, output: output.into(), charged, steps: meter.into_steps() })
}
