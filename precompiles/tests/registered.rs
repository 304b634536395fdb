//! Registered models: looked up at a price, compared before they are loaded, and kept as long as they may be called.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolError};
use metis_models::{InferenceModel, Manifest, Tokenizer};
use metis_precompiles::abi::{self, generateCall, modelInfoCall, quoteCall, tokenizeCall, verifyBundleCall};
use metis_precompiles::meter::Meter;
use metis_precompiles::{
    Answered, ChainConfig, Claims, Gas, Inference, Library, LoadFailure, ModelCosts, ModelSet, Outcome,
    REGISTRY_ADDRESS, RegistryConfig, RegistryStorage, Site, Unread,
};
use metis_vm::MeterTerms;
use support::{GREEDY, Mock, PLENTY, bundle};

const ACCOUNT: Gas = Gas(2_600);
const SLOT: Gas = Gas(2_100);

/// What of a library was asked for.
#[derive(Debug, Default)]
struct Asked {
    manifests: AtomicUsize,
    tokenizers: AtomicUsize,
    models: AtomicUsize,
}

impl Asked {
    fn counts(&self) -> [usize; 3] {
        [&self.manifests, &self.tokenizers, &self.models].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A library with the fixture.
struct Shelf(Arc<Asked>);

impl Library for Shelf {
    fn manifest(&self, _: B256) -> Result<Manifest, LoadFailure> {
        self.0.manifests.fetch_add(1, Ordering::Relaxed);
        Ok(bundle().manifest().clone())
    }

    fn tokenizer(&self, _: B256, _: &Manifest) -> Result<Tokenizer, LoadFailure> {
        self.0.tokenizers.fetch_add(1, Ordering::Relaxed);
        Ok(bundle().tokenizer().unwrap())
    }

    fn model(&self, _: B256) -> Result<Arc<dyn InferenceModel>, LoadFailure> {
        self.0.models.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Mock::new()))
    }
}

/// The registry's storage; all of it is cold.
#[derive(Debug, Default)]
struct Records {
    slots: BTreeMap<U256, U256>,
    account_paid: bool,
}

impl RegistryStorage for Records {
    fn load(&mut self, slot: U256, meter: &mut Meter) -> Result<U256, Unread> {
        if !self.account_paid {
            meter.charge(ACCOUNT)?;
            self.account_paid = true;
        }
        meter.charge(SLOT)?;
        Ok(self.slots.get(&slot).copied().unwrap_or_default())
    }

    fn dearest(&self, slots: u32) -> Gas {
        Gas(ACCOUNT.0 + u64::from(slots) * SLOT.0)
    }
}

/// The fixture's id.
fn id() -> B256 {
    bundle().id()
}

fn claims() -> Claims {
    let manifest = bundle().manifest();
    Claims::of(manifest, &ModelCosts::of(manifest, &bundle().tokenizer().unwrap()).unwrap())
}

/// The fixture's record in this part of its life.
fn record(status: u64, active_until: u64, claims: &Claims) -> Records {
    let first = U256::from_be_bytes(keccak256([id(), B256::ZERO].concat()).0);
    let counts = claims.counts;
    let fields: [(u64, usize); 9] = [
        (counts.linear_macs, 0),
        (counts.attention_macs, 56),
        (counts.head_macs, 88),
        (counts.layers.into(), 128),
        (counts.vocabulary.into(), 144),
        (counts.context.into(), 168),
        (counts.spelled_bytes, 192),
        (counts.grouped.into(), 224),
        (counts.mebibytes.into(), 232),
    ];
    let second = fields.iter().fold(U256::ZERO, |word, &(value, at)| word | (U256::from(value) << at));
    let lengths = U256::from(claims.weights_bytes) | (U256::from(claims.tokenizer_bytes) << 64);
    let words = [
        (0u64, U256::from(active_until) | (U256::from(status) << 224)),
        (1, second),
        (4, lengths),
        (5, claims.weights_root.into()),
        (6, claims.tokenizer_root.into()),
    ];
    let slots = words.map(|(offset, word)| (first.wrapping_add(U256::from(offset)), word));
    Records { slots: slots.into(), account_paid: false }
}

const PENDING: u64 = 1;
const ACTIVE: u64 = 2;
const SUNSET: u64 = 3;
const RETIRED: u64 = 4;

/// A chain with a registry, whose default model is another.
fn chain() -> (Inference, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    let mut config = ChainConfig::embedded(B256::repeat_byte(1));
    config.registry = Some(RegistryConfig::default());
    let models = ModelSet::new(&config).with_library(Shelf(Arc::clone(&asked)));
    (Inference::new(&config, models), asked)
}

fn terms(left: u64) -> MeterTerms {
    MeterTerms { base_fee: 7, affordable: true, left }
}

fn ask(
    chain: &Inference,
    data: &[u8],
    gas: Gas,
    records: &mut Records,
    terms: Option<MeterTerms>,
) -> Answered {
    records.account_paid = false;
    let mut site = Site { time: 10, registry: Some(records), terms, ..Site::nowhere() };
    chain.call_at(data, gas, &mut site).unwrap()
}

fn generate() -> Vec<u8> {
    let prompt = Bytes::from_static(b"the hello world");
    generateCall { model: id(), prompt, maxNew: 4, s: GREEDY, stopIds: Vec::new() }.abi_encode()
}

/// `BlockInferenceLimit`, at this price, all of it metered.
fn full(left: u64, gas: Gas) -> Answered {
    let output = abi::BlockInferenceLimit { left }.abi_encode().into();
    Answered { outcome: Outcome::Revert { output, gas }, metered: gas }
}

#[test]
fn calldata_and_looking_up_are_steps_of_the_blocks_limit() {
    let (chain, _) = chain();
    let records = &mut record(ACTIVE, 100, &claims());
    let data = generate();
    let input = chain.gas().input(data.len());
    // What is paid in order, before the model is known.
    let mut before = Gas(0);
    for price in [input, ACCOUNT, SLOT, SLOT] {
        let after = before.plus(price);
        let left = after.0 - 1;
        assert_eq!(ask(&chain, &data, PLENTY, records, Some(terms(left))), full(left, before));
        // The gas limit is looked at first, and what was paid counts.
        let out = Answered { outcome: Outcome::OutOfGas, metered: before };
        assert_eq!(ask(&chain, &data, Gas(left), records, Some(terms(left))), out);
        assert_eq!(ask(&chain, &data, Gas(left), records, None).metered, Gas(0));
        for left in [after.0, after.0 + 1] {
            assert_eq!(ask(&chain, &data, PLENTY, records, Some(terms(left))), full(left, after));
        }
        before = after;
    }
}

#[test]
fn a_call_that_takes_all_that_is_left_is_answered_and_one_gas_less_is_not() {
    let (chain, _) = chain();
    let records = &mut record(ACTIVE, 100, &claims());
    let data = tokenizeCall { model: id(), text: Bytes::from_static(b"the hello world") }.abi_encode();
    let free = ask(&chain, &data, PLENTY, records, Some(terms(u64::MAX)));
    let Outcome::Return { gas, .. } = free.outcome else { panic!("{free:?}") };
    assert_eq!(free.metered, gas);
    for left in [gas.0, gas.0 + 1] {
        assert_eq!(ask(&chain, &data, PLENTY, records, Some(terms(left))), free);
    }
    let less = ask(&chain, &data, PLENTY, records, Some(terms(gas.0 - 1)));
    assert!(matches!(less.outcome, Outcome::Revert { .. }), "{less:?}");
    assert!(less.metered < gas);
}

#[test]
fn what_is_charged_for_a_models_selector_is_metered_and_nothing_else() {
    let (chain, _) = chain();
    let records = &mut record(ACTIVE, 100, &claims());
    let mut garbled = generate();
    *garbled.last_mut().unwrap() = 1;
    let input = chain.gas().input(garbled.len());
    let bad = Bytes::from(abi::BadCalldata {}.abi_encode());
    let answered = ask(&chain, &garbled, PLENTY, records, Some(terms(input.0)));
    assert_eq!((answered.outcome, answered.metered), (Outcome::Revert { output: bad, gas: input }, input));
    let left = input.0 - 1;
    assert_eq!(ask(&chain, &garbled, PLENTY, records, Some(terms(left))), full(left, Gas(0)));

    // A block that is full still describes.
    let info = modelInfoCall { model: id() }.abi_encode();
    let quote = quoteCall { model: id(), promptTokens: 1, maxNew: 1 }.abi_encode();
    for data in [info, quote] {
        let answered = ask(&chain, &data, PLENTY, records, Some(terms(0)));
        assert!(matches!(answered.outcome, Outcome::Return { .. }), "{answered:?}");
        assert_eq!(answered.metered, Gas(0));
    }
    let unknown = ask(&chain, &[1, 2, 3, 4], PLENTY, records, Some(terms(0)));
    assert_eq!(unknown.metered, Gas(0));
    // Who offers less than the base fee gets no inference, and nothing counts as such.
    let poor = ask(&chain, &generate(), PLENTY, records, Some(MeterTerms { affordable: false, ..terms(0) }));
    let output = abi::InferenceFeeTooLow { baseFee: U256::from(7) }.abi_encode().into();
    let gas = chain.gas().input(generate().len());
    assert_eq!(poor, Answered { outcome: Outcome::Revert { output, gas }, metered: Gas(0) });
}

#[test]
fn a_model_is_kept_while_its_rent_may_still_be_paid() {
    let (chain, asked) = chain();
    let loads = || asked.counts()[2];
    let at =
        |status, until| ask(&chain, &generate(), PLENTY, &mut record(status, until, &claims()), None).outcome;
    let active = abi::ModelNotActive { model: id() }.abi_encode();
    let lapsed = |outcome| matches!(outcome, Outcome::Revert { output, .. } if output == active);
    assert!(matches!(at(ACTIVE, 100), Outcome::Return { .. }));
    assert_eq!(loads(), 1);
    // Its time is over, and then it was paid for after all; or the notice of its end runs.
    assert!(lapsed(at(ACTIVE, 10)));
    assert!(matches!(at(ACTIVE, 100), Outcome::Return { .. }));
    assert!(lapsed(at(SUNSET, 10)));
    assert!(matches!(at(SUNSET, 11), Outcome::Return { .. }));
    assert_eq!(loads(), 1, "it was there all the time");
    for gone in [PENDING, RETIRED] {
        let before = loads();
        assert!(lapsed(at(gone, 0)));
        assert!(matches!(at(ACTIVE, 100), Outcome::Return { .. }));
        assert_eq!(loads(), before + 1, "nobody holds it any more");
    }
}

fn verify(chain: &Inference, claims: &Claims) -> Outcome {
    let records = &mut record(ACTIVE, 100, claims);
    let mut site = Site { asker: REGISTRY_ADDRESS, time: 10, registry: Some(records), ..Site::nowhere() };
    chain.call_at(&verifyBundleCall { model: id() }.abi_encode(), PLENTY, &mut site).unwrap().outcome
}

#[test]
fn a_bundle_that_is_not_what_was_claimed_is_not_loaded() {
    let (chain, asked) = chain();
    let truth = claims();
    let mismatch = |outcome, field: &str| {
        let field = B256::right_padding_from(field.as_bytes());
        let error = abi::BundleMismatch { model: id(), field }.abi_encode();
        assert!(matches!(outcome, Outcome::Revert { output, .. } if output == error), "{field}");
    };
    // The manifest tells.
    let mut wrong = truth;
    wrong.tokenizer_bytes += 1;
    mismatch(verify(&chain, &wrong), "tokenizerBytes");
    let mut wrong = truth;
    wrong.counts.head_macs += 1;
    mismatch(verify(&chain, &wrong), "headMacs");
    assert_eq!(asked.counts(), [2, 0, 0]);
    // The tokenizer tells, which nothing else is left to do.
    let mut wrong = truth;
    wrong.counts.spelled_bytes += 1;
    mismatch(verify(&chain, &wrong), "spelledBytes");
    assert_eq!(asked.counts(), [3, 1, 0]);
    assert!(matches!(verify(&chain, &truth), Outcome::Return { .. }));
    assert_eq!(asked.counts(), [4, 2, 1]);
    // What is loaded is compared as well, and gives the same answers.
    mismatch(verify(&chain, &wrong), "spelledBytes");
    assert!(matches!(verify(&chain, &truth), Outcome::Return { .. }));
    assert_eq!(asked.counts(), [4, 2, 1]);
}
