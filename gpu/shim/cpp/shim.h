// The names of `../../kernels/device.cuh` for a C++ compiler: a block is fibers on one thread, barriers are meetings, the instructions
// of a GPU are loops. Fibers run in a random order that a seed says, so that a missing barrier shows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#define DEVICE inline
#define KERNEL(name, ...)                                                                            \
    static void name(__VA_ARGS__);                                                                   \
    static const shim::Kernel kernel_##name(#name, (void (*)())name, shim::adapter(name),            \
                                      shim::sizes(name));                                            \
    static void name(__VA_ARGS__)
#define SHIM_JOINED(a, b) a##b
#define SHIM_NAMED(a, b) SHIM_JOINED(a, b)
// Comes before its kernel.
#define THREADS(most, least_blocks) static const shim::MostThreads SHIM_NAMED(most_threads_, __COUNTER__)(most);
#define SHARED(type, name) type &name = *(type *)shim::shared(sizeof(type), __LINE__)
#define SHARED_BYTES(name) unsigned char *name = shim::launch_memory()
#define UNROLL
#define ROLL

namespace shim {

// What the running fiber is.
struct Thread {
    unsigned thread, threads, block[3], grid_x;
};
const Thread &place();

// Returns when all threads of the block have come here.
void block_barrier();
// Gives each lane of a warp `count` words, at most 8, of every lane, 8 words apart, until the warp's next exchange.
const uint32_t *exchange(const uint32_t *words, unsigned count);
// The same for the threads of a warp, with the order of what they read and write, which exchanges do not give.
void warp_barrier();
// Memory of the block for one line of the source; its first contents are noise.
void *shared(size_t bytes, int line);
// The block's memory whose size the launch says; noise at first.
unsigned char *launch_memory();
// Copies happen at once or when they are waited for, at random.
void start_copy(void *to, const void *from, int bytes);
void end_copies();
void wait_copies(unsigned pending);

#ifdef SHIM_WATCHED
// `races.cpp`: the order of what threads read and write.
void fence();
struct Atomic {
    Atomic(const void *at, size_t bytes);
    ~Atomic();
};
// While there is one, nothing is watched.
struct Unwatched {
    bool before;
    Unwatched();
    ~Unwatched();
};
#else
inline void fence() {}
struct Atomic {
    Atomic(const void *, size_t) {}
};
struct Unwatched {
    Unwatched() {}
};
#endif

// Calls a kernel with its arguments, each by its address, as CUDA's driver takes them.
typedef void (*Adapter)(void (*kernel)(), const void *const *arguments);
struct Kernel {
    Kernel(const char *name, void (*kernel)(), Adapter adapter, const size_t *sizes);
};

template <class T> T argument(const void *const *&next) {
    T value;
    memcpy((void *)&value, *next++, sizeof(T));
    return value;
}

template <class... A> Adapter adapter(void (*)(A...)) {
    return [](void (*kernel)(), const void *const *arguments) {
        // Braces evaluate from left to right.
        std::tuple<A...> values{argument<A>(arguments)...};
        std::apply((void (*)(A...))kernel, values);
    };
}

// Bounds the threads of the kernel that comes next.
struct MostThreads {
    explicit MostThreads(unsigned most);
};

// The bytes of each argument; a zero ends them.
template <class... A> const size_t *sizes(void (*)(A...)) {
    static const size_t all[] = {sizeof(A)..., 0};
    return all;
}

struct Found {
    void (*kernel)();
    Adapter adapter;
    const size_t *sizes;
    unsigned most_threads;
};
const Found *find(const char *name);
// Why a device would not begin a launch, or nothing.
const char *refused(const Found &kernel, const unsigned *grid, unsigned threads, size_t shared_bytes);
// 0: done; 2: a fault that `metis_shim_fault` tells.
int run(const Found &kernel, const unsigned *grid, unsigned threads, size_t shared_bytes, const void *const *arguments, uint64_t seed);

} // namespace shim

// Each unit's own: kernels that are watched and those that are not are one program.
namespace {

inline unsigned thread_index() { return shim::place().thread; }
inline unsigned threads() { return shim::place().threads; }
inline unsigned block_x() { return shim::place().block[0]; }
inline unsigned block_y() { return shim::place().block[1]; }
inline unsigned block_z() { return shim::place().block[2]; }

inline unsigned grid_x() { return shim::place().grid_x; }

inline void block_barrier() { shim::block_barrier(); }
inline void warp_barrier() { shim::warp_barrier(); }
inline unsigned shuffle_xor(unsigned value, unsigned lanes) { return shim::exchange(&value, 1)[8 * (thread_index() % 32 ^ lanes)]; }
inline unsigned warp_sum(unsigned value) {
    const uint32_t *lanes = shim::exchange(&value, 1);
    unsigned sum = 0;
    for (unsigned i = 0; i < 32; i++) sum += lanes[8 * i];
    return sum;
}
inline unsigned warp_max(unsigned value) {
    const uint32_t *lanes = shim::exchange(&value, 1);
    unsigned max = 0;
    for (unsigned i = 0; i < 32; i++) max = max > lanes[8 * i] ? max : lanes[8 * i];
    return max;
}
inline unsigned ballot(bool condition) {
    uint32_t own = condition;
    const uint32_t *lanes = shim::exchange(&own, 1);
    unsigned all = 0;
    for (unsigned i = 0; i < 32; i++) all |= lanes[8 * i] << i;
    return all;
}

// Reads a byte, which must be there.
inline void prefetch(const void *line) {
    shim::Unwatched unwatched;
    (void)*(const volatile char *)line;
}
inline unsigned permute(unsigned a, unsigned b, unsigned which) {
    unsigned long long bytes = (unsigned long long)b << 32 | a;
    unsigned word = 0;
    for (unsigned i = 0; i < 4; i++) word |= (unsigned)(bytes >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
    return word;
}
inline unsigned leading_zeros(unsigned long long x) { return x == 0 ? 64 : __builtin_clzll(x); }
inline unsigned long long multiply_high(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

inline void memory_fence() { shim::fence(); }
// Not by itself an order of what else is read and written.
template <class T, class F> T atomically(T *at, F change) {
    shim::Atomic atomic(at, sizeof(T));
    T before = *at;
    *at = change(before);
    return before;
}
inline unsigned atomic_add(unsigned *at, unsigned value) { return atomically(at, [=](unsigned x) { return x + value; }); }
inline void atomic_add(int *at, int value) { atomically(at, [=](int x) { return x + value; }); }
inline void atomic_add(unsigned long long *at, unsigned long long value) { atomically(at, [=](unsigned long long x) { return x + value; }); }
inline void atomic_max(int *at, int value) { atomically(at, [=](int x) { return x > value ? x : value; }); }
inline void atomic_max(unsigned long long *at, unsigned long long value) {
    atomically(at, [=](unsigned long long x) { return x > value ? x : value; });
}

inline int byte_of(unsigned word, unsigned i) { return (signed char)(word >> 8 * i); }

inline int dot4(int a, int b, int sum) {
    for (unsigned i = 0; i < 4; i++) sum += byte_of(a, i) * byte_of(b, i);
    return sum;
}

// The lanes hold parts of the tiles as the PTX ISA says for `mma.m16n8k32` with `.s8`.
inline void multiply_tiles(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const uint32_t *lanes = shim::exchange(words, 6);
    unsigned lane = thread_index() % 32;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++) {
            unsigned a_word = lanes[8 * (row % 8 * 4 + k % 16 / 4) + k / 16 * 2 + row / 8];
            unsigned b_word = lanes[8 * (column * 4 + k % 16 / 4) + 4 + k / 16];
            c[i] += byte_of(a_word, k % 4) * byte_of(b_word, k % 4);
        }
    }
}

inline void load_matrices(unsigned (&tiles)[4], const void *row) {
    uint64_t address = (uint64_t)row;
    const uint32_t words[2] = {(uint32_t)address, (uint32_t)(address >> 32)};
    const uint32_t *lanes = shim::exchange(words, 2);
    unsigned lane = thread_index() % 32;
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t *of = lanes + 8 * (8 * i + lane / 4);
        memcpy(&tiles[i], (const unsigned char *)((uint64_t)of[1] << 32 | of[0]) + lane % 4 * 4, 4);
    }
}

inline void start_copy(void *to, const void *from, int bytes) { shim::start_copy(to, from, bytes); }
inline void end_copies() { shim::end_copies(); }
template <int pending> void wait_copies() { shim::wait_copies(pending); }

} // namespace
