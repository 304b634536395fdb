// What the kernels need of a CUDA compiler, without one of NVIDIA's headers: names for special registers, barriers and the
// instructions that have no spelling in C++. `gpu/shim/shim.h` gives the same names to a C++ compiler for the host.
#pragma once

#define DEVICE __attribute__((device)) inline __attribute__((always_inline))
#define KERNEL(name, ...) extern "C" __attribute__((global)) void name(__VA_ARGS__)
// Block size and blocks per multiprocessor that registers are given out for.
#define THREADS(most, least_blocks) __attribute__((launch_bounds(most, least_blocks)))
// Memory of the block.
#define SHARED(type, name) __attribute__((shared)) type name
// Memory of the block whose size the launch says.
#define SHARED_BYTES(name)                                             \
    extern __attribute__((shared, aligned(128))) unsigned char name##_of_launch[]; \
    unsigned char *name = name##_of_launch
#define UNROLL _Pragma("unroll")
#define ROLL _Pragma("nounroll")

DEVICE unsigned thread_index() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE unsigned threads() { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE unsigned block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE unsigned block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE unsigned block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }

DEVICE void block_barrier() { __syncthreads(); }
// What lanes wrote and read before comes before what others do after it; exchanges order nothing but themselves.
DEVICE void warp_barrier() { __nvvm_bar_warp_sync(0xffffffffu); }
DEVICE unsigned shuffle_xor(unsigned value, unsigned lanes) {
    return __nvvm_shfl_sync_bfly_i32(0xffffffffu, value, lanes, 31);
}

// The sum, modulo 2^32, and the largest of the lanes' numbers.
DEVICE unsigned warp_sum(unsigned value) { return (unsigned)__nvvm_redux_sync_add((int)value, -1); }
DEVICE unsigned warp_max(unsigned value) { return __nvvm_redux_sync_umax(value, -1); }
// A bit for each lane of the warp.
DEVICE unsigned ballot(bool condition) { return __nvvm_vote_ballot_sync(0xffffffffu, condition); }

// Asks for 128 bytes of memory to be brought near, for whoever reads them next.
DEVICE void prefetch(const void *line) { asm volatile("prefetch.global.L2 [%0];" :: "l"((const __attribute__((address_space(1))) void *)line)); }
// Four of the bytes of two words, each named by four bits.
DEVICE unsigned permute(unsigned a, unsigned b, unsigned which) { return __nvvm_prmt(a, b, which); }
DEVICE unsigned leading_zeros(unsigned long long x) { return __builtin_clzll(x); }
DEVICE unsigned long long multiply_high(unsigned long long a, unsigned long long b) { return __nvvm_mulhi_ull(a, b); }

DEVICE unsigned grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }

// What the thread wrote before is seen before what it writes after.
DEVICE void memory_fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
// Returns what was there before.
DEVICE unsigned atomic_add(unsigned *at, unsigned value) { return (unsigned)__nvvm_atom_add_gen_i((int *)at, (int)value); }
// Sums of integers do not depend on their order.
DEVICE void atomic_add(int *at, int value) { __nvvm_atom_add_gen_i(at, value); }
DEVICE void atomic_add(unsigned long long *at, unsigned long long value) { __nvvm_atom_add_gen_ll((long long *)at, value); }
DEVICE void atomic_max(int *at, int value) { __nvvm_atom_max_gen_i(at, value); }
DEVICE void atomic_max(unsigned long long *at, unsigned long long value) { __nvvm_atom_max_gen_ull(at, value); }

// Four products of signed bytes.
DEVICE int dot4(int a, int b, int sum) {
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

// A 16 x 32 tile times a 32 x 8 tile of signed bytes, by a warp.
DEVICE void multiply_tiles(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE unsigned shared_address(const void *pointer) {
    return (unsigned)(unsigned long long)(const __attribute__((address_space(3))) void *)pointer;
}

// Four 8 x 16-byte matrices of shared memory, whose rows the lanes name.
DEVICE void load_matrices(unsigned (&tiles)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 bytes to shared memory, of which `bytes` are read and the rest are zero; done after `wait_copies`.
DEVICE void start_copy(void *to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"((const __attribute__((address_space(1))) void *)from), "r"(bytes)
                 : "memory");
}
DEVICE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups of copies but the `pending` last ones.
template <int pending> DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory"); }
