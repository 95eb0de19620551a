// The search of the curve code (search.py defines it), for streams of 16-bit costs.
//
// A step adds B bits to all windows at once. Windows that differ in their oldest B bits lead to the
// same next ones: the best of them is found by a knock-out over vectors, is repeated 2^B times, and
// the errors of the 2^B windows it may become are added. What was dropped is packed into 16-bit
// fields, some vectors above each other.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512BW__
constexpr int kLanes = 32;
#else
constexpr int kLanes = 16;
#endif
typedef int16_t Vec __attribute__((vector_size(2 * kLanes)));

constexpr int16_t kMost = INT16_MAX;  // search.py: MOST
constexpr int16_t kNoTarget = kMost;  // search.py: NO_TARGET
constexpr int kMostNew = 5;           // search.py: MOST_NEW
constexpr int kFiner = 8;             // search.py: FINER
constexpr int kWord = 16, kPeriod = 8;

Vec load(const int16_t* from) {
  return *reinterpret_cast<const Vec*>(from);
}
Vec least_of(Vec a, Vec b) {
  return a < b ? a : b;
}
Vec all(int16_t value) {
  return (Vec){} + value;
}

// Sums and differences that saturate, and the upper half of a product.
#if defined(__AVX512BW__)
#define EINSORT_EACH(name) return (Vec)_mm512_##name((__m512i)a, (__m512i)b)
#elif defined(__AVX2__)
#define EINSORT_EACH(name) return (Vec)_mm256_##name((__m256i)a, (__m256i)b)
#endif
#ifdef EINSORT_EACH
Vec plus(Vec a, Vec b) {
  EINSORT_EACH(adds_epi16);
}
Vec minus(Vec a, Vec b) {
  EINSORT_EACH(subs_epi16);
}
Vec high_of_square(Vec a) {
  const Vec b = a;
  EINSORT_EACH(mulhi_epi16);
}
#else
int16_t saturated(int value) {
  return std::clamp<int>(value, INT16_MIN, INT16_MAX);
}
Vec plus(Vec a, Vec b) {
  for (int i = 0; i < kLanes; ++i) a[i] = saturated(a[i] + b[i]);
  return a;
}
Vec minus(Vec a, Vec b) {
  for (int i = 0; i < kLanes; ++i) a[i] = saturated(a[i] - b[i]);
  return a;
}
Vec high_of_square(Vec a) {
  for (int i = 0; i < kLanes; ++i) a[i] = a[i] * a[i] >> 16;
  return a;
}
#endif

int16_t least_lane(Vec own) {
  int16_t lanes[kLanes];  // a vector whose lanes are asked for one by one would live in memory
  std::memcpy(lanes, &own, sizeof own);
  return *std::min_element(lanes, lanes + kLanes);
}

// Bits of a field that holds B, and vectors whose fields lie above each other.
constexpr int field(int b) {
  return b <= 1 ? 1 : b <= 2 ? 2 : b <= 4 ? 4 : 8;
}
constexpr int group(int b) {
  return kWord / field(b);
}

// Vector `part` of 2^B in which each lane of `best` is repeated 2^B times.
template <int B, int part>
Vec repeated(Vec best) {
  Vec lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = (part * kLanes + i) >> B;
  return __builtin_shuffle(best, lanes);
}

template <int B, int zoom, int part = 0>
inline void add_errors(Vec best, Vec target, const int16_t* table, int16_t* costs) {
  Vec apart = minus(target, load(table + part * kLanes));
  for (int i = 0; i < zoom; ++i) apart = plus(apart, apart);
  const Vec cost = plus(repeated<B, part>(best), high_of_square(apart));
  *reinterpret_cast<Vec*>(costs + part * kLanes) = cost;
  if constexpr (part + 1 < (1 << B)) add_errors<B, zoom, part + 1>(best, target, table, costs);
}

// The least cost over the oldest B bits, of which `choice` tells which they were.
template <int B>
inline Vec knock_out(const int16_t* costs, int n_kept, Vec* choice) {
  constexpr int kHalf = 1 << (B - 1);
  Vec cost[kHalf], own[kHalf];
  for (int h = 0; h < kHalf; ++h) {
    const Vec first = load(costs + 2 * h * n_kept), second = load(costs + (2 * h + 1) * n_kept);
    own[h] = all(2 * h) - static_cast<Vec>(second < first);
    cost[h] = least_of(first, second);
  }
  for (int n = kHalf / 2; n >= 1; n /= 2)
    for (int h = 0; h < n; ++h) {
      own[h] = cost[2 * h + 1] < cost[2 * h] ? own[2 * h + 1] : own[2 * h];
      cost[h] = least_of(cost[2 * h], cost[2 * h + 1]);
    }
  *choice = own[0];
  return cost[0];
}

// One row: costs of all windows after it, what each of them dropped, and the least of the costs
// before it, less `lag`.
template <int B, int zoom>
int16_t step(int16_t target, const int16_t* __restrict table, int window, int16_t lag,
             const int16_t* __restrict costs, int16_t* __restrict after, int16_t* dropped) {
  const int n_kept = 1 << (window - B);
  Vec least = all(kMost);
  for (int first = 0; first < n_kept; first += kLanes * group(B)) {
    Vec packed = {};
    for (int kept = first; kept < std::min(n_kept, first + kLanes * group(B)); kept += kLanes) {
      Vec choice;
      Vec best = knock_out<B>(costs + kept, n_kept, &choice);
      packed = (packed << field(B)) | choice;
      best = best - lag;
      least = least_of(least, best);
      add_errors<B, zoom>(best, all(target), table + (kept << B), after + (kept << B));
    }
    *reinterpret_cast<Vec*>(dropped) = packed;
    dropped += kLanes;
  }
  return least_lane(least);
}

// What a window dropped whose older bits are `kept`.
int look_up(const int16_t* dropped, int kept, int n_kept, int b) {
  const int vector = kept / kLanes, of = vector / group(b);
  const int filled = std::min(group(b), n_kept / kLanes - of * group(b));
  const int above = filled - 1 - vector % group(b);
  const uint16_t fields = dropped[of * kLanes + kept % kLanes];
  return (fields >> above * field(b)) & ((1 << b) - 1);
}

int8_t new_bits(int64_t row, int eighths) {
  const int phase = row % kPeriod;
  return (phase + 1) * eighths / kPeriod - phase * eighths / kPeriod;
}

int64_t words_of(int64_t rows, int eighths) {
  return (rows * eighths / kPeriod + kWord - 1) / kWord;
}

int16_t* aligned(std::vector<int16_t>& memory, size_t n) {
  memory.resize(n + 64);
  return reinterpret_cast<int16_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 127) & ~127ull);
}

struct Target {
  int16_t value;
  int8_t bits;  // that the row adds
};

class Searcher {
 public:
  Searcher(const int8_t* curve, int window, int zoom, int64_t most_steps)
      : window_(window), zoom_(zoom), per_row_((size_t{1} << window) / 32 + kLanes) {
    const size_t n = size_t{1} << window;
    table_ = aligned(memory_[0], n);
    for (size_t i = 0; i < n; ++i) table_[i] = curve[i] * (1 << kFiner);
    costs_ = aligned(memory_[1], n);
    after_ = aligned(memory_[2], n);
    dropped_ = aligned(memory_[3], per_row_ * most_steps);
    zeros_ = aligned(memory_[4], n);
    std::fill_n(zeros_, n, 0);
  }

  // The best path over steps; see viterbi in search.py.
  const std::vector<int>& find(const std::vector<Target>& steps, int before = -1, int left = 0) {
    const size_t all_windows = size_t{1} << window_;
    const int64_t n = steps.size();
    std::fill_n(costs_, all_windows, before < 0 ? 0 : kMost);
    if (before >= 0) costs_[before] = 0;
    int16_t lag = 0;
    for (int64_t k = 0; k < n; ++k) {
      const bool is_free = steps[k].value == kNoTarget;
      lag = step_of(steps[k].bits)(is_free ? 0 : steps[k].value, is_free ? zeros_ : table_, window_,
                                   lag, costs_, after_, dropped_ + k * per_row_);
      std::swap(costs_, after_);
    }
    path_.resize(n + 1);
    path_[n] = best_end(before, left);
    for (int64_t k = n - 1; k >= 0; --k) {
      const int b = steps[k].bits, kept = path_[k + 1] >> b;
      const int choice = look_up(dropped_ + k * per_row_, kept, 1 << (window_ - b), b);
      path_[k] = (choice << (window_ - b)) | kept;
    }
    return path_;
  }

 private:
  using Step = int16_t (*)(int16_t, const int16_t*, int, int16_t, const int16_t*, int16_t*,
                           int16_t*);
  template <int zoom>
  static Step zoomed(int b) {
    constexpr Step kSteps[] = {step<1, zoom>, step<2, zoom>, step<3, zoom>, step<4, zoom>,
                               step<5, zoom>};
    return kSteps[b - 1];
  }
  Step step_of(int b) const {
    return zoom_ == 0 ? zoomed<0>(b) : zoom_ == 1 ? zoomed<1>(b) : zoomed<2>(b);
  }

  int best_end(int before, int left) const {
    const int n = 1 << window_;
    if (before < 0 || left >= window_) return std::min_element(costs_, costs_ + n) - costs_;
    const int stride = 1 << (window_ - left);
    int best = before >> left;
    for (int end = best; end < n; end += stride)
      if (costs_[end] < costs_[best]) best = end;
    return best;
  }

  int window_, zoom_;
  size_t per_row_;
  std::vector<int16_t> memory_[5];
  int16_t *table_, *costs_, *after_, *dropped_, *zeros_;
  std::vector<int> path_;
};

// The words of a stream, and the values that are read from them.
void write(const std::vector<int>& path, int before, int64_t rows, int eighths, int window,
           const int8_t* curve, int64_t n_words, int32_t* words, int8_t* values) {
  std::fill_n(words, n_words, 0);
  int64_t end = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int b = new_bits(row, eighths);
    const uint32_t own = path[row + 1] & ((1 << b) - 1);
    end += b;
    const int64_t word = (end - 1) / kWord;
    const uint32_t moved = own << (kWord * (word + 1) - end);
    words[word] |= moved & 0xFFFF;
    if (moved >> kWord) words[word - 1] |= moved >> kWord;
  }
  const int left = kWord * n_words - end;
  words[n_words - 1] |= before & ((1 << left) - 1);
  end = 0;
  for (int64_t row = 0; row < rows; ++row) {
    end += new_bits(row, eighths);
    const int64_t word = (end - 1) / kWord;
    const uint32_t pair = static_cast<uint32_t>(words[word ? word - 1 : n_words - 1]) << kWord |
                          static_cast<uint32_t>(words[word]);
    values[row] = curve[(pair >> (kWord * (word + 1) - end)) & ((1u << window) - 1)];
  }
}

}  // namespace

// See native.py.
extern "C" void einsort_search_curve(const int16_t* targets, int64_t n, int64_t rows,
                                     const int8_t* curve, int window, int zoom, int eighths,
                                     int64_t segment, int64_t beyond, int32_t* words,
                                     int8_t* values, int n_threads) {
  const int64_t n_segments = (rows + segment - 1) / segment;
  const int64_t words_a_segment = words_of(segment, eighths);
  const int64_t words_a_column = (n_segments - 1) * words_a_segment +
                                 words_of(rows - (n_segments - 1) * segment, eighths);
#pragma omp parallel num_threads(n_threads) if (n * n_segments > 1 && n_threads > 1)
  {
    Searcher searcher(curve, window, zoom, std::min(rows, segment) + beyond + kWord);
    std::vector<Target> steps, lap;
    std::vector<int> path;
#pragma omp for schedule(dynamic, 1)
    for (int64_t k = 0; k < n * n_segments; ++k) {
      const int64_t column = k / n_segments, first = k % n_segments * segment;
      const int64_t own_rows = std::min(segment, rows - first), n_words = words_of(own_rows, eighths);
      const int64_t near = std::min(beyond, own_rows);
      const int left = kWord * n_words - own_rows * eighths / kPeriod;
      steps.clear();
      for (int64_t row = 0; row < own_rows; ++row)
        steps.push_back({targets[column * rows + first + row], new_bits(row, eighths)});
      lap = steps;
      for (int free = left; free > 0; free -= kMostNew)
        lap.push_back({kNoTarget, static_cast<int8_t>(std::min(free, kMostNew))});
      const size_t n_lap = lap.size();
      lap.insert(lap.end(), steps.begin(), steps.begin() + near);
      path = searcher.find(lap);
      const int before = path[n_lap];
      // Where it passes the same window in both laps, what lies between is the best ring.
      const int64_t half = near / 2;
      if (path[half] == path[n_lap + half])
        std::copy_n(path.begin() + n_lap, half, path.begin());
      else
        path = searcher.find(steps, before, left);
      write(path, before, own_rows, eighths, window, curve, n_words,
            words + column * words_a_column + k % n_segments * words_a_segment,
            values + column * rows + first);
    }
  }
}
