//! A device that is this machine's memory and the compiled kernels.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metis_gpu::{Driver, DriverError, Launch};

/// Runs a launch of a kernel's name: grid, threads, bytes of a block's memory, arguments by their addresses, and the seed of the schedule.
type Run =
    unsafe extern "C" fn(*const c_char, *const c_uint, c_uint, usize, *const *const c_void, u64) -> c_int;
/// What was wrong with the thread's last launch.
type Fault = unsafe extern "C" fn() -> *const c_char;

unsafe extern "C" {
    fn metis_shim_run(
        name: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        shared_bytes: usize,
        arguments: *const *const c_void,
        seed: u64,
    ) -> c_int;
    fn metis_shim_fault() -> *const c_char;
    fn metis_shim_watched_run(
        name: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        shared_bytes: usize,
        arguments: *const *const c_void,
        seed: u64,
    ) -> c_int;
    fn metis_shim_watched_fault() -> *const c_char;
}

/// Bytes before and after all memory that no kernel may change.
const FENCE: usize = 64;
const FENCE_BYTE: u8 = 0xa5;
/// What memory holds at first: kernels must not rely on it.
const FRESH_BYTE: u8 = 0xcd;

/// The kernels on this machine.
#[derive(Debug)]
pub struct Shim {
    /// The next launch's schedule.
    seed: AtomicU64,
    /// Launches that are executed before the device is lost.
    lifetime: Option<AtomicU64>,
    /// Where the kernels of all launches are written down.
    record: Option<Record>,
    multiprocessors: u32,
    /// Whether accesses without an order are faults.
    watched: bool,
}

/// Kernels in the order of their launches.
pub type Record = Arc<Mutex<Vec<&'static str>>>;

impl Shim {
    /// A device whose threads are scheduled by a seed.
    pub const fn new(seed: u64) -> Self {
        // Few, so that blocks do several outputs one after another.
        Self { seed: AtomicU64::new(seed), lifetime: None, record: None, multiprocessors: 2, watched: false }
    }

    /// One that fails where threads use the same memory without an order between them, whatever came of it. It takes its time.
    #[must_use]
    pub fn watched(self) -> Self {
        Self { watched: true, ..self }
    }

    /// One with so many multiprocessors, for which other grids are made.
    #[must_use]
    pub fn multiprocessors(self, multiprocessors: u32) -> Self {
        Self { multiprocessors, ..self }
    }

    /// One that is lost after so many launches.
    #[must_use]
    pub fn lost_after(self, launches: u64) -> Self {
        Self { lifetime: Some(AtomicU64::new(launches)), ..self }
    }

    /// One that writes its launches down.
    #[must_use]
    pub fn recorded(self, record: &Record) -> Self {
        Self { record: Some(Arc::clone(record)), ..self }
    }

    fn lost(&self) -> Result<(), DriverError> {
        match &self.lifetime {
            Some(left) if left.load(Ordering::Relaxed) == 0 => {
                Err(DriverError::Failed("the device is lost".into()))
            }
            _ => Ok(()),
        }
    }
}

/// Memory with fences.
#[derive(Debug)]
pub struct Memory {
    /// The first byte between the fences.
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the pointer is this value's own allocation; it is only used through the driver's functions.
unsafe impl Send for Memory {}
// SAFETY: as above; what kernels write is ordered by the queue's lock.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(bytes: usize) -> Result<Layout, DriverError> {
        Layout::from_size_align(bytes + 2 * FENCE, 128).map_err(|_| DriverError::OutOfMemory { bytes })
    }

    fn new(bytes: usize) -> Result<Self, DriverError> {
        let layout = Self::layout(bytes)?;
        // SAFETY: the layout's size is not zero, and the writes stay within it.
        unsafe {
            let whole = NonNull::new(alloc(layout)).ok_or(DriverError::OutOfMemory { bytes })?;
            ptr::write_bytes(whole.as_ptr(), FENCE_BYTE, layout.size());
            let start = whole.add(FENCE);
            ptr::write_bytes(start.as_ptr(), FRESH_BYTE, bytes);
            Ok(Self { start, bytes })
        }
    }

    fn check(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.bytes, "{length} bytes at {offset} of {}", self.bytes);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Ok(layout) = Self::layout(self.bytes) else { return };
        // SAFETY: both fences lie in the allocation, which was made with this layout.
        let intact = unsafe {
            let fence = |at: *const u8| (0..FENCE).all(|i| *at.add(i) == FENCE_BYTE);
            let whole = self.start.sub(FENCE).as_ptr();
            let intact = fence(whole) && fence(self.start.add(self.bytes).as_ptr());
            dealloc(whole, layout);
            intact
        };
        assert!(intact || std::thread::panicking(), "a kernel wrote outside {} bytes", self.bytes);
    }
}

impl Driver for Shim {
    type Memory = Memory;

    fn name(&self) -> String {
        "shim".into()
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, DriverError> {
        Memory::new(bytes)
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.start.as_ptr() as u64
    }

    fn upload(&self, to: &mut Memory, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        self.lost()?;
        to.check(offset, bytes.len());
        // SAFETY: the range was checked, and the slice is somebody else's memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.start.as_ptr().add(offset), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: &Memory, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        self.lost()?;
        from.check(offset, bytes.len());
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(from.start.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(&self, launches: &[Launch]) -> Result<(), DriverError> {
        if let Some(record) = &self.record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.extend(launches.iter().map(|launch| launch.kernel));
        }
        for launch in launches {
            self.lost()?;
            if let Some(left) = &self.lifetime {
                left.fetch_sub(1, Ordering::Relaxed);
            }
            let name = CString::new(launch.kernel).map_err(|e| DriverError::Failed(e.to_string()))?;
            let seed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let words = launch.arguments.words();
            let arguments: Vec<*const c_void> =
                launch.arguments.starts().map(|start| ptr::from_ref(&words[start]).cast()).collect();
            let (run, fault): (Run, Fault) = if self.watched {
                (metis_shim_watched_run, metis_shim_watched_fault)
            } else {
                (metis_shim_run, metis_shim_fault)
            };
            // SAFETY: the caller answers for the arguments; the name, the grid and the words live as long as the call.
            let status = unsafe {
                run(
                    name.as_ptr(),
                    launch.grid.as_ptr(),
                    launch.threads,
                    launch.shared as usize,
                    arguments.as_ptr(),
                    seed,
                )
            };
            match status {
                0 => {}
                1 => return Err(DriverError::Failed(format!("there is no kernel {}", launch.kernel))),
                _ => {
                    let kernel = launch.kernel;
                    // SAFETY: a text that stays until the thread's next launch.
                    let fault = unsafe { CStr::from_ptr(fault()) }.to_string_lossy();
                    let reason = format!("{kernel}: {fault}; seed {seed}");
                    return Err(DriverError::Failed(reason));
                }
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), DriverError> {
        self.lost()
    }
}
