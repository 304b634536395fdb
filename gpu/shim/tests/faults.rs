//! The shim finds what it is there to find.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(unsafe_code, reason = "launches kernels by hand")]

use metis_gpu::{Arguments, Driver, DriverError, Launch};
use metis_gpu_shim::Shim;

const THREADS: u32 = 64;

fn launch(seed: u64, kernel: &'static str, barrier: bool) -> Result<Vec<u32>, DriverError> {
    let shim = Shim::new(seed);
    let memory = shim.allocate(4 * THREADS as usize)?;
    let arguments = Arguments::default().with(shim.address(&memory)).with(i32::from(barrier));
    let launch = Launch { kernel, grid: [1; 3], threads: THREADS, shared: 0, arguments };
    // SAFETY: these kernels take an address of 64 numbers and a flag, or only the address.
    unsafe { shim.launch(&[launch]) }?;
    let mut bytes = [0; 4 * THREADS as usize];
    shim.download(&memory, 0, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|&value| u32::from_le_bytes(value)).collect())
}

#[test]
fn a_missing_barrier_shows_under_every_schedule() {
    let expected: Vec<u32> = (0..THREADS).map(|i| (i + 1) % THREADS).collect();
    for seed in 1..20 {
        assert_eq!(launch(seed, "neighbours", true).unwrap(), expected);
        assert_ne!(launch(seed, "neighbours", false).unwrap(), expected);
    }
}

#[test]
fn threads_that_wait_for_ever_are_an_error() {
    let error = launch(1, "waits_for_ever", false).unwrap_err();
    assert!(error.to_string().contains("waits_for_ever: threads wait"), "{error}");
    let error = launch(1, "no_such_kernel", false).unwrap_err();
    assert!(error.to_string().contains("no kernel no_such_kernel"), "{error}");
}

#[test]
#[should_panic(expected = "wrote outside")]
fn a_write_outside_is_found() {
    let _ = launch(1, "writes_outside", false);
}
