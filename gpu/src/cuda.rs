//! NVIDIA's driver, loaded when it is there.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute, CUgraphExec, CUresult, CUstreamCaptureMode};

use crate::device::DeviceError;
use crate::driver::{Driver, DriverError, Launch};

/// The kernels, as `gpu/kernels/build.sh` makes them.
const PTX: &str = include_str!("../kernels/metis.ptx");
/// What the kernels' instructions need: byte products on tensor cores and asynchronous copies.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);
/// Memory of a device that is left to others.
const RESERVE: usize = 512 << 20;
/// Parts of steps that are kept as graphs.
const GRAPHS: usize = 64;
/// Parts that came once.
const CANDIDATES: usize = 16;
/// Launches that are worth a graph.
const WORTH_A_GRAPH: usize = 8;
/// Half of the page-locked memory through which bytes go to the device.
const HALF: usize = 2 << 20;
/// The driver's functions that are called here. One that is not there would panic when it is called: old drivers, and libraries that only have
/// the driver's name, are found out before.
const FUNCTIONS: [&str; 34] = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// A CUDA device.
#[derive(Debug)]
pub struct Cuda {
    name: String,
    multiprocessors: u32,
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    module: sys::CUmodule,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    staging: Staging,
    functions: BTreeMap<&'static str, sys::CUfunction>,
    /// The last that was used comes first.
    graphs: Vec<(Vec<Launch>, CUgraphExec)>,
    candidates: Vec<Vec<Launch>>,
}

// SAFETY: the handles are the driver's, which may be used from any thread that has made the context current, as every function here does;
// what is kept about them is behind the mutex.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// Page-locked memory from which the driver copies when the stream comes to it, whatever has become of the bytes by then. Memory that is not
/// page-locked is copied before a call returns on some machines only.
///
/// One half fills up while what lies in the other is copied; an event says that it has been.
#[derive(Debug)]
struct Staging {
    halves: [NonNull<u8>; 2],
    copied: [sys::CUevent; 2],
    filling: usize,
    filled: usize,
}

/// Memory of a device.
#[derive(Debug)]
pub struct Memory {
    address: sys::CUdeviceptr,
    context: sys::CUcontext,
}

// SAFETY: an address and a context, which the driver takes from any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

fn failed(error: result::DriverError) -> DriverError {
    DriverError::Failed(error.to_string())
}

impl Cuda {
    /// How many devices there are. An error says why there is none, and nothing has panicked.
    pub fn count() -> Result<u32, DeviceError> {
        // SAFETY: only looks whether the library can be loaded, which must come first: without it every other function panics.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NotFound("not found".into()));
        }
        // SAFETY: the library can be loaded; nothing is called by these addresses.
        let there = |name: &&str| unsafe { sys::culib().get::<*const c_void>(name.as_bytes()) }.is_ok();
        if let Some(name) = FUNCTIONS.iter().find(|name| !there(name)) {
            let reason = format!("the driver has no {name}: it is older than CUDA 11.4");
            return Err(DeviceError::NotFound(reason));
        }
        let count = result::init().and_then(|()| result::device::get_count());
        let count =
            count.map_err(|error| DeviceError::NotFound(format!("the driver does not start: {error}")))?;
        if count > 0 {
            Ok(count as u32)
        } else {
            Err(DeviceError::NotFound("the driver has no device".into()))
        }
    }

    /// Whether there is a device of this ordinal.
    pub fn find(ordinal: u32) -> Result<(), DeviceError> {
        match Self::count()? {
            count if ordinal < count => Ok(()),
            count => Err(DeviceError::NotFound(format!("there is no device {ordinal}, only {count}"))),
        }
    }

    /// Opens a device and loads the kernels.
    pub fn open(ordinal: u32) -> Result<Self, DeviceError> {
        Self::find(ordinal)?;
        let unusable = |error: result::DriverError| DeviceError::Unusable {
            device: format!("cuda:{ordinal}"),
            reason: error.to_string(),
        };
        let device = result::device::get(ordinal as i32).map_err(unusable)?;
        let attribute = |attribute| {
            // SAFETY: the device is one that the driver gave.
            unsafe { result::device::get_attribute(device, attribute) }.map_err(unusable)
        };
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let multiprocessors =
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32;
        let name = result::device::get_name(device).map_err(unusable)?;
        let name = format!("cuda:{ordinal} ({name})");
        if capability < LEAST_CAPABILITY {
            let reason = format!("compute capability {}.{}, and 8.0 is needed", capability.0, capability.1);
            return Err(DeviceError::Unusable { device: name, reason });
        }
        let image = CString::new(PTX)
            .map_err(|error| DeviceError::Unusable { device: name.clone(), reason: error.to_string() })?;
        // SAFETY: the primary context is retained until the drop; the stream, the module and page-locked memory are made in it while it is
        // current, and given back if what comes after them fails; the image is a text that ends with a zero.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(unusable)?;
            let opened = result::ctx::set_current(context).and_then(|()| {
                let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
                let filled = result::module::load_data(image.as_ptr().cast()).and_then(|module| {
                    let staging = Staging::new();
                    staging.map(|staging| (stream, module, staging)).inspect_err(|_| {
                        let _ = result::module::unload(module);
                    })
                });
                filled.inspect_err(|_| {
                    let _ = result::stream::destroy(stream);
                })
            });
            match opened {
                Ok((stream, module, staging)) => {
                    let (functions, graphs, candidates) = Default::default();
                    let state = Mutex::new(State { staging, functions, graphs, candidates });
                    Ok(Self { name, multiprocessors, context, device, stream, module, state })
                }
                Err(error) => {
                    let _ = result::primary_ctx::release(device);
                    Err(unusable(error))
                }
            }
        }
    }

    /// Bytes of free memory, without what is left to others.
    pub fn free_memory(&self) -> Result<usize, DriverError> {
        self.enter()?;
        let (free, _) = result::mem_get_info().map_err(failed)?;
        Ok(free.saturating_sub(RESERVE))
    }

    /// Makes the context the calling thread's.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn function(&self, state: &mut State, launch: &Launch) -> Result<sys::CUfunction, result::DriverError> {
        if let Some(&function) = state.functions.get(launch.kernel) {
            return Ok(function);
        }
        let name = CString::new(launch.kernel)
            .map_err(|_| result::DriverError(CUresult::CUDA_ERROR_INVALID_VALUE))?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, name) }?;
        state.functions.insert(launch.kernel, function);
        Ok(function)
    }

    /// # Safety
    ///
    /// As of [`Driver::launch`].
    unsafe fn start(&self, state: &mut State, launches: &[Launch]) -> Result<(), result::DriverError> {
        for launch in launches {
            let function = self.function(state, launch)?;
            let words = launch.arguments.words();
            let mut arguments: Vec<*mut c_void> = launch
                .arguments
                .starts()
                .map(|start| std::ptr::from_ref(&words[start]).cast_mut().cast())
                .collect();
            let [x, y, z] = launch.grid;
            // SAFETY: the caller answers for what the kernel does; the driver reads each argument's bytes, which begin a word each, before
            // it returns.
            unsafe {
                result::launch_kernel(
                    function,
                    (x, y, z),
                    (launch.threads, 1, 1),
                    launch.shared,
                    self.stream,
                    &mut arguments,
                )
            }?;
        }
        Ok(())
    }

    /// A graph of launches, for steps that come again.
    ///
    /// # Safety
    ///
    /// As of [`Driver::launch`], each time that the graph is launched.
    unsafe fn capture(
        &self,
        state: &mut State,
        launches: &[Launch],
    ) -> Result<CUgraphExec, result::DriverError> {
        // SAFETY: the stream is this value's own; a capture that was begun is ended whatever comes between.
        unsafe {
            // Only this thread's calls on this stream count: others may use the driver meanwhile.
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            result::stream::begin_capture(self.stream, mode)?;
            let started = self.start(state, launches);
            let graph = result::stream::end_capture(self.stream)?;
            let instance =
                started.and_then(|()| result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)));
            let _ = result::graph::destroy(graph);
            instance
        }
    }

    /// # Safety
    ///
    /// As of [`Driver::launch`].
    unsafe fn start_or_replay(&self, launches: &[Launch]) -> Result<(), result::DriverError> {
        let state = &mut *self.state();
        if launches.len() < WORTH_A_GRAPH {
            // SAFETY: the caller's.
            return unsafe { self.start(state, launches) };
        }
        if let Some(known) = state.graphs.iter().position(|(of, _)| of == launches) {
            state.graphs[..=known].rotate_right(1);
        } else if let Some(known) = state.candidates.iter().position(|of| of == launches) {
            let candidate = state.candidates.remove(known);
            // SAFETY: the caller's: equal launches have equal addresses.
            let Ok(instance) = (unsafe { self.capture(state, launches) }) else {
                // There may be no memory for a graph: nothing of it has begun. A device that has failed says so again.
                // SAFETY: the caller's.
                return unsafe { self.start(state, launches) };
            };
            state.graphs.insert(0, (candidate, instance));
            if state.graphs.len() > GRAPHS
                && let Some((_, oldest)) = state.graphs.pop()
            {
                // SAFETY: the graph is not used again; one that still runs is destroyed when it is done.
                unsafe { result::graph::exec_destroy(oldest) }?;
            }
        } else {
            state.candidates.insert(0, launches.to_vec());
            state.candidates.truncate(CANDIDATES);
            // SAFETY: the caller's.
            return unsafe { self.start(state, launches) };
        }
        // SAFETY: the first graph is that of these launches.
        unsafe { result::graph::launch(state.graphs[0].1, self.stream) }
    }
}

impl Driver for Cuda {
    type Memory = Memory;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, DriverError> {
        self.enter()?;
        // SAFETY: kernels do not rely on what memory holds at first.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Memory { address, context: self.context }),
            Err(result::DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(DriverError::OutOfMemory { bytes })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address
    }

    fn upload(&self, to: &mut Memory, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        self.enter()?;
        let staging = &mut self.state().staging;
        bytes.chunks(HALF).enumerate().try_for_each(|(i, piece)| {
            // SAFETY: the queue keeps within the memory that it allocated; what is page-locked stays as it is until it has been copied.
            unsafe {
                let piece = staging.place(piece, self.stream).map_err(failed)?;
                let address = to.address + (offset + i * HALF) as u64;
                result::memcpy_htod_async(address, piece, self.stream).map_err(failed)
            }
        })
    }

    fn download(&self, from: &Memory, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        self.enter()?;
        // SAFETY: as above; the bytes are borrowed until the copy is done.
        unsafe {
            result::memcpy_dtoh_async(bytes, from.address + offset as u64, self.stream)
                .and_then(|()| result::stream::synchronize(self.stream))
        }
        .map_err(failed)
    }

    unsafe fn launch(&self, launches: &[Launch]) -> Result<(), DriverError> {
        self.enter()?;
        // SAFETY: the caller's.
        unsafe { self.start_or_replay(launches) }.map_err(failed)
    }

    fn finish(&self) -> Result<(), DriverError> {
        self.enter()?;
        // SAFETY: the stream is this value's own.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed)
    }
}

impl Staging {
    /// # Safety
    ///
    /// A context is current.
    unsafe fn new() -> Result<Self, result::DriverError> {
        let out_of_memory = result::DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        // SAFETY: both halves lie in the memory; all of it is given back if not everything is there.
        unsafe {
            let first = NonNull::new(result::malloc_host(2 * HALF, 0)?.cast()).ok_or(out_of_memory)?;
            let mut staging = Self {
                halves: [first, first.add(HALF)],
                copied: [std::ptr::null_mut(); 2],
                filling: 0,
                filled: 0,
            };
            for i in 0..2 {
                match result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING) {
                    Ok(event) => staging.copied[i] = event,
                    Err(error) => {
                        staging.free();
                        return Err(error);
                    }
                }
            }
            Ok(staging)
        }
    }

    /// Puts at most a half of bytes where they stay until the stream has come to a copy of them that is asked for next.
    ///
    /// # Safety
    ///
    /// The context is current, and all copies are on the stream.
    unsafe fn place(&mut self, bytes: &[u8], stream: sys::CUstream) -> Result<&[u8], result::DriverError> {
        debug_assert!(bytes.len() <= HALF);
        if self.filled + bytes.len() > HALF {
            // SAFETY: the events are this value's own. One that was never recorded is past.
            unsafe {
                result::event::record(self.copied[self.filling], stream)?;
                self.filling ^= 1;
                result::event::synchronize(self.copied[self.filling])?;
            }
            self.filled = 0;
        }
        // SAFETY: there is room for the bytes, and nothing that is yet to be copied lies there.
        let placed = unsafe {
            let to = self.halves[self.filling].add(self.filled);
            to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
            std::slice::from_raw_parts(to.as_ptr(), bytes.len())
        };
        self.filled += bytes.len();
        Ok(placed)
    }

    /// # Safety
    ///
    /// The context is current; nothing is used after it, and nothing is yet to be copied.
    unsafe fn free(&mut self) {
        // SAFETY: all of it is this value's own.
        unsafe {
            for event in self.copied.into_iter().filter(|event| !event.is_null()) {
                let _ = result::event::destroy(event);
            }
            let _ = result::free_host(self.halves[0].as_ptr().cast());
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's own, and by the driver's contract nothing uses it any more. A context that is gone took its
        // memory with it, and says so.
        let _ =
            unsafe { result::ctx::set_current(self.context).and_then(|()| result::free_sync(self.address)) };
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: all handles are this value's own and not used again. A context that cannot be made current has taken with it what is in it.
        unsafe {
            if self.enter().is_ok() {
                let _ = result::stream::synchronize(self.stream);
                let state = &mut *self.state();
                for (_, graph) in state.graphs.drain(..) {
                    let _ = result::graph::exec_destroy(graph);
                }
                state.staging.free();
                let _ = result::module::unload(self.module);
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library that stands in for the driver in tests has exactly the functions that are called: one too few panics there.
    #[test]
    fn every_function_that_is_called_is_looked_for() {
        let stand_in = include_str!("../shim/cpp/nvidia.cpp");
        let mut names: Vec<&str> = stand_in
            .lines()
            .filter_map(|line| line.strip_prefix("int ")?.split_once('('))
            .filter(|(name, _)| name.starts_with("cu"))
            .map(|(n, _)| n)
            .collect();
        names.sort_unstable();
        assert_eq!(names, FUNCTIONS);
    }
}
