//! Any calldata with any gas limit has one outcome: an answer, a typed error or out of gas. Never a panic, never a fatal error, and
//! never another answer for more gas.
//!
//! The input is four bytes of gas limit and the calldata; the model is the tiny fixture.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use metis_kernels::Scalar;
use metis_models::fixture::Fixture;
use metis_models::{Engine, InferenceModel};
use metis_precompiles::{ChainConfig, Gas, Inference, ModelSet, Outcome};

static CHAIN: LazyLock<Inference> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for the fixture");
    let bundle = Fixture::default().bundle(folder.path()).expect("the fixture imports");
    let bundle = bundle.into_bundle().expect("the fixture is a bundle");
    let model: Arc<dyn InferenceModel> =
        Arc::new(Engine::load(&bundle, Arc::new(Scalar::new())).expect("the fixture loads"));
    let config = ChainConfig::embedded(model.id());
    let mut models = ModelSet::new(&config);
    models.insert(model).expect("the fixture is the chain's model");
    Inference::new(&config, models)
});

fuzz_target!(|input: &[u8]| {
    let Some((limit, calldata)) = input.split_first_chunk::<4>() else { return };
    let limit = Gas(u32::from_be_bytes(*limit).into());
    let limited = CHAIN.call(calldata, limit).expect("nothing is fatal");
    let free = CHAIN.call(calldata, Gas(u64::MAX)).expect("nothing is fatal");
    match (&limited, &free) {
        (_, Outcome::OutOfGas) => panic!("out of gas with all of it"),
        (Outcome::OutOfGas, _) => (),
        (Outcome::Return { gas, .. } | Outcome::Revert { gas, .. }, _) => {
            assert!(*gas <= limit);
            assert_eq!(limited, free);
        }
    }
});
