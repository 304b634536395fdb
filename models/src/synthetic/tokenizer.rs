//! A byte-level tokenizer that needs no download.

use serde_json::{Map, Value, json};

/// Tokens of the tokenizer: three special, 256 bytes, and the merges.
pub const TOKENS: usize = 3 + 256 + MERGES.len();

/// Merges of the byte-level tokenizer, each into the token that follows from it (`Ġ` is a space).
const MERGES: [(&str, &str); 13] = [
    ("h", "e"),
    ("Ġ", "t"),
    ("Ġt", "he"),
    ("i", "n"),
    ("Ġ", "a"),
    ("o", "n"),
    ("e", "r"),
    ("l", "l"),
    ("he", "ll"),
    ("hell", "o"),
    ("Ġ", "w"),
    ("o", "r"),
    ("Ġw", "or"),
];

/// A byte-level `tokenizer.json`: `<unk>` 0, `<s>` 1, `</s>` 2, bytes from 3, merges after them; prompts start with `<s>`.
pub fn tokenizer_json() -> Value {
    let mut vocab = Map::new();
    let mut add = |piece: String| {
        let id = vocab.len();
        vocab.insert(piece, id.into());
    };
    ["<unk>", "<s>", "</s>"].iter().for_each(|special| add((*special).into()));
    (0..=255u8).for_each(|byte| add(byte_character(byte).into()));
    MERGES.iter().for_each(|(left, right)| add(format!("{left}{right}")));
    debug_assert_eq!(vocab.len(), TOKENS);
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        // Settings that must not survive.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>",
        },
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab,
            "merges": MERGES.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    })
}

/// GPT-2's character for a byte.
fn byte_character(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return byte.into();
    }
    let nth = (0..byte).filter(|byte| !printable(byte)).count();
    char::from_u32(0x100 + nth as u32).unwrap_or_default()
}
