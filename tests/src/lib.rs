//! Conformance, determinism vectors and end-to-end tests of MetisVM.
//!
//! The tests live in `tests/`; this library is what they share: test data on disk, and a chain with the embedded model on which
//! Solidity contracts call the precompile; a chain with a model registry. `reference/` is the second implementation, in Python.
#![forbid(unsafe_code)]

pub mod chain;
pub mod economy;
pub mod fixtures;
pub mod invariants;
pub mod market;
pub mod signer;
