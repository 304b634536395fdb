//! How much gas code has burnt without a program, over all machines that share a cache.
//!
//! A machine may live for one block or one transaction, so heat is not its own. Codes whose hashes begin alike count
//! together: at worst one of them is fused early.

use alloy_primitives::B256;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, a power of two: 32 KiB.
const COUNTERS: usize = 4096;
/// In the upper bits of a counter, frames that have begun; below, gas.
const FRAME: u64 = 1 << 48;

/// Heat by code hash.
#[derive(Debug)]
pub(super) struct Heat {
    counters: Box<[AtomicU64]>,
}

impl Default for Heat {
    fn default() -> Self {
        Self { counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Heat {
    /// Counts in a frame that begins.
    pub(super) fn enter(&self, hash: B256) {
        self.counter(hash).fetch_add(FRAME, Ordering::Relaxed);
    }

    /// Counts in gas that a frame has burnt.
    pub(super) fn burn(&self, hash: B256, gas: u64) {
        self.counter(hash).fetch_add(gas.min(FRAME - 1), Ordering::Relaxed);
    }

    /// Whether the code has burnt so much gas in more than one frame. What is executed once is never fused.
    pub(super) fn is_above(&self, hash: B256, gas: u64) -> bool {
        let counted = self.counter(hash).load(Ordering::Relaxed);
        counted >= 2 * FRAME && counted % FRAME >= gas
    }

    /// Begins anew.
    pub(super) fn cool(&self, hash: B256) {
        self.counter(hash).store(0, Ordering::Relaxed);
    }

    fn counter(&self, hash: B256) -> &AtomicU64 {
        &self.counters[usize::from(u16::from_be_bytes([hash[2], hash[3]])) % COUNTERS]
    }
}
