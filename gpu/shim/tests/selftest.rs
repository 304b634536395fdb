//! The kernels give every golden answer, whatever the schedule.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use metis_gpu::Gpu;
use metis_gpu_shim::Shim;
use metis_kernels::golden::selftest;

#[test]
fn every_golden_answer_under_several_schedules() {
    for seed in 1..=3 {
        selftest(&Gpu::new(Shim::new(seed), usize::MAX).unwrap()).unwrap();
    }
}

/// Blocks share tiles, and heads blocks, where there are more multiprocessors than work.
#[test]
fn every_golden_answer_whatever_the_number_of_multiprocessors() {
    for multiprocessors in [1, 132] {
        let shim = Shim::new(4).multiprocessors(multiprocessors);
        selftest(&Gpu::new(shim, usize::MAX).unwrap()).unwrap();
    }
}
