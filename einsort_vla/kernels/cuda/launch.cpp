#include "launch.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

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

// The numbers below mirror matvec.cuh, reader.cuh, matmul.cuh, dense.cuh and leader.cu.
constexpr int64_t kMatvecRows = 16;
constexpr int64_t kStretch = 256, kChunk = 256, kMatvecThreads = 256;
constexpr int64_t kTileM = 64, kTileN = 128, kTileK = 32, kMatmulThreads = 128;
constexpr int64_t kDenseThreads = 256, kDenseOutputs = 256;
constexpr int64_t kReduceThreads = 128;
constexpr int64_t kMostRowsOfGrid = 65535;
// Shared memory for copies of the table: a block's share where three or more are to fit.
constexpr int kTableBytes = 32 * 1024, kMatmulTableBytes = 16 * 1024;
constexpr int kAlignedWindow = 8, kAlignedTableBytes = 64 * 1024;  // of reader.cuh
constexpr int kBankBytes = 128;  // of all banks: more copies would not help

// How K is cut: blocks for all of a large GPU, but no part so short that filling the table or
// adding up the parts would take as long as the product. Of the shape only, so that engines built
// elsewhere reserve the right workspace.
constexpr int64_t kMatvecBlocks = 256, kMatvecLeastInputs = 64;
constexpr int64_t kMatmulBlocks = 128, kMatmulLeastInputs = 256;
constexpr int64_t kDenseBlocks = 384, kDenseLeastInputs = 32, kDenseStep = 8;

struct Cut {
  int64_t per_split, splits;
};

Cut cut(int64_t k, int64_t tiles, int64_t blocks, int64_t least, int64_t multiple) {
  const int64_t most = std::max<int64_t>(1, k / least);
  const int64_t wanted = std::min(most, ceil_div(blocks, tiles));
  const int64_t per_split = ceil_div(ceil_div(k, wanted), multiple) * multiple;
  return {per_split, ceil_div(k, per_split)};
}

Cut cut_matvec(int64_t k, int64_t n) {
  return cut(k, ceil_div(n, kStretch), kMatvecBlocks, kMatvecLeastInputs, kTileK);
}

Cut cut_matmul(int64_t m, int64_t k, int64_t n) {
  const int64_t tiles = ceil_div(m, kTileM) * ceil_div(n, kTileN);
  const Cut found = cut(k, tiles, kMatmulBlocks, kMatmulLeastInputs, kTileK);
  return m <= kMostRowsOfGrid ? found : Cut{k, 1};
}

// The slices whose windows lie in 32 bits together, of the kernels there are; 0 if none can.
int slices_at_once(int d, int b, int s) {
  const int most = d == 1 ? 4 : d == 8 ? 4 : 8, least = d == 1 ? 2 : 4;
  for (int slices = most; slices >= least; slices /= 2)
    if ((d != 4 || slices == most) && (slices - 1) * b + s + b <= 32) return slices;
  return 0;
}

int check_size(int64_t m, int64_t k, int64_t n, int dtype) {
  constexpr int64_t kMost = int64_t(1) << 27, kMostWeights = int64_t(1) << 32;
  if (m < 0 || k < 1 || n < 1 || m > kMost || k > kMost || n > kMost || k * n > kMostWeights)
    return fail(
        "m=%lld k=%lld n=%lld: m must be at least 0, k and n at least 1, none above 2^27, and k n "
        "not above 2^32.",
        (long long)m, (long long)k, (long long)n);
  if (dtype < kEinsortFloat || dtype > kEinsortBFloat16)
    return fail("type %d; 0 is float32, 1 float16, 2 bfloat16.", dtype);
  return 0;
}

// As struct Matrix of decode.cuh.
struct Matrix {
  const void *signs, *indices, *table;
  int n, k, b, s, log_copies;
};

int log2_of(int64_t value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

// Sets the copies of the table; returns the bytes of all. A row of 16 bits is at least a pair.
int fit_table(Matrix& matrix, int d, int element_bytes, int budget) {
  const int windows = 1 << (matrix.s + matrix.b), row = std::max(d * element_bytes, 4);
  matrix.log_copies = log2_of(std::min(std::max(budget / (windows * row), 1), kBankBytes / row));
  return (windows * row) << matrix.log_copies;
}

struct Product {
  Matrix matrix;
  const void *x, *scale;
  void *y, *workspace, *stream;
  int64_t m;
  int d, slices, dtype;
};

const char* type_name(int dtype) { return dtype == kEinsortFloat ? "float" : "16bit"; }

int reduce(const Product& p, int64_t splits) {
  Product q = p;
  int count = int(splits);
  char name[32];
  std::snprintf(name, sizeof name, "reduce_leader_%s", type_name(p.dtype));
  void* arguments[] = {&q.workspace, &q.scale, &q.dtype, &q.y, &count, &q.matrix.n};
  return launch(name, ceil_div(p.matrix.n, kReduceThreads), p.m, 1, kReduceThreads, 0, p.stream,
                arguments);
}

// Whether the words of AlignedReader in reader.cuh are those of the streams.
bool is_aligned(const Product& p) {
  const Matrix& w = p.matrix;
  return p.dtype != kEinsortFloat && p.d == 2 && w.b <= 6 && w.s + w.b == kAlignedWindow &&
         w.n % 32 == 0 && w.n / p.d * w.b % 32 == 0;
}

int matvec(Product p) {
  const bool is_float = p.dtype == kEinsortFloat, aligned = is_aligned(p);
  const int rows = is_float && p.m == 1 ? 1 : p.m <= 4 ? 4 : 16;
  const Cut k = cut_matvec(p.matrix.k, p.matrix.n);
  char name[64];
  std::snprintf(name, sizeof name, "matvec_leader_d%d_%c%d_%s_m%d", p.d, aligned ? 'b' : 'g',
                aligned ? p.matrix.b : p.slices, type_name(p.dtype), rows);
  const int outputs = is_float ? (rows == 1 ? 32 : rows == 4 ? 16 : 8) : rows == 4 ? 32 : 16;
  const int x = is_float ? int(kChunk) * rows * 4 : 0;
  const int table = aligned ? kAlignedTableBytes : fit_table(p.matrix, p.d, is_float ? 4 : 2,
                                                             kTableBytes);
  // Each adder of a block has a shelf for each row that is added at once.
  const int shelves = is_float ? int(kMatvecThreads) * outputs / int(kStretch)
                               : 4 * int(kMatvecThreads) * outputs / int(32 * 32);
  const int sums = shelves * (int(kStretch) / outputs * (outputs + 4) + 8) * 4;
  int m = int(p.m), per_split = int(k.per_split);
  void* arguments[] = {&p.matrix, &p.dtype, &p.x, &p.workspace, &m, &per_split};
  if (launch(name, ceil_div(p.matrix.n, kStretch), k.splits, 1, kMatvecThreads,
             std::max(x + table, sums), p.stream, arguments))
    return -1;
  return reduce(p, k.splits);
}

int matmul(Product p) {
  const bool is_float = p.dtype == kEinsortFloat;
  const Cut k = cut_matmul(p.m, p.matrix.k, p.matrix.n);
  char name[64];
  std::snprintf(name, sizeof name, "matmul_leader_d%d_g%d_%s", p.d, p.slices, type_name(p.dtype));
  const int tiles = is_float ? int(kTileK) * int(kTileM + 4 + kTileN + 4) * 4
                             : int(kTileM * (kTileK + 8) + kTileK * (kTileN + 8)) * 2;
  const int shared = tiles + fit_table(p.matrix, p.d, is_float ? 4 : 2, kMatmulTableBytes);
  const void* scale = k.splits == 1 ? p.scale : nullptr;
  int per_split = int(k.per_split);
  void* arguments[] = {&p.matrix, &p.dtype, &p.x, &p.y, &p.workspace, &scale, &p.m, &per_split};
  if (launch(name, ceil_div(p.m, kTileM), ceil_div(p.matrix.n, kTileN), k.splits, kMatmulThreads,
             shared, p.stream, arguments))
    return -1;
  return k.splits == 1 ? 0 : reduce(p, k.splits);
}

int decode(Product p) {
  const bool aligned = is_aligned(p);
  char name[64];
  std::snprintf(name, sizeof name, "decode_leader_d%d_%c%d_%s", p.d, aligned ? 'b' : 'g',
                aligned ? p.matrix.b : p.slices, type_name(p.dtype));
  const int table = aligned ? kAlignedTableBytes : fit_table(p.matrix, p.d, 4, kTableBytes);
  const int64_t stretches = ceil_div(p.matrix.n, kDenseOutputs);
  const Cut k = cut(p.matrix.k, stretches, kDenseBlocks, kDenseLeastInputs, kDenseStep);
  int per_part = int(k.per_split);
  void* arguments[] = {&p.matrix, &p.dtype, &p.scale, &p.y, &per_part};
  return launch(name, k.splits, stretches, 1, kDenseThreads, table, p.stream, arguments);
}

}  // namespace

extern "C" {

int einsort_check_window(int d, int b, int s) {
  if (d != 1 && d != 2 && d != 4 && d != 8)
    return fail("d=%d; a slice has 1, 2, 4 or 8 weights.", d);
  if (b < 1 || s < 0 || b > 14 || s > 14 || s + b > 14)
    return fail("b=%d s=%d; b must be at least 1, s at least 0, and their sum at most 14.", b, s);
  if (!slices_at_once(d, b, s)) return fail("there is no kernel for d=%d b=%d s=%d.", d, b, s);
  return 0;
}

int64_t einsort_workspace_bytes(int64_t m, int64_t k, int64_t n, int dtype) {
  if (check_size(m, k, n, dtype)) return -1;
  int64_t floats = std::min(m, kMatvecRows) * n * cut_matvec(k, n).splits;
  for (int64_t tile = 1; m > kMatvecRows && tile <= ceil_div(m, kTileM); ++tile) {
    const int64_t rows = std::min(tile * kTileM, m), splits = cut_matmul(rows, k, n).splits;
    if (splits == 1) break;
    floats = std::max(floats, rows * n * splits);
  }
  return 4 * floats;
}

int einsort_matmul_leader(const void* x, const void* signs, const void* indices, const void* table,
                          const void* scale, void* y, int64_t m, int64_t k, int64_t n, int d, int b,
                          int s, int dtype, void* workspace, void* stream) {
  if (check_size(m, k, n, dtype) || einsort_check_window(d, b, s)) return -1;
  if (m == 0) return 0;
  const Matrix matrix{signs, indices, table, int(n), int(k), b, s, 0};
  const Product product{matrix, x, scale, y, workspace, stream, m, d, slices_at_once(d, b, s),
                        dtype};
  return m <= kMatvecRows ? matvec(product) : matmul(product);
}

int einsort_decode_leader(const void* signs, const void* indices, const void* table,
                          const void* scale, void* weight, int64_t k, int64_t n, int d, int b,
                          int s, int dtype, void* stream) {
  if (check_size(0, k, n, dtype) || einsort_check_window(d, b, s)) return -1;
  const Matrix matrix{signs, indices, table, int(n), int(k), b, s, 0};
  return decode({matrix, nullptr, scale, weight, nullptr, stream, 0, d, slices_at_once(d, b, s),
                 dtype});
}

const char* einsort_last_error() { return g_error; }
}
