#include "launch.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <iterator>

#include "polynomials.h"

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

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The numbers below mirror decode.cuh, matvec.cuh, matmul.cuh and curve.cu.
constexpr int64_t kSegment = 128, kInputs = 16, kWarps = 8, kTurn = kWarps * kInputs;
constexpr int64_t kThreads = 32 * kWarps, kMatvecRows = 16, kTileRows = 64, kTerms = 3;
constexpr int kLeastEighths = 8, kMostEighths = 40, kGrids[] = {6, 7, 8};
constexpr int kShelfBytes = 4 * (kSegment + 4);
constexpr int kMatvecBytes = kWarps * 8 * kShelfBytes, kFragmentBytes = kWarps * 8 * 32 * 16;
constexpr int kMatmulBytes = kFragmentBytes + kWarps * kTileRows / 8 * 32 * 8;
constexpr int kDecodeBytes = kFragmentBytes + kSegment * 4;
static_assert(kMatmulBytes >= kTileRows * kShelfBytes, "sums take the place of fragments");
constexpr int64_t kMostOfGrid = 65535;

// How K is cut: blocks for all of a large GPU, but no part so short that adding up the parts would
// take as long as the product. Of the shape only, so that engines built elsewhere reserve the right
// workspace.
constexpr int64_t kMatvecBlocks = 256, kMatvecLeast = 1;  // turns of inputs of a part
constexpr int64_t kMatmulBlocks = 128, kMatmulLeast = 4;

struct Cut {
  int64_t per_split, splits;
};

Cut cut(int64_t k, int64_t tiles, int64_t blocks, int64_t least) {
  const int64_t turns = ceil_div(k, kTurn), most = std::max<int64_t>(1, turns / least);
  const int64_t per_split = ceil_div(turns, std::min(most, ceil_div(blocks, tiles))) * kTurn;
  return {per_split, ceil_div(k, per_split)};
}

int64_t words_of(int64_t rows, int eighths) { return ceil_div(rows * eighths / 8, 16); }

int check(const EinsortMatrix& w) {
  constexpr int64_t kMost = int64_t(1) << 27, kMostWeights = int64_t(1) << 32;
  if (w.k < 1 || w.n < 1 || w.k > kMost || w.n > kMostOfGrid * kSegment || w.n * w.k > kMostWeights)
    return fail(
        "out_features=%lld in_features=%lld; both must be at least 1, the first at most %lld, the "
        "other at most 2^27, and their product at most 2^32.",
        (long long)w.n, (long long)w.k, (long long)(kMostOfGrid * kSegment));
  const bool is_curve = w.eighths >= kLeastEighths && w.eighths <= kMostEighths;
  const bool is_grid = std::count(std::begin(kGrids), std::end(kGrids), w.window) &&
                       w.eighths == 8 * w.window;
  if (!is_grid && !(is_curve && einsort::polynomial(w.window)))
    return fail(
        "eighths=%d window=%d; there are codes of 8 to 40 eighths with windows of 10, 12, 13, 14 "
        "and 16 bits, and of 48, 56 and 64 with 6, 7 and 8.",
        w.eighths, w.window);
  if (!std::isfinite(w.unit) || w.unit < 0)
    return fail("unit=%g; it must be a number, and not below 0.", w.unit);
  return 0;
}

int check(const EinsortMatrix& w, int64_t m, int dtype) {
  if (check(w)) return -1;
  if (m < 0 || m > int64_t(1) << 27)
    return fail("%lld rows of x; there must be 0 to 2^27.", (long long)m);
  if (dtype < kEinsortFloat || dtype > kEinsortBFloat16)
    return fail("type %d; 0 is float32, 1 float16, 2 bfloat16.", dtype);
  return 0;
}

// As structs Matrix and Inputs of decode.cuh.
struct Matrix {
  const void *words, *scale;
  float unit;
  int n, k;
  uint32_t factor, flip, mask;

  explicit Matrix(const EinsortMatrix& w)
      : words(w.words), scale(w.scale), unit(w.unit), n(int(w.n)), k(int(w.k)), factor(0), flip(0),
        mask((1u << w.window) - 1) {
    const einsort::Polynomial* own = einsort::polynomial(w.window);
    if (own) factor = own->factor, flip = own->flip;
  }
};

struct Inputs {
  const void* x;
  int64_t rows;
  int stride;
};

// A product, whose workspace holds prepared inputs, then parts of the sums.
struct Plan {
  int64_t rows, stride;  // of the inputs
  bool is_few, is_prepared, has_parts;
  Cut k;

  Plan(const EinsortMatrix& w, int64_t m, int dtype, bool is_aligned)
      : rows(dtype == kEinsortFloat ? kTerms * m : m),
        stride(ceil_div(w.k, kInputs) * kInputs),
        is_few(rows <= kMatvecRows),
        is_prepared(dtype == kEinsortFloat || stride != w.k || !is_aligned) {
    const int64_t segments = ceil_div(w.n, kSegment), tiles = segments * ceil_div(rows, kTileRows);
    k = is_few ? cut(w.k, segments, kMatvecBlocks, kMatvecLeast)
               : cut(w.k, tiles, kMatmulBlocks, kMatmulLeast);
    has_parts = is_few || dtype == kEinsortFloat || k.splits > 1;
  }
  int64_t prepared_bytes() const { return is_prepared ? 2 * rows * stride : 0; }
  int64_t bytes(int64_t n) const {
    return prepared_bytes() + (has_parts ? 4 * k.splits * rows * n : 0);
  }
};

bool is_aligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % 8 == 0; }

int check_words(const EinsortMatrix& w) {
  return is_aligned(w.words) ? 0 : fail("the words of a matrix must begin at a multiple of 8.");
}

struct Kernel {
  char name[40];
  Kernel(const char* kind, int eighths, const char* weights = "") {
    std::snprintf(name, sizeof name, "%s_curve_e%d%s", kind, eighths, weights);
  }
};

int multiply(const EinsortMatrix& w, const void* x, void* y, int64_t m, int dtype, char* workspace,
             void* stream) {
  const Plan plan(w, m, dtype, is_aligned(x));
  Matrix matrix(w);
  Inputs inputs{x, plan.rows, int(plan.stride)};
  void* parts = workspace + plan.prepared_bytes();
  if (plan.is_prepared) {
    inputs.x = workspace;
    void* arguments[] = {&x, &dtype, &m, &matrix.k, &inputs.x, &inputs.stride};
    if (launch("prepare_curve", ceil_div(plan.stride, kThreads), std::min(m, kMostOfGrid), 1,
               kThreads, 0, stream, arguments))
      return -1;
  }
  const char* weights = dtype == kEinsortHalf ? "_half" : "_bfloat";
  const int64_t segments = ceil_div(w.n, kSegment);
  int per_split = int(plan.k.per_split);
  if (plan.is_few) {
    void* arguments[] = {&matrix, &inputs, &parts, &per_split};
    if (launch(Kernel("matvec", w.eighths, weights).name, segments, plan.k.splits, 1, kThreads,
               kMatvecBytes, stream, arguments))
      return -1;
  } else {
    void* direct = plan.has_parts ? nullptr : y;
    void* arguments[] = {&matrix, &inputs, &dtype, &direct, &parts, &per_split};
    if (launch(Kernel("matmul", w.eighths, weights).name, ceil_div(plan.rows, kTileRows), segments,
               plan.k.splits, kThreads, kMatmulBytes, stream, arguments))
      return -1;
  }
  if (!plan.has_parts) return 0;
  int n_parts = int(plan.k.splits * plan.rows / m);
  void* arguments[] = {&matrix, &dtype, &parts, &y, &m, &n_parts};
  return launch("reduce_curve", ceil_div(w.n, kThreads), std::min(m, kMostOfGrid), 1, kThreads, 0,
                stream, arguments);
}

}  // namespace

extern "C" {

int64_t einsort_count_words(const EinsortMatrix* w) {
  if (check(*w)) return -1;
  return w->k * (w->n / kSegment * words_of(kSegment, w->eighths) +
                 words_of(w->n % kSegment, w->eighths));
}

int64_t einsort_workspace_bytes(const EinsortMatrix* w, int64_t m, int dtype) {
  if (check(*w, m, dtype)) return -1;
  // Fewer rows may have more parts: up to the last row of a matvec, and of each tile of a matmul.
  const int64_t terms = dtype == kEinsortFloat ? kTerms : 1;
  int64_t most = Plan(*w, m, dtype, false).bytes(w->n);
  for (int64_t last = kMatvecRows; last <= m * terms; last = last / kTileRows * kTileRows + kTileRows) {
    const Plan plan(*w, last / terms, dtype, false);
    most = std::max(most, plan.bytes(w->n));
    if (!plan.is_few && plan.k.splits == 1) break;
  }
  return most;
}

int einsort_matmul_curve(const EinsortMatrix* w, const void* x, void* y, int64_t m, int dtype,
                         void* workspace, void* stream) {
  if (check(*w, m, dtype) || check_words(*w)) return -1;
  return m ? multiply(*w, x, y, m, dtype, static_cast<char*>(workspace), stream) : 0;
}

int einsort_decode_curve(const EinsortMatrix* w, void* weight, int dtype, void* stream) {
  if (check(*w, 0, dtype) || check_words(*w)) return -1;
  Matrix matrix(*w);
  void* arguments[] = {&matrix, &dtype, &weight};
  return launch(Kernel("decode", w->eighths).name, ceil_div(w->k, kTurn), ceil_div(w->n, kSegment),
                1, kThreads, kDecodeBytes, stream, arguments);
}

const char* einsort_last_error() { return g_error; }
}
