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

// Reads sixteen bytes from an address that is a multiple of four.
KERNEL(reads_unaligned, u32 *out) {
    Int4 value = *(const Int4 *)(out + 1 + thread_index() % 2);
    out[0] = (u32)value.x;
}

struct Large { u32 of[10 << 10]; };

// Has 40 KiB, and what the launch says.
KERNEL(needs_memory, u32 *out) {
    SHARED_BYTES(more);
    SHARED(Large, large);
    large.of[thread_index()] = 1;
    if (thread_index() == 0) out[0] = more == nullptr;
}

// Is made for 64 threads.
THREADS(64, 1)
KERNEL(bounded, u32 *out) { out[thread_index()] = 1; }

// Reads what it has asked for before that is there, or waits for it first.
KERNEL(copies, u32 *out, int waits) {
    SHARED_BYTES(memory);
    u32 *own = (u32 *)memory + 4 * thread_index();
    start_copy(own, out, 16);
    end_copies();
    if (waits) wait_copies<0>();
    u32 value = own[0];
    block_barrier();
    out[thread_index()] = value;
}

// Lanes tell each other their numbers through memory: with an exchange between, which is no order, or with a barrier of the warp.
KERNEL(warp_neighbours, u32 *out, int barrier) {
    SHARED(Neighbours, shared);
    shared.of[thread_index()] = thread_index();
    if (barrier) warp_barrier();
    else ballot(true);
    out[thread_index()] = shared.of[thread_index() ^ 1];
}

// Each block leaves a number; the last one that is done adds them up. Faults: 1, no fence before it says so; 2, none before it reads;
// 3, no barrier before one thread says so for all.
KERNEL(sums_of_blocks, u32 *out, int fault) {
    SHARED(u32, last);
    u32 *numbers = out + 64;
    if (thread_index() == 32) numbers[block_x()] = block_x() + 1;
    if (fault != 1) memory_fence();
    if (fault != 3) block_barrier();
    if (thread_index() == 0) last = atomic_add(out + 63, 1u) + 1 == grid_x();
    block_barrier();
    if (!last || thread_index() != 0) return;
    if (fault != 2) memory_fence();
    u32 sum = 0;
    for (u32 i = 0; i < grid_x(); i++) sum += numbers[i];
    out[0] = sum;
    out[63] = 0;
}

// Blocks that write one number, or each its own.
KERNEL(blocks_write, u32 *out, int own) {
    if (thread_index() == 0) out[own ? block_x() : 0] = 1;
}
