//! The `metisvm` command as a library, so that end-to-end tests drive the same code.
//!
//! | module | what it holds |
//! |---|---|
//! | [`author`] | the author's side of a chain |
//! | [`cli`] | the command line |
//! | [`code`] | contract code as a user names it |
//! | [`commands`] | one file for each command |
//! | [`machine`] | the devices that inference runs on |
//! | [`contracts`] | the interfaces of the system contracts |
//! | [`devnet`] | a chain on this machine, by JSON-RPC |
//! | [`errors`] | what reverted calls say |
//! | [`http`] | clients of web servers, and stores of models behind them |
//! | [`genesis`] | the accounts that a chain begins with |
//! | [`node`] | a chain: configuration, loaded models, machines on it |
//! | [`artifacts`] | the compiled contracts that are built in |
//! | [`wallet`] | IntentWallet on a fresh chain, as the demo and the tests use it |
//! | [`report`] | output for people or for programs |
#![forbid(unsafe_code)]

pub mod artifacts;
pub mod author;
pub mod cli;
pub mod code;
pub mod commands;
pub mod contracts;
pub mod devnet;
pub mod errors;
pub mod genesis;
pub mod http;
pub mod machine;
pub mod node;
pub mod report;
pub mod wallet;
