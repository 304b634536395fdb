//! The inference precompile of MetisVM: EVM bytes in, EVM bytes out.
//!
//! How a call flows through it: revm's handler asks [`MetisPrecompiles`] whether it knows the code address; for
//! [`INFERENCE_ADDRESS`] it hands calldata and gas limit to [`Inference`], which reads the ABI ([`abi`]), looks the model up
//! ([`ModelSet`]), pays ([`gas`]), asks the model ([`InferenceModel`](metis_models::engine::InferenceModel)) and writes the answer. The
//! whole way is a pure function of ([`ChainConfig`], calldata, [`Site`]): no clock, no cache and no thread count can change a bit of it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`abi`] | address, functions, errors; canonical decoding (`docs/abi.md` is normative) |
//! | [`gas`], [`costs`], [`meter`] | the schedule and its formulas, what of a model enters them, the gas of one call (`docs/gas.md` is normative) |
//! | [`market`] | the price and the block limit of inference (`docs/market.md` is normative) |
//! | [`config`] | `chain.toml` |
//! | [`registry`], `residents` | which models may be called, and their weights |
//! | [`registration`] | what the model registry, a contract, says of a model (`docs/registry.md` is normative) |
//! | [`site`] | what a call sees of the chain |
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
pub mod costs;
pub mod gas;
pub mod inference;
pub mod market;
mod memo;
pub mod meter;
pub mod provider;
pub mod registration;
pub mod registry;
mod residents;
pub mod site;

pub use abi::INFERENCE_ADDRESS;
pub use config::{Caps, ChainConfig, ConfigError, LegacyConfig, ModelEntry, ModelStatus, RegistryConfig};
pub use costs::{ModelCosts, NotPriced};
pub use gas::{Gas, GasSchedule};
pub use inference::{Answered, FatalError, Inference, Outcome};
pub use market::{Market, MarketHeader};
pub use provider::{LEGACY_ADDRESS, MetisPrecompiles};
pub use registration::{Claims, GATEWAY_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
pub use registry::{Library, LoadFailure, ModelError, ModelSet};
pub use site::{RegistryStorage, Site, Unread};
