//! What the precompile says of the chain: whether a bundle is what its registration claims, and what inference costs in this block.

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolCall;

use super::Interrupt;
use crate::abi::{self, inferenceBaseFeeCall, verifyBundleCall};
use crate::gas::Gas;
use crate::inference::{Answer, FatalError, Inference};
use crate::meter::Meter;
use crate::registration::{Claims, REGISTRY_ADDRESS};
use crate::registry::RegisteredError;
use crate::site::{RegistryStorage, Site, Unread};

pub(crate) fn base_fee(site: &Site<'_>) -> Answer {
    let base_fee = U256::from(site.terms.map_or(0, |terms| terms.base_fee));
    let output = Bytes::from(inferenceBaseFeeCall::abi_encode_returns(&base_fee));
    Answer { reverted: false, output, charged: Gas(0), steps: Vec::new() }
}

/// Compares a bundle with its registration, for the registry. The registration is read, its size paid, then the bundle looked for: that is the
/// order in which every validator does it, and only the last can be fatal.
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
    let mut meter = Meter::new(limit);
    let (reverted, output) = match compare(inference, model, storage, &mut meter) {
        Ok(()) => (false, verifyBundleCall::abi_encode_returns(&true)),
        Err(Interrupt::Revert(error)) => (true, error),
        // The steps say so.
        Err(Interrupt::OutOfGas) => (true, Vec::new()),
        Err(Interrupt::Fatal(error)) => return Err(error),
    };
    let charged = meter.charged();
    Ok(Answer { reverted, output: output.into(), charged, steps: meter.into_steps() })
}

fn compare(
    inference: &Inference,
    model: B256,
    storage: &mut dyn RegistryStorage,
    meter: &mut Meter,
) -> Result<(), Interrupt> {
    let claims = Claims::load(storage, model, meter).map_err(|error| match error {
        Unread::OutOfGas => Interrupt::OutOfGas,
        Unread::Fatal(error) => Interrupt::Fatal(error),
    })?;
    let Some(claims) = claims else { return Err(Interrupt::revert(&abi::UnknownModel { model })) };
    meter.charge(inference.gas().verification(claims.counts.mebibytes))?;
    match inference.models().compare_registered(model, &claims) {
        Ok(None) => Ok(()),
        Ok(Some(field)) => {
            let field = B256::right_padding_from(field.as_bytes());
            Err(Interrupt::revert(&abi::BundleMismatch { model, field }))
        }
        Err(RegisteredError::Refused(reason)) => {
            tracing::warn!("the bundle of model {model} is refused, here and everywhere: {reason}");
            Err(Interrupt::revert(&abi::BundleRefused { model }))
        }
        Err(RegisteredError::Fatal(error)) => Err(Interrupt::Fatal(error.into())),
    }
}
