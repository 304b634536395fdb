//! Foreign bytes as a GGUF file are refused with an error, or are a whole model: never a panic. Half of the inputs are changes of a
//! good file, which random bytes would not reach.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use metis_models::fixture::{Fixture, GgmlDType};
use metis_models::import::{Options, ProgressBar, Source, convert};

static GOOD: LazyLock<Vec<u8>> =
    LazyLock::new(|| Fixture { layers: 1, ..Fixture::default() }.gguf(GgmlDType::Q8_0).expect("the fixture is a model"));

fuzz_target!(|data: &[u8]| {
    let file = match data.split_first() {
        Some((0..128, changes)) => changed(changes),
        _ => data.to_vec(),
    };
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("model.gguf");
    std::fs::write(&path, file).expect("a temporary file");
    if let Ok(parts) = convert(&Source::Gguf(path), &Options::default(), &ProgressBar::hidden()) {
        parts.into_bundle().expect("what was imported is a bundle");
    }
});

/// The good file with bytes replaced: three bytes say where, the fourth by what.
fn changed(changes: &[u8]) -> Vec<u8> {
    let mut file = GOOD.clone();
    for &[a, b, c, byte] in changes.as_chunks().0 {
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % file.len();
        file[at] = byte;
    }
    file
}
