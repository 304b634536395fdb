//! Conformance, determinism vectors and end-to-end tests of MetisVM.
//!
//! The tests live in `tests/`; this library is what they share: the fixtures on disk, the compiled contracts, and a chain with
//! the default model on it.
#![forbid(unsafe_code)]
