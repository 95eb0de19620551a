// A CUDA driver (libcuda.so.1) that runs the kernels of curve.cu on the CPU, block by block.
// EMULATED_SM is the GPU that it says it is.

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#include <ucontext.h>

#include <cstdio>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "curve.cu"

#ifndef __SANITIZE_ADDRESS__
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace emulation {

Index thread, block, grid;
unsigned char* shared;

namespace {

constexpr size_t kStackBytes = 256 * 1024;

struct Barrier {
  unsigned arrived = 0, round = 0;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  bool is_done = false;
};

std::vector<Fiber> fibers;
std::vector<Barrier> warp_barriers;
std::vector<Lane> lanes;
Barrier block_barrier;
unsigned n_threads;
ucontext_t scheduler;
const void* scheduler_stack;
size_t scheduler_bytes;
void (*body)(void**);
void** arguments;

void yield() {
  Fiber& own = fibers[thread.x];
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(own.is_done ? nullptr : &fake, scheduler_stack, scheduler_bytes);
  swapcontext(&own.context, &scheduler);
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_bytes);
}

void wait(Barrier& barrier, unsigned n) {
  const unsigned round = barrier.round, own = thread.x;
  if (++barrier.arrived == n) {
    barrier.arrived = 0;
    ++barrier.round;
    return;
  }
  while (barrier.round == round) {
    yield();
    thread.x = own;
  }
}

void run_fiber() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
  const unsigned own = thread.x;
  body(arguments);
  thread.x = own;
  fibers[own].is_done = true;
  yield();
}

void resume(unsigned i) {
  thread = {i, 0, 0};
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fibers[i].stack.data(), kStackBytes);
  swapcontext(&scheduler, &fibers[i].context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void run_block(unsigned seed) {
  for (unsigned i = 0; i < n_threads; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.is_done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
  block_barrier = {};
  warp_barriers.assign(n_threads / 32, {});
  // An odd step through a power of two visits each thread once.
  const unsigned step = 2 * seed + 1;
  for (unsigned left = n_threads; left;) {
    left = 0;
    for (unsigned i = 0; i < n_threads; ++i) {
      const unsigned own = (i * step + seed) % n_threads;
      if (fibers[own].is_done) continue;
      resume(own);
      left += !fibers[own].is_done;
    }
  }
}

}  // namespace

void sync_block() { wait(block_barrier, n_threads); }
void sync_warp() { wait(warp_barriers[thread.x / 32], 32); }
Lane* warp() { return &lanes[thread.x / 32 * 32]; }

}  // namespace emulation

namespace {

template <typename... Arguments, size_t... I>
void call(void (*kernel)(Arguments...), void** from, std::index_sequence<I...>) {
  kernel(*static_cast<Arguments*>(from[I])...);
}

template <typename... Arguments>
std::index_sequence_for<Arguments...> places(void (*)(Arguments...)) {
  return {};
}

using Kernel = void (*)(void**);
#define ENTRY(NAME) {#NAME, [](void** from) { call(NAME, from, places(NAME)); }},
#undef MATVEC
#undef MATMUL
#undef DECODE
#define MATVEC(E, NAME, WEIGHTS) ENTRY(matvec_curve_e##E##_##NAME)
#define MATMUL(E, NAME, WEIGHTS) ENTRY(matmul_curve_e##E##_##NAME)
#define DECODE(E) ENTRY(decode_curve_e##E)

std::map<std::string, Kernel> kernels = {
    ENTRY(prepare_curve) ENTRY(widen_curve) ENTRY(reduce_curve) EINSORT_CODES};

int context, module;

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuCtxGetCurrent(void** found) { return *found = &context, 0; }
int cuCtxGetId(void*, unsigned long long* id) { return *id = 7, 0; }
int cuCtxGetDevice(int* device) { return *device = 0, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int sm = std::atoi(std::getenv("EMULATED_SM"));
  return *value = attribute == 75 ? sm / 10 : sm % 10, 0;
}
int cuModuleLoadData(void** loaded, const void* image) {
  *loaded = &module;
  return std::memcmp(image, "cubin", 5) ? 200 : 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  const auto found = kernels.find(name);
  if (found == kernels.end()) return 500;
  *function = reinterpret_cast<void*>(found->second);
  return 0;
}
int cuFuncSetAttribute(void*, int, int bytes) { return bytes <= 99 * 1024 ? 0 : 1; }
int cuGetErrorString(int, const char** text) { return *text = "emulated", 0; }

int cuDriverGetVersion(int* version) { return *version = 13000, 0; }

// As CUlaunchConfig.
struct Launch {
  unsigned x, y, z, threads, one, other, shared_bytes;
  void *stream, *attributes;
  unsigned n_attributes;
};

int cuLaunchKernelEx(const Launch* how, void* function, void** arguments, void**) {
  using namespace emulation;
  const auto [x, y, z, threads, one, other, shared_bytes, stream, attributes, n] = *how;
  if (!x || !y || !z || y > 65535 || z > 65535) return 1;
  body = reinterpret_cast<Kernel>(function);
  emulation::arguments = arguments;
  n_threads = threads;
  if (fibers.size() < threads) fibers.resize(threads);
  lanes.resize(threads);
  grid = {x, y, z};
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, shared_bytes ? shared_bytes : 1)) return 2;
  shared = static_cast<unsigned char*>(memory);
  unsigned seed = 0;
  for (block.z = 0; block.z < z; ++block.z)
    for (block.y = 0; block.y < y; ++block.y)
      for (block.x = 0; block.x < x; ++block.x) {
        std::memset(memory, 0xff, shared_bytes);  // not a number, until it is written
        run_block(seed++);
      }
  std::free(memory);
  return 0;
}
}
