//! The kernels of `metis-kernels` on CUDA devices found at run time.
//!
//! What this crate is for: one default build of MetisVM serves machines with and without a GPU. The kernels are CUDA C++ under
//! `gpu/kernels`, integers only; their PTX is part of the binary, and NVIDIA's driver is loaded when it is there. `docs/gpu.md` is the
//! whole story.
//!
//! How data flows through it: a transformer graph calls the [`Backend`](metis_kernels::Backend) functions of a [`Gpu`]; each adds launches
//! and small inputs to a queue; when tokens or rows are wanted, or a step ends, the [`Driver`] begins them together.
//!
//! | module | what it holds |
//! |---|---|
//! | `backend` | [`Gpu`], the backend |
//! | `buffers` | weights and rows in the device's memory |
//! | `cache` | the paged key-value cache |
//! | `attention` | attention over it |
//! | `choose` | choosing tokens |
//! | `queue` | what waits, and who owns memory |
//! | `task` | what a device is asked to do, and how neighbours become one launch |
//! | `products` | matrix products of the same rows, with what comes before and after them |
//! | `shares` | memory in which blocks that share a tile leave their sums |
//! | `ahead` | weights that a launch asks for before the next ones read them |
//! | `driver` | [`Driver`]: what is asked of a device |
//! | `cuda` | [`Cuda`]: NVIDIA's driver |
//! | `device` | [`DeviceRequest`]: how a user names a device |
#![deny(clippy::float_arithmetic)]

mod ahead;
mod attention;
mod backend;
mod buffers;
mod cache;
mod choose;
#[allow(unsafe_code, reason = "calls NVIDIA's driver")]
mod cuda;
mod device;
mod driver;
mod products;
mod queue;
mod shares;
mod task;

pub use backend::Gpu;
pub use buffers::{Activations, Bias, Linear, Norm, Residual, Rope};
pub use cache::KvCache;
pub use cuda::Cuda;
pub use device::{DeviceError, DeviceRequest};
pub use driver::{Arguments, Driver, DriverError, Launch, Word};
