// Kernels with faults, for tests of the shim itself: it must find them.

struct Neighbours { u32 of[64]; };

// Each thread tells its neighbour its number, with and without a barrier between.
KERNEL(neighbours, u32 *out, int barrier) {
    SHARED(Neighbours, shared);
    shared.of[thread_index()] = thread_index();
    if (barrier) block_barrier();
    out[thread_index()] = shared.of[(thread_index() + 1) % threads()];
}

// Half of the threads wait for the others, which leave.
KERNEL(waits_for_ever, u32 *out) {
    if (thread_index() % 2 == 0) block_barrier();
    out[thread_index()] = 1;
}

// Writes before its memory.
KERNEL(writes_outside, u32 *out) { out[-1] = thread_index(); }
