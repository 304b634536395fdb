//! The tokenizer of a GGUF file as a `tokenizer.json`: byte-level BPE (`gpt2`), SentencePiece BPE (`llama`) and WordPiece (`bert`).
//!
//! The file has pieces, their types, and merges or scores, but only the *name* of the way in which text is split before merging:
//! the names that are known here stand for exactly one `tokenizer.json` each. The result is normative; `docs/bundle.md`, section 8.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::header::{Array, Value};
use crate::import::ImportError;
use crate::import::sentencepiece::{Piece, canonical, merges, rank};
use crate::tokenizer::{LLAMA3_PATTERN, QWEN2_PATTERN, TokenizerError};

/// SentencePiece's character for a space.
const SPACE: &str = "▁";
/// Longest piece in bytes: work on a piece may grow with the square of its length.
const MAX_PIECE: usize = 1_024;
/// Tokens that the template or a generation's end use: never text, whatever the file calls their type.
const CONTROL_KEYS: [&str; 4] = ["bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id"];

/// What stands before a continuing piece of WordPiece.
const CONTINUING: &str = "##";
/// The tokens before and after a text, the unknown one, and those that are never text: under the first key that is there, else by BERT's text.
/// `seperator` is how the files spell it.
const WORD_PIECE_CONTROL: [(&[&str], &str); 5] = [
    (&["cls_token_id", "bos_token_id"], "[CLS]"),
    (&["seperator_token_id", "eos_token_id"], "[SEP]"),
    (&["unknown_token_id"], "[UNK]"),
    (&["padding_token_id"], "[PAD]"),
    (&["mask_token_id"], "[MASK]"),
];

/// Converts the tokenizer of a model with `vocabulary` rows.
pub(super) fn json(
    metadata: &BTreeMap<&str, Value<'_>>,
    path: &Path,
    vocabulary: usize,
) -> Result<Vec<u8>, ImportError> {
    let source = Source { metadata };
    let wrong = |reason: String| ImportError::format(path, reason);
    let tokens = source.tokens(vocabulary).map_err(wrong)?;
    let json = match source.name("model") {
        "gpt2" => {
            let split = Split::of(source.name("pre"))?;
            source.byte_level(&tokens, split)
        }
        "llama" => source.sentencepiece(&tokens),
        "bert" => source.word_piece(tokens),
        found => return Err(unsupported("a GGUF tokenizer", found, "gpt2, llama, bert")),
    };
    canonical(&json.map_err(wrong)?).map_err(|error| wrong(error.to_string()))
}

/// The texts of special tokens, under the names that `tokenizer_config.json` has for them.
pub(super) fn special_tokens(metadata: &BTreeMap<&str, Value<'_>>) -> Json {
    let source = Source { metadata };
    let texts: Vec<&str> =
        source.list("tokens", Array::strings, None).map(Iterator::collect).unwrap_or_default();
    let mut names = Map::new();
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ] {
        if let Some(text) = source.id(key).and_then(|id| texts.get(id)) {
            names.insert(name.to_owned(), (*text).into());
        }
    }
    Json::Object(names)
}

fn unsupported(place: &'static str, found: &str, supported: &'static str) -> ImportError {
    let found = found.chars().take(64).collect();
    ImportError::Tokenizer(TokenizerError::Unsupported { place, found, supported })
}

/// What is done to text before pieces of it are merged: `tokenizer.ggml.pre`.
#[derive(Debug)]
struct Split {
    names: &'static [&'static str],
    words: Words,
    /// The family's `tokenizer.json` normalises text to NFC.
    nfc: bool,
    /// A word that is a piece is that piece, whatever the merges say.
    ignore_merges: bool,
    /// Whether prompts start with BOS if the file does not say.
    adds_bos: bool,
}

#[derive(Debug)]
enum Words {
    /// GPT-2's pattern, with every digit on its own or not.
    Gpt2 { digits: bool },
    /// Another pattern.
    Pattern(&'static str),
}

const SPLITS: [Split; 4] = [
    Split {
        names: &["gpt-2"],
        words: Words::Gpt2 { digits: false },
        nfc: false,
        ignore_merges: false,
        adds_bos: false,
    },
    Split {
        names: &["smollm"],
        words: Words::Gpt2 { digits: true },
        nfc: false,
        ignore_merges: false,
        adds_bos: false,
    },
    Split {
        names: &["llama-bpe", "llama3", "llama-v3"],
        words: Words::Pattern(LLAMA3_PATTERN),
        nfc: false,
        ignore_merges: true,
        adds_bos: true,
    },
    Split {
        names: &["qwen2"],
        words: Words::Pattern(QWEN2_PATTERN),
        nfc: true,
        ignore_merges: false,
        adds_bos: false,
    },
];
const SPLIT_NAMES: &str = "gpt-2, smollm, llama-bpe, llama3, llama-v3, qwen2";

impl Split {
    fn of(name: &str) -> Result<&'static Self, ImportError> {
        let split = SPLITS.iter().find(|split| split.names.contains(&name));
        split.ok_or_else(|| unsupported("a GGUF pre-tokenizer (tokenizer.ggml.pre)", name, SPLIT_NAMES))
    }

    fn pre_tokenizer(&self) -> Json {
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let sequence = |first: Json, then: Json| json!({"type": "Sequence", "pretokenizers": [first, then]});
        match self.words {
            Words::Gpt2 { digits: false } => byte_level(true),
            Words::Gpt2 { digits: true } => {
                sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true))
            }
            Words::Pattern(pattern) => sequence(
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
                byte_level(false),
            ),
        }
    }
}

/// A token that can occur.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    id: usize,
    text: &'a str,
    kind: Kind,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Reached by merges.
    Text,
    /// Stands for what no piece covers.
    Unknown,
    /// Never text.
    Control,
    /// Found in text before it is split.
    Added,
    /// One byte.
    Byte,
}

impl Kind {
    /// By the number in the file; `Ok(None)` for a row without a token.
    fn of(number: u32) -> Result<Option<Self>, String> {
        Ok(Some(match number {
            1 => Self::Text,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::Added,
            5 => return Ok(None),
            6 => Self::Byte,
            _ => return Err(format!("token type {number} does not exist")),
        }))
    }
}

/// The keys `tokenizer.ggml.*`.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    metadata: &'a BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Source<'a> {
    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(format!("tokenizer.ggml.{key}").as_str()).copied()
    }

    /// A name; without one, what errors should say.
    fn name(&self, key: &str) -> &'a str {
        match self.get(key) {
            Some(Value::String(name)) => name,
            _ => "(none)",
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => Err(format!("`tokenizer.ggml.{key}` is {value}, not true or false")),
        }
    }

    fn id(&self, key: &str) -> Option<usize> {
        usize::try_from(self.get(key)?.unsigned()?).ok()
    }

    /// A list that `elements` takes as its kind; of `length` elements if that is given.
    fn list<T>(
        &self,
        key: &str,
        elements: impl FnOnce(Array<'a>) -> Option<T>,
        length: Option<usize>,
    ) -> Result<T, String> {
        let Some(Value::Array(array)) = self.get(key) else {
            return Err(format!("there is no list `tokenizer.ggml.{key}`"));
        };
        if length.is_some_and(|length| length != array.length) {
            return Err(format!("`tokenizer.ggml.{key}` has {} elements, not one per token", array.length));
        }
        elements(array).ok_or_else(|| format!("`tokenizer.ggml.{key}` has elements of another kind"))
    }

    /// The tokens by ascending id, without rows that no token uses.
    fn tokens(&self, vocabulary: usize) -> Result<Vec<Token<'a>>, String> {
        let texts: Vec<&str> = self.list("tokens", Array::strings, None)?.collect();
        if texts.len() > vocabulary {
            return Err(format!("{} tokens, but rows for {vocabulary}", texts.len()));
        }
        let kinds = self.list("token_type", Array::integers, Some(texts.len()))?;
        let control = CONTROL_KEYS.map(|key| self.id(key));
        let mut tokens = Vec::new();
        for (id, (text, number)) in texts.into_iter().zip(kinds).enumerate() {
            if text.len() > MAX_PIECE {
                return Err(format!("token {id} is longer than {MAX_PIECE} bytes"));
            }
            let Some(kind) = Kind::of(number)?.filter(|_| !text.is_empty()) else { continue };
            let kind = if control.contains(&Some(id)) { Kind::Control } else { kind };
            tokens.push(Token { id, text, kind });
        }
        Ok(tokens)
    }

    /// GPT-2's and its successors': pieces are bytes in GPT-2's alphabet, merges are ranked.
    fn byte_level(&self, tokens: &[Token<'_>], split: &Split) -> Result<Json, String> {
        if self.flag("add_space_prefix", false)? {
            return Err("`tokenizer.ggml.add_space_prefix` with a byte-level tokenizer".into());
        }
        let mut pairs = Vec::new();
        for merge in self.list("merges", Array::strings, None)? {
            let pair = merge
                .split_once(' ')
                .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
            let shown = || merge.chars().take(64).collect::<String>();
            pairs.push(pair.ok_or_else(|| format!("the merge {:?} is not two pieces", shown()))?);
        }
        let normalizer = if split.nfc { json!({"type": "NFC"}) } else { Json::Null };
        let decoder =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let model = json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": split.ignore_merges,
            "vocab": vocabulary(tokens, |token| token.text.to_owned())?,
            "merges": pairs,
        });
        let template = self.template(tokens, split.adds_bos)?;
        Ok(document(tokens, str::to_owned, normalizer, split.pre_tokenizer(), template, decoder, model))
    }

    /// SentencePiece's BPE: a piece with a higher score is merged first; other characters fall back to bytes.
    fn sentencepiece(&self, tokens: &[Token<'_>]) -> Result<Json, String> {
        let scores: Vec<u32> = self.list("scores", Array::singles, None)?.collect();
        let mut pieces = Vec::new();
        for token in tokens.iter().filter(|token| token.kind == Kind::Text) {
            let score = scores.get(token.id).ok_or("`tokenizer.ggml.scores` is shorter than the tokens")?;
            pieces.push(Piece { text: token.text.to_owned(), rank: rank(*score) });
        }
        let bytes = tokens.iter().filter(|token| token.kind == Kind::Byte).map(|token| token.text);
        let bytes: Vec<&str> = bytes.collect();
        let whole = (0..=255u8).all(|byte| bytes.contains(&format!("<0x{byte:02X}>").as_str()));
        if !bytes.is_empty() && (bytes.len() != 256 || !whole) {
            return Err(format!("{} byte tokens that are not <0x00> to <0xFF>", bytes.len()));
        }
        let unknown = tokens.iter().find(|token| token.kind == Kind::Unknown).map(|token| token.text);
        if bytes.is_empty() && unknown.is_none() {
            return Err("neither byte tokens nor an unknown token".into());
        }
        let prefix = self.flag("add_space_prefix", true)?;
        let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        // Added tokens are looked for in the text as it came, where a space is a space.
        let literal = |text: &str| text.replace(SPACE, " ");
        let model = json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": !bytes.is_empty(),
            "ignore_merges": false,
            "vocab": vocabulary(tokens, |token| match token.kind {
                Kind::Added => literal(token.text),
                _ => token.text.to_owned(),
            })?,
            "merges": merges(&pieces),
        });
        let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
        let decoder = json!({"type": "Sequence", "decoders": decoders});
        let template = self.template(tokens, true)?;
        Ok(document(tokens, literal, normalizer, Json::Null, template, decoder, model))
    }

    /// BERT's: pieces that begin a word are stored with `▁` before them, continuing ones without the `##` of `tokenizer.json`.
    fn word_piece(&self, mut tokens: Vec<Token<'_>>) -> Result<Json, String> {
        let control =
            WORD_PIECE_CONTROL.map(|(keys, text)| match keys.iter().find(|key| self.get(key).is_some()) {
                Some(key) => self.id(key),
                None => tokens.iter().find(|token| token.text == text).map(|token| token.id),
            });
        for token in &mut tokens {
            if control.contains(&Some(token.id)) {
                token.kind = Kind::Control;
            }
        }
        let special = |at: usize| {
            let token = tokens.iter().find(|token| control[at] == Some(token.id));
            token.ok_or_else(|| format!("`tokenizer.ggml.{}` is not a token", WORD_PIECE_CONTROL[at].0[0]))
        };
        let (cls, sep, unknown) = (special(0)?, special(1)?, special(2)?);
        let literal = |text: &str| text.strip_prefix(SPACE).unwrap_or(text).to_owned();
        let model = json!({
            "type": "WordPiece",
            "unk_token": unknown.text,
            "continuing_subword_prefix": CONTINUING,
            "max_input_chars_per_word": 100,
            "vocab": vocabulary(&tokens, |token| match token.kind {
                Kind::Control | Kind::Unknown => token.text.to_owned(),
                Kind::Text | Kind::Byte if !token.text.starts_with(SPACE) => format!("{CONTINUING}{}", token.text),
                _ => literal(token.text),
            })?,
        });
        let normalizer = json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        });
        let pre_tokenizer = json!({"type": "BertPreTokenizer"});
        let template =
            json!({"type": "BertProcessing", "sep": [sep.text, sep.id], "cls": [cls.text, cls.id]});
        let decoder = json!({"type": "WordPiece", "prefix": CONTINUING, "cleanup": true});
        Ok(document(&tokens, literal, normalizer, pre_tokenizer, template, decoder, model))
    }

    /// BOS before a text and EOS after it, as the file says.
    fn template(&self, tokens: &[Token<'_>], adds_bos: bool) -> Result<Json, String> {
        let mut special = Map::new();
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        for (flag, key, default, at) in
            [("add_bos_token", "bos_token_id", adds_bos, 0), ("add_eos_token", "eos_token_id", false, 1)]
        {
            if !self.flag(flag, default)? {
                continue;
            }
            let token = self.id(key).and_then(|id| tokens.iter().find(|token| token.id == id));
            let Token { id, text, .. } =
                token.ok_or_else(|| format!("`tokenizer.ggml.{key}` is not a token, but {flag} is set"))?;
            special.insert((*text).to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
            let part = json!({"SpecialToken": {"id": text, "type_id": 0}});
            single.insert(if at == 0 { 0 } else { single.len() }, part);
        }
        if special.is_empty() {
            return Ok(Json::Null);
        }
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
    }
}

/// Pieces to ids.
fn vocabulary(
    tokens: &[Token<'_>],
    text: impl Fn(&Token<'_>) -> String,
) -> Result<Map<String, Json>, String> {
    let mut ids: HashMap<String, usize> = HashMap::new();
    for token in tokens {
        if let Some(other) = ids.insert(text(token), token.id) {
            return Err(format!("tokens {other} and {} have the same text", token.id));
        }
    }
    Ok(ids.into_iter().map(|(text, id)| (text, id.into())).collect())
}

fn document(
    tokens: &[Token<'_>],
    literal: impl Fn(&str) -> String,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    decoder: Json,
    model: Json,
) -> Json {
    let added = tokens.iter().filter(|token| !matches!(token.kind, Kind::Text | Kind::Byte)).map(|token| {
        let special = token.kind != Kind::Added;
        json!({
            "id": token.id, "content": if special { token.text.to_owned() } else { literal(token.text) },
            "special": special, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    })
}

#[cfg(test)]
mod tests;
