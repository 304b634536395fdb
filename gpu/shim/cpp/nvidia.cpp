// The functions of NVIDIA's driver that `metis-gpu` calls, on the shim: with it, a machine without a GPU executes the very code that
// calls the driver. A capture keeps launches with copies of their arguments.
//
// A stream is as late as it may be: copies and launches happen when somebody waits for them, from what host memory holds by then. Where the
// device reads the host's memory by itself that is what NVIDIA's does; elsewhere it copies what is not page-locked at once.
//
// The environment can ask for faults: METIS_FAKE_LOST_AFTER=N loses the device after N launches, METIS_FAKE_WRONG=1 changes a bit of what
// is copied back, METIS_FAKE_SKIP=kernel leaves a kernel out, METIS_FAKE_MEMORY=N is the memory in bytes, METIS_FAKE_FULL_AFTER=N leaves none after
// more than N launches, METIS_FAKE_NO_GRAPHS=1 leaves none for graphs, METIS_FAKE_NO_PAGE_LOCKED=1 none that is page-locked,
// METIS_FAKE_CAPABILITY=N is the major compute capability,
// METIS_FAKE_MULTIPROCESSORS=N is how many there are.

#include "shim.h"

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

enum Result { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, LOST = 700 };

long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

struct Launch {
    const shim::Found *kernel;
    unsigned grid[3], threads, shared;
    std::vector<std::vector<unsigned char>> arguments;
};

struct Graph {
    std::vector<Launch> launches;
};

std::map<uint64_t, size_t> sizes_of_memory;
size_t used_memory = 0;
long launches_left = setting("METIS_FAKE_LOST_AFTER", -1);
uint64_t next_seed = 1;
// Each thread says for itself that it means the context.
thread_local bool current = false;
// What has been made and not given back.
std::multiset<const void *> made;

int make(void **place, const void *thing) {
    if (!current) return INVALID_CONTEXT;
    made.insert(thing);
    return *place = (void *)thing, OK;
}
// Giving back what is not there would be a driver's end.
int give_back(const void *thing) {
    if (!current) return INVALID_CONTEXT;
    auto found = made.find(thing);
    if (found == made.end()) abort();
    return made.erase(found), OK;
}

bool capturing = false;
std::vector<Launch> captured;
unsigned graph_launches = 0, launches = 0;

// What the stream has yet to do, and the error that everything ends with since one.
std::deque<std::function<Result()>> stream;
Result failure = OK;

Result later(std::function<Result()> work) {
    if (!current) return INVALID_CONTEXT;
    if (failure == OK) stream.push_back(std::move(work));
    return failure;
}

Result wait() {
    if (!current) return INVALID_CONTEXT;
    for (; !stream.empty(); stream.pop_front())
        if (failure == OK) failure = stream.front()();
    return failure;
}

Result start(const Launch &launch) {
    if (launches_left == 0) return LOST;
    const char *skipped = getenv("METIS_FAKE_SKIP");
    if (skipped && launch.kernel == shim::find(skipped)) return OK;
    if (launches_left > 0) launches_left--;
    launches++;
    std::vector<const void *> arguments;
    for (auto &argument : launch.arguments) arguments.push_back(argument.data());
    next_seed += 0x9e3779b97f4a7c15ull;
    return shim::run(*launch.kernel, launch.grid, launch.threads, launch.shared, arguments.data(), next_seed) == 0 ? OK : LOST;
}

} // namespace

extern "C" {

int cuInit(unsigned) { return OK; }
int cuDeviceGetCount(int *count) { return *count = 1, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? OK : INVALID_VALUE; }
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "a shim"), OK; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    return *value = attribute == 75   ? (int)setting("METIS_FAKE_CAPABILITY", 9)
                    : attribute == 16 ? (int)setting("METIS_FAKE_MULTIPROCESSORS", 3)
                                      : 0,
           OK;
}
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &used_memory, OK; }
int cuDevicePrimaryCtxRelease_v2(int) {
    if (getenv("METIS_FAKE_REPORT")) fprintf(stderr, "graphs launched: %u\nlaunches: %u\nnot given back: %zu\n", graph_launches, launches, made.size());
    return OK;
}
int cuCtxSetCurrent(void *context) { return current = context != nullptr, OK; }
int cuStreamCreate(void **stream, unsigned) { return make(stream, &capturing); }
int cuStreamDestroy_v2(void *stream) { return give_back(stream); }
int cuStreamSynchronize(void *) { return wait(); }
int cuEventCreate(void **event, unsigned) { return make(event, &failure); }
int cuEventDestroy_v2(void *event) { return give_back(event); }
int cuEventRecord(void *, void *) { return current ? failure : INVALID_CONTEXT; }
int cuEventSynchronize(void *) { return wait(); }
int cuModuleLoadData(void **module, const void *image) {
    return strstr((const char *)image, ".version 7.0") ? make(module, &captured) : INVALID_VALUE;
}
int cuModuleUnload(void *module) { return give_back(module); }
int cuModuleGetFunction(void **function, void *, const char *name) {
    return *function = (void *)shim::find(name), *function ? OK : NOT_FOUND;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = (size_t)setting("METIS_FAKE_MEMORY", 4l << 30);
    return *free = *total - used_memory, OK;
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (!current) return INVALID_CONTEXT;
    if (used_memory + bytes > (size_t)setting("METIS_FAKE_MEMORY", 4l << 30)) return OUT_OF_MEMORY;
    if ((long)launches > setting("METIS_FAKE_FULL_AFTER", LONG_MAX)) return OUT_OF_MEMORY;
    *address = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset((void *)*address, 0xcd, bytes);
    sizes_of_memory[*address] = bytes;
    used_memory += bytes;
    return make((void **)address, (void *)*address);
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    return setting("METIS_FAKE_NO_PAGE_LOCKED", 0) ? OUT_OF_MEMORY : make(memory, malloc(bytes));
}
int cuMemFreeHost(void *memory) { return free(memory), give_back(memory); }
int cuMemFree_v2(uint64_t address) {
    if (int error = give_back((void *)address)) return error;
    wait();
    auto found = sizes_of_memory.find(address);
    used_memory -= found->second;
    sizes_of_memory.erase(found);
    return free((void *)address), OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) {
    return later([=] { return memcpy((void *)to, from, bytes), OK; });
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
    if (wait() != OK) return failure;
    memcpy(to, (const void *)from, bytes);
    if (setting("METIS_FAKE_WRONG", 0)) *(unsigned char *)to ^= 1;
    return OK;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared, void *,
                   void **arguments, void **) {
    Launch launch{(const shim::Found *)function, {x, y, z}, threads, shared, {}};
    if (shim::refused(*launch.kernel, launch.grid, threads, shared)) return INVALID_VALUE;
    const size_t *sizes = launch.kernel->sizes;
    for (size_t i = 0; sizes[i] != 0; i++) {
        const unsigned char *bytes = (const unsigned char *)arguments[i];
        launch.arguments.emplace_back(bytes, bytes + sizes[i]);
    }
    if (!capturing) return later([=] { return start(launch); });
    return captured.push_back(launch), OK;
}
int cuStreamBeginCapture_v2(void *, int) {
    if (!current) return INVALID_CONTEXT;
    return capturing = true, captured.clear(), OK;
}
int cuStreamEndCapture(void *, void **graph) {
    capturing = false;
    return make(graph, new Graph{captured});
}
int cuGraphInstantiateWithFlags(void **instance, void *graph, unsigned long long) {
    if (setting("METIS_FAKE_NO_GRAPHS", 0)) return OUT_OF_MEMORY;
    return make(instance, new Graph(*(Graph *)graph));
}
int cuGraphDestroy(void *graph) { return give_back(graph) == OK ? (delete (Graph *)graph, OK) : INVALID_CONTEXT; }
int cuGraphExecDestroy(void *graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(void *instance, void *) {
    graph_launches++;
    for (const Launch &launch : ((Graph *)instance)->launches) later([=] { return start(launch); });
    return failure;
}
int cuGetErrorString(int error, const char **text) {
    return *text = error == LOST ? "an illegal memory access was encountered" : error == OUT_OF_MEMORY ? "out of memory" : "invalid value", OK;
}
int cuGetErrorName(int, const char **text) { return *text = "CUDA_ERROR", OK; }
}
