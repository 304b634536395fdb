// Runs the blocks of a launch one after another, the threads of a block as fibers.

#include "shim.h"

#include <csetjmp>
#include <map>
#include <memory>
#include <string>
#include <ucontext.h>
#include <vector>

namespace shim {
namespace {

const size_t STACK = 128 << 10;
const size_t WORDS = 8;
// What every device has: memory of a block without an attribute that asks for more, threads of a block, blocks in two of the directions.
const size_t BLOCK_MEMORY = 48 << 10;
const unsigned MOST_THREADS = 1024, MOST_BLOCKS = 65535;

std::map<std::string, Found> &kernels() {
    static std::map<std::string, Found> all;
    return all;
}

// xorshift64*: only for schedules and noise.
struct Random {
    uint64_t state;
    uint64_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return state * 0x2545f4914f6cdd1dull;
    }
    size_t below(size_t end) { return next() % end; }
};

unsigned next_most_threads = MOST_THREADS;

struct Copy {
    void *to;
    const void *from;
    int bytes;
    void make() const {
        memcpy(to, from, bytes);
        memset((char *)to + bytes, 0, 16 - bytes);
    }
};

struct Fiber {
    std::unique_ptr<char[]> stack{new char[STACK]};
    ucontext_t first;
    jmp_buf context;
    bool entered = false;
    unsigned thread;
    // The last group is open.
    std::vector<std::vector<Copy>> copies;
};

struct Warp {
    uint32_t words[2][32 * WORDS];
    unsigned generation = 0, met = 0;
    std::vector<unsigned> waiting;
};

struct Machine {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    std::map<int, std::vector<char>> shared;
    std::vector<unsigned char> launch_memory;
    unsigned char *aligned_memory;
    std::vector<unsigned> ready, at_barrier;
    unsigned live;
    Thread place;
    const Found *kernel;
    const void *const *arguments;
    Random random;
    jmp_buf scheduler;
    // The block's own and the launch's.
    size_t memory_bytes;
    // The first fault of the launch.
    std::string fault;
};

thread_local Machine machine;

Fiber &current() { return *machine.fibers[machine.place.thread]; }

// Leaves the running fiber until it is ready again.
void leave() {
    if (_setjmp(current().context) == 0) _longjmp(machine.scheduler, 1);
}

void at_fault(std::string fault) {
    if (machine.fault.empty()) machine.fault = std::move(fault);
}

#ifdef SHIM_WATCHED
void watch_launch(size_t blocks);
void watch_block(uint64_t block);
void watch_nothing();
void watch_barrier();
void watch_warp_barrier(unsigned warp);
void watch_use(const void *at, size_t bytes, bool writes);
#else
void watch_launch(size_t) {}
void watch_block(uint64_t) {}
void watch_nothing() {}
void watch_barrier() {}
void watch_warp_barrier(unsigned) {}
void watch_use(const void *, size_t, bool) {}
#endif

void noise(void *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char *)to)[i] = (char)machine.random.next();
}

// What each fiber does for ever: one thread of one block after another.
void live() {
    for (;;) {
        current().copies.assign(1, {});
        machine.kernel->adapter(machine.kernel->kernel, machine.arguments);
        machine.live--;
        leave();
    }
}

void resume(unsigned thread) {
    machine.place.thread = thread;
    if (_setjmp(machine.scheduler) != 0) return;
    Fiber &fiber = current();
    if (fiber.entered) _longjmp(fiber.context, 1);
    fiber.entered = true;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack.get();
    fiber.first.uc_stack.ss_size = STACK;
    fiber.first.uc_link = nullptr;
    makecontext(&fiber.first, (void (*)())live, 0);
    setcontext(&fiber.first);
}

// Whether all threads came to their end.
bool run_block(unsigned threads) {
    machine.live = threads;
    machine.warps.assign(threads / 32, Warp());
    machine.at_barrier.clear();
    machine.ready.clear();
    for (unsigned i = 0; i < threads; i++) machine.ready.push_back(i);
    machine.shared.clear();
    machine.memory_bytes = machine.launch_memory.size() - 128;
    noise(machine.aligned_memory, machine.launch_memory.size() - 128);
    while (!machine.ready.empty()) {
        size_t pick = machine.random.below(machine.ready.size());
        unsigned thread = machine.ready[pick];
        machine.ready[pick] = machine.ready.back();
        machine.ready.pop_back();
        resume(thread);
    }
    return machine.live == 0;
}

} // namespace

Kernel::Kernel(const char *name, void (*kernel)(), Adapter adapter, const size_t *sizes) {
    kernels()[name] = Found{kernel, adapter, sizes, next_most_threads};
    next_most_threads = MOST_THREADS;
}

MostThreads::MostThreads(unsigned most) { next_most_threads = most; }

const Found *find(const char *name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

const Thread &place() { return machine.place; }

void block_barrier() {
    machine.at_barrier.push_back(machine.place.thread);
    if (machine.at_barrier.size() == machine.place.threads) {
        machine.ready.insert(machine.ready.end(), machine.at_barrier.begin(), machine.at_barrier.end());
        machine.at_barrier.clear();
        watch_barrier();
    }
    leave();
}

const uint32_t *exchange(const uint32_t *words, unsigned count) {
    unsigned thread = machine.place.thread;
    Warp &warp = machine.warps[thread / 32];
    uint32_t *all = warp.words[warp.generation % 2];
    memcpy(all + WORDS * (thread % 32), words, 4 * count);
    warp.waiting.push_back(thread);
    if (warp.waiting.size() == 32) {
        warp.generation++;
        machine.ready.insert(machine.ready.end(), warp.waiting.begin(), warp.waiting.end());
        warp.waiting.clear();
    }
    leave();
    return all;
}

void warp_barrier() {
    const uint32_t nothing = 0;
    exchange(&nothing, 1);
    // The first one that goes on after all came.
    unsigned warp = machine.place.thread / 32;
    if (machine.warps[warp].met != machine.warps[warp].generation) {
        machine.warps[warp].met = machine.warps[warp].generation;
        watch_warp_barrier(warp);
    }
}

void *shared(size_t bytes, int line) {
    std::vector<char> &memory = machine.shared[line];
    if (memory.empty()) {
        memory.resize(bytes);
        noise(memory.data(), bytes);
        machine.memory_bytes += (bytes + 15) / 16 * 16;
        if (machine.memory_bytes > BLOCK_MEMORY) at_fault("a block has " + std::to_string(machine.memory_bytes) + " bytes of memory");
    }
    return memory.data();
}

unsigned char *launch_memory() { return machine.aligned_memory; }

void start_copy(void *to, const void *from, int bytes) {
    Copy copy{to, from, bytes};
    watch_use(from, bytes, false);
    watch_use(to, 16, true);
    if (machine.random.below(2) == 0) copy.make();
    else current().copies.back().push_back(copy);
}

void end_copies() { current().copies.emplace_back(); }

void wait_copies(unsigned pending) {
    auto &groups = current().copies;
    for (size_t i = 0; i + 1 + pending < groups.size(); i++) {
        for (const Copy &copy : groups[i]) {
            copy.make();
            watch_use(copy.to, 16, true);
        }
        groups[i].clear();
    }
}

const char *refused(const Found &kernel, const unsigned *grid, unsigned threads, size_t shared_bytes) {
    if (threads == 0 || threads % 32 != 0) return "threads that are not whole warps";
    if (threads > kernel.most_threads) return "more threads than the kernel's bound";
    if (shared_bytes > BLOCK_MEMORY) return "more memory of a block than there is";
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return "no blocks";
    if (grid[0] > 0x7fffffff || grid[1] > MOST_BLOCKS || grid[2] > MOST_BLOCKS) return "more blocks in a direction than there may be";
    return nullptr;
}

int run(const Found &kernel, const unsigned *grid, unsigned threads, size_t shared_bytes, const void *const *arguments, uint64_t seed) {
    machine.fault.clear();
    if (const char *why = refused(kernel, grid, threads, shared_bytes)) {
        at_fault(why);
        return 2;
    }
    machine.kernel = &kernel;
    machine.arguments = arguments;
    machine.random.state = seed | 1;
    machine.launch_memory.resize(shared_bytes + 128);
    machine.aligned_memory = (unsigned char *)(((uint64_t)machine.launch_memory.data() + 127) / 128 * 128);
    while (machine.fibers.size() < threads) machine.fibers.push_back(std::make_unique<Fiber>());
    std::vector<uint64_t> blocks((size_t)grid[0] * grid[1] * grid[2]);
    for (size_t i = 0; i < blocks.size(); i++) blocks[i] = i;
    for (size_t i = blocks.size(); i > 1; i--) std::swap(blocks[i - 1], blocks[machine.random.below(i)]);
    watch_launch(blocks.size());
    for (uint64_t block : blocks) {
        watch_block(block);
        unsigned x = block % grid[0], y = block / grid[0] % grid[1], z = block / grid[0] / grid[1];
        machine.place = Thread{0, threads, {x, y, z}, grid[0]};
        bool ended = run_block(threads);
        watch_nothing();
        if (!ended) {
            // The fibers that wait are given up with their stacks.
            machine.fibers.clear();
            at_fault("threads wait for others that never come");
        }
        if (!machine.fault.empty()) return 2;
    }
    return 0;
}

} // namespace shim

#ifndef SHIM_WATCHED
// What `-fsanitize=alignment` calls where an address is not a multiple of what a type, or the device's load of it, needs.
struct Misalignment {
    const char *file;
    uint32_t line, column;
    const void *type;
    unsigned char log_alignment;
};
extern "C" void __ubsan_handle_type_mismatch_v1(const Misalignment *at, uintptr_t) {
    shim::at_fault(std::string("an address is not a multiple of ") + std::to_string(1 << at->log_alignment) + ": " + at->file + ":" +
                   std::to_string(at->line));
}
#endif

// What was wrong with the thread's last launch.
extern "C" const char *metis_shim_fault() { return shim::machine.fault.c_str(); }

#ifdef SHIM_WATCHED
extern "C" void metis_watched_kernels();
#endif

// Runs a launch. 0: done; 1: there is no such kernel; 2: a fault that `metis_shim_fault` tells.
extern "C" int metis_shim_run(const char *name, const unsigned *grid, unsigned threads, size_t shared_bytes, const void *const *arguments,
                              uint64_t seed) {
#ifdef SHIM_WATCHED
    metis_watched_kernels();
#endif
    const shim::Found *kernel = shim::find(name);
    return kernel ? shim::run(*kernel, grid, threads, shared_bytes, arguments, seed) : 1;
}
