// The interface of einsort.h on the kernels of this processor.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <mutex>
#include <random>
#include <unordered_map>
#include <vector>

#include "einsort.h"
#include "kernels.h"

namespace einsort {
extern const Kernels kernels_here;
namespace {

constexpr int64_t kSegment = 128, kWord = 16, kBandsASegment = kSegment / kBand;
constexpr int64_t kInputsAtOnce = 64;    // rows that a decoded band is multiplied with
constexpr int64_t kColumnsAtOnce = 512;  // of a decoded band; their sums stay below 2^31
constexpr int64_t kPadding = 32;         // between rows, so that they lie in other sets of the cache
constexpr int64_t kWeightsAThread = 1 << 15;  // less is not worth one

const Kernels& here() { return kernels_here; }

struct Polynomial {
  int window, factor, flip;
};
constexpr Polynomial kPolynomials[] = {
    {10, 34223, 0xFC00}, {12, 34759, 0xF000}, {13, 34481, 0xE000},
    {14, 38317, 0xC000}, {16, 60341, 56759},
};

const Polynomial* polynomial(int window) {
  for (const Polynomial& own : kPolynomials)
    if (own.window == window) return &own;
  return nullptr;
}

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

// Memory for n of them that begins with a line of the cache, which no register then straddles.
template <class T>
T* scratch(std::vector<T>& kept, int64_t n) {
  constexpr int64_t kLine = 64;
  if (static_cast<int64_t>(kept.size()) < n + kLine) kept.resize(n + kLine);
  const auto from = reinterpret_cast<uintptr_t>(kept.data());
  return reinterpret_cast<T*>((from + kLine - 1) / kLine * kLine);
}

template <class F>
void in_parts(const einsort_threads* threads, int64_t most, int64_t n, F&& own) {
  struct Context {
    F& own;
    int64_t n, parts;
  };
  const int64_t parts = std::max<int64_t>(1, std::min({threads ? threads->n : 1, most, n}));
  Context context = {own, n, parts};
  const einsort_task task = [](void* raw, int64_t k) {
    const Context& with = *static_cast<Context*>(raw);
    with.own(with.n * k / with.parts, with.n * (k + 1) / with.parts);
  };
  if (parts == 1) return task(&context, 0);
  threads->run(threads->threads, task, &context, parts);
}

// A randomized Hadamard rotation of some width; see codec/rotation.py.
struct Rotation {
  std::vector<float> signs, cosine;
  int64_t m;

  explicit Rotation(int64_t n) : signs(n), m(n) {
    while (m % 2 == 0) m /= 2;
    std::mt19937 random(0);
    for (float& sign : signs) sign = random() & 1 ? 1.0f : -1.0f;
    const double pi = std::acos(-1.0);
    for (int64_t k = 0; k < m; ++k)
      for (int64_t i = 0; i < m; ++i)
        cosine.push_back(static_cast<float>(std::cos(pi / m * (k + 0.5) * i) *
                                            std::sqrt((i ? 2.0 : 1.0) / m)));
  }
};

std::shared_ptr<const Rotation> rotation(int64_t n) {
  static std::mutex mutex;
  static std::unordered_map<int64_t, std::shared_ptr<const Rotation>> kept;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& own = kept[n];
  if (!own) own = std::make_shared<const Rotation>(n);
  return own;
}

// Some whole tiles of 32 columns, or the last one, which is narrower.
struct Span {
  int64_t first, columns;  // columns are padded to whole tiles
  bool is_narrow;
};

std::vector<Span> spans(int64_t columns, int64_t at_once) {
  std::vector<Span> found;
  const int64_t whole = columns / kTileColumns * kTileColumns;
  for (int64_t k = 0; k < whole; k += at_once)
    found.push_back({k, std::min(at_once, whole - k), false});
  if (whole < columns) found.push_back({whole, kTileColumns, true});
  return found;
}

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

struct Inputs {
  std::vector<int16_t> memory;
  int16_t* rows;
  std::vector<float> units_memory;
  float* units;
  int64_t padded, stride;
};

void prepare(const einsort_matrix& matrix, const float* x, int64_t n, int limit, Inputs& inputs,
             const einsort_threads* threads) {
  const int64_t columns = matrix.columns;
  inputs.padded = rounded_up(columns, kTileColumns);
  inputs.stride = inputs.padded + kPadding;
  int16_t* rows = inputs.rows = scratch(inputs.memory, n * inputs.stride);
  float* units = inputs.units = scratch(inputs.units_memory, n);
  const auto turned = matrix.is_rotated ? rotation(columns) : nullptr;
  in_parts(threads, n * columns / kWeightsAThread, n, [&](int64_t first, int64_t last) {
    static thread_local std::vector<float> kept;
    float* own = scratch(kept, 3 * columns);
    for (int64_t i = first; i < last; ++i) {
      const float* from = x + i * columns;
      if (turned) {
        for (int64_t k = 0; k < columns; ++k) own[k] = from[k] * turned->signs[k];
        here().turn(own, turned->cosine.data(), columns, turned->m, own + columns);
        from = own;
      }
      units[i] = here().quantize(from, columns, inputs.padded, limit, rows + i * inputs.stride);
    }
  });
}

struct Product {
  const einsort_matrix& matrix;
  const Inputs& inputs;
  const float* bias;
  float* y;
  int64_t n;

  void put(int64_t band, int64_t first, int64_t count, const int64_t* totals) const {
    const int64_t row = band * kBand, own = std::min<int64_t>(kBand, matrix.rows - row);
    for (int64_t r = 0; r < own; ++r) {
      const float scale = scale_of(matrix.scale[row + r], matrix.unit);
      for (int64_t i = 0; i < count; ++i) {
        const float factor = scale * inputs.units[first + i];
        const float sum = static_cast<float>(totals[i * kBand + r]) * factor;
        y[(first + i) * matrix.rows + row + r] = bias ? sum + bias[row + r] : sum;
      }
    }
  }

  // One row of inputs: decoded and multiplied in registers.
  void single(int64_t from, int64_t to) const {
    const auto parts = spans(matrix.columns, kMostProducts * here().sums);
    std::vector<int32_t> starts(parts.size() * here().sums);
    for (size_t k = 0; k < parts.size(); ++k)
      here().start(inputs.rows + parts[k].first, parts[k].columns, matrix.eighths,
                   &starts[k * here().sums]);
    Bands bands(matrix);
    for (int64_t band = from; band < to; ++band) {
      int64_t totals[kBand] = {};
      for (size_t k = 0; k < parts.size(); ++k)
        here().multiply(bands.at(band, parts[k]), matrix.eighths,
                        inputs.rows + parts[k].first, &starts[k * here().sums], totals);
      put(band, 0, 1, totals);
    }
  }

  // Several: a band is decoded into memory, and multiplied with all of them.
  void several(int64_t from, int64_t to) const {
    static thread_local std::vector<int16_t> kept;
    const auto parts = spans(matrix.columns, kColumnsAtOnce);
    const int64_t stride = kColumnsAtOnce + kPadding;
    int16_t* values = scratch(kept, kBand * stride);
    Bands bands(matrix);
    for (int64_t first = 0; first < n; first += kInputsAtOnce) {
      const int64_t count = std::min(kInputsAtOnce, n - first);
      for (int64_t band = from; band < to; ++band) {
        int64_t totals[kInputsAtOnce * kBand] = {};
        for (const Span& part : parts) {
          here().decode(bands.at(band, part), matrix.eighths, values, stride);
          here().product(values, stride, inputs.rows + first * inputs.stride + part.first,
                         inputs.stride, count, part.columns, totals);
        }
        put(band, first, count, totals);
      }
    }
  }
};

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
  if (einsort_fault(matrix)) return 1;
  const int64_t columns = matrix->columns;
  const auto turned = matrix->is_rotated ? rotation(columns) : nullptr;
  const auto parts = spans(columns, kColumnsAtOnce);
  in_parts(threads, matrix->rows * columns / kWeightsAThread, Bands::count(*matrix),
           [&](int64_t from, int64_t to) {
    static thread_local std::vector<int16_t> kept;
    static thread_local std::vector<float> spare;
    int16_t* values = scratch(kept, kBand * kColumnsAtOnce);
    float* turning = scratch(spare, 2 * columns);
    Bands bands(*matrix);
    for (int64_t band = from; band < to; ++band) {
      const int64_t row = band * kBand, own = std::min<int64_t>(kBand, matrix->rows - row);
      for (const Span& part : parts) {
        here().decode(bands.at(band, part), matrix->eighths, values, kColumnsAtOnce);
        const int64_t width = std::min(part.columns, columns - part.first);
        for (int64_t r = 0; r < own; ++r) {
          const float scale = scale_of(matrix->scale[row + r], matrix->unit);
          float* to_row = out + (row + r) * columns + part.first;
          for (int64_t k = 0; k < width; ++k) to_row[k] = values[r * kColumnsAtOnce + k] * scale;
        }
      }
      for (int64_t r = 0; turned && r < own; ++r) {
        float* whole = out + (row + r) * columns;
        here().unturn(whole, turned->cosine.data(), columns, turned->m, turning);
        for (int64_t k = 0; k < columns; ++k) whole[k] *= turned->signs[k];
      }
    }
  });
  return 0;
}

int einsort_multiply(const einsort_matrix* matrix, const float* x, int64_t n, const float* bias,
                     float* y, int activations, const einsort_threads* threads) {
  if (einsort_fault(matrix) || (activations != EINSORT_INT16 && activations != EINSORT_INT8))
    return 1;
  if (n < 1) return 0;
  static thread_local Inputs inputs;
  prepare(*matrix, x, n, (1 << (activations - 1)) - 1, inputs, threads);
  const Product product = {*matrix, inputs, bias, y, n};
  in_parts(threads, std::max<int64_t>(n, 1) * matrix->rows * matrix->columns / kWeightsAThread,
           Bands::count(*matrix), [&](int64_t from, int64_t to) {
    n == 1 ? product.single(from, to) : product.several(from, to);
  });
  return 0;
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
