use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::word_piece;

const TOKENS: usize = 300;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(word_piece().to_string().as_bytes(), TOKENS).unwrap()
}

/// The tokens of a text by name.
fn pieces(text: &str) -> Vec<String> {
    let json = word_piece();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let name = |token: TokenId| vocab.iter().find(|(_, id)| **id == token.0).unwrap().0.clone();
    tokenizer().encode_prompt(text.as_bytes()).unwrap().into_iter().map(name).collect()
}

#[test]
fn words_are_spelt_by_their_longest_pieces() {
    assert_eq!(pieces("Hello, WORLD!"), ["[CLS]", "hello", "[UNK]", "world", "!", "[SEP]"]);
    assert_eq!(pieces("unknown"), ["[CLS]", "un", "##known", "[SEP]"]);
    assert_eq!(pieces("singing"), ["[CLS]", "s", "##ing", "##ing", "[SEP]"]);
    // Accents go, and a word with a letter that no piece has is unknown as a whole.
    assert_eq!(pieces("hélló wørld"), ["[CLS]", "hello", "[UNK]", "[SEP]"]);
    assert_eq!(pieces(&"a".repeat(101)), ["[CLS]", "[UNK]", "[SEP]"]);
    assert_eq!(pieces(""), ["[CLS]", "[SEP]"]);
}

#[test]
fn special_strings_in_a_text_are_text() {
    let tokens = tokenizer().encode_prompt(b"[SEP] [CLS]").unwrap();
    assert!(tokens[1..tokens.len() - 1].iter().all(|token| ![TokenId(2), TokenId(3)].contains(token)));
}

#[test]
fn a_space_stands_before_each_word() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode_prompt(b"Singing world!").unwrap();
    assert_eq!(tokenizer.decode(&tokens), b" singing world !");
}

#[test]
fn word_pieces_without_bounds_are_refused() {
    let refused = |change: &dyn Fn(&mut Value), message: &str| {
        let mut json = word_piece();
        change(&mut json);
        let error = Tokenizer::from_json(json.to_string().as_bytes(), TOKENS).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    refused(&|j| j["model"]["max_input_chars_per_word"] = 101.into(), "longer words");
    refused(&|j| j["model"]["max_input_chars_per_word"] = Value::Null, "longer words");
    refused(&|j| j["model"]["unk_token"] = "[NONE]".into(), "without them");
    refused(&|j| j["model"]["continuing_subword_prefix"] = "".into(), "without them");
    refused(&|j| j["decoder"] = json!({"type": "ByteLevel"}), "WordPiece");
    refused(&|j| j["post_processor"]["sep"] = json!(["[SEP]", 300]), "sep");
    refused(&|j| j["model"]["vocab"]["##z"] = 300.into(), "below the vocabulary");
}

proptest! {
    #[test]
    fn any_text_has_tokens_of_the_vocabulary(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode_prompt(&text).unwrap();
        prop_assert!(tokens.iter().all(|token| token.index() < TOKENS));
        tokenizer.decode(&tokens);
    }

    #[test]
    fn foreign_tokenizers_never_panic(at: prop::sample::Index, byte: u8) {
        let mut json = word_piece().to_string().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(tokenizer) = Tokenizer::from_json(&json, TOKENS) {
            drop(tokenizer.encode_prompt(b"hello there, \xff [SEP]"));
        }
    }
}
