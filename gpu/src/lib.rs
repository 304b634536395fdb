//! The kernels of `metis-kernels` on CUDA devices found at run time.
//!
//! What this crate is for: one default build of MetisVM serves machines with and without a GPU. It will implement
//! `metis_kernels::Backend` with integer CUDA kernels (`dp4a` for decode, s8 tensor-core tiles for prefill), load the driver at
//! run time, and pass `metis_kernels::golden::selftest` on the actual device before that device computes anything for consensus.
//!
//! What it holds today: [`DeviceRequest`], how a user names the device to run on. There is no CUDA backend yet, and asking for one
//! by name is an error rather than a silent fallback.
#![forbid(unsafe_code)]

mod device;

pub use device::{DeviceError, DeviceRequest};
