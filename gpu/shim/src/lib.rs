//! The CUDA kernels of `metis-gpu` as host C++, for tests on machines without a GPU.
//!
//! The same `.cu` files that make the PTX are compiled here by the host's C++ compiler. A block's threads are fibers on one thread of the
//! processor, which meet at barriers and run in a random order between them; the instructions that only a GPU has are loops. So
//! [`Shim`] is a [`Driver`](metis_gpu::Driver), and everything of `metis-gpu` but the calls of NVIDIA's driver runs on it.
//!
//! Where there is no C++ compiler there is no [`Shim`]; [`UNAVAILABLE`] says so.

#[cfg(shim)]
#[allow(unsafe_code, reason = "calls compiled kernels, which use memory by address")]
mod machine;

#[cfg(shim)]
pub use machine::{Memory, Record, Shim};

/// The reason for which a test that needs the kernels is skipped, if there is one.
pub const UNAVAILABLE: Option<&str> =
    if cfg!(shim) { None } else { Some("skipped: no C++ compiler, the kernels are not compiled") };

/// A folder with a library that has the names of NVIDIA's driver and computes with the shim, for programs that are started with it in
/// `LD_LIBRARY_PATH`.
pub const FAKE_DRIVER: Option<&str> = option_env!("METIS_FAKE_DRIVER");

/// The same with a library that has the driver's name and not all of its functions.
pub const OLD_DRIVER: Option<&str> = option_env!("METIS_OLD_DRIVER");
