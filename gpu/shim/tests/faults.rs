//! The shim finds what it is there to find.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(unsafe_code, reason = "launches kernels by hand")]

use metis_gpu::{Arguments, Driver, DriverError, Launch};
use metis_gpu_shim::Shim;

const THREADS: u32 = 64;

fn launch(seed: u64, kernel: &'static str, flag: bool) -> Result<Vec<u32>, DriverError> {
    let usual = Launch { kernel, grid: [1; 3], threads: THREADS, shared: 0, arguments: Arguments::default() };
    launch_as(seed, &usual, flag)
}

/// Launches a kernel that takes an address of 128 numbers, and perhaps a flag.
fn launch_as(seed: u64, launch: &Launch, flag: bool) -> Result<Vec<u32>, DriverError> {
    let shim = Shim::new(seed);
    let mut memory = shim.allocate(8 * THREADS as usize)?;
    shim.upload(&mut memory, 0, &7u32.to_le_bytes())?;
    let arguments = Arguments::default().with(shim.address(&memory)).with(i32::from(flag));
    // SAFETY: these kernels take an address of at most 128 numbers and a flag, or only the address.
    unsafe { shim.launch(&[Launch { arguments, ..launch.clone() }]) }?;
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

#[test]
fn an_address_that_is_not_aligned_is_found() {
    let error = launch(1, "reads_unaligned", false).unwrap_err();
    assert!(error.to_string().contains("an address is not a multiple of 16: "), "{error}");
    assert!(error.to_string().contains("broken.cpp"), "{error}");
}

#[test]
fn a_launch_that_no_device_begins_is_refused() {
    let launch = |kernel, grid, threads, shared| Launch {
        kernel,
        grid,
        threads,
        shared,
        arguments: Arguments::default(),
    };
    for good in [
        launch("bounded", [1, 1, 1], 64, 0),
        launch("bounded", [3, 2, 2], 32, 48 << 10),
        launch("needs_memory", [1, 1, 1], 64, 8 << 10),
        launch("needs_memory", [1, 1, 1], 1024, 0),
    ] {
        launch_as(1, &good, false).unwrap();
    }
    for (bad, why) in [
        (launch("bounded", [1, 1, 1], 96, 0), "more threads than the kernel's bound"),
        (launch("needs_memory", [1, 1, 1], 1056, 0), "more threads than the kernel's bound"),
        (launch("bounded", [1, 1, 1], 33, 0), "not whole warps"),
        (launch("bounded", [1, 1, 1], 64, (48 << 10) + 16), "more memory of a block than there is"),
        (launch("needs_memory", [1, 1, 1], 64, (8 << 10) + 16), "a block has 49168 bytes of memory"),
        (launch("bounded", [1, 65536, 1], 64, 0), "more blocks in a direction"),
        (launch("bounded", [1, 1, 65536], 64, 0), "more blocks in a direction"),
        (launch("bounded", [0, 1, 1], 64, 0), "no blocks"),
    ] {
        let error = launch_as(1, &bad, false).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_copy_that_is_not_waited_for_shows_under_every_schedule() {
    let copies = Launch {
        kernel: "copies",
        grid: [1; 3],
        threads: THREADS,
        shared: 16 * THREADS,
        arguments: Arguments::default(),
    };
    for seed in 1..20 {
        assert_eq!(launch_as(seed, &copies, true).unwrap(), [7; THREADS as usize]);
        assert_ne!(launch_as(seed, &copies, false).unwrap(), [7; THREADS as usize]);
    }
}

/// Launches a kernel on a device that watches the order of accesses: the first number that it leaves.
fn watch(seed: u64, kernel: &'static str, blocks: u32, argument: i32) -> Result<u32, DriverError> {
    let shim = Shim::new(seed).watched();
    let mut memory = shim.allocate(8 * THREADS as usize)?;
    shim.upload(&mut memory, 0, &[0; 8 * THREADS as usize])?;
    let arguments = Arguments::default().with(shim.address(&memory)).with(argument);
    let launch = Launch { kernel, grid: [blocks, 1, 1], threads: THREADS, shared: 0, arguments };
    // SAFETY: these kernels take an address of at most 128 numbers and a number.
    unsafe { shim.launch(&[launch]) }?;
    let mut first = [0; 4];
    shim.download(&memory, 0, &mut first)?;
    Ok(u32::from_le_bytes(first))
}

#[test]
fn an_exchange_of_a_warp_orders_no_memory() {
    for seed in 1..10 {
        assert_eq!(watch(seed, "warp_neighbours", 1, 1), Ok(1));
        let error = watch(seed, "warp_neighbours", 1, 0).unwrap_err().to_string();
        assert!(error.contains("of block 0 has written, without an order"), "{error}");
        let error = watch(seed, "neighbours", 1, 0).unwrap_err().to_string();
        assert!(error.contains("without an order"), "{error}");
        assert_eq!(watch(seed, "neighbours", 1, 1), Ok(1));
    }
}

#[test]
fn blocks_that_share_memory_need_fences_and_an_atomic_operation() {
    for seed in 1..10 {
        assert_eq!(watch(seed, "sums_of_blocks", 5, 0), Ok(15));
        for fault in 1..=3 {
            let error = watch(seed, "sums_of_blocks", 5, fault).unwrap_err().to_string();
            assert!(error.contains("thread 32 of block"), "{fault}: {error}");
            assert!(error.contains("has written, without an order"), "{fault}: {error}");
        }
        assert_eq!(watch(seed, "blocks_write", 5, 1), Ok(1));
        let error = watch(seed, "blocks_write", 5, 0).unwrap_err().to_string();
        assert!(error.contains("writes what thread 0 of block"), "{error}");
    }
}
