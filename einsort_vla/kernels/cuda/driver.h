// The CUDA driver, opened when it is first needed, and how it launches a kernel of the cubins in
// this library. Included by launch.cpp alone.

#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>

// Cubins one after the other, made by build.py: int64 count, then of each 3 int64 (SM, where it
// begins from here on, bytes).
extern "C" __attribute__((visibility("hidden"))) const int64_t einsort_cubins[];

namespace {

// What is used of the driver, by its ABI.
using Context = void*;
using Module = void*;
using Function = void*;
constexpr int kMajor = 75, kMinor = 76, kMaxSharedBytes = 8;  // attributes of devices, of functions
constexpr int kMayOverlap = 6;  // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION

struct alignas(8) Attribute {
  int id, padding, value, rest[15];
};

struct Launch {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  Attribute* attributes;
  unsigned n_attributes;
};

struct Driver {
  int (*init)(unsigned);
  int (*current)(Context*);
  int (*identify)(Context, unsigned long long*);
  int (*device)(int*);
  int (*attribute)(int*, int, int);
  int (*load)(Module*, const void*);
  int (*find)(Function*, Module, const char*);
  int (*set)(Function, int, int);
  int (*version)(int*);
  int (*launch)(const Launch*, Function, void**, void**);
  int (*describe)(int, const char**);
};

thread_local char g_error[512] = "";

// Not std::mutex, which brings parts of libstdc++ that need a newer libc than JetPack 6 has.
pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;

struct Lock {
  Lock() { pthread_mutex_lock(&g_mutex); }
  ~Lock() { pthread_mutex_unlock(&g_mutex); }
};

// Returns -1, for `return fail(...)`.
__attribute__((format(printf, 1, 2))) int fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(g_error, sizeof g_error, format, arguments);
  va_end(arguments);
  return -1;
}

template <typename F>
bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

// The driver, or null; looked for until it is there.
const Driver* driver() {
  static Driver found;
  static bool is_open = false;
  const Lock lock;
  if (is_open) return &found;
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    fail("there is no CUDA driver: %s.", dlerror());
    return nullptr;
  }
  is_open = find(library, "cuInit", found.init) &&
            find(library, "cuCtxGetCurrent", found.current) &&
            find(library, "cuCtxGetId", found.identify) &&
            find(library, "cuCtxGetDevice", found.device) &&
            find(library, "cuDeviceGetAttribute", found.attribute) &&
            find(library, "cuModuleLoadData", found.load) &&
            find(library, "cuModuleGetFunction", found.find) &&
            find(library, "cuFuncSetAttribute", found.set) &&
            find(library, "cuDriverGetVersion", found.version) &&
            find(library, "cuLaunchKernelEx", found.launch) &&
            find(library, "cuGetErrorString", found.describe);
  if (!is_open) fail("the CUDA driver is older than 12.0.");
  return is_open ? &found : nullptr;
}

int check(const Driver& cuda, int result, const char* what) {
  if (result == 0) return 0;
  const char* text = nullptr;
  if (cuda.describe(result, &text) || !text) text = "unknown error";
  return fail("%s: %s (CUDA error %d).", what, text, result);
}

// Cubins for Jetson's chips (8.7, 11.0) and those for other GPUs do not run on each other.
bool is_jetson(int sm) { return sm == 72 || sm == 87 || sm == 101 || sm == 110; }

bool runs_on(int cubin, int sm) {
  if (is_jetson(cubin) || is_jetson(sm)) return cubin == sm;
  return cubin / 10 == sm / 10 && cubin <= sm;
}

// The newest cubin that runs on `sm`, or null.
const void* cubin_for(int sm) {
  const int64_t* best = nullptr;
  for (int64_t i = 0; i < einsort_cubins[0]; ++i) {
    const int64_t* entry = einsort_cubins + 1 + 3 * i;
    if (runs_on(int(entry[0]), sm) && (!best || entry[0] > best[0])) best = entry;
  }
  return best ? reinterpret_cast<const char*>(einsort_cubins) + best[1] : nullptr;
}

int no_cubin(int sm) {
  char there[128] = "";
  size_t used = 0;
  for (int64_t i = 0; i < einsort_cubins[0] && used < sizeof there; ++i)
    used += std::snprintf(there + used, sizeof there - used, " sm_%d",
                          int(einsort_cubins[1 + 3 * i]));
  return fail("this GPU is sm_%d, and this library has kernels for%s only; build it with sm_%d.",
              sm, there, sm);
}

// Modules by context, of which each has another id, also where one took the place of another.
struct Loaded {
  unsigned long long context;
  Module module;
  bool overlaps;  // a kernel may begin before the one before it has ended
};
constexpr int kMostContexts = 64;  // the oldest is forgotten, and its module loaded again
Loaded g_loaded[kMostContexts];
int g_n_loaded = 0;

constexpr int kOverlapSm = 90, kOverlapVersion = 12030;  // of the driver: graphs keep it since

int load_module(const Driver& cuda, Loaded& loaded) {
  int device = 0, major = 0, minor = 0, version = 0;
  if (check(cuda, cuda.device(&device), "cuCtxGetDevice") ||
      check(cuda, cuda.attribute(&major, kMajor, device), "cuDeviceGetAttribute") ||
      check(cuda, cuda.attribute(&minor, kMinor, device), "cuDeviceGetAttribute") ||
      check(cuda, cuda.version(&version), "cuDriverGetVersion"))
    return -1;
  const int sm = 10 * major + minor;
  const void* cubin = cubin_for(sm);
  if (!cubin) return no_cubin(sm);
  loaded.overlaps = sm >= kOverlapSm && version >= kOverlapVersion;
  return check(cuda, cuda.load(&loaded.module, cubin), "cuModuleLoadData");
}

int module_of_context(const Driver& cuda, Loaded& loaded) {
  Context context = nullptr;
  if (check(cuda, cuda.init(0), "cuInit")) return -1;
  if (check(cuda, cuda.current(&context), "cuCtxGetCurrent")) return -1;
  if (!context) return fail("no CUDA context is current in this thread.");
  if (check(cuda, cuda.identify(context, &loaded.context), "cuCtxGetId")) return -1;
  const Lock lock;
  for (int i = 0; i < std::min(g_n_loaded, kMostContexts); ++i) {
    if (g_loaded[i].context != loaded.context) continue;
    loaded = g_loaded[i];
    return 0;
  }
  if (load_module(cuda, loaded)) return -1;
  g_loaded[g_n_loaded++ % kMostContexts] = loaded;
  return 0;
}

constexpr int kUsualSharedBytes = 48 * 1024;  // more must be asked for

// All kernels wait for the one before them by themselves; see wait_for_previous in ptx.cuh.
int launch(const char* name, int64_t x, int64_t y, int64_t z, int threads, int shared_bytes,
           void* stream, void** arguments) {
  const Driver* cuda = driver();
  Loaded loaded;
  Function function;
  if (!cuda || module_of_context(*cuda, loaded)) return -1;
  if (check(*cuda, cuda->find(&function, loaded.module, name), name)) return -1;
  if (shared_bytes > kUsualSharedBytes &&
      check(*cuda, cuda->set(function, kMaxSharedBytes, shared_bytes), name))
    return -1;
  Attribute overlap{kMayOverlap, 0, 1, {}};
  const Launch how{{unsigned(x), unsigned(y), unsigned(z)}, {unsigned(threads), 1, 1},
                   unsigned(shared_bytes), stream, &overlap, loaded.overlaps};
  return check(*cuda, cuda->launch(&how, function, arguments, nullptr), name);
}

}  // namespace
