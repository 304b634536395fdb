use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use metis_kernels::{Scalar, TokenId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::header::Header;
use crate::bundle::BundleParts;
use crate::engine::{Engine, InferenceModel};
use crate::fixture::{Fixture, gguf_file};
use crate::import::names::used;
use crate::import::tests::stories260k;
use crate::import::{ImportError, Options, ProgressBar, Source, convert};
use crate::reference::Reference;

const FLOATS: [GgmlDType; 3] = [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16];
const BLOCKS: [GgmlDType; 5] =
    [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K];

/// Wide enough for blocks of 256.
const WIDE: Fixture = Fixture {
    seed: 7,
    tied: false,
    vocabulary: 300,
    hidden: 256,
    intermediate: 512,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    context: 128,
};

fn stored(file: &[u8]) -> (TempDir, Source) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fixture.gguf");
    fs::write(&path, file).unwrap();
    let source = Source::detect(&path, None).unwrap();
    assert_eq!(source, Source::Gguf(path));
    (place, source)
}

fn parts(source: &Source) -> Result<BundleParts, ImportError> {
    let options = Options { name: Some("fixture".into()), ..Options::default() };
    convert(source, &options, &ProgressBar::hidden())
}

fn set(keys: &mut Vec<(String, Value)>, key: &str, value: Value) {
    keys.retain(|(name, _)| name != key);
    keys.push((key.to_owned(), value));
}

#[test]
fn a_file_is_the_same_model_as_the_folder_that_it_came_from() {
    let other = Fixture { heads: 2, kv_heads: 1, seed: 3, ..Fixture::default() };
    for fixture in [Fixture::default(), WIDE, other] {
        let (_place, source) = stored(&fixture.gguf(GgmlDType::F32).unwrap());
        let found = parts(&source).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let expected = fixture.bundle(&folder.path().join("folder")).unwrap();
        assert_eq!(found.weights, expected.weights);
        let [found, expected] = [found, expected].map(|parts| parts.into_bundle().unwrap());
        let mut manifest = found.manifest().clone();
        manifest.files.clone_from(&expected.manifest().files);
        assert_eq!(&manifest, expected.manifest(), "only the tokenizer's bytes differ");
    }
}

#[test]
fn a_file_gives_the_same_bytes_every_time() {
    let file = WIDE.gguf(GgmlDType::Q4K).unwrap();
    let (one, two) = (stored(&file), stored(&file));
    assert_eq!(parts(&one.1).unwrap().id(), parts(&two.1).unwrap().id());
}

#[test]
fn version_3_is_read_as_version_2() {
    let mut file = Fixture::default().gguf(GgmlDType::F32).unwrap();
    let id = parts(&stored(&file).1).unwrap().id();
    file[4] = 3;
    assert_eq!(parts(&stored(&file).1).unwrap().id(), id);
}

#[test]
fn tensors_are_what_candle_reads() {
    for dtype in FLOATS.into_iter().chain(BLOCKS) {
        let file = WIDE.gguf(dtype).unwrap();
        let (_place, source) = stored(&file);
        let checkpoint = source.open().unwrap();
        let mut reader = Cursor::new(&file);
        let content = Content::read(&mut reader).unwrap();
        for (ours, theirs) in [
            ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
            ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.norm.weight", "output_norm.weight"),
        ] {
            let expected = content.tensor(&mut reader, theirs, &Device::Cpu).unwrap();
            let expected = expected.dequantize(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            let found = checkpoint.tensor(ours, expected.dims()).unwrap();
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&found), values(&expected), "{ours} as {dtype:?}");
        }
    }
}

/// A wrong order of rows, nibbles or scales costs several nats; candle rounds activations to 8 bits where weights are blocks.
#[test]
fn logits_are_those_of_candle_on_the_same_file() {
    let tokens: Vec<TokenId> = (0..48u32).map(|i| TokenId(i * i * 31 % 300)).collect();
    let floats = FLOATS.map(|dtype| (dtype, 1e-7, 0.05));
    for (dtype, float_limit, fixed_limit) in floats.into_iter().chain(BLOCKS.map(|dtype| (dtype, 0.1, 0.1))) {
        for theta in [10_000.0, 500_000.0] {
            let file = WIDE.gguf_with(dtype, |keys, _| set(keys, "llama.rope.freq_base", Value::F32(theta)));
            let file = file.unwrap();
            let (_place, source) = stored(&file);
            let peer = peer_logits(&file, &tokens);
            let float = divergence(&peer, &Reference::load(&source).unwrap().logits(&tokens).unwrap());
            assert!(float < float_limit, "{dtype:?}, theta {theta}: float {float:.2e}");
            let bundle = parts(&source).unwrap().into_bundle().unwrap();
            let engine = Engine::load(&bundle, Arc::new(Scalar::default())).unwrap();
            let fixed = divergence(&peer, &real(engine.all_logits(&tokens).unwrap()));
            assert!(fixed < fixed_limit, "{dtype:?}, theta {theta}: fixed {fixed:.2e}");
        }
    }
}

fn peer_logits(file: &[u8], tokens: &[TokenId]) -> Vec<Vec<f32>> {
    let mut reader = Cursor::new(file);
    let content = Content::read(&mut reader).unwrap();
    let mut model = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
    let step = |(position, token): (usize, &TokenId)| {
        let input = Tensor::new(&[[token.0]], &Device::Cpu).unwrap();
        model.forward(&input, position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    tokens.iter().enumerate().map(step).collect()
}

/// Q16 logits as floats.
fn real(logits: Vec<Vec<i32>>) -> Vec<Vec<f32>> {
    let row = |row: Vec<i32>| row.into_iter().map(|logit| logit as f32 / 65_536.0).collect();
    logits.into_iter().map(row).collect()
}

/// The mean divergence KL(`p` || `q`) per position, in nats.
fn divergence(p: &[Vec<f32>], q: &[Vec<f32>]) -> f64 {
    let one = |(p, q): (&Vec<f32>, &Vec<f32>)| -> f64 {
        log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum()
    };
    p.iter().zip(q).map(one).sum::<f64>() / p.len() as f64
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
}

#[test]
fn frequencies_are_divided_by_the_factors_of_the_file() {
    let file = |factor: &dyn Fn(usize) -> f32| {
        let factors: Vec<f32> = (0..32).map(factor).collect();
        let factors = Tensor::new(factors, &Device::Cpu).unwrap();
        let factors = QTensor::quantize(&factors, GgmlDType::F32).unwrap();
        WIDE.gguf_with(GgmlDType::F32, |_, tensors| tensors.push(("rope_freqs.weight".into(), factors)))
            .unwrap()
    };
    let plain = WIDE.gguf(GgmlDType::F32).unwrap();
    let frequencies = |file: &[u8]| {
        parts(&stored(file).1).unwrap().into_bundle().unwrap().frequencies("rope.frequencies").unwrap()
    };
    assert_eq!(frequencies(&file(&|_| 1.0)), frequencies(&plain));
    let halves: Vec<u64> = frequencies(&plain).into_iter().map(|frequency| frequency / 2).collect();
    assert_eq!(frequencies(&file(&|_| 2.0)), halves);

    // As in Llama 3.1: the high frequencies stay, the low ones are slowed.
    let scaled = file(&|pair| if pair < 2 { 1.0 } else { 1.0 + pair as f32 / 3.0 });
    let (_place, source) = stored(&scaled);
    let tokens: Vec<TokenId> = (0..48u32).map(|i| TokenId(i * i * 31 % 300)).collect();
    let float = Reference::load(&source).unwrap().logits(&tokens).unwrap();
    let engine = Engine::load(&parts(&source).unwrap().into_bundle().unwrap(), Arc::new(Scalar::default()));
    let fixed = real(engine.unwrap().all_logits(&tokens).unwrap());
    assert!(divergence(&float, &fixed) < 0.05);
    assert!(divergence(&peer_logits(&scaled, &tokens), &float) > 1.0, "candle leaves them out");

    let error = parts(&stored(&file(&|_| 0.5)).1).unwrap_err().to_string();
    assert_eq!(error, "tensor `rope_freqs.weight`: the factor 0.5 is not one of 1 to 2^24");
}

#[test]
fn stories260k_is_the_same_model_as_gguf() {
    let Some(llama2c) = stories260k() else { return };
    let Source::Llama2c { tokenizer, .. } = &llama2c else { return };
    let file = stories260k_gguf(&llama2c, tokenizer);
    let (_place, gguf) = stored(&file);
    let [ours, theirs] = [gguf, llama2c].map(|source| parts(&source).unwrap());
    assert_eq!(ours.weights, theirs.weights);
    let [ours, theirs] = [ours, theirs].map(|parts| parts.into_bundle().unwrap().tokenizer().unwrap());
    let text = "([a-z ]{0,60}|[ -~\n]{0,40}|(the|and| was|he|ing|\\. | ){0,20}|[^▁]{0,20})";
    proptest!(|(text in text)| {
        let tokens = ours.encode_prompt(text.as_bytes()).unwrap();
        prop_assert_eq!(&tokens, &theirs.encode_prompt(text.as_bytes()).unwrap());
        prop_assert_eq!(ours.decode(&tokens), text.as_bytes());
        let tokens = ours.encode_continuation(text.as_bytes()).unwrap();
        prop_assert_eq!(&tokens, &theirs.encode_continuation(text.as_bytes()).unwrap());
        prop_assert_eq!(ours.decode(&tokens), text.as_bytes());
    });
}

/// The llama2.c files as a GGUF: the same order of rows, and a SentencePiece tokenizer.
fn stories260k_gguf(source: &Source, tokenizer: &Path) -> Vec<u8> {
    let checkpoint = source.open().unwrap();
    let tensors = used(&checkpoint.shape).into_iter().map(|(name, shape)| {
        let tensor = checkpoint.tensor(&name, &shape).unwrap();
        (crate::fixture::gguf_name(&name), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
    });
    let tensors: Vec<(String, QTensor)> = tensors.collect();
    let shape = &checkpoint.shape;
    let number = |n: usize| Value::U32(n as u32);
    let mut keys = vec![("general.architecture".to_owned(), Value::String("llama".into()))];
    keys.extend(
        [
            ("context_length", number(shape.context)),
            ("embedding_length", number(shape.hidden)),
            ("block_count", number(shape.layers)),
            ("feed_forward_length", number(shape.intermediate)),
            ("attention.head_count", number(shape.heads)),
            ("attention.head_count_kv", number(shape.kv_heads)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ]
        .map(|(key, value)| (format!("llama.{key}"), value)),
    );
    let (mut texts, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let bytes = fs::read(tokenizer).unwrap();
    let mut rest = &bytes[4..];
    while let Some((score, tail)) = rest.split_first_chunk() {
        let (length, tail) = tail.split_first_chunk().unwrap();
        let (text, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        let id = texts.len();
        let text = String::from_utf8(text.to_vec()).unwrap().replace(' ', "▁");
        texts.push(Value::String(["<unk>", "<s>", "</s>"].get(id).map_or(text, |&text| text.into())));
        scores.push(Value::F32(f32::from_le_bytes(*score)));
        kinds.push(Value::I32(match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        }));
        rest = tail;
    }
    keys.extend(
        [
            ("model", Value::String("llama".into())),
            ("tokens", Value::Array(texts)),
            ("scores", Value::Array(scores)),
            ("token_type", Value::Array(kinds)),
            ("bos_token_id", Value::U32(1)),
            ("eos_token_id", Value::U32(2)),
        ]
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)),
    );
    gguf_file(&keys, &tensors).unwrap()
}

/// Imports a changed fixture and expects a refusal that says `message`.
fn refused(change: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(String, QTensor)>), message: &str) {
    let file = Fixture::default().gguf_with(GgmlDType::F32, change).unwrap();
    let (_place, source) = stored(&file);
    let error = parts(&source).unwrap_err().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
}

fn refused_key(key: &str, value: Value, message: &str) {
    refused(|keys, _| set(keys, key, value), message);
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    refused_key("general.architecture", text("mamba"), "mamba");
    refused_key("general.type", text("adapter"), "adapter");
    refused_key("split.count", Value::U16(3), "split.count 3");
    refused_key("llama.rope.scaling.type", text("yarn"), "llama.rope.scaling.type yarn");
    refused_key("llama.rope.scaling.factor", Value::F32(8.0), "llama.rope.scaling.factor");
    refused_key("llama.expert_count", Value::U32(8), "llama.expert_count 8");
    refused_key("llama.attention.sliding_window", Value::U32(8), "sliding_window");
    refused_key("llama.attention.key_length", Value::U32(8), "dimension_count");
    refused_key("llama.attention.value_length", Value::U32(8), "value_length");
    refused_key("llama.rope.dimension_count", Value::U32(8), "dimension_count");
    refused_key("llama.rope.freq_base", Value::F32(10_000.5), "whole number");
    refused_key("llama.rope.freq_base", text("x"), "not a single");
    refused_key("llama.attention.layer_norm_rms_epsilon", Value::F32(2.5), "epsilon");
    refused_key("llama.feed_forward_length", Value::Array(vec![Value::U32(96); 2]), "not one size");
    refused_key("llama.block_count", Value::U32(3), "blk.2.attn_norm.weight");
    refused_key("llama.block_count", Value::U32(1), "blk.1.");
    refused_key("llama.block_count", Value::U32(1_000_000), "layers");
    refused_key("llama.vocab_size", Value::U32(299), "vocab_size");
    refused_key("llama.embedding_length", Value::U64(1 << 60), "dimension_count");
    refused_key("llama.context_length", Value::U64(1 << 60), "context");
    refused_key("llama.feed_forward_length", Value::I32(-1), "not one size");
    refused_key("llama.attention.head_count", Value::U32(0), "heads");
    refused_key("general.alignment", Value::U32(0), "general.alignment");
    refused(|keys, _| keys.retain(|(key, _)| key != "llama.context_length"), "llama.context_length");
    refused(|_, tensors| tensors.retain(|(name, _)| name != "token_embd.weight"), "token_embd.weight");
    let ones = || QTensor::quantize(&Tensor::ones(32, DType::F32, &Device::Cpu).unwrap(), GgmlDType::F32);
    for name in ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.foo.weight", "output.weight"] {
        refused(|_, tensors| tensors.push((name.into(), ones().unwrap())), name);
    }
}

#[test]
fn types_that_are_not_read_are_named() {
    for (dtype, name) in [(GgmlDType::Q4_1, "Q4_1"), (GgmlDType::Q5_0, "Q5_0"), (GgmlDType::Q8_1, "Q8_1")] {
        let (_place, source) = stored(&Fixture::default().gguf(dtype).unwrap());
        let error = parts(&source).unwrap_err().to_string();
        assert!(error.contains(&format!("is stored as {name}; supported: F32")), "{error}");
    }
    assert_eq!(super::storage::TypeId(23).to_string(), "IQ4_XS");
    assert_eq!(super::storage::TypeId(99).to_string(), "type 99");
}

#[test]
fn scales_that_are_not_finite_are_named() {
    let mut file = Fixture::default().gguf(GgmlDType::Q8_0).unwrap();
    let header = Header::read(&file).unwrap();
    let start = header.tensors["blk.1.ffn_up.weight"].bytes.start;
    // The scale of the third block.
    file[start + 2 * 34 + 1] = 0x7c;
    let (_place, source) = stored(&file);
    let error = parts(&source).unwrap_err().to_string();
    assert_eq!(error, "tensor `model.layers.1.mlp.up_proj.weight`: the scale of block 2 is not finite");
}

#[test]
fn damaged_headers_are_refused() {
    let file = Fixture::default().gguf(GgmlDType::F32).unwrap();
    let refused = |file: &[u8], message: &str| {
        let (_place, source) = stored(file);
        let error = parts(&source).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(&file[..file.len() - 64], "whole one inside the file");
    refused(&file[..100], "ends inside its header");
    refused(&with(4, &1u32.to_le_bytes()), "version 1");
    refused(&with(4, &3u32.to_be_bytes()), "big-endian");
    refused(&with(8, &u64::MAX.to_le_bytes()), "more than");
    refused(&with(16, &u64::MAX.to_le_bytes()), "more than");
    refused(&with(24, &u64::MAX.to_le_bytes()), "ends inside its header");
    let (one, two) = (*b"blk.0.ffn_up.weight", *b"blk.1.ffn_up.weight");
    let at = file.windows(two.len()).position(|window| window == two).unwrap();
    refused(&with(at, &one), "is there twice");
    // Offsets of tensors: behind the name, the count of dimensions, two dimensions and the type.
    let offset = at + two.len() + 4 + 16 + 4;
    refused(&with(offset, &1u64.to_le_bytes()), "whole one inside the file");
    refused(&with(offset, &(u64::MAX - 31).to_le_bytes()), "whole one inside the file");
    refused(&with(offset, &0u64.to_le_bytes()), "overlap");
    refused(&with(offset - 20, &u64::MAX.to_le_bytes()), "whole one inside the file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn foreign_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let file = Fixture { layers: 1, ..Fixture::default() }.gguf(GgmlDType::Q8_0).unwrap();
        prop_assert!(Header::read(&bytes).is_err());
        prop_assert!(Header::read(&[&file[..24], &bytes].concat()).is_err());
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        let run = |file: &[u8]| {
            fs::write(&path, file).unwrap();
            parts(&Source::Gguf(path.clone()))
        };
        prop_assert!(run(&file[..cut.index(file.len() - 64)]).is_err());
        let mut changed = file.clone();
        // Mostly in the header, which is the first part.
        changes.iter().for_each(|(at, byte)| changed[at.index(file.len().min(12_000))] = *byte);
        if let Ok(parts) = run(&changed) {
            // Whatever it says now, it is a whole model.
            parts.into_bundle().unwrap();
        }
    }
}
