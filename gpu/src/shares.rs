//! Memory in which blocks that share a piece of work leave what others need.

use std::sync::{Arc, Mutex, PoisonError};

use metis_kernels::BackendError;

use crate::buffers::filled;
use crate::driver::Driver;
use crate::products::{Shared, TILE_SUM_BYTES};
use crate::queue::{Buffer, Queue};

/// Pieces of work for each multiprocessor.
const PIECES: usize = 2;

/// The memory. Every launch uses it from its start: they run one after another.
#[derive(Debug)]
pub(crate) struct Shares<D: Driver> {
    /// How many blocks are done with a piece, none between launches.
    counts: Buffer<D>,
    /// Sums of tiles, taken when they are first wanted.
    sums: Mutex<Option<Buffer<D>>>,
}

impl<D: Driver> Shares<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>) -> Result<Self, BackendError> {
        let counts = vec![0; Self::pieces(queue) * size_of::<u32>()];
        Ok(Self { counts: filled(queue, &counts)?, sums: Mutex::new(None) })
    }

    /// Pieces of work that can be counted.
    pub(crate) fn pieces(queue: &Queue<D>) -> usize {
        PIECES * queue.multiprocessors() as usize
    }

    /// The address of the counts.
    pub(crate) const fn counts(&self) -> u64 {
        self.counts.address()
    }

    /// The memory for a tile's sums of a block of each multiprocessor, or none if there is no room: then each tile is one block's.
    pub(crate) fn of_tiles(&self, queue: &Arc<Queue<D>>) -> Option<Shared> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.is_none() {
            *sums = queue.allocate(queue.multiprocessors() as usize * TILE_SUM_BYTES).ok();
        }
        Some(Shared { sums: sums.as_ref()?.address(), done: self.counts() })
    }
}
