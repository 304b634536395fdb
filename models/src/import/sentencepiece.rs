//! llama2.c's `tokenizer.bin` (SentencePiece BPE with byte fallback) as a `tokenizer.json`.
//!
//! The file is an `i32` (longest piece) and then, per token, its score as `f32`, its length as `i32` and its bytes. `run.c`
//! merges, again and again, the adjacent pair whose union is the piece of the highest score. Ranked merges do the same: for each piece, from the highest
//! score down, all its splits into two pieces. Pieces keep their literal spaces, so that `▁` in a text stays what it is.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ImportError;

const BOS: usize = 1;
/// `<unk>`, BOS, EOS.
const CONTROL_TOKENS: [&str; 3] = ["<unk>", "<s>", "</s>"];
/// Byte tokens follow the control tokens.
const BYTE_TOKENS: usize = 256;

/// Converts a tokenizer. The result depends on the file alone.
pub(super) fn tokenizer_json(path: &Path, vocabulary: usize) -> Result<Vec<u8>, ImportError> {
    let file = std::fs::read(path).map_err(ImportError::io(path))?;
    let pieces = read_pieces(&file, vocabulary).map_err(|reason| ImportError::format(path, reason))?;
    // Control and byte tokens take no part in merges: text never becomes them.
    let mergeable = pieces.get(CONTROL_TOKENS.len() + BYTE_TOKENS..).unwrap_or_default();
    let vocab: Map<String, Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.text.clone(), id.into())).collect();
    if vocab.len() != pieces.len() {
        return Err(ImportError::format(path, "two tokens have the same text"));
    }
    let added = CONTROL_TOKENS.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Prepend", "prepend": " "},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "<unk>",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges(mergeable),
        },
    });
    canonical(&json).map_err(|error| ImportError::format(path, error))
}

/// A piece that text can become.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Higher is merged first.
    pub(super) rank: i64,
}

/// The bits of a score, a single, as an integer of the same order.
pub(super) fn rank(score: u32) -> i64 {
    let magnitude = i64::from(score & 0x7fff_ffff);
    if score >> 31 == 1 { -magnitude } else { magnitude }
}

fn read_pieces(file: &[u8], vocabulary: usize) -> Result<Vec<Piece>, String> {
    let mut rest = file.get(4..).ok_or("the file is shorter than its header")?;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length)?;
        rest = left;
        Some(taken)
    };
    let mut pieces = Vec::new();
    for id in 0..vocabulary {
        let cut = || format!("the file ends inside token {id} of {vocabulary}");
        let score = take(4).and_then(|bytes| bytes.first_chunk().copied()).ok_or_else(cut)?;
        let length = take(4).and_then(|bytes| bytes.first_chunk().copied()).ok_or_else(cut)?;
        let length = usize::try_from(i32::from_le_bytes(length)).map_err(|_| cut())?;
        let text = take(length).ok_or_else(cut)?;
        let text = match CONTROL_TOKENS.get(id) {
            Some(name) => (*name).to_owned(),
            None => String::from_utf8(text.to_vec()).map_err(|_| format!("token {id} is not UTF-8"))?,
        };
        let byte = id.checked_sub(CONTROL_TOKENS.len()).filter(|&byte| byte < BYTE_TOKENS);
        if let Some(byte) = byte.filter(|byte| text != format!("<0x{byte:02X}>")) {
            return Err(format!("token {id} should be the byte <0x{byte:02X}>, it is {text:?}"));
        }
        pieces.push(Piece { text, rank: rank(u32::from_le_bytes(score)) });
    }
    if take(1).is_some() {
        return Err(format!("the file has more than the {vocabulary} tokens of its checkpoint"));
    }
    Ok(pieces)
}

/// Pairs of pieces in the order of their merging.
pub(super) fn merges(pieces: &[Piece]) -> Vec<(&str, &str)> {
    let known: HashSet<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let mut order: Vec<&Piece> = pieces.iter().collect();
    // A stable sort: equal scores stay in the order of their ids.
    order.sort_by_key(|piece| Reverse(piece.rank));
    let splits = order
        .into_iter()
        .flat_map(|piece| (1..piece.text.len()).filter_map(|at| piece.text.split_at_checked(at)));
    splits.filter(|(left, right)| known.contains(left) && known.contains(right)).collect()
}

/// JSON with sorted keys, whatever features `serde_json` was built with.
pub(super) fn canonical(value: &Value) -> Result<Vec<u8>, serde_json::Error> {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sort(value))).collect();
                entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                Value::Object(entries.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sort).collect()),
            leaf => leaf.clone(),
        }
    }
    serde_json::to_vec(&sort(value))
}
