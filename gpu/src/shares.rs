//! Memory in which blocks that share a tile of a product leave their sums.

use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::Driver;
use crate::products::{Shared, TILE_SUM_BYTES};
use crate::queue::{Buffer, Queue};

/// The memory, which is taken when it is first wanted. Every launch uses it from its start: they run one after another.
#[derive(Debug)]
pub(crate) struct Shares<D: Driver>(Mutex<Option<Buffer<D>>>);

impl<D: Driver> Default for Shares<D> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<D: Driver> Shares<D> {
    /// The memory for a block of each multiprocessor, or none if there is no room: then each tile is one block's.
    pub(crate) fn memory(&self, queue: &Arc<Queue<D>>) -> Option<Shared> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let multiprocessors = queue.multiprocessors() as usize;
        // How many blocks are done with a tile, none at first.
        let counts = (multiprocessors * size_of::<u32>()).next_multiple_of(size_of::<u64>());
        if buffer.is_none() {
            let mut memory = queue.allocate(counts + multiprocessors * TILE_SUM_BYTES).ok()?;
            queue.upload(&mut memory, 0, &vec![0; counts]).ok()?;
            *buffer = Some(memory);
        }
        let done = buffer.as_ref()?.address();
        Some(Shared { sums: done + counts as u64, done })
    }
}
