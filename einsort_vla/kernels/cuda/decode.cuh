// Decodes strips of the `leader` form: the weights of one input and R neighbouring outputs.
// docs/format.md, "Decoding leader", has every bit.

#pragma once

struct Matrix {
  const uint32_t *signs, *indices;  // words in the file's byte order, a word of zeros at the end
  const float* table;               // (2^(s+b), d)
  int n, k;                         // out_features, in_features
  int b, s;
  int log_copies;                   // of each row of the table in shared memory
};

// A number of 16 bits: an activation, or a scale. Kernels for them are told which type it is.
enum class Type16 { kHalf = 1, kBFloat16 = 2 };  // as EinsortType of launch.h

struct Bits16 {
  uint16_t at;
};

DEVICE Bits16 round_to(Type16 type, float value) {
  return {type == Type16::kHalf ? float_to_half(value) : float_to_bfloat(value)};
}

DEVICE void store(float* place, Type16, float value) { *place = value; }
DEVICE void store(Bits16* place, Type16 type, float value) { *place = round_to(type, value); }

// sum += a b by tensor cores; see ptx.cuh.
template <Type16 type>
DEVICE void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if (type == Type16::kHalf) {
    multiply_half(sum, a, b0, b1);
  } else {
    multiply_bfloat(sum, a, b0, b1);
  }
}

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Row {
  T at[N];
};

DEVICE constexpr int log2_of(int n) { return n == 1 ? 0 : 1 + log2_of(n / 2); }

// What a row of the table becomes: the magnitudes of a slice as float32, or in pairs of 16 bits,
// the one of the lower output below. With d = 1 a pair has one magnitude twice.
template <typename T, int D>
struct Magnitudes {
  using Entry = float;
  static constexpr int kEntries = D;
  DEVICE static float entry(Type16, const float* row, int i) { return row[i]; }
};

template <int D>
struct Magnitudes<Bits16, D> {
  using Entry = uint32_t;
  static constexpr int kEntries = (D + 1) / 2;
  DEVICE static uint32_t entry(Type16 type, const float* row, int i) {
    const Bits16 low = round_to(type, row[i * 2 % D]), high = round_to(type, row[(i * 2 + 1) % D]);
    return low.at | uint32_t(high.at) << 16;
  }
};

template <typename T, int D>
using Entries = Row<typename Magnitudes<T, D>::Entry, Magnitudes<T, D>::kEntries>;

// Copies of the table's rows, a row every 2^log_stride bytes.
template <typename T, int D>
DEVICE void fill_table(const Matrix& matrix, Type16 type, void* memory, int copies, int log_stride,
                       int threads) {
  const int n = 1 << (matrix.s + matrix.b);
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += threads) {
    Entries<T, D> row;
#pragma unroll
    for (int e = 0; e < Magnitudes<T, D>::kEntries; ++e)
      row.at[e] = Magnitudes<T, D>::entry(type, matrix.table + i * D, e);
    auto* to = reinterpret_cast<Entries<T, D>*>(static_cast<unsigned char*>(memory) +
                                                (i << log_stride));
    // Neighbouring threads begin at different copies, in different banks.
#pragma unroll 4
    for (int c = 0; c < copies; ++c) to[(c + i) & (copies - 1)] = row;
  }
}

// The table in shared memory: copies of each row side by side, one for each bank where they fit, so
// that lanes that look up different rows seldom wait for each other.
template <typename T, int D>
struct Table {
  const unsigned char* rows;
  int shift;              // log2 of the bytes of all copies of a row
  uint32_t mask, copy;    // of a row's place, in bytes
  int rotation, b;

  // Fills `memory`; the threads have to wait for each other before they read.
  DEVICE Table(const Matrix& matrix, Type16 type, void* memory, int threads)
      : rows(static_cast<const unsigned char*>(memory)),
        shift(matrix.log_copies + log2_of(sizeof(Entries<T, D>))),
        mask(((1u << (matrix.s + matrix.b)) - 1) << shift),
        copy((threadIdx.x & ((1 << matrix.log_copies) - 1)) * sizeof(Entries<T, D>)),
        rotation(matrix.s + matrix.b + shift),
        b(matrix.b) {
    fill_table<T, D>(matrix, type, memory, 1 << matrix.log_copies, shift, threads);
  }

  // The rows of N windows, of which the first is on top of `word`, by use(i, row).
  template <int N, typename Use>
  DEVICE void look_up(uint32_t word, Use use) const {
    word = funnel(word, word, rotation);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      use(i, *reinterpret_cast<const Entries<T, D>*>(rows + ((word & mask) | copy)));
      word = funnel(word, word, b);
    }
  }
};

// What a block has to read, brought to the L2 cache.
template <int D>
DEVICE void prefetch_streams(const Matrix& matrix, int first, int outputs, int begin, int end,
                             int threads) {
  const int64_t length = (matrix.n + D - 1) / D * matrix.b, last = (matrix.k * length - 1) >> 5;
#pragma unroll 1
  for (int input = begin + threadIdx.x; input < end; input += threads) {
    prefetch(matrix.signs + ((int64_t(input) * matrix.n + first) >> 5));
#pragma unroll 1
    for (int bit = 0; bit < outputs / D * matrix.b; bit += 1024) {
      const int64_t word = (input * length + first / D * matrix.b + bit) >> 5;
      prefetch(matrix.indices + (word < last ? word : last));
    }
  }
}

struct Words {
  uint32_t first, second;

  // Words `at` and `at` + 1; the last ones in place of any that are beyond.
  DEVICE void load(const uint32_t* words, uint32_t at, uint32_t last) {
    const uint32_t* own = words + (at < last ? at : last);
    first = load_word(own);
    second = load_word(own + 1);
  }
  // The 32 bits from bit `offset` mod 32 of the first word on, the first bit on top.
  DEVICE uint32_t from(int offset) const {
    return funnel(swap_bytes(first), swap_bytes(second), offset);
  }
};

// R outputs, the same of every input, in groups of G slices whose windows lie in 32 bits together.
template <int D, int Slices, int R>
struct Outputs {
  static constexpr int kMost = R / D;
  static constexpr int G = Slices < kMost ? Slices : kMost;
  static constexpr int kGroups = kMost / G;

  const Matrix& matrix;
  int first;                       // output, a multiple of R
  int length;                      // bits of a column of the index stream
  int first_bit;                   // of the first window in its column; negative: in its tail
  uint32_t last_sign, last_index;  // words, but for the one of zeros
  bool wraps;

  // Outputs from matrix.n on are of any value.
  DEVICE Outputs(const Matrix& matrix, int first)
      : matrix(matrix),
        first(first),
        length((matrix.n + D - 1) / D * matrix.b),
        first_bit(first / D * matrix.b - matrix.s),
        last_sign(uint32_t((int64_t(matrix.k) * matrix.n - 1) >> 5)),
        last_index(uint32_t((int64_t(matrix.k) * length - 1) >> 5)),
        wraps(first_bit < 0 && length >= matrix.s) {}

  // Of a group's first window; negative where it begins in the column's tail.
  DEVICE int bit(int group) const { return first_bit + group * G * matrix.b; }
};

// The weights of one input and R outputs. Loading and decoding are apart, so that the next strip is
// on its way while one is decoded.
template <int D, int Slices, int R>
struct Strip {
  using Own = Outputs<D, Slices, R>;
  Words signs, indices[Own::kGroups], tail;
  int sign_offset, index_offset;

  // An input from matrix.k on is of any value.
  DEVICE void load(const Own& own, int input) {
    const Matrix& matrix = own.matrix;
    const int64_t sign = int64_t(input) * matrix.n + own.first;
    signs.load(matrix.signs, uint32_t(sign >> 5), own.last_sign);
    sign_offset = int(sign);
    const int64_t column = int64_t(input) * own.length;
    const uint32_t word = uint32_t(column >> 5);
    index_offset = int(column & 31);
    const auto load_from = [&](Words& words, int bit) {
      words.load(matrix.indices, word + ((index_offset + bit) >> 5), own.last_index);
    };
#pragma unroll
    for (int group = 0; group < Own::kGroups; ++group)
      load_from(indices[group], own.bit(group) < 0 ? 0 : own.bit(group));
    if (own.wraps) load_from(tail, own.length - matrix.s);
  }

  // Calls use(i, row) for slice i of the strip, its row of magnitudes in the table.
  template <typename T, typename Use>
  DEVICE void decode(const Own& own, const Table<T, D>& table, Use&& use) const {
#pragma unroll
    for (int group = 0; group < Own::kGroups; ++group) {
      const int bit = own.bit(group);
      uint32_t word = indices[group].from(index_offset + (bit < 0 ? 0 : bit));
      if (bit < 0) word = (word >> -bit) | last_bits(own, -bit);
      table.template look_up<Own::G>(
          word, [&](int i, const Entries<T, D>& row) { use(group * Own::G + i, row); });
    }
  }

  // The sign of output i of the strip is bit 31 - i.
  DEVICE uint32_t sign_bits() const { return signs.from(sign_offset); }

 private:
  // The column's last `missing` bits, on top; zeros if it has fewer than s.
  DEVICE uint32_t last_bits(const Own& own, int missing) const {
    const int s = own.matrix.s;
    if (!own.wraps) return 0;
    return (tail.from(index_offset + own.length - s) << (s - missing)) & ~(0xffffffffu >> missing);
  }
};

// Signs of pairs of 16 bits.
struct PairSigns {
  uint32_t upper, lower;

  // `signs` has that of output i as bit 31 - i.
  DEVICE explicit PairSigns(uint32_t signs)
      : upper(upper_halves(signs, signs << 1)), lower(lower_halves(signs, signs << 1)) {}
  // Of outputs 2 i and 2 i + 1.
  DEVICE uint32_t flip(int i, uint32_t pair) const {
    return pair ^ ((i < 8 ? upper : lower) << (2 * (i % 8)) & 0x80008000u);
  }
};

// Takes slices one after the other, gives use(i, pair): outputs 2 i and 2 i + 1 with their signs,
// the former in the lower half.
template <int D, typename Use>
struct Pairs {
  const PairSigns signs;
  Use use;
  uint32_t held = 0;

  DEVICE Pairs(uint32_t signs, Use use) : signs(signs), use(use) {}

  DEVICE void operator()(int slice, const Entries<Bits16, D>& magnitudes) {
    if constexpr (D == 1) {
      if (slice % 2) use(slice / 2, signs.flip(slice / 2, lower_halves(held, magnitudes.at[0])));
      held = magnitudes.at[0];
    } else {
#pragma unroll
      for (int e = 0; e < D / 2; ++e) {
        const int i = slice * (D / 2) + e;
        use(i, signs.flip(i, magnitudes.at[e]));
      }
    }
  }
};
