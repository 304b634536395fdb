//! The inference precompile of MetisVM: EVM bytes in, EVM bytes out.
//!
//! How a call flows through it: revm's handler asks [`MetisPrecompiles`] whether it knows the code address; for
//! [`INFERENCE_ADDRESS`] it hands calldata and gas limit to [`Inference`], which reads the ABI ([`abi`]), looks the model up
//! ([`ModelSet`]), pays ([`gas`]), asks the model ([`InferenceModel`](metis_models::engine::InferenceModel)) and writes the answer. The
//! whole way is a pure function of ([`ChainConfig`], calldata): no clock, no cache and no thread count can change a bit of it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`abi`] | address, functions, errors; canonical decoding (`docs/abi.md` is normative) |
//! | [`gas`] | the schedule and its formulas (`docs/gas.md` is normative) |
//! | [`config`] | `chain.toml` |
//! | [`registry`] | which models may be called, and their weights |
//! | `calls` | one file for each family of functions |
//! | [`inference`] | the precompile as a function, memo included |
//! | [`provider`] | the precompile in revm |
//! | [`calibration`] | nanoseconds per gas, next to Ethereum's own operations |
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod abi;
pub mod calibration;
mod calls;
pub mod config;
pub mod gas;
pub mod inference;
mod memo;
pub mod provider;
pub mod registry;

pub use abi::INFERENCE_ADDRESS;
pub use config::{Caps, ChainConfig, ConfigError, ModelEntry, ModelStatus};
pub use gas::{Gas, GasSchedule};
pub use inference::{FatalError, Inference, Outcome};
pub use provider::MetisPrecompiles;
pub use registry::{ModelError, ModelSet};
