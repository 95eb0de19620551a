// Decoding and products for the processor that this file is compiled for; see kernels.h.
//
// EINSORT_KERNELS is the name of the table that is defined here.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "isa.h"

#ifndef EINSORT_KERNELS
#define EINSORT_KERNELS kernels_here
#endif

namespace einsort {
namespace {

using V = Isa::V;
using A = Isa::A;

constexpr int kWord = 16;
constexpr int kSteps = kTileColumns / Isa::kLanes;  // registers that hold a word of each column

enum Kind { kFlipped, kMasked, kGrid };

// The least value, as what `units` gives counts from it.
constexpr int least(Kind kind, int eighths) { return kind == kGrid ? 1 << (eighths / 8 - 1) : 127; }

struct Constants {
  V factor, upper, flip, mask;  // of the factor the lower half, and the upper one
};

template <int eighths, Kind kind>
struct Rows {
  static constexpr int kAligned = (eighths + kWord - 1) / kWord + 1;
  V words[kAligned];  // the 16 bits before the band, and its own, from its first bit on

  INLINE Rows read(const uint16_t* const* from, int64_t at, int phase) {
    Rows rows;
    V next = Isa::load(from[0] + at);
    for (int k = 0; k < kAligned; ++k) {
      const V own = next;
      next = Isa::load(from[k + 1] + at);
      rows.words[k] = Isa::either(Isa::left(own, phase), Isa::right(next, kWord - phase));
    }
    return rows;
  }
  INLINE Rows read_aligned(const uint16_t* const* from, int64_t at) {
    Rows rows;
    for (int k = 0; k < kAligned; ++k) rows.words[k] = Isa::load(from[k] + at);
    return rows;
  }

  // Values of one row, counted from the least.
  template <int row>
  INLINE V units(const Rows& rows, const Constants& with) {
    constexpr int end = (row + 1) * eighths / 8, word = (end + kWord - 1) / kWord;
    constexpr int after = word * kWord - end;
    V window;
    if constexpr (after == 0) {
      window = kind == kMasked ? Isa::either(rows.words[word], with.flip) : rows.words[word];
    } else {
      const V older = Isa::template left<kWord - after>(rows.words[word - 1]);
      const V newer = Isa::template right<after>(rows.words[word]);
      window = kind == kMasked ? Isa::either(older, newer, with.flip) : Isa::either(older, newer);
    }
    if constexpr (kind == kGrid) return Isa::both(window, with.mask);
    if constexpr (kind == kMasked)  // whose factors have 16 bits
      return Isa::template right<2>(Isa::byte_sums(window, with.factor));
    window = Isa::differ(window, with.flip);
    return Isa::template right<2>(Isa::byte_sums(window, with.factor, with.upper));
  }
};

template <class Own, class F, int... row>
INLINE void use_rows(int64_t k, const Own& rows, const Constants& with, F& use,
                     std::integer_sequence<int, row...>) {
  (use(row, k, Own::template units<row>(rows, with)), ...);
}

template <int eighths, Kind kind, class F>
INLINE void for_each_row(const Band& band, F&& use) {
  using Own = Rows<eighths, kind>;
  const Constants with = {Isa::set(band.factor & 0xFFFF), Isa::set(band.factor >> 16),
                          Isa::set(band.flip), Isa::set((1 << (eighths / 8 & 15)) - 1)};
  const uint16_t* words[kMostWords];
  std::copy(band.words, band.words + kMostWords, words);
  const char* ahead = band.ahead;
  for (int64_t k = 0; k < band.blocks * kSteps; ++k) {
    const int64_t at = k / kSteps * band.stride + k % kSteps * Isa::kLanes;
    for (int line = 0; k % kSteps == 0 && line < band.lines; ++line, ahead += 64)
      __builtin_prefetch(ahead);
    const Own rows = band.phase ? Own::read(words, at, band.phase) : Own::read_aligned(words, at);
    use_rows<Own>(k, rows, with, use, std::make_integer_sequence<int, kBand>());
  }
}

template <int eighths, Kind kind>
void decode(const Band& band, int16_t* values, int64_t stride) {
  const V low = Isa::set(least(kind, eighths));
  for_each_row<eighths, kind>(band, [&](int row, int64_t k, V units) {
    Isa::store(values + row * stride + k * Isa::kLanes, Isa::minus(units, low));
  });
}

template <int eighths, Kind kind>
void multiply(const Band& band, const int16_t* x, const int32_t* start, int64_t* totals) {
  A sums[kBand];
  for (A& sum : sums) sum = Isa::sums(start);
  for_each_row<eighths, kind>(band, [&](int row, int64_t k, V units) {
    sums[row] = Isa::add_products(sums[row], units, Isa::load(x + k * Isa::kLanes));
  });
  for (int row = 0; row < kBand; ++row) totals[row] += Isa::total(sums[row]);
}

using Decode = void (*)(const Band&, int16_t*, int64_t);
using Multiply = void (*)(const Band&, const int16_t*, const int32_t*, int64_t*);
struct Entry {
  Decode decode;
  Multiply multiply;
};

template <Kind kind, int first, int step, int... k>
const Entry& entry(int eighths, std::integer_sequence<int, k...>) {
  static constexpr Entry kEntries[] = {
      {decode<first + step * k, kind>, multiply<first + step * k, kind>}...};
  return kEntries[(eighths - first) / step];
}

Kind kind_of(int eighths, bool is_masked) {
  if (eighths > kMostEighths) return kGrid;
  return is_masked ? kMasked : kFlipped;
}

const Entry& entry(int eighths, bool is_masked) {
  constexpr auto curves = std::make_integer_sequence<int, kMostEighths - kLeastEighths + 1>();
  constexpr auto grids = std::make_integer_sequence<int, kMostGrid - kLeastGrid + 1>();
  switch (kind_of(eighths, is_masked)) {
    case kMasked: return entry<kMasked, kLeastEighths, 1>(eighths, curves);
    case kFlipped: return entry<kFlipped, kLeastEighths, 1>(eighths, curves);
    default: return entry<kGrid, 8 * kLeastGrid, 8>(eighths, grids);
  }
}

void decode_band(const Band& band, int eighths, int16_t* values, int64_t stride) {
  entry(eighths, band.is_masked).decode(band, values, stride);
}

void multiply_band(const Band& band, int eighths, const int16_t* x, const int32_t* start,
                   int64_t* totals) {
  entry(eighths, band.is_masked).multiply(band, x, start, totals);
}

void start_of(const int16_t* x, int64_t columns, int eighths, int32_t* start) {
  const V low = Isa::set(-least(kind_of(eighths, false), eighths));
  A sum = Isa::zero();
  for (int64_t k = 0; k < columns; k += Isa::kLanes)
    sum = Isa::add_products(sum, low, Isa::load(x + k));
  std::memcpy(start, &sum, sizeof(sum));
}

constexpr int kAtOnce = sizeof(V) == 64 ? 6 : 3;  // rows of inputs beside 4 of values
constexpr int kRows = 4;

// 4 rows of values with n rows of inputs, all sums in registers: hence whole loops unrolled.
template <int n>
INLINE void block(const int16_t* values, int64_t stride, const int16_t* x, int64_t x_stride,
                  int64_t columns, int64_t* totals) {
  constexpr int r = kRows;
  A sums[r][n];
#pragma GCC unroll 8
  for (int i = 0; i < r; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) sums[i][j] = Isa::zero();
  for (int64_t k = 0; k < columns; k += Isa::kLanes) {
    V own[r];
    for (int i = 0; i < r; ++i) own[i] = Isa::load(values + i * stride + k);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      const V input = Isa::load(x + j * x_stride + k);
#pragma GCC unroll 8
      for (int i = 0; i < r; ++i) {
        sums[i][j] = Isa::add_products(sums[i][j], own[i], input);
        Isa::keep(sums[i][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) Isa::add_totals(&sums[0][j], n, totals + j * kBand);
}

template <int n>
void some_rows(const int16_t* values, int64_t stride, const int16_t* x, int64_t x_stride,
               int64_t columns, int64_t* totals) {
  for (int i = 0; i < kBand; i += kRows)
    block<n>(values + i * stride, stride, x, x_stride, columns, totals + i);
}

void product(const int16_t* values, int64_t stride, const int16_t* x, int64_t x_stride, int64_t n,
             int64_t columns, int64_t* totals) {
  using Some = void (*)(const int16_t*, int64_t, const int16_t*, int64_t, int64_t, int64_t*);
  static constexpr Some kSome[] = {some_rows<1>, some_rows<2>, some_rows<3>,
                                   some_rows<4>, some_rows<5>, some_rows<6>};
  for (int64_t j = 0; j < n; j += kAtOnce) {
    const int64_t own = std::min<int64_t>(kAtOnce, n - j);
    kSome[own - 1](values, stride, x + j * x_stride, x_stride, columns, totals + j * kBand);
  }
}

// Sums are in one order on every processor, and nothing is contracted: the same bits everywhere.
void hadamard(float* x, int64_t size) {
  for (int64_t first = 0; first + 8 <= size; first += 8) {
    float* a = x + first;
    for (int half = 1; half < 8; half *= 2)
      for (int i = 0; i < 8; ++i)
        if (!(i & half)) {
          const float sum = a[i] + a[i + half];
          a[i + half] = a[i] - a[i + half];
          a[i] = sum;
        }
  }
  for (int64_t half = size < 8 ? 1 : 8; half < size; half *= 2) {
    for (int64_t first = 0; first < size; first += 2 * half) {
      float *a = x + first, *b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

// (size, m) becomes (m, size) meanwhile, so that neighbours are turned alike.
void turn(float* x, const float* cosine, bool is_inverse, int64_t n, int64_t m, float* scratch) {
  const int64_t size = n / m;
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
  for (int64_t k = 0; k < m; ++k) {
    float* own = scratch + k * size;
    for (int64_t i = 0; i < size; ++i) own[i] = x[i * m + k];
    hadamard(own, size);
    for (int64_t i = 0; i < size; ++i) own[i] *= scale;
  }
  if (m == 1) {
    std::copy(scratch, scratch + n, x);
    return;
  }
  float* sums = scratch + n;
  for (int64_t to = 0; to < m; ++to) {
    std::fill_n(sums, size, 0.0f);
    for (int64_t k = 0; k < m; ++k) {
      const float factor = cosine[is_inverse ? to * m + k : k * m + to];
      const float* own = scratch + k * size;
      for (int64_t i = 0; i < size; ++i) sums[i] += own[i] * factor;
    }
    for (int64_t i = 0; i < size; ++i) x[i * m + to] = sums[i];
  }
}

float quantize(const float* x, int64_t n, int64_t padded, int limit, int16_t* out) {
  float most = 0;
  bool is_finite = true;
  for (int64_t i = 0; i < n; ++i) {
    const float size = std::fabs(x[i]);
    most = size > most ? size : most;
    is_finite &= size <= std::numeric_limits<float>::max();
  }
  std::fill(out + n, out + padded, 0);
  const float up = limit / most;
  if (!is_finite || most == 0 || !(up <= std::numeric_limits<float>::max())) {
    std::fill_n(out, n, 0);  // nothing, or less than can be told from it
    return is_finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(std::nearbyint(x[i] * up));
  return most / limit;
}

}  // namespace

extern const Kernels EINSORT_KERNELS;
const Kernels EINSORT_KERNELS = {
    Isa::kName, Isa::kLanes, Isa::kSums, decode_band, multiply_band,
    start_of,     product,     turn,          quantize,
};

}  // namespace einsort
