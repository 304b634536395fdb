//! Ethereum's own tests, for any of MetisVM's interpreters.

#![forbid(unsafe_code)]

pub mod blocks;
pub mod statetest;
