//! Launches that wait to be begun together.
//!
//! A backend's kernels are asked for one by one; here they are gathered, neighbours as one ([`crate::task`]), until a result is needed or a step ends. Then one copy brings all
//! small inputs (tokens, positions, tables of pages) to the device, and one call begins everything. As the same step puts the same
//! inputs at the same places, a step that comes again has equal launches, which a driver can keep as a graph.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metis_kernels::BackendError;

use crate::driver::{Driver, DriverError, Launch};
use crate::task::{self, Task};

/// Small inputs that fit one copy; more begin what waits.
pub(crate) const STAGING_BYTES: usize = 1 << 20;
/// Every input begins at a multiple of it: kernels read sixteen bytes at once.
const ALIGNMENT: usize = 16;
/// Tasks that are worth beginning while a step is still asked for: few at first, then as many as cost the host less than the device.
const FIRST_PART: usize = 10;
const PART: usize = 40;
/// Earlier inputs that a new one is compared with: layers give the same positions again and again.
const COMPARED: usize = 24;

/// A device's queue of work, and its memory.
#[derive(Debug)]
pub(crate) struct Queue<D: Driver> {
    // Dropped before the driver.
    state: Mutex<State<D::Memory>>,
    driver: D,
    multiprocessors: u32,
    budget: usize,
}

#[derive(Debug)]
struct State<M> {
    tasks: Vec<Task>,
    staged: Vec<u8>,
    /// How much of it has been copied, and is used by what was begun since.
    uploaded: usize,
    /// Offset and length of each input in `staged`.
    inputs: Vec<(usize, usize)>,
    staging: M,
    staging_address: u64,
    /// Memory that has been given back while launches that use it wait.
    dead: Vec<M>,
    allocated: usize,
    /// A failure is final.
    failed: Option<DriverError>,
}

impl<D: Driver> Queue<D> {
    pub(crate) fn new(driver: D, budget: usize) -> Result<Arc<Self>, BackendError> {
        let staging = driver.allocate(STAGING_BYTES).map_err(|e| e.on(driver.name()))?;
        let state = State {
            tasks: Vec::new(),
            staged: Vec::new(),
            uploaded: 0,
            inputs: Vec::new(),
            staging_address: driver.address(&staging),
            staging,
            dead: Vec::new(),
            allocated: 0,
            failed: None,
        };
        let multiprocessors = driver.multiprocessors();
        Ok(Arc::new(Self { state: Mutex::new(state), driver, multiprocessors, budget }))
    }

    pub(crate) fn name(&self) -> String {
        self.driver.name()
    }

    pub(crate) const fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn lock(&self) -> MutexGuard<'_, State<D::Memory>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail<T>(&self, result: Result<T, DriverError>) -> Result<T, BackendError> {
        result.map_err(|error| error.on(self.driver.name()))
    }

    /// Takes memory within the budget.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Buffer<D>, BackendError> {
        // Nothing is smaller than what kernels read at once.
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut state = self.lock();
        if state.allocated.saturating_add(bytes) > self.budget {
            return self.fail(Err(DriverError::OutOfMemory { bytes }));
        }
        let mut memory = self.driver.allocate(bytes);
        if matches!(memory, Err(DriverError::OutOfMemory { .. })) && !state.dead.is_empty() {
            // What was given back is free when what waits has run.
            self.fail(self.begin(&mut state))?;
            memory = self.driver.allocate(bytes);
        }
        let memory = self.fail(memory)?;
        state.allocated += bytes;
        drop(state);
        let address = self.driver.address(&memory);
        Ok(Buffer { memory: Some(memory), address, bytes, queue: Arc::clone(self) })
    }

    /// Bytes that buffers take.
    pub(crate) fn allocated(&self) -> usize {
        self.lock().allocated
    }

    /// Adds an operation: `describe` stages its inputs and says its launches. They stay together, whoever else adds others.
    pub(crate) fn add(
        &self,
        describe: impl FnOnce(&mut Operation<'_, D>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut state = self.lock();
        describe(&mut Operation { queue: self, state: &mut state })
    }

    /// Begins everything that waits.
    pub(crate) fn flush(&self) -> Result<(), BackendError> {
        let result = self.begin(&mut self.lock());
        self.fail(result)
    }

    /// Begins what waits, if that is worth it, while the rest of the step is still being asked for: the device has something to do meanwhile.
    /// No task that comes belongs to one that waits.
    pub(crate) fn begin_part(&self) {
        let mut state = self.lock();
        let worth = if state.uploaded == 0 { FIRST_PART } else { PART };
        if state.tasks.len() >= worth {
            // What fails now fails again, and is reported, at the next call.
            let _ = self.begin_some(&mut state);
        }
    }

    fn begin(&self, state: &mut State<D::Memory>) -> Result<(), DriverError> {
        let result = self.begin_some(state);
        state.staged.clear();
        state.uploaded = 0;
        state.inputs.clear();
        result
    }

    /// Begins what waits; inputs keep their places.
    fn begin_some(&self, state: &mut State<D::Memory>) -> Result<(), DriverError> {
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let result = self.try_begin(state);
        state.tasks.clear();
        if let Err(error) = &result {
            state.failed = Some(error.clone());
        }
        if !state.dead.is_empty() {
            // Launches that use it may still run; a device that has failed runs nothing.
            let _ = self.driver.finish();
            state.dead.clear();
        }
        result
    }

    #[allow(unsafe_code, reason = "kernels use memory by address")]
    fn try_begin(&self, state: &mut State<D::Memory>) -> Result<(), DriverError> {
        if state.staged.len() > state.uploaded {
            let more = &state.staged[state.uploaded..];
            self.driver.upload(&mut state.staging, state.uploaded, more)?;
            state.uploaded = state.staged.len();
        }
        if state.tasks.is_empty() {
            return Ok(());
        }
        let mut launches = task::launches(&state.tasks, self.multiprocessors);
        launches.retain(|launch| launch.grid.iter().all(|&blocks| blocks > 0));
        // SAFETY: launches are made in this crate, with arguments in the order of their kernels' parameters and shapes that were checked
        // against the buffers' sizes. A buffer's memory is freed by `bury`, never while launches wait or run.
        unsafe { self.driver.launch(&launches) }
    }

    /// Begins what waits, waits for it, and copies from a buffer.
    pub(crate) fn download(
        &self,
        from: &Buffer<D>,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BackendError> {
        self.copy(|driver| match &from.memory {
            Some(memory) => driver.download(memory, offset, bytes),
            None => Ok(()),
        })
    }

    /// Copies to a buffer, after everything that was asked for before.
    pub(crate) fn upload(&self, to: &mut Buffer<D>, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        self.copy(|driver| match &mut to.memory {
            Some(memory) => driver.upload(memory, offset, bytes),
            None => Ok(()),
        })
    }

    /// Begins what waits, then copies.
    fn copy(&self, copy: impl FnOnce(&D) -> Result<(), DriverError>) -> Result<(), BackendError> {
        let mut state = self.lock();
        let result = self.begin(&mut state).and_then(|()| copy(&self.driver));
        if let Err(error) = &result {
            state.failed = Some(error.clone());
        }
        self.fail(result)
    }

    fn bury(&self, memory: D::Memory, bytes: usize) {
        let mut state = self.lock();
        state.allocated -= bytes;
        state.dead.push(memory);
        if state.tasks.is_empty() {
            // What was begun may still run.
            let _ = self.driver.finish();
            state.dead.clear();
        }
    }
}

/// An operation that is being described, under the queue's lock.
#[derive(Debug)]
pub(crate) struct Operation<'a, D: Driver> {
    queue: &'a Queue<D>,
    state: &'a mut State<D::Memory>,
}

impl<D: Driver> Operation<'_, D> {
    /// Makes room for all inputs of the operation, which begins what waits if there is none: inputs placed before are lost.
    pub(crate) fn reserve(&mut self, lengths: &[usize]) -> Result<(), BackendError> {
        let needed: usize = lengths.iter().map(|length| length.next_multiple_of(ALIGNMENT)).sum();
        if needed > STAGING_BYTES {
            let expected =
                format!("at most {STAGING_BYTES} bytes of tokens, positions and masks in one call");
            return Err(BackendError::Shape { kernel: "reserve", expected, actual: needed.to_string() });
        }
        if self.state.staged.len() + needed > STAGING_BYTES {
            let result = self.queue.begin(self.state);
            self.queue.fail(result)?;
        }
        Ok(())
    }

    /// Brings an input to the device; returns where it will be.
    pub(crate) fn place(&mut self, input: &[u8]) -> u64 {
        let state = &mut *self.state;
        let same = |&&(at, length): &&(usize, usize)| &state.staged[at..at + length] == input;
        let at = match state.inputs.iter().rev().take(COMPARED).find(same) {
            Some(&(at, _)) => at,
            None => {
                let at = state.staged.len();
                state.inputs.push((at, input.len()));
                state.staged.extend_from_slice(input);
                state.staged.resize(state.staged.len().next_multiple_of(ALIGNMENT), 0);
                at
            }
        };
        state.staging_address + at as u64
    }

    /// Adds a task.
    pub(crate) fn add(&mut self, task: Task) {
        task::add(&mut self.state.tasks, task, self.queue.multiprocessors);
    }

    /// Adds a launch of one kernel.
    pub(crate) fn launch(&mut self, launch: Launch) {
        self.add(Task::Other(launch));
    }
}

/// Memory of the device.
#[derive(Debug)]
pub(crate) struct Buffer<D: Driver> {
    /// Always there until it is dropped.
    memory: Option<D::Memory>,
    address: u64,
    bytes: usize,
    queue: Arc<Queue<D>>,
}

impl<D: Driver> Buffer<D> {
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<D: Driver> Drop for Buffer<D> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.queue.bury(memory, self.bytes);
        }
    }
}
