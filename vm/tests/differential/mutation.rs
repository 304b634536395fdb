//! Code with something changed.

use super::choices::Choices;

/// A piece of `code`, with a few bytes changed, removed, or repeated.
pub(crate) fn mutated(code: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut code = code.to_vec();
    for _ in 0..choices.below(6) {
        if code.is_empty() {
            break;
        }
        let at = choices.number() as usize % code.len();
        match choices.below(6) {
            0 => code[at] = choices.byte(),
            1 => code[at] = choices.pick(&[0x5b, 0x56, 0x57, 0x50, 0x80, 0x90, 0x01, 0x15, 0x5a, 0x54, 0xfe]),
            2 => drop(code.remove(at)),
            3 => code.insert(at, choices.byte()),
            4 => code.truncate(at + 1),
            _ => {
                let piece = code[at..].iter().copied().take(choices.below(12)).collect::<Vec<_>>();
                code.splice(at..at, piece);
            }
        }
    }
    code
}
