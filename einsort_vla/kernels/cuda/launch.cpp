#include "launch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "driver.h"
#include "polynomials.h"

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The numbers below mirror decode.cuh, matvec.cuh, matmul.cuh and curve.cu.
constexpr int64_t kSegment = 128, kTileColumns = 32, kInputs = 16;
constexpr int64_t kWarps = 8, kTurn = kWarps * kInputs, kThreads = 32 * kWarps;
constexpr int64_t kMatvecRows = 16, kTileRows = 64, kTerms = 3;
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

int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
int64_t words_of(int64_t rows, int eighths) { return ceil_div(rows * eighths / 8, 16); }
int64_t words_of(const EinsortMatrix& w, int64_t k) {
  return k * (w.n / kSegment * words_of(kSegment, w.eighths) +
              words_of(w.n % kSegment, w.eighths));
}

// Kernels load the words of four inputs at once.
constexpr int64_t kFour = 4;

int64_t wide_bytes(const EinsortMatrix& w) {
  const int64_t k = round_up(w.k, kFour);
  return k == w.k ? 0 : round_up(2 * words_of(w, k), 16);
}

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
        stride(round_up(w.k, kInputs)),
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

struct Kernel {
  char name[40];
  Kernel(const char* kind, int eighths, const char* weights = "") {
    std::snprintf(name, sizeof name, "%s_curve_e%d%s", kind, eighths, weights);
  }
};

// What kernels are told of a matrix. Where its inputs are no multiple of 4, it gets words in the
// workspace, which is moved beyond them.
int load(const EinsortMatrix& w, Matrix& matrix, char*& workspace, void* stream) {
  if (!is_aligned(w.words)) return fail("the words of a matrix must begin at a multiple of 8.");
  if (!wide_bytes(w)) return 0;
  void* words = workspace;
  int eighths = w.eighths, k = int(round_up(w.k, kFour));
  void* arguments[] = {&matrix, &eighths, &words, &k};
  if (launch("widen_curve", ceil_div(k, kTileColumns), ceil_div(w.n, kSegment), 1, kThreads, 0,
             stream, arguments))
    return -1;
  matrix.words = words, matrix.k = k;
  workspace += wide_bytes(w);
  return 0;
}

int multiply(const EinsortMatrix& w, const void* x, void* y, int64_t m, int dtype, char* workspace,
             void* stream) {
  const Plan plan(w, m, dtype, is_aligned(x));
  Matrix matrix(w);
  if (load(w, matrix, workspace, stream)) return -1;
  Inputs inputs{x, plan.rows, int(plan.stride)};
  void* parts = workspace + plan.prepared_bytes();
  if (plan.is_prepared) {
    inputs.x = workspace;
    int k = int(w.k);
    void* arguments[] = {&x, &dtype, &m, &k, &inputs.x, &inputs.stride};
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
  return words_of(*w, w->k);
}

int64_t einsort_workspace_bytes(const EinsortMatrix* w, int64_t m, int dtype) {
  if (check(*w, m, dtype)) return -1;
  // Fewer rows may have more parts: up to the last row of a matvec, and of each tile of a matmul.
  const int64_t terms = dtype == kEinsortFloat ? kTerms : 1;
  int64_t most = Plan(*w, m, dtype, false).bytes(w->n);
  for (int64_t last = kMatvecRows; last <= m * terms;
       last = last / kTileRows * kTileRows + kTileRows) {
    const Plan plan(*w, last / terms, dtype, false);
    most = std::max(most, plan.bytes(w->n));
    if (!plan.is_few && plan.k.splits == 1) break;
  }
  return wide_bytes(*w) + most;
}

int einsort_matmul_curve(const EinsortMatrix* w, const void* x, void* y, int64_t m, int dtype,
                         void* workspace, void* stream) {
  if (check(*w, m, dtype)) return -1;
  return m ? multiply(*w, x, y, m, dtype, static_cast<char*>(workspace), stream) : 0;
}

int einsort_decode_curve(const EinsortMatrix* w, void* weight, int dtype, void* workspace,
                         void* stream) {
  if (check(*w, 0, dtype)) return -1;
  Matrix matrix(*w);
  char* own = static_cast<char*>(workspace);
  if (load(*w, matrix, own, stream)) return -1;
  int k = int(w->k);
  void* arguments[] = {&matrix, &dtype, &weight, &k};
  return launch(Kernel("decode", w->eighths).name, ceil_div(w->k, kTurn), ceil_div(w->n, kSegment),
                1, kThreads, kDecodeBytes, stream, arguments);
}

const char* einsort_last_error() { return g_error; }
}
