use std::collections::HashMap;
use std::sync::LazyLock;

use metis_kernels::TokenId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::import::{Options, ProgressBar, Source, convert, tests::stories260k};
use crate::synthetic::{TOKENS, tokenizer_json};

fn byte_level() -> Tokenizer {
    Tokenizer::from_json(tokenizer_json().to_string().as_bytes(), TOKENS).unwrap()
}

static STORIES: LazyLock<Option<(Tokenizer, RunC)>> = LazyLock::new(|| {
    let source = stories260k()?;
    let Source::Llama2c { tokenizer, .. } = &source else { return None };
    let run_c = RunC::read(&std::fs::read(tokenizer).unwrap());
    let parts = convert(&source, &Options::default(), &ProgressBar::hidden()).unwrap();
    Some((parts.into_bundle().unwrap().tokenizer().unwrap(), run_c))
});

/// The tokenizer of llama2.c's `run.c`, line by line.
struct RunC {
    vocab: Vec<Vec<u8>>,
    scores: Vec<f32>,
    lookup: HashMap<Vec<u8>, usize>,
}

impl RunC {
    fn read(file: &[u8]) -> Self {
        let (mut vocab, mut scores, mut at) = (Vec::new(), Vec::new(), 4);
        while at < file.len() {
            let word = |at: usize| file[at..at + 4].try_into().unwrap();
            scores.push(f32::from_le_bytes(word(at)));
            let length = u32::from_le_bytes(word(at + 4)) as usize;
            vocab.push(file[at + 8..at + 8 + length].to_vec());
            at += 8 + length;
        }
        let lookup = vocab.iter().enumerate().map(|(id, piece)| (piece.clone(), id)).collect();
        Self { vocab, scores, lookup }
    }

    fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut tokens = vec![1];
        if !text.is_empty() {
            tokens.push(self.lookup[b" ".as_slice()]);
        }
        for character in text.chars() {
            let bytes = character.to_string().into_bytes();
            match self.lookup.get(&bytes) {
                Some(&id) => tokens.push(id),
                None => tokens.extend(bytes.iter().map(|&byte| usize::from(byte) + 3)),
            }
        }
        loop {
            let mut best: Option<(f32, usize, usize)> = None;
            for (i, pair) in tokens.windows(2).enumerate() {
                let joined = [self.vocab[pair[0]].as_slice(), &self.vocab[pair[1]]].concat();
                if let Some(&id) = self.lookup.get(&joined)
                    && best.is_none_or(|(score, ..)| self.scores[id] > score)
                {
                    best = Some((self.scores[id], i, id));
                }
            }
            let Some((_, at, id)) = best else { break };
            tokens.splice(at..at + 2, [id]);
        }
        tokens.into_iter().map(|id| TokenId(id as u32)).collect()
    }
}

#[test]
fn special_strings_in_a_text_are_text() {
    let tokenizer = byte_level();
    for text in ["</s>", "a</s>b", "<s>", "<unk>", "<s></s><unk>"] {
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        assert_eq!(tokens[0], TokenId(1), "the template's own token stays");
        assert!(tokens[1..].iter().all(|&token| !tokenizer.is_special(token)), "{text}: {tokens:?}");
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
    }
    let Some((tokenizer, _)) = &*STORIES else { return };
    for text in ["</s>", "\n</s>\n", "<unk>", "<s> <0x0A>"] {
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        assert!(tokens[1..].iter().all(|&token| !tokenizer.is_special(token)), "{text}: {tokens:?}");
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
    }
}

#[test]
fn a_special_token_behind_merges_is_refused_in_a_text() {
    let mut json = tokenizer_json();
    json["model"]["merges"].as_array_mut().unwrap().extend([json!(["<", "s"]), json!(["<s", ">"])]);
    json["model"]["vocab"]["<s"] = TOKENS.into();
    // The regular expression splits `<s>`; without it the merges would reach the special token.
    json["pre_tokenizer"]["use_regex"] = false.into();
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), TOKENS + 1).unwrap();
    assert!(matches!(tokenizer.encode_prompt(b"<s>"), Err(TokenizerError::SpecialInText(TokenId(1)))));
    assert!(tokenizer.encode_prompt(b"< s>").is_ok());
}

#[test]
fn truncation_and_padding_do_not_survive() {
    // The fixture's file asks for at most 4 tokens, and 8 with padding.
    assert_eq!(byte_level().encode_prompt(b"0123456789").unwrap().len(), 11);
    assert_eq!(byte_level().encode_prompt(b"").unwrap(), [TokenId(1)]);
}

#[test]
fn decoding_may_end_inside_a_character() {
    let tokenizer = byte_level();
    let tokens = tokenizer.encode_prompt("€".as_bytes()).unwrap();
    assert_eq!(tokens.len(), 4);
    assert_eq!(tokenizer.decode(&tokens[..3]), "€".as_bytes()[..2]);
    assert_eq!(tokenizer.decode(&[TokenId(u32::MAX), TokenId(TOKENS as u32)]), b"");
}

#[test]
fn text_that_is_not_utf8_is_replaced() {
    let tokenizer = byte_level();
    let tokens = tokenizer.encode_prompt(b"a\xff\xe2\x82b").unwrap();
    assert_eq!(tokenizer.decode(&tokens), "a\u{fffd}\u{fffd}b".as_bytes());
}

#[test]
fn a_continuation_brings_nothing_along() {
    let Some((tokenizer, _)) = &*STORIES else { return };
    let prompt = tokenizer.encode_prompt(b"Once upon a").unwrap();
    assert_eq!(prompt[0], TokenId(1));
    assert_eq!(tokenizer.decode(&prompt), b"Once upon a");
    let rest = tokenizer.encode_continuation(b" time").unwrap();
    assert_eq!(tokenizer.decode(&rest), b" time");
    let joined = [prompt, tokenizer.encode_continuation(b"ble").unwrap()].concat();
    assert_eq!(tokenizer.decode(&joined), b"Once upon able");
    assert_eq!(tokenizer.encode_continuation(b"").unwrap(), []);
}

/// Loads the fixture's tokenizer with a change and expects a refusal that says `message`.
fn refused(change: impl Fn(&mut Value), message: &str) {
    let mut json = tokenizer_json();
    change(&mut json);
    let error = Tokenizer::from_json(json.to_string().as_bytes(), TOKENS).unwrap_err().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
}

#[test]
fn components_that_are_not_exact_or_known_are_refused() {
    refused(|j| j["model"]["type"] = "Unigram".into(), "Unigram");
    refused(|j| j["model"]["dropout"] = 0.1.into(), "dropout");
    refused(|j| j["model"]["end_of_word_suffix"] = "</w>".into(), "end_of_word_suffix");
    refused(|j| j["normalizer"] = json!({"type": "Precompiled"}), "Precompiled");
    refused(|j| j["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Nmt"}]}), "Nmt");
    refused(|j| j["pre_tokenizer"] = json!({"type": "UnicodeScripts"}), "UnicodeScripts");
    refused(|j| j["post_processor"] = json!({"type": "RobertaProcessing"}), "RobertaProcessing");
    refused(|j| j["post_processor"] = json!({"type": "BertProcessing"}), "cls");
    refused(|j| j["decoder"] = Value::Null, "decoder");
    refused(|j| j["decoder"] = json!({"type": "WordPiece"}), "WordPiece");
    refused(|j| j["post_processor"]["special_tokens"] = json!({}), "without ids");
    refused(|j| j["post_processor"]["single"] = json!([]), "no text");
    refused(|j| j["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([4_000]), "4000");
    refused(|j| j["model"]["vocab"]["zz"] = TOKENS.into(), "below the vocabulary");
    refused(|j| j["model"]["vocab"]["zz"] = 5.into(), "unique");
    refused(|j| j["model"]["vocab"]["a"] = (-1).into(), "");
    refused(|j| j["model"]["merges"] = json!([["a", "b"]]), "out of vocabulary");
    refused(|j| j["added_tokens"][1]["id"] = 2.into(), "token");
    refused(|j| j["added_tokens"][1]["content"] = "".into(), "incomplete");
    refused(|j| j["model"] = Value::Null, "");
}

#[test]
fn what_is_unbounded_or_gives_up_silently_is_refused() {
    // Without a type the library would try WordPiece, WordLevel and Unigram, whose scores are floats.
    refused(|j| j["model"] = json!({"unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -0.5]]}), "BPE");
    refused(|j| j["model"] = json!({"vocab": {"a": 3}, "unk_token": "a"}), "BPE");
    let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
    let sequence = |items: Vec<Value>| json!({"type": "Sequence", "normalizers": items});
    refused(|j| j["normalizer"] = replace(&"a".repeat(17)), "many times longer");
    refused(|j| j["normalizer"] = sequence(vec![replace("aaaaa"); 2]), "many times longer");
    refused(|j| j["normalizer"] = sequence(vec![replace("b"); 9]), "more than 8");
    refused(|j| j["normalizer"] = json!({"type": "Prepend", "prepend": "a".repeat(17)}), "Prepend");
    let regex = json!({"Regex": "a*"});
    refused(
        |j| j["normalizer"] = json!({"type": "Replace", "pattern": regex, "content": "b"}),
        "regular expression",
    );
    refused(
        |j| j["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": r"(a|aa)+(?=b)\1?"}}),
        "unknown pattern",
    );
    refused(|j| j["post_processor"]["special_tokens"]["<s>"]["ids"] = json!(vec![1; 17]), "more than 16");
}

#[test]
fn the_patterns_of_known_families_are_read() {
    for pattern in super::json::SPLIT_PATTERNS {
        let mut json = tokenizer_json();
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]});
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), TOKENS).unwrap();
        let tokens = tokenizer.encode_prompt("the 12 words, isn't it?  \n".as_bytes()).unwrap();
        assert_eq!(tokenizer.decode(&tokens), b"the 12 words, isn't it?  \n");
    }
}

#[test]
fn stories260k_encodes_as_run_c() {
    let Some((tokenizer, run_c)) = &*STORIES else { return };
    for text in
        ["", "Once upon a time, there was a little girl.", " two  spaces ", "▁ é ☃ \n\t", "it's the </s>"]
    {
        assert_eq!(tokenizer.encode_prompt(text.as_bytes()).unwrap(), run_c.encode(text), "{text:?}");
    }
}

proptest! {
    #[test]
    fn random_text_encodes_as_run_c(text in "([a-z ]{0,60}|[ -~\n]{0,40}|(the|and| was|he|ing|\\. | ){0,20}|\\PC{0,20})") {
        let Some((tokenizer, run_c)) = &*STORIES else { return Ok(()) };
        prop_assert_eq!(tokenizer.encode_prompt(text.as_bytes()).unwrap(), run_c.encode(&text));
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
    }

    #[test]
    fn decoding_undoes_encoding(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index) {
        let tokenizer = byte_level();
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
        let tokens = tokenizer.encode_continuation(&bytes).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokens), String::from_utf8_lossy(&bytes).into_owned().into_bytes());
        let (left, right) = tokens.split_at(at.index(tokens.len() + 1));
        prop_assert_eq!(tokenizer.decode(&tokens), [tokenizer.decode(left), tokenizer.decode(right)].concat());
    }

    #[test]
    fn byte_exact_decoding_agrees_with_the_library(text in "\\PC{0,40}") {
        let library = tokenizers::Tokenizer::from_bytes(tokenizer_json().to_string()).unwrap();
        let tokenizer = byte_level();
        let tokens = tokenizer.encode_prompt(text.as_bytes()).unwrap();
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        prop_assert_eq!(tokenizer.decode(&tokens), library.decode(&ids, true).unwrap().into_bytes());
    }

    #[test]
    fn foreign_tokenizers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, byte: u8) {
        prop_assert!(Tokenizer::from_json(&bytes, 300).is_err());
        let mut json = tokenizer_json().to_string().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(tokenizer) = Tokenizer::from_json(&json, TOKENS) {
            drop(tokenizer.encode_prompt(b"hello there, \xff <s>"));
        }
        json.truncate(at);
        prop_assert!(Tokenizer::from_json(&json, TOKENS).is_err());
    }
}
