//! The figures in `docs/gas.md` and `docs/abi.md` are those of the code.
#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

use std::fs;
use std::path::Path;

use alloy_primitives::B256;
use alloy_sol_types::{SolCall, SolError};
use metis_precompiles::abi::*;
use metis_precompiles::costs::ModelCosts;
use metis_precompiles::costs::{MAX_PIECE_BYTES, MIN_HEAD_DIM, MIN_HIDDEN};
use metis_precompiles::gas::QUOTED_BYTES_PER_TOKEN;
use metis_precompiles::{
    Caps, ChainConfig, GATEWAY_ADDRESS, Gas, GasSchedule, INFERENCE_ADDRESS, LEGACY_ADDRESS, LegacyConfig,
    Market, REGISTRY_ADDRESS, RegistryConfig, SHARES_ADDRESS,
};

/// What a transaction costs before its contract runs.
const INTRINSIC: u64 = 21_000;
/// Tokens of the prompt in the table of generations.
const PROMPT: u32 = 32;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

#[track_caller]
fn assert_written(document: &str, expected: &str) {
    assert!(document.contains(expected), "the document should say:\n{expected}");
}

/// A model of the Llama family.
struct Shape {
    name: &'static str,
    hidden: u64,
    intermediate: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    vocabulary: u32,
    context: u32,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "1M (the embedded model)",
        hidden: 128,
        intermediate: 352,
        layers: 4,
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
        vocabulary: 640,
        context: 192,
    },
    Shape {
        name: "135M (SmolLM2-135M)",
        hidden: 576,
        intermediate: 1_536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocabulary: 49_152,
        context: 8_192,
    },
    Shape {
        name: "0.5B (Qwen2.5-0.5B)",
        hidden: 896,
        intermediate: 4_864,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        vocabulary: 151_936,
        context: 32_768,
    },
    Shape {
        name: "1B (Llama-3.2-1B)",
        hidden: 2_048,
        intermediate: 8_192,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        vocabulary: 128_256,
        context: 131_071,
    },
];

impl Shape {
    /// As a manifest derives it.
    fn costs(&self) -> ModelCosts {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let layer =
            self.hidden * (query + 2 * kv) + query * self.hidden + 3 * self.hidden * self.intermediate;
        ModelCosts {
            linear_macs: self.layers * layer,
            attention_macs: 2 * self.layers * query,
            head_macs: u64::from(self.vocabulary) * self.hidden,
            layers: self.layers as u32,
            vocabulary: self.vocabulary,
            spelled_bytes: 0,
            has_groups: false,
        }
    }

    fn quote(&self, prompt: u32, new: u32) -> Gas {
        GasSchedule::default().quote(&self.costs(), &Caps::default(), prompt, new)
    }
}

/// The largest number up to `max` whose price fits; the price grows with the number.
fn most(max: u32, limit: u64, price: impl Fn(u32) -> Gas) -> u32 {
    let (mut fits, mut too_many) = (0, max + 1);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if price(middle) <= Gas(limit) { fits = middle } else { too_many = middle }
    }
    fits
}

/// An integer with commas.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn the_table_of_tokens_per_transaction_is_what_the_formula_gives() {
    let mut table = String::from(
        "| model | gas of one more token | 2^24: prompt | 2^24: answer | 500M: prompt | 500M: answer |\n\
         |---|--:|--:|--:|--:|--:|\n",
    );
    for shape in &SHAPES {
        let one = shape.quote(PROMPT, 2).0 - shape.quote(PROMPT, 1).0;
        table += &format!("| {} | {} |", shape.name, grouped(one));
        for cap in [1 << 24, 500_000_000] {
            let limit = cap - INTRINSIC;
            let prompt = most(shape.context, limit, |n| shape.quote(n, 1));
            let room = (shape.context - PROMPT + 1).min(Caps::default().max_new_tokens);
            let answer = most(room, limit, |n| shape.quote(PROMPT, n));
            table += &format!(" {} | {} |", grouped(prompt.into()), grouped(answer.into()));
        }
        table.push('\n');
    }
    assert_written(&document("gas.md"), &table);
}

#[test]
fn the_embedded_model_in_the_table_is_the_embedded_model() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../default-model/bundle/manifest.json");
    let manifest = metis_models::Manifest::decode(&fs::read(manifest).unwrap()).unwrap();
    let costs = SHAPES[0].costs();
    assert_eq!(manifest.work.linear_macs, costs.linear_macs);
    assert_eq!(manifest.work.attention_macs, costs.attention_macs);
    assert_eq!(manifest.work.head_macs, costs.head_macs);
    assert_eq!((manifest.vocabulary, manifest.context), (640, 192));
}

#[test]
fn the_constants_are_those_of_the_code() {
    let (gas, caps) = (GasSchedule::default(), Caps::default());
    let gas_md = document("gas.md");
    for (name, value) in [
        ("base", gas.base.0),
        ("per_word", gas.per_word.0),
        ("per_byte", gas.per_byte.0),
        ("per_token", gas.per_token.0),
        ("macs_per_gas", gas.macs_per_gas),
        ("macs_per_layer", gas.macs_per_layer),
        ("macs_per_logit", gas.macs_per_logit),
        ("attention_weight", gas.attention_weight),
        ("per_constraint_byte", gas.per_constraint_byte.0),
        ("per_transition", gas.per_transition.0),
        ("macs_per_spelled_byte", gas.macs_per_spelled_byte),
        ("macs_per_multiplier", gas.macs_per_multiplier),
        ("per_mebibyte", gas.per_mebibyte.0),
    ] {
        assert_written(&gas_md, &format!("| `{name}` | {} |", grouped(value)));
    }
    assert_written(&gas_md, &format!("QUOTED_BYTES_PER_TOKEN = {QUOTED_BYTES_PER_TOKEN}"));
    assert_written(&gas_md, &format!("hidden >= {MIN_HIDDEN}"));
    assert_written(&gas_md, &format!("head_dim >= {MIN_HEAD_DIM}"));
    assert_written(&gas_md, &format!("{} bytes", grouped(MAX_PIECE_BYTES as u64)));
    let abi_md = document("abi.md");
    for (name, value) in [
        ("max_prompt_bytes", caps.max_prompt_bytes),
        ("max_new_tokens", caps.max_new_tokens),
        ("max_labels", caps.max_labels),
        ("max_label_bytes", caps.max_label_bytes),
        ("max_ids", caps.max_ids),
        ("max_stop_ids", caps.max_stop_ids),
        ("max_messages", caps.max_messages),
        ("max_pattern_bytes", caps.max_pattern_bytes),
        ("max_automaton_states", caps.max_automaton_states),
    ] {
        assert_written(&abi_md, &format!("| `{name}` | {} |", grouped(value.into())));
    }
}

#[test]
fn the_selectors_are_those_of_the_code() {
    let abi_md = document("abi.md");
    let mut rows = Vec::new();
    let mut row = |signature: &str, selector: [u8; 4]| {
        rows.push(format!("| `0x{}` | `{signature}` |", alloy_primitives::hex::encode(selector)));
    };
    row(generateCall::SIGNATURE, generateCall::SELECTOR);
    row(generateTokensCall::SIGNATURE, generateTokensCall::SELECTOR);
    row(generateConstrainedCall::SIGNATURE, generateConstrainedCall::SELECTOR);
    row(chooseCall::SIGNATURE, chooseCall::SELECTOR);
    row(generateChatCall::SIGNATURE, generateChatCall::SELECTOR);
    row(tokenizeChatCall::SIGNATURE, tokenizeChatCall::SELECTOR);
    row(scoreCall::SIGNATURE, scoreCall::SELECTOR);
    row(logitsCall::SIGNATURE, logitsCall::SELECTOR);
    row(embedCall::SIGNATURE, embedCall::SELECTOR);
    row(tokenizeCall::SIGNATURE, tokenizeCall::SELECTOR);
    row(detokenizeCall::SIGNATURE, detokenizeCall::SELECTOR);
    row(modelInfoCall::SIGNATURE, modelInfoCall::SELECTOR);
    row(quoteCall::SIGNATURE, quoteCall::SELECTOR);
    row(verifyBundleCall::SIGNATURE, verifyBundleCall::SELECTOR);
    row(inferenceBaseFeeCall::SIGNATURE, inferenceBaseFeeCall::SELECTOR);
    row(UnknownModel::SIGNATURE, UnknownModel::SELECTOR);
    row(ModelNotActive::SIGNATURE, ModelNotActive::SELECTOR);
    row(PromptTooLong::SIGNATURE, PromptTooLong::SELECTOR);
    row(TooManyNewTokens::SIGNATURE, TooManyNewTokens::SELECTOR);
    row(BadSampling::SIGNATURE, BadSampling::SELECTOR);
    row(TokenOutOfRange::SIGNATURE, TokenOutOfRange::SELECTOR);
    row(NotSupported::SIGNATURE, NotSupported::SELECTOR);
    row(BadConstraint::SIGNATURE, BadConstraint::SELECTOR);
    row(ConstraintTooLarge::SIGNATURE, ConstraintTooLarge::SELECTOR);
    row(CannotSpell::SIGNATURE, CannotSpell::SELECTOR);
    row(BadMessage::SIGNATURE, BadMessage::SELECTOR);
    row(BadCalldata::SIGNATURE, BadCalldata::SELECTOR);
    row(PaymentRequired::SIGNATURE, PaymentRequired::SELECTOR);
    row(InferenceFeeTooLow::SIGNATURE, InferenceFeeTooLow::SELECTOR);
    row(BlockInferenceLimit::SIGNATURE, BlockInferenceLimit::SELECTOR);
    row(BundleMismatch::SIGNATURE, BundleMismatch::SELECTOR);
    row(BundleRefused::SIGNATURE, BundleRefused::SELECTOR);
    let missing: Vec<_> = rows.iter().filter(|row| !abi_md.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/abi.md should say:\n{missing:#?}");
}

/// A document's block of configuration that begins with a section, as a chain's whole configuration.
fn configured(document: &str, section: &str) -> ChainConfig {
    let block = document.split("```toml\n").find(|block| block.starts_with(section)).unwrap();
    let text = block
        .split("```")
        .next()
        .unwrap()
        .replace("\"0x…\"", "\"0x0000000000000000000000000000000000000000\"");
    ChainConfig::parse(&format!("chain_id = 1\n{text}"), Path::new("chain.toml"), B256::ZERO).unwrap()
}

#[test]
fn the_sections_of_the_configuration_show_the_defaults() {
    assert_eq!(configured(&document("registry.md"), "[registry]").registry, Some(RegistryConfig::default()));
    assert_eq!(configured(&document("market.md"), "[market]").market, Some(Market::default()));
    assert_written(&document("abi.md"), &format!("(default {})", LegacyConfig::default().max_new_tokens));
}

#[test]
fn the_addresses_are_those_of_the_code() {
    for (name, address) in [
        ("abi.md", INFERENCE_ADDRESS),
        ("abi.md", LEGACY_ADDRESS),
        ("registry.md", REGISTRY_ADDRESS),
        ("registry.md", GATEWAY_ADDRESS),
        ("registry.md", SHARES_ADDRESS),
    ] {
        assert_written(&document(name).to_lowercase(), &format!("`{address}`").to_lowercase());
    }
}
