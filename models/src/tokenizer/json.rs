//! What of a `tokenizer.json` is used, checked before the tokenizers library sees it.
//!
//! Anyone can register a model, so a tokenizer is foreign bytes: only components whose behaviour is exact and bounded are let
//! through. Truncation, padding and post-processing are taken out; the template's special tokens are applied here.

use std::collections::HashSet;

use metis_kernels::TokenId;
use serde_json::{Map, Value, json};

use super::pieces::{Kind, Pieces, byte_level, plain};
use super::{TokenizerError, guarded};

const NORMALIZERS: &str =
    "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, BertNormalizer, Sequence";
const PRE_TOKENIZERS: &str = "ByteLevel, Metaspace, Split, Digits, BertPreTokenizer, Sequence";
/// How GPT-2 splits text into words.
const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How Llama 3 does.
pub(crate) const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 does.
pub(crate) const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The patterns that are let through.
pub(super) const SPLIT_PATTERNS: [&str; 3] = [GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN];
const KNOWN_PATTERNS: &str = "a string, or the pattern of GPT-2, Llama 3 or Qwen 2";
const BOUNDED: &str = "at most 8, that make text at most 16 times longer, Replace of a string only";
/// Most normalizers of a sequence.
const MAX_NORMALIZERS: usize = 8;
/// How many times longer `Replace` may make a text, all of them together.
const MAX_EXPANSION: usize = 16;
/// Most special tokens that a template may add on one side.
const MAX_TEMPLATE: usize = 16;
const POST_PROCESSORS: &str = "TemplateProcessing, BertProcessing, ByteLevel, Sequence";
const DECODERS: &str = "ByteLevel, ByteFallback, Metaspace, Replace, Fuse, Strip, WordPiece, Sequence";
/// Longest word of a WordPiece model in characters: it is compared with the vocabulary at every length.
const MAX_WORD: u64 = 100;

/// How pieces are turned into bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decoding {
    ByteLevel,
    /// SentencePiece's: perhaps a string that stands for a space, perhaps pieces `<0xNN>` that stand for bytes.
    Pieces {
        space: Option<String>,
        byte_fallback: bool,
    },
    /// Pieces that continue a word start with this string; a space stands before the others.
    WordPiece {
        prefix: String,
    },
}

/// A checked `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    added_tokens: Vec<AddedToken>,
    decoding: Decoding,
    pub(super) prefix: Vec<TokenId>,
    pub(super) suffix: Vec<TokenId>,
}

#[derive(Clone, Debug)]
struct AddedToken {
    id: u64,
    content: String,
    special: bool,
    json: Value,
}

impl Definition {
    /// Reads and checks the JSON.
    pub(super) fn parse(json: &[u8], vocabulary: usize) -> Result<Self, TokenizerError> {
        let mut root: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| TokenizerError::Syntax(error.to_string()))?;
        let mut take = |key: &str| root.remove(key).unwrap_or(Value::Null);
        let model = take("model");
        check_model(&model)?;
        let (normalizer, pre_tokenizer) = (take("normalizer"), take("pre_tokenizer"));
        check_types("a normalizer", &normalizer, "normalizers", NORMALIZERS)?;
        check_expansion(&normalizer)?;
        check_patterns(&pre_tokenizer)?;
        check_types("a pre-tokenizer", &pre_tokenizer, "pretokenizers", PRE_TOKENIZERS)?;
        let (prefix, suffix) = template(&take("post_processor"), vocabulary)?;
        let decoding = decoding(&take("decoder"))?;
        let is_word_piece = model_type(&model) == "WordPiece";
        if is_word_piece != matches!(decoding, Decoding::WordPiece { .. }) {
            return Err(unsupported(
                "a decoder",
                "WordPiece of another model, or a model without it",
                DECODERS,
            ));
        }
        let added_tokens = added_tokens(take("added_tokens"))?;
        Ok(Self { model, normalizer, pre_tokenizer, added_tokens, decoding, prefix, suffix })
    }

    /// The library's tokenizer, for text alone.
    pub(super) fn build(&self) -> Result<tokenizers::Tokenizer, TokenizerError> {
        let added: Vec<&Value> = self.added_tokens.iter().map(|token| &token.json).collect();
        let mut json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": null,
            "decoder": null,
            "model": self.model,
        });
        // Without a type, the library would try one kind of model after the other.
        json["model"]["type"] = model_type(&self.model).into();
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(json.to_string()))
            .map_err(TokenizerError::Syntax)?;
        tokenizer.set_encode_special_tokens(true);
        for token in &self.added_tokens {
            // The library numbers added tokens itself and only warns when the file disagrees.
            if tokenizer.token_to_id(&token.content).map(u64::from) != Some(token.id) {
                return Err(bad_id(&token.content, token.id, "the model's own vocabulary says otherwise"));
            }
        }
        Ok(tokenizer)
    }

    /// The strings and ids of the special tokens.
    pub(super) fn special_tokens(&self) -> Vec<(String, TokenId)> {
        let special = self.added_tokens.iter().filter(|token| token.special && !token.content.is_empty());
        special.filter_map(|t| Some((t.content.clone(), TokenId(u32::try_from(t.id).ok()?)))).collect()
    }

    /// The bytes of each token.
    pub(super) fn pieces(&self, vocabulary: usize) -> Result<Pieces, TokenizerError> {
        let mut pieces = Pieces::new(vocabulary);
        let unknown = self.model["unk_token"].as_str();
        let mut insert = |piece: &str, id: u64, kind, bytes| {
            if pieces.insert(id, kind, bytes) {
                return Ok(());
            }
            Err(bad_id(piece, id, &format!("ids must be unique and below the vocabulary of {vocabulary}")))
        };
        let mut added = HashSet::new();
        for token in &self.added_tokens {
            let kind = match token.special {
                true if unknown == Some(token.content.as_str()) => Kind::Unknown,
                true => Kind::Special,
                false => Kind::Text,
            };
            if added.insert(token.content.as_str()) {
                insert(&token.content, token.id, kind, token.content.clone().into_bytes())?;
            } else {
                return Err(bad_id(&token.content, token.id, "it is listed twice"));
            }
        }
        for (piece, id) in self.model["vocab"].as_object().into_iter().flatten() {
            if added.contains(piece.as_str()) {
                continue;
            }
            let id = id.as_u64().ok_or_else(|| TokenizerError::Syntax(format!("the id of {piece:?}")))?;
            let bytes = match &self.decoding {
                // A piece outside the alphabet cannot come from text; it stands for itself, as in the library.
                Decoding::ByteLevel => byte_level(piece).unwrap_or_else(|| piece.clone().into_bytes()),
                Decoding::Pieces { space, byte_fallback } => plain(piece, space.as_deref(), *byte_fallback),
                Decoding::WordPiece { prefix } => match piece.strip_prefix(prefix.as_str()) {
                    Some(rest) => rest.as_bytes().to_vec(),
                    None => format!(" {piece}").into_bytes(),
                },
            };
            let kind = if unknown == Some(piece.as_str()) { Kind::Unknown } else { Kind::Text };
            insert(piece, id, kind, bytes)?;
        }
        Ok(pieces)
    }

    /// The same without the space before the text; `None` when there is none.
    pub(super) fn without_leading_space(&self) -> Option<Self> {
        let mut other = self.clone();
        let in_normalizer = remove_prepend(&mut other.normalizer);
        let in_pre_tokenizer = remove_prefix_space(&mut other.pre_tokenizer);
        (in_normalizer || in_pre_tokenizer).then_some(other)
    }
}

fn bad_id(piece: &str, id: u64, rule: &str) -> TokenizerError {
    TokenizerError::BadId { piece: piece.to_owned(), id, rule: rule.to_owned() }
}

fn type_of(value: &Value) -> &str {
    value["type"].as_str().unwrap_or("(none)")
}

fn unsupported(place: &'static str, found: impl Into<String>, supported: &'static str) -> TokenizerError {
    TokenizerError::Unsupported { place, found: found.into(), supported }
}

/// Checks that a component and everything in its sequences is on a list.
fn check_types(
    place: &'static str,
    value: &Value,
    items: &str,
    supported: &'static str,
) -> Result<(), TokenizerError> {
    if value.is_null() {
        return Ok(());
    }
    let found = type_of(value);
    if !supported.split(", ").any(|name| name == found) {
        return Err(unsupported(place, found, supported));
    }
    value[items]
        .as_array()
        .into_iter()
        .flatten()
        .try_for_each(|item| check_types(place, item, items, supported))
}

/// Normalizers see calldata, whose price is by the byte: what they make of a byte is bounded.
fn check_expansion(normalizer: &Value) -> Result<(), TokenizerError> {
    let refused = |found: &str| Err(unsupported("a normalizer", found, BOUNDED));
    let mut parts = Vec::new();
    flatten(normalizer, "normalizers", &mut parts);
    if parts.len() > MAX_NORMALIZERS {
        return refused("a sequence of more than 8");
    }
    let mut expansion = 1;
    for part in parts {
        match type_of(part) {
            "Replace" => {
                let pattern = part["pattern"]["String"].as_str().unwrap_or_default().len();
                let content = part["content"].as_str().unwrap_or_default().len();
                if pattern == 0 {
                    return refused("Replace of a regular expression or of nothing");
                }
                expansion *= content.div_ceil(pattern).clamp(1, MAX_EXPANSION + 1);
            }
            "Prepend" if part["prepend"].as_str().unwrap_or_default().len() > MAX_EXPANSION => {
                return refused("Prepend of a long text");
            }
            _ => {}
        }
        if expansion > MAX_EXPANSION {
            return refused("Replace that makes text many times longer");
        }
    }
    Ok(())
}

/// A regular expression that gives up ends the text early without saying so: only those that cannot are let through.
fn check_patterns(pre_tokenizer: &Value) -> Result<(), TokenizerError> {
    let mut parts = Vec::new();
    flatten(pre_tokenizer, "pretokenizers", &mut parts);
    for part in parts.into_iter().filter(|part| type_of(part) == "Split") {
        let plain = part["pattern"]["String"].as_str().is_some_and(|text| !text.is_empty());
        let known = part["pattern"]["Regex"].as_str().is_some_and(|regex| SPLIT_PATTERNS.contains(&regex));
        if !plain && !known {
            return Err(unsupported("a pre-tokenizer", "Split by an unknown pattern", KNOWN_PATTERNS));
        }
    }
    Ok(())
}

/// Old files leave the type out.
fn model_type(model: &Value) -> &str {
    let word_piece = model["merges"].is_null() && model["max_input_chars_per_word"].is_u64();
    model["type"].as_str().unwrap_or(if word_piece { "WordPiece" } else { "BPE" })
}

fn check_model(model: &Value) -> Result<(), TokenizerError> {
    match model_type(model) {
        "BPE" => check_bpe(model),
        "WordPiece" => check_word_piece(model),
        other => Err(unsupported("a model", other, "BPE, WordPiece")),
    }
}

fn check_bpe(model: &Value) -> Result<(), TokenizerError> {
    if !model["vocab"].is_object() || !model["merges"].is_array() {
        return Err(unsupported("a model", "one without a BPE's vocabulary and merges", "BPE"));
    }
    if !model["dropout"].is_null() && model["dropout"].as_f64() != Some(0.0) {
        return Err(unsupported("a model", "BPE with dropout (random)", "BPE without dropout"));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if !matches!(&model[key], Value::Null) && model[key] != "" {
            return Err(unsupported("a model", format!("BPE with {key}"), "BPE on plain pieces"));
        }
    }
    Ok(())
}

/// A word that is too long, or that the pieces cannot spell, becomes the unknown token.
fn check_word_piece(model: &Value) -> Result<(), TokenizerError> {
    let unknown = model["unk_token"].as_str().filter(|unknown| model["vocab"][unknown].is_u64());
    if unknown.is_none() || model["continuing_subword_prefix"].as_str().is_none_or(str::is_empty) {
        let rule = "WordPiece with an unknown token of its vocabulary and a prefix";
        return Err(unsupported("a model", "WordPiece without them", rule));
    }
    if model["max_input_chars_per_word"].as_u64().is_none_or(|most| most > MAX_WORD) {
        return Err(unsupported(
            "a model",
            "WordPiece with longer words",
            "WordPiece with words of up to 100 characters",
        ));
    }
    Ok(())
}

fn added_tokens(value: Value) -> Result<Vec<AddedToken>, TokenizerError> {
    let Value::Array(items) = value else { return Ok(Vec::new()) };
    let read = |json: Value| {
        let (id, content) = (json["id"].as_u64()?, json["content"].as_str()?.to_owned());
        let special = json["special"].as_bool()?;
        (!content.is_empty()).then_some(AddedToken { id, content, special, json })
    };
    items
        .into_iter()
        .map(|json| read(json).ok_or_else(|| TokenizerError::Syntax("an added token is incomplete".into())))
        .collect()
}

/// The special tokens that a post-processor puts before and after a single text.
fn template(value: &Value, vocabulary: usize) -> Result<(Vec<TokenId>, Vec<TokenId>), TokenizerError> {
    check_types("a post-processor", value, "processors", POST_PROCESSORS)?;
    let wrong = |what: &str| TokenizerError::Syntax(format!("the template {what}"));
    match type_of(value) {
        "Sequence" => {
            let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
            for item in value["processors"].as_array().into_iter().flatten() {
                let (before, after) = template(item, vocabulary)?;
                prefix.splice(0..0, before);
                suffix.extend(after);
                if prefix.len().max(suffix.len()) > MAX_TEMPLATE {
                    return Err(wrong("adds more than 16 special tokens"));
                }
            }
            Ok((prefix, suffix))
        }
        "BertProcessing" => {
            let token = |key: &str| {
                let id = value[key][1].as_u64().unwrap_or(u64::MAX);
                if id >= vocabulary as u64 {
                    return Err(bad_id(
                        key,
                        id,
                        &format!("ids must be below the vocabulary of {vocabulary}"),
                    ));
                }
                Ok(vec![TokenId(id as u32)])
            };
            Ok((token("cls")?, token("sep")?))
        }
        "TemplateProcessing" => {
            let (mut prefix, mut suffix, mut text_seen) = (Vec::new(), Vec::new(), false);
            for item in value["single"].as_array().ok_or_else(|| wrong("has no `single`"))? {
                if item["Sequence"].is_object() && !text_seen {
                    text_seen = true;
                    continue;
                }
                let name = item["SpecialToken"]["id"].as_str().ok_or_else(|| wrong("has an unknown part"))?;
                let ids = value["special_tokens"][name]["ids"].as_array();
                for id in ids.ok_or_else(|| wrong("names a special token without ids"))? {
                    let id = id.as_u64().unwrap_or(u64::MAX);
                    if id >= vocabulary as u64 {
                        return Err(bad_id(
                            name,
                            id,
                            &format!("ids must be below the vocabulary of {vocabulary}"),
                        ));
                    }
                    let side = if text_seen { &mut suffix } else { &mut prefix };
                    if side.len() == MAX_TEMPLATE {
                        return Err(wrong("adds more than 16 special tokens"));
                    }
                    side.push(TokenId(id as u32));
                }
            }
            if text_seen { Ok((prefix, suffix)) } else { Err(wrong("has no text")) }
        }
        _ => Ok((Vec::new(), Vec::new())),
    }
}

fn decoding(value: &Value) -> Result<Decoding, TokenizerError> {
    check_types("a decoder", value, "decoders", DECODERS)?;
    let mut parts = Vec::new();
    flatten(value, "decoders", &mut parts);
    if parts.iter().any(|part| type_of(part) == "ByteLevel") {
        return Ok(Decoding::ByteLevel);
    }
    if let Some(part) = parts.iter().find(|part| type_of(part) == "WordPiece") {
        let prefix = part["prefix"].as_str().filter(|prefix| !prefix.is_empty()).unwrap_or("##");
        return Ok(Decoding::WordPiece { prefix: prefix.to_owned() });
    }
    let space = parts.iter().find_map(|part| match type_of(part) {
        "Metaspace" => Some(part["replacement"].as_str().unwrap_or("▁")),
        "Replace" if part["content"] == " " => part["pattern"]["String"].as_str(),
        _ => None,
    });
    let byte_fallback = parts.iter().any(|part| type_of(part) == "ByteFallback");
    if !byte_fallback && space.is_none() {
        return Err(unsupported("a decoder", type_of(value), DECODERS));
    }
    let space = space.filter(|space| !space.is_empty()).map(str::to_owned);
    Ok(Decoding::Pieces { space, byte_fallback })
}

fn flatten<'a>(value: &'a Value, items: &str, parts: &mut Vec<&'a Value>) {
    match value[items].as_array() {
        Some(inner) => inner.iter().for_each(|item| flatten(item, items, parts)),
        None => parts.push(value),
    }
}

/// Takes `Prepend` out of a normalizer; whether there was one.
fn remove_prepend(normalizer: &mut Value) -> bool {
    if type_of(normalizer) == "Prepend" {
        *normalizer = Value::Null;
        return true;
    }
    let Some(items) = normalizer.get_mut("normalizers").and_then(Value::as_array_mut) else { return false };
    let mut removed = false;
    for item in items.iter_mut() {
        removed |= remove_prepend(item);
    }
    items.retain(|item| !item.is_null());
    removed
}

/// Switches the leading space of a pre-tokenizer off; whether it was on.
fn remove_prefix_space(pre_tokenizer: &mut Value) -> bool {
    match type_of(pre_tokenizer) {
        "ByteLevel" => {
            let on = pre_tokenizer["add_prefix_space"].as_bool().unwrap_or(true);
            pre_tokenizer["add_prefix_space"] = false.into();
            on
        }
        "Metaspace" => {
            let on = pre_tokenizer["prepend_scheme"] != "never" && pre_tokenizer["add_prefix_space"] != false;
            pre_tokenizer["prepend_scheme"] = "never".into();
            pre_tokenizer["add_prefix_space"] = false.into();
            on
        }
        _ => {
            let mut on = false;
            let items = pre_tokenizer.get_mut("pretokenizers").and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                on |= remove_prefix_space(item);
            }
            on
        }
    }
}
