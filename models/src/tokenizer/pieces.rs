//! The bytes behind each token id.

use metis_kernels::TokenId;

/// What a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// No token has this id.
    #[default]
    None,
    /// Text.
    Text,
    /// Control: text never encodes to it.
    Special,
    /// Special, but what the encoder emits for unknown text.
    Unknown,
}

/// A table from token ids to bytes.
#[derive(Debug)]
pub(super) struct Pieces {
    entries: Vec<(Kind, Box<[u8]>)>,
}

impl Pieces {
    pub(super) fn new(vocabulary: usize) -> Self {
        Self { entries: (0..vocabulary).map(|_| Default::default()).collect() }
    }

    /// Enters a token; `false` when the id is outside the vocabulary or taken.
    pub(super) fn insert(&mut self, id: u64, kind: Kind, bytes: Vec<u8>) -> bool {
        let entry = usize::try_from(id).ok().and_then(|id| self.entries.get_mut(id));
        match entry {
            Some(entry) if entry.0 == Kind::None => {
                *entry = (kind, bytes.into());
                true
            }
            _ => false,
        }
    }

    /// Entries: the size of the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self, token: TokenId) -> &[u8] {
        match self.entries.get(token.index()) {
            Some((Kind::Text, bytes)) => bytes,
            _ => &[],
        }
    }

    pub(super) fn is_special(&self, token: TokenId) -> bool {
        matches!(self.kind(token), Kind::Special | Kind::Unknown)
    }

    pub(super) fn is_control(&self, token: TokenId) -> bool {
        self.kind(token) == Kind::Special
    }

    fn kind(&self, token: TokenId) -> Kind {
        self.entries.get(token.index()).map_or(Kind::None, |entry| entry.0)
    }
}

/// The bytes of a byte-level piece, or `None` when a character stands for no byte.
///
/// The alphabet is GPT-2's: printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards in order.
pub(super) fn byte_level(piece: &str) -> Option<Vec<u8>> {
    piece.chars().map(|c| byte_of(u32::from(c))).collect()
}

/// The bytes of a SentencePiece piece: with byte fallback `<0xNN>` is a byte; `space` is a space.
pub(super) fn plain(piece: &str, space: Option<&str>, byte_fallback: bool) -> Vec<u8> {
    let hex = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|_| byte_fallback);
    match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => space.map_or_else(|| piece.to_owned(), |space| piece.replace(space, " ")).into_bytes(),
    }
}

const fn is_printable(byte: u32) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

fn byte_of(character: u32) -> Option<u8> {
    if is_printable(character) {
        return u8::try_from(character).ok();
    }
    let nth = character.checked_sub(0x100)? as usize;
    (0..=255u8).filter(|&byte| !is_printable(u32::from(byte))).nth(nth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_characters_are_a_bijection_with_bytes() {
        let mut found: Vec<u8> = (0..0x200).filter_map(byte_of).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..=255));
        assert_eq!(byte_level("Ġa"), Some(b" a".to_vec()));
        assert_eq!(byte_level("Ċ"), Some(b"\n".to_vec()));
        assert_eq!(byte_level("▁"), None);
    }

    #[test]
    fn byte_fallback_needs_exactly_two_digits() {
        assert_eq!(plain("<0xE4>", None, true), [0xe4]);
        assert_eq!(plain("<0xE>", None, true), b"<0xE>");
        assert_eq!(plain("<0x+1>", None, true), b"\x01", "as the tokenizers library reads it");
        assert_eq!(plain("<0xE4>", None, false), b"<0xE4>");
        assert_eq!(plain("▁a▁", Some("▁"), true), b" a ");
    }
}
