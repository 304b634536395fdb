//! The EVM of MetisVM.
//!
//! This crate composes [revm] with any provider of precompiled contracts and gives the result a small, complete
//! surface: transactions in, [`Outcome`]s out, state as a value. It knows nothing about models; the inference
//! precompile is a provider like any other and is handed in by the binary.
//!
//! | module | what it holds |
//! |---|---|
//! | [`fork`] | every hard fork that revm knows, by name |
//! | [`config`] | what a chain fixes: fork, chain id, gas cap, and the block that transactions see |
//! | [`metered`] | gas that precompiled contracts meter, with a price and a limit of its own |
//! | [`transaction`] | what a user sends |
//! | [`outcome`] | what came of it |
//! | [`state`] | accounts as a value: JSON in, JSON out, one digest |
//! | [`evm`] | [`EvmBuilder`] and [`Vm`], which execute |
//! | [`fusion`] | the fused interpreter, for any revm |
//! | [`record`] | a run as a document that anybody can replay and compare |
//!
//! The way through: a [`State`] and an [`EvmConfig`] go into an [`EvmBuilder`]; `build(precompiles)` gives a [`Vm`];
//! [`Vm::transact`] commits, [`Vm::simulate`] does not. A [`Recorder`] around the same machine also writes a [`Record`],
//! and [`Record::verify`] replays one.
//!
//! The provider `P` is anything with [`Precompiles`], which is revm's `PrecompileProvider` over [`EvmContext`].
//! When it fails (`Err` from `run`), the transaction is dropped and [`VmError::Fatal`] is returned: such a machine has no
//! answer, and an answer is never made up.
//!
//! [revm]: https://docs.rs/revm

#![deny(unsafe_code)]

pub mod config;
pub mod error;
pub mod evm;
pub mod fork;
pub mod fusion;
pub mod metered;
pub mod outcome;
pub mod record;
pub mod state;
pub mod transaction;

mod quantity;

pub use config::{BlockInfo, EvmConfig};
pub use error::VmError;
pub use evm::{EvmBuilder, EvmContext, Precompiles, StateDb, Vm};
pub use fork::{SpecId, UnknownFork};
pub use fusion::{CacheStats, FusedEvm, FusionCache, FusionConfig, Interpreter, WithFusion};
pub use metered::{Meter, MeterTerms, MeteredBlock};
pub use outcome::{HaltReason, Log, Outcome, Status};
pub use record::{Difference, Record, RecordError, Recorder, VerifyError};
pub use state::{Account, State, StateError};
pub use transaction::Transaction;
