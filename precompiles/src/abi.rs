//! The ABI: selectors, arguments, answers and errors. `docs/abi.md` is normative.

use alloy_primitives::{Address, B256, address};
use alloy_sol_types::abi::AbiDecoderConfig;
use alloy_sol_types::{SolCall, SolError};

pub use interface::*;

/// Where the inference precompile lives.
pub const INFERENCE_ADDRESS: Address = address!("0x000000000000000000000000000000000000A100");

/// What the Solidity compiler sees as `interface IInference`.
#[allow(missing_docs, reason = "the macro's items; the text is in docs/abi.md")]
#[allow(clippy::too_many_arguments, reason = "the macro makes constructors of all fields")]
#[allow(unreachable_pub, reason = "the macro's items are re-exported above")]
mod interface {
    alloy_sol_types::sol! {
        /// How to choose tokens; temperature 0 is greedy and ignores the rest.
        #[derive(Debug, PartialEq, Eq)]
        struct Sampling {
            uint32 temperatureQ16;
            uint32 topPQ16;
            uint16 topK;
            uint64 seed;
        }

        /// Why an answer ended.
        #[derive(Debug, PartialEq, Eq)]
        enum Finish {
            Eos,
            Length,
            Stop,
            Complete
        }

        /// The form of an answer: a pattern, or options; the other is empty.
        #[derive(Debug, PartialEq, Eq)]
        struct Constraint {
            bytes pattern;
            bytes[] options;
        }

        /// Who says a message.
        #[derive(Debug, PartialEq, Eq)]
        enum Role {
            System,
            User,
            Assistant
        }

        /// One message of a conversation.
        #[derive(Debug, PartialEq, Eq)]
        struct Message {
            Role role;
            bytes content;
        }

        /// What a model is.
        #[derive(Debug, PartialEq, Eq)]
        struct ModelInfo {
            bytes32 modelId;
            bytes32 architecture;
            uint32 vocab;
            uint32 context;
            uint32 layers;
            uint32 hidden;
            uint64 bundleBytes;
            uint64 linearMacs;
            uint64 attentionMacs;
            uint64 headMacs;
            string name;
        }

        #[derive(Debug, PartialEq, Eq)]
        function generate(bytes32 model, bytes prompt, uint32 maxNew, Sampling s, uint32[] stopIds)
            returns (bytes text, uint32[] tokens, uint32 promptTokens, Finish finish);
        #[derive(Debug, PartialEq, Eq)]
        function generateTokens(bytes32 model, uint32[] prompt, uint32 maxNew, Sampling s, uint32[] stopIds)
            returns (uint32[] tokens, Finish finish);
        #[derive(Debug, PartialEq, Eq)]
        function generateConstrained(bytes32 model, bytes prompt, uint32 maxNew, Sampling s, Constraint c)
            returns (bytes text, uint32[] tokens, uint32 promptTokens, Finish finish);
        #[derive(Debug, PartialEq, Eq)]
        function choose(bytes32 model, bytes prompt, Sampling s, bytes[] options) returns (uint32 index);
        #[derive(Debug, PartialEq, Eq)]
        function generateChat(bytes32 model, Message[] messages, uint32 maxNew, Sampling s, Constraint c)
            returns (bytes text, uint32[] tokens, uint32 promptTokens, Finish finish);
        #[derive(Debug, PartialEq, Eq)]
        function tokenizeChat(bytes32 model, Message[] messages) returns (uint32[] ids);
        #[derive(Debug, PartialEq, Eq)]
        function score(bytes32 model, bytes prompt, bytes[] labels) returns (int64[] logProbQ16, uint32 best);
        #[derive(Debug, PartialEq, Eq)]
        function logits(bytes32 model, bytes prompt, uint32[] ids) returns (int32[] logitQ16);
        #[derive(Debug, PartialEq, Eq)]
        function embed(bytes32 model, bytes text) returns (int32[] vectorQ16);
        #[derive(Debug, PartialEq, Eq)]
        function tokenize(bytes32 model, bytes text) returns (uint32[] ids);
        #[derive(Debug, PartialEq, Eq)]
        function detokenize(bytes32 model, uint32[] ids) returns (bytes text);
        #[derive(Debug, PartialEq, Eq)]
        function modelInfo(bytes32 model) returns (ModelInfo info);
        #[derive(Debug, PartialEq, Eq)]
        function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) returns (uint64 gas);
        #[derive(Debug, PartialEq, Eq)]
        function verifyBundle(bytes32 model) returns (bool same);
        #[derive(Debug, PartialEq, Eq)]
        function inferenceBaseFee() returns (uint256 baseFee);

        #[derive(Debug, PartialEq, Eq)]
        error UnknownModel(bytes32 model);
        #[derive(Debug, PartialEq, Eq)]
        error ModelNotActive(bytes32 model);
        #[derive(Debug, PartialEq, Eq)]
        error PromptTooLong(uint32 tokens, uint32 max);
        #[derive(Debug, PartialEq, Eq)]
        error TooManyNewTokens(uint32 requested, uint32 max);
        #[derive(Debug, PartialEq, Eq)]
        error BadSampling();
        #[derive(Debug, PartialEq, Eq)]
        error TokenOutOfRange(uint32 id, uint32 vocab);
        #[derive(Debug, PartialEq, Eq)]
        error NotSupported(bytes4 selector);
        #[derive(Debug, PartialEq, Eq)]
        error BadConstraint(uint32 position);
        #[derive(Debug, PartialEq, Eq)]
        error ConstraintTooLarge(uint32 max);
        #[derive(Debug, PartialEq, Eq)]
        error CannotSpell(uint32 tokens);
        #[derive(Debug, PartialEq, Eq)]
        error BadMessage(uint32 index);
        #[derive(Debug, PartialEq, Eq)]
        error BadCalldata();
        #[derive(Debug, PartialEq, Eq)]
        error PaymentRequired(bytes32 model);
        #[derive(Debug, PartialEq, Eq)]
        error InferenceFeeTooLow(uint256 baseFee);
        #[derive(Debug, PartialEq, Eq)]
        error BlockInferenceLimit(uint64 left);
        #[derive(Debug, PartialEq, Eq)]
        error BundleMismatch(bytes32 model, bytes32 field);
        #[derive(Debug, PartialEq, Eq)]
        error BundleRefused(bytes32 model);
    }
}

/// What revert data of the precompile says.
pub fn describe(revert: &[u8]) -> Option<String> {
    fn one<E: SolError + core::fmt::Debug>(revert: &[u8]) -> Option<String> {
        E::abi_decode(revert).ok().map(|error| format!("{error:?}"))
    }
    [
        one::<UnknownModel>,
        one::<ModelNotActive>,
        one::<PromptTooLong>,
        one::<TooManyNewTokens>,
        one::<BadSampling>,
        one::<TokenOutOfRange>,
        one::<NotSupported>,
        one::<BadConstraint>,
        one::<ConstraintTooLarge>,
        one::<CannotSpell>,
        one::<BadMessage>,
        one::<BadCalldata>,
        one::<PaymentRequired>,
        one::<InferenceFeeTooLow>,
        one::<BlockInferenceLimit>,
        one::<BundleMismatch>,
        one::<BundleRefused>,
    ]
    .iter()
    .find_map(|describe| describe(revert))
}

/// Arguments of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `generate`
    Generate(generateCall),
    /// `generateTokens`
    GenerateTokens(generateTokensCall),
    /// `generateConstrained`
    GenerateConstrained(generateConstrainedCall),
    /// `choose`
    Choose(chooseCall),
    /// `generateChat`
    GenerateChat(generateChatCall),
    /// `tokenizeChat`
    TokenizeChat(tokenizeChatCall),
    /// `score`
    Score(scoreCall),
    /// `logits`
    Logits(logitsCall),
    /// `embed`
    Embed(embedCall),
    /// `tokenize`
    Tokenize(tokenizeCall),
    /// `detokenize`
    Detokenize(detokenizeCall),
    /// `modelInfo`
    ModelInfo(modelInfoCall),
    /// `quote`
    Quote(quoteCall),
    /// `verifyBundle`
    VerifyBundle(verifyBundleCall),
    /// `inferenceBaseFee`
    InferenceBaseFee(inferenceBaseFeeCall),
}

impl Call {
    /// The model that it names; none where it is about the chain.
    pub const fn model(&self) -> B256 {
        match self {
            Self::Generate(call) => call.model,
            Self::GenerateTokens(call) => call.model,
            Self::GenerateConstrained(call) => call.model,
            Self::Choose(call) => call.model,
            Self::GenerateChat(call) => call.model,
            Self::TokenizeChat(call) => call.model,
            Self::Score(call) => call.model,
            Self::Logits(call) => call.model,
            Self::Embed(call) => call.model,
            Self::Tokenize(call) => call.model,
            Self::Detokenize(call) => call.model,
            Self::ModelInfo(call) => call.model,
            Self::Quote(call) => call.model,
            Self::VerifyBundle(call) => call.model,
            Self::InferenceBaseFee(_) => B256::ZERO,
        }
    }

    /// Reads calldata: `None` unless it is the canonical ABI encoding of a call that exists.
    ///
    /// Canonical means that encoding what was read gives the same bytes. So the arguments are never larger than the calldata
    /// (no two offsets share data), and no length is believed before the bytes are there.
    pub fn decode(calldata: &[u8]) -> Option<Self> {
        let (&selector, arguments) = calldata.split_first_chunk::<4>()?;
        match selector {
            generateCall::SELECTOR => canonical(arguments).map(Self::Generate),
            generateTokensCall::SELECTOR => canonical(arguments).map(Self::GenerateTokens),
            generateConstrainedCall::SELECTOR => canonical(arguments).map(Self::GenerateConstrained),
            chooseCall::SELECTOR => canonical(arguments).map(Self::Choose),
            generateChatCall::SELECTOR => canonical(arguments).map(Self::GenerateChat),
            tokenizeChatCall::SELECTOR => canonical(arguments).map(Self::TokenizeChat),
            scoreCall::SELECTOR => canonical(arguments).map(Self::Score),
            logitsCall::SELECTOR => canonical(arguments).map(Self::Logits),
            embedCall::SELECTOR => canonical(arguments).map(Self::Embed),
            tokenizeCall::SELECTOR => canonical(arguments).map(Self::Tokenize),
            detokenizeCall::SELECTOR => canonical(arguments).map(Self::Detokenize),
            modelInfoCall::SELECTOR => canonical(arguments).map(Self::ModelInfo),
            quoteCall::SELECTOR => canonical(arguments).map(Self::Quote),
            verifyBundleCall::SELECTOR => canonical(arguments).map(Self::VerifyBundle),
            inferenceBaseFeeCall::SELECTOR => canonical(arguments).map(Self::InferenceBaseFee),
            _ => None,
        }
    }
}

/// Whether calldata names a function that has a model look at something, whatever its arguments are.
pub fn is_metered(calldata: &[u8]) -> bool {
    matches!(
        calldata.first_chunk::<4>(),
        Some(
            &(generateCall::SELECTOR
                | generateTokensCall::SELECTOR
                | generateConstrainedCall::SELECTOR
                | chooseCall::SELECTOR
                | generateChatCall::SELECTOR
                | tokenizeChatCall::SELECTOR
                | scoreCall::SELECTOR
                | logitsCall::SELECTOR
                | embedCall::SELECTOR
                | tokenizeCall::SELECTOR
                | detokenizeCall::SELECTOR)
        )
    )
}

fn canonical<C: SolCall>(arguments: &[u8]) -> Option<C> {
    let config = AbiDecoderConfig::new().strict(true);
    let call = C::abi_decode_raw_with_config(arguments, config).ok()?;
    // The strict decoder promises it; the rule itself is cheap to check.
    (call.abi_encode().get(4..) == Some(arguments)).then_some(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Bytes;
    use proptest::prelude::*;

    fn score(labels: &[&'static [u8]]) -> scoreCall {
        scoreCall {
            model: B256::ZERO,
            prompt: Bytes::from_static(b"a prompt"),
            labels: labels.iter().map(|label| Bytes::from_static(label)).collect(),
        }
    }

    #[test]
    fn calldata_that_repeats_itself_through_offsets_is_refused() {
        let call = score(&[b"yes", b"yes"]).abi_encode();
        assert_eq!(Call::decode(&call), Some(Call::Score(score(&[b"yes", b"yes"]))));
        // The second label's offset now names the first label's bytes.
        let labels = call.len() - 32 * 6;
        let mut shared = call;
        let (first, second) = (labels, labels + 32);
        let offset = shared[first..first + 32].to_vec();
        shared[second..second + 32].copy_from_slice(&offset);
        assert_eq!(Call::decode(&shared), None);
    }

    #[test]
    fn a_giant_length_fails_before_it_allocates() {
        let mut call = detokenizeCall { model: B256::ZERO, ids: vec![1, 2] }.abi_encode();
        let length = 4 + 64;
        for giant in [3u64, 1 << 20, 1 << 31, 1 << 40, u64::MAX] {
            call[length + 24..length + 32].copy_from_slice(&giant.to_be_bytes());
            assert_eq!(Call::decode(&call), None, "{giant}");
        }
    }

    #[test]
    fn trailing_and_dirty_bytes_are_refused() {
        let call = tokenizeCall { model: B256::ZERO, text: Bytes::from_static(b"abc") }.abi_encode();
        assert!(Call::decode(&call).is_some());
        assert_eq!(Call::decode(&[call.as_slice(), &[0; 32]].concat()), None);
        let mut dirty = call;
        *dirty.last_mut().unwrap() = 1;
        assert_eq!(Call::decode(&dirty), None);
        let mut quote = quoteCall { model: B256::ZERO, promptTokens: 1, maxNew: 1 }.abi_encode();
        quote[4 + 32] = 1;
        assert_eq!(Call::decode(&quote), None, "a uint32 with high bits");
    }

    #[test]
    fn unknown_and_short_selectors_are_no_call() {
        for calldata in [&[][..], &[1, 2, 3], &[0xff; 4], &generateCall::SELECTOR] {
            assert_eq!(Call::decode(calldata), None);
        }
    }

    proptest! {
        #[test]
        fn what_any_abi_encoder_writes_is_read_back(
            model: [u8; 32], prompt: Vec<u8>, max_new: u32, stop: Vec<u32>, labels: Vec<Vec<u8>>,
        ) {
            let s = Sampling { temperatureQ16: 1, topPQ16: 2, topK: 3, seed: u64::MAX };
            let call = generateCall {
                model: model.into(), prompt: prompt.clone().into(), maxNew: max_new, s, stopIds: stop,
            };
            prop_assert_eq!(Call::decode(&call.abi_encode()), Some(Call::Generate(call)));
            let labels: Vec<Bytes> = labels.into_iter().map(Bytes::from).collect();
            let s = Sampling { temperatureQ16: 1, topPQ16: 2, topK: 3, seed: u64::MAX };
            let c = Constraint { pattern: prompt.clone().into(), options: labels.clone() };
            let call = generateConstrainedCall {
                model: model.into(), prompt: prompt.clone().into(), maxNew: max_new, s, c,
            };
            prop_assert_eq!(Call::decode(&call.abi_encode()), Some(Call::GenerateConstrained(call)));
            let call = scoreCall { model: model.into(), prompt: prompt.into(), labels };
            prop_assert_eq!(Call::decode(&call.abi_encode()), Some(Call::Score(call)));
        }

        #[test]
        fn one_changed_byte_is_another_call_or_none(at: prop::sample::Index, to: u8) {
            let call = score(&[b"yes", b"", b"a label that is longer than thirty-two bytes"]).abi_encode();
            let mut changed = call.clone();
            let at = at.index(call.len());
            changed[at] = to;
            if let Some(Call::Score(decoded)) = Call::decode(&changed) {
                prop_assert_eq!(decoded.abi_encode(), changed);
            }
        }
    }
}
