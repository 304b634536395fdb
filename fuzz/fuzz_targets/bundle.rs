//! Foreign bytes as a manifest, as weights or as a tokenizer are refused with an error, never with a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use metis_models::bundle::Manifest;
use metis_models::{Bundle, Tokenizer};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode().expect("a manifest that was read can be written"), data);
    }
    let _ = Tokenizer::from_json(data, 300);
    let at = data.len() / 2;
    assert!(Bundle::from_parts(&data[..at], data[at..].to_vec(), Vec::new()).is_err());
});
