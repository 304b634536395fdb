//! Ethereum's own tests, for any of MetisVM's interpreters.

#![forbid(unsafe_code)]

pub mod bench;
mod blob_price;
pub mod blocks;
pub mod statetest;
pub mod trie;
