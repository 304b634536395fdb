// Finds what threads read and write without an order. Kernels that are compiled with `-fsanitize=thread` call the functions at the end
// whenever they use memory; that library's own run time is not there. Blocks run one after another here and at once on a device, so what is
// looked at is not what happened but what had to happen before what.
//
// Threads of a block are ordered by its barriers, those of a warp by the warp's too; exchanges of a warp order nothing, as on a device. Threads of
// different blocks are ordered if one has a fence between its access and an atomic operation, and the other one a fence between a later
// atomic operation on the same address and its access; the accesses may be of other threads than the atomic operations, behind a barrier.

#include <algorithm>
#include <unordered_map>

namespace shim {
namespace {

uint32_t watch_block_number();

struct Access {
    // Zero: none.
    uint32_t time = 0, block : 21 = 0, thread : 10 = 0, atomic : 1 = 0;

    Access() = default;
    Access(uint32_t time, bool atomic) : time(time), block(watch_block_number()), thread(machine.place.thread), atomic(atomic) {}
    bool operator==(const Access &) const = default;
    bool is(const Access &other) const { return time != 0 && block == other.block && thread == other.thread; }
};

// What is known of a byte: who has written it last, and two of those who have read it since.
struct Byte {
    Access written, read[2];
};

struct AtomicEvent {
    uint64_t at;
    Access by;
};

typedef std::vector<uint32_t> Times;

// What orders a block's accesses.
struct Order {
    Times barriers;
    std::map<unsigned, Times> of_warps, fences;
};

// By pieces of memory, of which the last one is mostly the next one too.
struct Bytes {
    static const uint64_t PIECE = 256;
    std::unordered_map<uint64_t, std::unique_ptr<Byte[]>> pieces;
    uint64_t last = ~0ull;
    Byte *of_last = nullptr;

    Byte &operator[](uint64_t at) {
        if (at / PIECE != last) {
            std::unique_ptr<Byte[]> &piece = pieces[at / PIECE];
            if (!piece) piece.reset(new Byte[PIECE]());
            last = at / PIECE;
            of_last = piece.get();
        }
        return of_last[at % PIECE];
    }
};

struct Watch {
    bool on = false;
    uint32_t time = 1, block = 0;
    Bytes of_device, of_block;
    std::vector<Order> blocks;
    std::vector<AtomicEvent> atomics;
};

thread_local Watch watch;

uint32_t watch_block_number() { return watch.block; }

bool any(const Times &times, uint32_t after, uint32_t before) {
    auto first = std::upper_bound(times.begin(), times.end(), after);
    return first != times.end() && *first < before;
}

bool fenced(const Order &order, unsigned thread, uint32_t after, uint32_t before) {
    auto found = order.fences.find(thread);
    return found != order.fences.end() && any(found->second, after, before);
}

// Calls `f` with the times at which two threads of a block met, until it is true.
template <class F> bool met(const Order &order, unsigned a, unsigned b, uint32_t after, uint32_t before, F f) {
    auto each = [&](const Times &times) {
        for (auto time = std::upper_bound(times.begin(), times.end(), after); time != times.end() && *time < before; time++)
            if (f(*time)) return true;
        return false;
    };
    if (each(order.barriers)) return true;
    auto of_warp = order.of_warps.find(a / 32);
    return a / 32 == b / 32 && of_warp != order.of_warps.end() && each(of_warp->second);
}

// Whether a fence lies between two accesses of a block that have an order: so it is before an atomic operation for what that gives to
// others, and after one for what it has got.
bool fenced_between(const Access &first, const Access &second) {
    const Order &order = watch.blocks[first.block];
    unsigned a = first.thread, b = second.thread;
    if (a == b) return fenced(order, a, first.time, second.time);
    return met(order, a, b, first.time, second.time,
               [&](uint32_t time) { return fenced(order, a, first.time, time) || fenced(order, b, time, second.time); });
}

// Whether an access had to come before the one that happens now.
bool comes_before(uint64_t at, const Access &before, const Access &now) {
    if (before.is(now) || (before.atomic && now.atomic)) return true;
    if (before.block == now.block && any(watch.blocks[now.block].barriers, before.time, now.time)) return true;
    if (before.block == now.block)
        return met(watch.blocks[now.block], before.thread, now.thread, before.time, now.time, [](uint32_t) { return true; });
    for (const AtomicEvent &a : watch.atomics) {
        if (a.by.block != before.block || a.by.time < before.time) continue;
        bool same = before.atomic && a.at == at && a.by.time == before.time;
        if (!same && !fenced_between(before, a.by)) continue;
        for (const AtomicEvent &b : watch.atomics) {
            if (b.at != a.at || b.by.block != now.block || b.by.time < a.by.time) continue;
            if ((same && b.by.thread == now.thread) || fenced_between(b.by, now)) return true;
        }
    }
    return false;
}

std::string named(const Access &access) { return "thread " + std::to_string(access.thread) + " of block " + std::to_string(access.block); }

void check(uint64_t at, const Access &before, const char *did, const Access &now, const char *does, bool of_block) {
    // What another block had in its memory is not there any more.
    if (before.time == 0 || (of_block && before.block != now.block)) return;
    if (!comes_before(at, before, now)) at_fault(named(now) + does + " what " + named(before) + did + ", without an order");
}

// The memory of the block, and of the device, that an address is of; none of a thread's own.
Bytes *memory_of(uint64_t at) {
    auto inside = [&](const void *start, size_t bytes) { return at - (uint64_t)start < bytes; };
    if (inside(current().stack.get(), STACK) || inside(&machine, sizeof(machine))) return nullptr;
    if (inside(machine.launch_memory.data(), machine.launch_memory.size())) return &watch.of_block;
    for (auto &[line, memory] : machine.shared)
        if (inside(memory.data(), memory.size())) return &watch.of_block;
    return &watch.of_device;
}

void used(const void *address, size_t bytes, bool writes, bool atomic = false) {
    if (!watch.on) return;
    uint64_t first = (uint64_t)address;
    Bytes *memory = memory_of(first);
    if (!memory) return;
    Access now(watch.time, atomic);
    // Later than everything that has that time.
    Access later = now;
    later.time++;
    bool of_block = memory == &watch.of_block;
    Access known;
    for (uint64_t at = first; at < first + bytes; at++) {
        Byte &byte = (*memory)[at];
        // Neighbours have mostly been written together.
        if (at == first || byte.written != known) check(first, byte.written, byte.written.atomic ? " has added to" : " has written", later, writes ? " writes" : " reads", of_block);
        known = byte.written;
        if (!writes) {
            byte.read[byte.read[0].time != 0 && !byte.read[0].is(now)] = now;
            continue;
        }
        for (const Access &read : byte.read) check(first, read, " has read", later, " writes", of_block);
        byte = Byte{now, {}};
    }
}

// The time of something that orders what was before it and what comes after.
uint32_t tick() { return watch.time += 2; }

} // namespace

void fence() {
    if (watch.on) watch.blocks[watch.block].fences[machine.place.thread].push_back(tick());
}

Atomic::Atomic(const void *at, size_t bytes) {
    if (!watch.on) return;
    tick();
    used(at, bytes, true, true);
    watch.atomics.push_back({(uint64_t)at, Access(watch.time, true)});
    watch.on = false;
}
Atomic::~Atomic() {
    watch.on = true;
    tick();
}

Unwatched::Unwatched() : before(watch.on) { watch.on = false; }
Unwatched::~Unwatched() { watch.on = before; }

namespace {

void watch_launch(size_t blocks) {
    watch = Watch();
    watch.blocks.resize(blocks);
}
void watch_block(uint64_t block) {
    watch.block = (uint32_t)block;
    watch.on = true;
    tick();
}
void watch_nothing() { watch.on = false; }
void watch_barrier() { watch.blocks[watch.block].barriers.push_back(tick()); }
void watch_warp_barrier(unsigned warp) { watch.blocks[watch.block].of_warps[warp].push_back(tick()); }
void watch_use(const void *at, size_t bytes, bool writes) { used(at, bytes, writes); }

} // namespace
} // namespace shim

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
#define USES(bytes)                                                                                    \
    void __tsan_read##bytes(void *at) { shim::used(at, bytes, false); }                                \
    void __tsan_write##bytes(void *at) { shim::used(at, bytes, true); }                                \
    void __tsan_unaligned_read##bytes(void *at) { shim::used(at, bytes, false); }                      \
    void __tsan_unaligned_write##bytes(void *at) { shim::used(at, bytes, true); }                      \
    void __tsan_volatile_read##bytes(void *at) { shim::used(at, bytes, false); }                       \
    void __tsan_volatile_write##bytes(void *at) { shim::used(at, bytes, true); }
USES(1)
USES(2)
USES(4)
USES(8)
USES(16)
void __tsan_read_range(void *at, unsigned long bytes) { shim::used(at, bytes, false); }
void __tsan_write_range(void *at, unsigned long bytes) { shim::used(at, bytes, true); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
