// The interface of einsort.h on the kernels of this processor.
//
// Needs a C library and nothing else, so that one file runs wherever its processor does: no
// exceptions, and no part of the C++ library that is not in headers.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>

#include "einsort.h"
#include "kernels.h"
#include "polynomials.h"

namespace einsort {
namespace {

constexpr int64_t kSegment = 128, kWord = 16, kBandsASegment = kSegment / kBand;
constexpr int64_t kInputsAtOnce = 64;   // rows that a decoded band is multiplied with
constexpr int64_t kColumnsAtOnce = 512; // of a decoded band; their sums stay below 2^31
constexpr int64_t kPadding = 32;        // between rows, so that they lie in other sets of the cache
constexpr int64_t kWeightsAThread = 1 << 15;  // less is not worth one
enum { kDone = 0, kUnfit = 1, kNoMemory = 2 };

// 2^(-k / 8) times 2^24.
constexpr int kMantissas[] = {16777216, 15384775, 14107901, 12937002,
                              11863283, 10878679, 9975792,  9147842};

float scale_of(uint8_t code, float unit) {
  const int steps = 127 - (code & 127);
  if (steps == 127) return 0;
  const float size = static_cast<float>(std::ldexp(kMantissas[steps % 8], -24 - steps / 8));
  return (code & 128 ? -size : size) * unit;
}

int64_t words_of(int64_t rows, int eighths) {
  return (rows * eighths / 8 + kWord - 1) / kWord;
}

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Memory of each thread, which grows and is given back when the thread ends.
enum Use { kInputs, kUnits, kTurned, kValues, kStarts, kUses };
struct Scratch {
  void* memory[kUses];
  int64_t size[kUses];
  bool is_known;
};
thread_local Scratch kept;

extern "C" __attribute__((weak)) int __cxa_thread_atexit_impl(void (*)(void*), void*, void*);

void give_back(void* raw) {
  Scratch& own = *static_cast<Scratch*>(raw);
  for (int use = 0; use < kUses; ++use) {
    free(own.memory[use]);
    own.memory[use] = nullptr;
    own.size[use] = 0;
  }
}

// For n of them; begins with a line of the cache, which no register then straddles.
template <class T>
T* scratch(Use use, int64_t n) {
  constexpr int64_t kLine = 64;
  const int64_t size = rounded_up(n * static_cast<int64_t>(sizeof(T)), kLine);
  if (kept.size[use] < size) {
    free(kept.memory[use]);
    kept.memory[use] = aligned_alloc(kLine, size);
    kept.size[use] = kept.memory[use] ? size : 0;
  }
  if (!kept.is_known && __cxa_thread_atexit_impl) {
    static char here;
    __cxa_thread_atexit_impl(give_back, &kept, &here);
    kept.is_known = true;
  }
  return static_cast<T*>(kept.memory[use]);
}

// Calls own(first, last) for parts of n, on as many threads as it is worth; whether all succeeded.
template <class F>
bool in_parts(const einsort_threads* threads, int64_t most, int64_t n, const F& own) {
  struct Context {
    const F& own;
    int64_t n, parts;
    std::atomic<bool> failed;
  };
  const int64_t parts = std::max<int64_t>(1, std::min({threads ? threads->n : 1, most, n}));
  Context context = {own, n, parts, {false}};
  const einsort_task task = [](void* raw, int64_t k) {
    Context& with = *static_cast<Context*>(raw);
    if (!with.own(with.n * k / with.parts, with.n * (k + 1) / with.parts)) with.failed = true;
  };
  if (parts == 1)
    task(&context, 0);
  else
    threads->run(threads->threads, task, &context, parts);
  return !context.failed;
}

// A randomized Hadamard rotation of some width; see codec/rotation.py. Kept for good once made.
struct Rotation {
  int64_t n, m;
  float *signs, *cosine;
  Rotation* next;
};
std::atomic<Rotation*> rotations{nullptr};

const Rotation* made_rotation(int64_t n) {
  int64_t m = n;
  while (m % 2 == 0) m /= 2;
  Rotation* own = static_cast<Rotation*>(malloc(sizeof(Rotation)));
  float* numbers = static_cast<float*>(malloc((n + m * m) * sizeof(float)));
  if (!own || !numbers) {
    free(own);
    free(numbers);
    return nullptr;
  }
  *own = {n, m, numbers, numbers + n, nullptr};
  std::mt19937 random(0);
  for (int64_t i = 0; i < n; ++i) own->signs[i] = random() & 1 ? 1.0f : -1.0f;
  const double pi = std::acos(-1.0);
  for (int64_t k = 0; k < m; ++k)
    for (int64_t i = 0; i < m; ++i)
      own->cosine[k * m + i] = static_cast<float>(std::cos(pi / m * (k + 0.5) * i) *
                                                  std::sqrt((i ? 2.0 : 1.0) / m));
  own->next = rotations.load();
  while (!rotations.compare_exchange_weak(own->next, own)) {
  }
  return own;
}

const Rotation* rotation(int64_t n) {
  for (const Rotation* own = rotations.load(); own; own = own->next)
    if (own->n == n) return own;
  return made_rotation(n);  // two threads may both make it, which costs memory alone
}

// Some whole tiles of 32 columns, or the last one, which is narrower.
struct Span {
  int64_t first, columns;  // columns are padded to whole tiles
  bool is_narrow;
};

struct Spans {
  int64_t whole, at_once, n;
  Spans(int64_t columns, int64_t at_once)
      : whole(columns / kTileColumns * kTileColumns), at_once(at_once),
        n((whole + at_once - 1) / at_once + (whole < columns)) {}
  Span operator[](int64_t k) const {
    const int64_t first = k * at_once;
    if (first >= whole) return {whole, kTileColumns, true};
    return {first, std::min(at_once, whole - first), false};
  }
};

// The bands of a matrix: groups of eight rows.
class Bands {
 public:
  explicit Bands(const einsort_matrix& matrix) : matrix_(matrix) {
    const Polynomial* own = polynomial(matrix.window);
    band_.factor = own ? own->factor : 0;
    band_.flip = own ? own->flip : 0;
    band_.is_masked = matrix.window < kWord;
  }

  static int64_t count(const einsort_matrix& matrix) {
    return (matrix.rows + kBand - 1) / kBand;
  }

  const Band& at(int64_t band, const Span& span) {
    const int64_t segment = band / kBandsASegment, first = segment * kSegment;
    const int64_t n_words = words_of(std::min(kSegment, matrix_.rows - first), matrix_.eighths);
    const uint16_t* tiles = matrix_.words + segment * matrix_.eighths * matrix_.columns +
                            span.first * n_words;
    const int64_t bit = band % kBandsASegment * matrix_.eighths;
    band_.phase = bit % kWord;
    band_.stride = kTileColumns * n_words;
    band_.blocks = span.columns / kTileColumns;
    // While a segment is read, the next one is fetched: each band asks for its share of the lines.
    const int64_t size = kTileColumns * sizeof(uint16_t), share = n_words / kBandsASegment;
    band_.lines = (segment + 1) * kSegment < matrix_.rows ? static_cast<int>(share) : 0;
    band_.ahead = reinterpret_cast<const char*>(tiles + n_words * matrix_.columns) +
                  band % kBandsASegment * band_.blocks * share * size;
    const int64_t width = matrix_.columns - span.first;
    for (int k = 0; k < kMostWords; ++k) {
      const int64_t word = (bit / kWord + n_words - 1 + k) % n_words;
      if (span.is_narrow) {
        std::copy(tiles + word * width, tiles + (word + 1) * width, narrow_[k]);
        band_.words[k] = narrow_[k];
      } else {
        band_.words[k] = tiles + word * kTileColumns;
      }
    }
    return band_;
  }

 private:
  const einsort_matrix& matrix_;
  Band band_;
  uint16_t narrow_[kMostWords][kTileColumns] = {};
};

struct Product {
  const einsort_matrix& matrix;
  const float* bias;
  float* y;
  int64_t n, stride;
  int16_t* inputs;
  float* units;

  // Turns and rounds the rows of inputs.
  bool prepare(const float* x, int limit, const einsort_threads* threads) const {
    const int64_t columns = matrix.columns, padded = stride - kPadding;
    const Rotation* turned = matrix.is_rotated ? rotation(columns) : nullptr;
    if (matrix.is_rotated && !turned) return false;
    return in_parts(threads, n * columns / kWeightsAThread, n, [&](int64_t first, int64_t last) {
      float* own = turned ? scratch<float>(kTurned, 3 * columns) : nullptr;
      if (turned && !own) return false;
      for (int64_t i = first; i < last; ++i) {
        const float* from = x + i * columns;
        if (turned) {
          for (int64_t k = 0; k < columns; ++k) own[k] = from[k] * turned->signs[k];
          here().turn(own, turned->cosine, false, columns, turned->m, own + columns);
          from = own;
        }
        units[i] = here().quantize(from, columns, padded, limit, inputs + i * stride);
      }
      return true;
    });
  }

  void put(int64_t band, int64_t first, int64_t count, const int64_t* totals) const {
    const int64_t row = band * kBand, own = std::min<int64_t>(kBand, matrix.rows - row);
    for (int64_t r = 0; r < own; ++r) {
      const float scale = scale_of(matrix.scale[row + r], matrix.unit);
      for (int64_t i = 0; i < count; ++i) {
        const float factor = scale * units[first + i];
        const float sum = static_cast<float>(totals[i * kBand + r]) * factor;
        y[(first + i) * matrix.rows + row + r] = bias ? sum + bias[row + r] : sum;
      }
    }
  }

  // One row of inputs: decoded and multiplied in registers.
  bool single(int64_t from, int64_t to) const {
    const Spans parts(matrix.columns, kMostProducts * here().sums);
    int32_t* starts = scratch<int32_t>(kStarts, parts.n * here().sums);
    if (!starts) return false;
    for (int64_t k = 0; k < parts.n; ++k)
      here().start(inputs + parts[k].first, parts[k].columns, matrix.eighths,
                   starts + k * here().sums);
    Bands bands(matrix);
    for (int64_t band = from; band < to; ++band) {
      int64_t totals[kBand] = {};
      for (int64_t k = 0; k < parts.n; ++k)
        here().multiply(bands.at(band, parts[k]), matrix.eighths, inputs + parts[k].first,
                        starts + k * here().sums, totals);
      put(band, 0, 1, totals);
    }
    return true;
  }

  // Several: a band is decoded into memory, and multiplied with all of them.
  bool several(int64_t from, int64_t to) const {
    const Spans parts(matrix.columns, kColumnsAtOnce);
    const int64_t apart = kColumnsAtOnce + kPadding;
    int16_t* values = scratch<int16_t>(kValues, kBand * apart);
    if (!values) return false;
    Bands bands(matrix);
    for (int64_t first = 0; first < n; first += kInputsAtOnce) {
      const int64_t count = std::min(kInputsAtOnce, n - first);
      for (int64_t band = from; band < to; ++band) {
        int64_t totals[kInputsAtOnce * kBand] = {};
        for (int64_t k = 0; k < parts.n; ++k) {
          const Span part = parts[k];
          here().decode(bands.at(band, part), matrix.eighths, values, apart);
          here().product(values, apart, inputs + first * stride + part.first, stride, count,
                         part.columns, totals);
        }
        put(band, first, count, totals);
      }
    }
    return true;
  }
};

bool decode_bands(const einsort_matrix& matrix, const Rotation* turned, float* out, int64_t from,
                  int64_t to) {
  const int64_t columns = matrix.columns;
  const Spans parts(columns, kColumnsAtOnce);
  int16_t* values = scratch<int16_t>(kValues, kBand * kColumnsAtOnce);
  float* turning = scratch<float>(kTurned, 2 * columns);
  if (!values || !turning) return false;
  Bands bands(matrix);
  for (int64_t band = from; band < to; ++band) {
    const int64_t row = band * kBand, own = std::min<int64_t>(kBand, matrix.rows - row);
    for (int64_t k = 0; k < parts.n; ++k) {
      const Span part = parts[k];
      here().decode(bands.at(band, part), matrix.eighths, values, kColumnsAtOnce);
      const int64_t width = std::min(part.columns, columns - part.first);
      for (int64_t r = 0; r < own; ++r) {
        const float scale = scale_of(matrix.scale[row + r], matrix.unit);
        float* to_row = out + (row + r) * columns + part.first;
        for (int64_t i = 0; i < width; ++i) to_row[i] = values[r * kColumnsAtOnce + i] * scale;
      }
    }
    for (int64_t r = 0; turned && r < own; ++r) {
      float* whole = out + (row + r) * columns;
      here().turn(whole, turned->cosine, true, columns, turned->m, turning);
      for (int64_t i = 0; i < columns; ++i) whole[i] *= turned->signs[i];
    }
  }
  return true;
}

}  // namespace
}  // namespace einsort

using namespace einsort;

extern "C" {

const char* einsort_fault(const einsort_matrix* matrix) {
  const int eighths = matrix->eighths, window = matrix->window;
  const bool is_grid = eighths % 8 == 0 && eighths / 8 >= kLeastGrid && eighths / 8 <= kMostGrid;
  const bool is_curve = eighths >= kLeastEighths && eighths <= kMostEighths;
  if (!(is_grid ? window == eighths / 8 : is_curve && polynomial(window)))
    return "there is no such code";
  if (matrix->rows < 1 || matrix->columns < 1) return "the matrix is empty";
  const int64_t whole = matrix->rows / kSegment, left = matrix->rows % kSegment;
  const int64_t a_column = whole * eighths + words_of(left, eighths);
  if (matrix->n_words / a_column != matrix->columns || matrix->n_words % a_column)
    return "the words do not fit the matrix";
  return nullptr;
}

int einsort_decode(const einsort_matrix* matrix, float* out, const einsort_threads* threads) {
  if (einsort_fault(matrix)) return kUnfit;
  const Rotation* turned = matrix->is_rotated ? rotation(matrix->columns) : nullptr;
  if (matrix->is_rotated && !turned) return kNoMemory;
  const int64_t worth = matrix->rows * matrix->columns / kWeightsAThread;
  return in_parts(threads, worth, Bands::count(*matrix), [&](int64_t from, int64_t to) {
    return decode_bands(*matrix, turned, out, from, to);
  }) ? kDone : kNoMemory;
}

int einsort_multiply(const einsort_matrix* matrix, const float* x, int64_t n, const float* bias,
                     float* y, int activations, const einsort_threads* threads) {
  if (einsort_fault(matrix) || (activations != EINSORT_INT16 && activations != EINSORT_INT8))
    return kUnfit;
  if (n < 1) return kDone;
  const int64_t stride = rounded_up(matrix->columns, kTileColumns) + kPadding;
  int16_t* inputs = scratch<int16_t>(kInputs, n * stride);
  float* units = scratch<float>(kUnits, n);
  const Product product = {*matrix, bias, y, n, stride, inputs, units};
  if (!inputs || !units || !product.prepare(x, (1 << (activations - 1)) - 1, threads))
    return kNoMemory;
  const int64_t worth = n * matrix->rows * matrix->columns / kWeightsAThread;
  return in_parts(threads, worth, Bands::count(*matrix), [&](int64_t from, int64_t to) {
    return n == 1 ? product.single(from, to) : product.several(from, to);
  }) ? kDone : kNoMemory;
}

const char* einsort_processor(void) { return here().name; }
int einsort_abi(void) { return EINSORT_ABI; }

void einsort_run_gomp(void* threads, einsort_task task, void* context, int64_t n) {
  struct Context {
    einsort_task task;
    void* context;
    int64_t n;
    std::atomic<int64_t> next;
  } shared = {task, context, n, {0}};
  using Gomp = void (*)(void (*)(void*), void*, unsigned, unsigned);
  const auto work = [](void* raw) {
    Context& with = *static_cast<Context*>(raw);
    for (int64_t k = with.next++; k < with.n; k = with.next++) with.task(with.context, k);
  };
  reinterpret_cast<Gomp>(threads)(work, &shared, static_cast<unsigned>(n), 0);
}
}
