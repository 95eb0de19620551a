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

// An activation or a magnitude.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(Half value) { return half_to_float(value.bits); }
DEVICE float to_float(BFloat16 value) { return bfloat_to_float(value.bits); }
DEVICE void round_to(float& out, float value) { out = value; }
DEVICE void round_to(Half& out, float value) { out.bits = float_to_half(value); }
DEVICE void round_to(BFloat16& out, float value) { out.bits = float_to_bfloat(value); }

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Row {
  T at[N];
};

DEVICE constexpr int log2_of(int n) { return n == 1 ? 0 : 1 + log2_of(n / 2); }

// The table in shared memory: `copies` of each row side by side, one for each bank where they fit,
// so that lanes that look up different rows seldom wait for each other.
template <typename T, int D>
struct Table {
  static constexpr int kLogRow = log2_of(sizeof(T) * D);
  const unsigned char* rows;
  int shift;              // log2 of the bytes of all copies of a row
  uint32_t mask, copy;    // of a row's place, in bytes
  int rotation, b;

  DEVICE Table(const Matrix& matrix, const void* memory)
      : rows(static_cast<const unsigned char*>(memory)),
        shift(matrix.log_copies + kLogRow),
        mask(((1u << (matrix.s + matrix.b)) - 1) << shift),
        copy((threadIdx.x & ((1 << matrix.log_copies) - 1)) << kLogRow),
        rotation(matrix.s + matrix.b + shift),
        b(matrix.b) {}

  // The row of window `i` of a word, whose first window is on top.
  DEVICE Row<T, D> row(uint32_t word, int i) const {
    const uint32_t place = (funnel(word, word, rotation + i * b) & mask) | copy;
    return *reinterpret_cast<const Row<T, D>*>(rows + place);
  }
};

template <typename T, int D>
DEVICE void fill_table(const Matrix& matrix, void* memory, int threads) {
  Row<T, D>* rows = static_cast<Row<T, D>*>(memory);
  const int n = 1 << (matrix.s + matrix.b), copies = 1 << matrix.log_copies;
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += threads) {
    Row<T, D> row;
#pragma unroll
    for (int e = 0; e < D; ++e) round_to(row.at[e], matrix.table[i * D + e]);
    // Neighbouring threads begin at different copies, in different banks.
#pragma unroll 1
    for (int c = 0; c < copies; ++c) rows[(i << matrix.log_copies) + ((c + i) & (copies - 1))] = row;
  }
}

struct Words {
  uint32_t first, second;

  DEVICE void load(const uint32_t* words) {
    first = load_word(words);
    second = load_word(words + 1);
  }
  // The 32 bits from bit `offset` mod 32 of the first word on, the first bit on top.
  DEVICE uint32_t from(int offset) const {
    return funnel(swap_bytes(first), swap_bytes(second), offset);
  }
};

// R outputs of one input, in groups of G slices whose windows lie in 32 bits together. Loading and
// decoding are apart, so that the next strip is on its way while one is decoded.
template <int D, int Slices, int R>
struct Strip {
  static constexpr int kMost = R / D;
  static constexpr int G = Slices < kMost ? Slices : kMost;
  static constexpr int kGroups = kMost / G;

  Words signs, indices[kGroups], tail;
  int sign_offset, index_offset, tail_offset;

  // input < matrix.k; outputs from `output`, a multiple of R, on. Those from n on are of any value.
  DEVICE void load(const Matrix& matrix, int input, int output) {
    const int inside = output < matrix.n ? output : matrix.n - 1;
    const int64_t sign = int64_t(input) * matrix.n + inside;
    signs.load(matrix.signs + (sign >> 5));
    sign_offset = int(sign & 31);
    const int length = (matrix.n + D - 1) / D * matrix.b;
    const int64_t column = int64_t(input) * length;
    const uint32_t* words = matrix.indices + (column >> 5);
    index_offset = int(column & 31);
#pragma unroll
    for (int group = 0; group < kGroups; ++group)
      indices[group].load(words + ((index_offset + place(matrix, output, group)) >> 5));
    if (wraps(matrix, output)) {
      tail_offset = index_offset + length - matrix.s;
      tail.load(words + (tail_offset >> 5));
    }
  }

  // Calls use(i, row) for slice i of the strip, its row of magnitudes in the table.
  template <typename T, typename Use>
  DEVICE void decode(const Matrix& matrix, const Table<T, D>& table, int output, Use use) const {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      uint32_t word = indices[group].from(index_offset + place(matrix, output, group));
      const int missing = -first_bit(matrix, output, group);
      if (missing > 0) word = (word >> missing) | last_bits(matrix, missing);
#pragma unroll
      for (int i = 0; i < G; ++i) use(group * G + i, table.row(word, i));
    }
  }

  // The sign of output i of the strip is bit 31 - i.
  DEVICE uint32_t sign_bits() const { return signs.from(sign_offset); }

 private:
  // Of a group's first window in its column; negative where it begins in the column's tail.
  DEVICE static int first_bit(const Matrix& matrix, int output, int group) {
    return (output / D + group * G) * matrix.b - matrix.s;
  }

  DEVICE static bool wraps(const Matrix& matrix, int output) {
    return first_bit(matrix, output, 0) < 0 && (matrix.n + D - 1) / D * matrix.b >= matrix.s;
  }

  // Where in its column a group is loaded: never beyond the last slice's window.
  DEVICE static int place(const Matrix& matrix, int output, int group) {
    const int first = first_bit(matrix, output, group);
    const int last = ((matrix.n + D - 1) / D - 1) * matrix.b - matrix.s;
    const int inside = first < last ? first : last;
    return inside < 0 ? 0 : inside;
  }

  // The column's last `missing` bits, on top; zeros if it has fewer than s.
  DEVICE uint32_t last_bits(const Matrix& matrix, int missing) const {
    if ((matrix.n + D - 1) / D * matrix.b < matrix.s) return 0;
    return (tail.from(tail_offset) << (matrix.s - missing)) & ~(0xffffffffu >> missing);
  }
};
