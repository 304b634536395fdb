//! Whatever threads of a launch use together has an order: barriers within a block, fences and atomic operations between blocks.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use metis_gpu::Gpu;
use metis_gpu_shim::Shim;
use metis_kernels::golden::selftest;

fn check(multiprocessors: u32) {
    let shim = Shim::new(5).multiprocessors(multiprocessors).watched();
    selftest(&Gpu::new(shim, usize::MAX).unwrap()).unwrap();
}

#[test]
fn every_access_has_an_order_where_a_block_does_several_pieces_of_work() {
    check(2);
}

#[test]
fn every_access_has_an_order_where_blocks_share_a_piece_of_work() {
    check(132);
}
