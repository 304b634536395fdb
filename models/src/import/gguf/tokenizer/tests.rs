use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::fixture::{gguf_file, word_piece};
use crate::import::ImportError;
use crate::import::gguf::header::Header;
use crate::synthetic::{TOKENS, tokenizer_json};
use crate::tokenizer::Tokenizer;

type Keys = Vec<(&'static str, Value)>;

fn convert(keys: &Keys, vocabulary: usize) -> Result<Vec<u8>, ImportError> {
    let keys: Vec<_> =
        keys.iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone())).collect();
    let file = gguf_file(&keys, &[]).unwrap();
    super::json(&Header::read(&file).unwrap().metadata, Path::new("model.gguf"), vocabulary)
}

fn set(keys: &mut Keys, key: &'static str, value: Value) {
    keys.retain(|(name, _)| *name != key);
    keys.push((key, value));
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(texts.into_iter().map(text).collect())
}

fn kinds(kinds: impl IntoIterator<Item = i32>) -> Value {
    Value::Array(kinds.into_iter().map(Value::I32).collect())
}

/// What a converter makes of a byte-level `tokenizer.json`.
fn byte_level_keys(json: &Json, pre: &str) -> Keys {
    let mut tokens: Vec<(u64, &str, i32)> = Vec::new();
    for (piece, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens.push((id.as_u64().unwrap(), piece, 1));
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let (id, content) = (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap());
        tokens.retain(|(other, ..)| *other != id);
        tokens.push((id, content, if token["special"] == true { 3 } else { 4 }));
    }
    tokens.sort_unstable();
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges: Vec<String> =
        merges.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    vec![
        ("model", text("gpt2")),
        ("pre", text(pre)),
        ("tokens", strings(tokens.iter().map(|token| token.1))),
        ("token_type", kinds(tokens.iter().map(|token| token.2))),
        ("merges", strings(merges.iter().map(String::as_str))),
        ("add_bos_token", Value::Bool(true)),
    ]
}

/// How the families write their own `tokenizer.json`: pre-tokenizer, normalizer, `ignore_merges`.
fn family(pre: &str) -> (Json, Json, bool) {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = |regex: &str| {
        let split =
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
    };
    match pre {
        "gpt-2" => (byte_level(true), Json::Null, false),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            (json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]}), Json::Null, false)
        }
        "llama-bpe" => (
            split(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            Json::Null,
            true,
        ),
        _ => (
            split(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            json!({"type": "NFC"}),
            false,
        ),
    }
}

/// The tokenizer of the default model, as far as GGUF can say it.
fn default_model() -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../default-model/checkpoint/tokenizer.json");
    let mut json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    json["normalizer"] = Json::Null;
    json["post_processor"]["single"].as_array_mut().unwrap().pop();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        token["single_word"] = false.into();
    }
    json
}

#[test]
fn byte_level_tokenizers_keep_their_ids() {
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        for (mut original, bos) in [(tokenizer_json(), 1), (default_model(), 0)] {
            let (pre_tokenizer, normalizer, ignore_merges) = family(pre);
            original["pre_tokenizer"] = pre_tokenizer;
            original["normalizer"] = normalizer;
            original["model"]["ignore_merges"] = ignore_merges.into();
            let mut keys = byte_level_keys(&original, pre);
            keys.push(("bos_token_id", Value::U32(bos)));
            let [ours, original] = [convert(&keys, 800).unwrap(), original.to_string().into_bytes()]
                .map(|json| Tokenizer::from_json(&json, 800).unwrap());
            let text = "(\\PC{0,40}|[ -~\r\n\t]{0,60}|(pay|METIS|ETHER| send|12|<s>|'LL| 0x|é|e\u{301}|\u{3000}|\n ){0,20})";
            proptest!(ProptestConfig::with_cases(128), |(text in text)| {
                let tokens = ours.encode_prompt(text.as_bytes()).unwrap();
                prop_assert_eq!(&tokens, &original.encode_prompt(text.as_bytes()).unwrap(), "{}", pre);
                prop_assert_eq!(ours.decode(&tokens), original.decode(&tokens));
                let tokens = ours.encode_continuation(text.as_bytes()).unwrap();
                prop_assert_eq!(&tokens, &original.encode_continuation(text.as_bytes()).unwrap());
            });
        }
    }
}

#[test]
fn a_converted_tokenizer_has_one_spelling() {
    let json = convert(&llama_keys(), 300).unwrap();
    assert_eq!(json, convert(&llama_keys().into_iter().rev().collect(), 300).unwrap());
    let text = String::from_utf8(json).unwrap();
    assert!(text.starts_with(r#"{"added_tokens":[{"content":"<unk>","id":0,"#), "{text}");
    let hash = alloy_primitives::keccak256(&text).to_string();
    assert_eq!(hash, "0x7481b4584fa9fed3a6459b47aab2fc5d68a6156f942cbd78c218bc97a38f3fba", "{text}");
}

/// `<unk>`, `<s>`, `</s>`, bytes, and a few pieces: an added one, one that nothing uses, and some that merge.
fn llama_keys() -> Keys {
    let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let pieces = [("▁", 1, -3.0), ("a", 1, -4.0), ("b", 1, -5.0), ("▁a", 1, -1.0), ("ab", 1, -2.0)];
    let rare = [("▁▁x▁", 4, 0.0), ("unused", 5, 0.0)];
    let control = [("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0)];
    let all =
        control.into_iter().chain(bytes.iter().map(|byte| (byte.as_str(), 6, 0.0))).chain(pieces).chain(rare);
    let all: Vec<(&str, i32, f32)> = all.collect();
    vec![
        ("model", text("llama")),
        ("tokens", strings(all.iter().map(|token| token.0))),
        ("token_type", kinds(all.iter().map(|token| token.1))),
        ("scores", Value::Array(all.iter().map(|token| Value::F32(token.2)).collect())),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
    ]
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let encode = |keys: &Keys, text: &str| {
        let tokenizer = Tokenizer::from_json(&convert(keys, 300).unwrap(), 300).unwrap();
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
        tokens.into_iter().map(|token| token.0).collect::<Vec<_>>()
    };
    let mut keys = llama_keys();
    // A leading space; `▁a` comes before `ab`; `c` is its byte; an unused piece is never text.
    assert_eq!(encode(&keys, "ab"), [1, 262, 261]);
    assert_eq!(encode(&keys, "bab c"), [1, 259, 261, 263, 259, 3 + 99]);
    assert_eq!(encode(&keys, "unused")[1..].len(), 7);
    // An added token is found as it stands in the text; `Prepend` sees the text on either side of it.
    assert_eq!(encode(&keys, "b  x "), [1, 259, 261, 264]);
    keys.push(("add_space_prefix", Value::Bool(false)));
    assert_eq!(encode(&keys, "ab"), [1, 263]);
    keys.push(("add_eos_token", Value::Bool(true)));
    assert_eq!(encode(&keys, "ab"), [1, 263, 2]);
    keys.push(("add_bos_token", Value::Bool(false)));
    assert_eq!(encode(&keys, "ab"), [263, 2]);
}

/// What a converter makes of a WordPiece `tokenizer.json`.
fn bert_keys() -> Keys {
    let json = word_piece();
    let mut tokens: Vec<(u64, String)> = Vec::new();
    for (piece, id) in json["model"]["vocab"].as_object().unwrap() {
        let piece = match (piece.strip_prefix("##"), piece.starts_with('[')) {
            (Some(rest), _) => rest.to_owned(),
            (None, true) => piece.clone(),
            (None, false) => format!("▁{piece}"),
        };
        tokens.push((id.as_u64().unwrap(), piece));
    }
    tokens.sort_unstable();
    vec![
        ("model", text("bert")),
        ("tokens", strings(tokens.iter().map(|token| token.1.as_str()))),
        ("token_type", kinds(tokens.iter().map(|token| if token.0 < 4 { 3 } else { 1 }))),
        ("unknown_token_id", Value::U32(1)),
        ("cls_token_id", Value::U32(2)),
        ("seperator_token_id", Value::U32(3)),
    ]
}

#[test]
fn word_pieces_keep_their_ids() {
    let ours = Tokenizer::from_json(&convert(&bert_keys(), TOKENS).unwrap(), TOKENS).unwrap();
    let original = Tokenizer::from_json(&word_piece().to_string().into_bytes(), TOKENS).unwrap();
    let check = |text: &str| {
        let tokens = ours.encode_prompt(text.as_bytes()).unwrap();
        assert_eq!(tokens, original.encode_prompt(text.as_bytes()).unwrap(), "{text}");
        assert_eq!(ours.decode(&tokens), original.decode(&tokens));
    };
    check("Hello, WORLD! Élan unknowning [CLS] ##ing 你好 the\u{301} [UNK]");
    let text = "(\\PC{0,40}|[ -~\r\n\t]{0,60}|(the|hello|World|ing| unknown|é|\\[SEP\\]|##er|你|▁| ){0,20})";
    proptest!(ProptestConfig::with_cases(256), |(text in text)| check(&text));
}

#[test]
fn the_first_and_last_tokens_of_a_text_have_two_names() {
    let mut keys = bert_keys();
    let tokens = |keys: &Keys| {
        let tokenizer = Tokenizer::from_json(&convert(keys, TOKENS).unwrap(), TOKENS).unwrap();
        tokenizer.encode_prompt(b"hello").unwrap().into_iter().map(|token| token.0).collect::<Vec<_>>()
    };
    let hello = tokens(&keys);
    assert_eq!((hello[0], hello[2], hello.len()), (2, 3, 3));
    keys.retain(|(key, _)| !["cls_token_id", "seperator_token_id"].contains(key));
    assert_eq!(tokens(&keys), hello, "by their texts");
    keys.extend([("bos_token_id", Value::U32(2)), ("eos_token_id", Value::U32(3))]);
    assert_eq!(tokens(&keys), hello);
    set(&mut keys, "bos_token_id", Value::U32(0));
    assert_eq!(tokens(&keys)[0], 0, "a key is stronger than a text");
}

#[test]
fn special_strings_in_a_text_are_text() {
    let mut keys = llama_keys();
    // Whatever a file says of its type, what ends a generation is control.
    let Value::Array(mut types) = keys[2].1.clone() else { return };
    types[2] = Value::I32(1);
    set(&mut keys, "token_type", Value::Array(types));
    let tokenizer = Tokenizer::from_json(&convert(&keys, 300).unwrap(), 300).unwrap();
    for text in ["</s>", "a<s>b</s>", "<unk>", "<0x0A>"] {
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        assert!(tokens[1..].iter().all(|&token| !tokenizer.is_special(token)), "{text}: {tokens:?}");
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
    }
}

#[test]
fn tokenizers_that_are_not_understood_are_refused_by_name() {
    let refused = |keys: Keys, key: &'static str, value: Value, message: &str| {
        let mut keys = keys;
        set(&mut keys, key, value);
        let error = match convert(&keys, TOKENS) {
            Err(error) => error.to_string(),
            Ok(json) => Tokenizer::from_json(&json, TOKENS).unwrap_err().to_string(),
        };
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    let keys = || {
        let mut keys = byte_level_keys(&tokenizer_json(), "gpt-2");
        keys.push(("bos_token_id", Value::U32(1)));
        keys
    };
    refused(keys(), "model", text("t5"), "`t5`");
    refused(keys(), "model", text("bert"), "seperator_token_id");
    refused(bert_keys(), "cls_token_id", Value::U32(300), "cls_token_id");
    refused(bert_keys(), "unknown_token_id", text("1"), "unknown_token_id");
    refused(bert_keys(), "tokens", strings(["▁a"; 4]), "not one per token");
    refused(keys(), "model", Value::U32(1), "(none)");
    refused(keys(), "pre", text("tekken"), "`tekken`");
    refused(keys(), "pre", Value::Bool(true), "(none)");
    refused(keys(), "tokens", Value::U32(1), "tokenizer.ggml.tokens");
    refused(keys(), "tokens", strings(vec!["a"; TOKENS + 1]), "273 tokens, but rows for 272");
    refused(keys(), "tokens", strings(vec!["a"; TOKENS]), "have the same text");
    refused(keys(), "tokens", strings([&*"a".repeat(1_025); TOKENS]), "longer than 1024 bytes");
    refused(keys(), "token_type", kinds([1]), "not one per token");
    refused(keys(), "token_type", kinds([9; TOKENS]), "token type 9");
    refused(keys(), "token_type", strings(["a"; TOKENS]), "another kind");
    refused(keys(), "merges", strings(["ab"]), "not two pieces");
    refused(keys(), "merges", strings(["a b c"]), "not two pieces");
    refused(keys(), "merges", strings(["q zz"]), "vocabulary");
    refused(keys(), "bos_token_id", Value::U32(TOKENS as u32), "bos_token_id");
    refused(keys(), "add_bos_token", Value::U32(1), "add_bos_token");
    refused(keys(), "add_space_prefix", Value::Bool(true), "add_space_prefix");
    refused(llama_keys(), "scores", Value::Array(vec![Value::F32(0.0)]), "scores");
    refused(llama_keys(), "token_type", kinds([1; 266]), "neither byte tokens");
    refused(
        llama_keys(),
        "token_type",
        kinds((0..266).map(|id| if id < 250 { 6 } else { 1 })),
        "byte tokens",
    );
}
