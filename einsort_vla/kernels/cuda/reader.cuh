// How kernels read a strip of R outputs, with rows of the table as Entries<T, D>: as any matrix has
// to be read, or faster, where words and columns begin together.

#pragma once

#include "decode.cuh"

template <typename T, int D, int G, int Outputs>
struct AnyReader {
  static constexpr int R = Outputs, kSlice = D;
  static constexpr bool kWhole = false;  // whether all R outputs of any strip are there, or none
  using Row = Entries<T, D>;
  using Words = Strip<D, G, R>;
  ::Outputs<D, G, R> own;
  Table<T, D> table;

  DEVICE AnyReader(const Matrix& matrix, Type16 type, int first, void* memory, int threads)
      : own(matrix, first), table(matrix, type, memory, threads) {}

  DEVICE void load(Words& words, int input) const { words.load(own, input); }

  // The sign of output i is bit 31 - i.
  DEVICE uint32_t signs(const Words& words) const { return words.sign_bits(); }

  // Calls use(i, row) for slice i.
  template <typename Use>
  DEVICE void decode(const Words& words, Use&& use) const {
    words.decode(own, table, use);
  }
};

// For windows of 8 bits, and matrices of which n and the bits of a column are multiples of 32. A
// row of the table begins every 256 bytes, so that a window in the second byte of a place, beside
// the lane's own copy in the first, is the place of its row.
template <typename T, int D, int B, int Outputs>
struct AlignedReader {
  static constexpr int R = Outputs, kSlice = D;
  static constexpr bool kWhole = true;
  using Row = Entries<T, D>;
  static constexpr int S = 8 - B, kBits = R / D * B;
  static constexpr int kLoaded = 1 + (kBits + 31) / 32, kUsed = (S + kBits + 31) / 32;
  static constexpr int kLogStride = 8, kRow = sizeof(Row);
  static constexpr int kCopies = kRow < 8 ? 32 : 256 / kRow;

  struct Words {
    uint32_t signs, indices[kLoaded];
  };
  const uint32_t *sign, *head, *rest;  // of the first input; head: one word, the tail at the start
  const unsigned char* rows;
  uint32_t copy;
  int sign_words, index_words;  // of a column
  int sign_offset, index_offset, last_input;

  DEVICE AlignedReader(const Matrix& matrix, Type16 type, int first, void* memory, int threads)
      : rows(static_cast<const unsigned char*>(memory)),
        copy(threadIdx.x % kCopies * kRow),
        sign_words(matrix.n / 32),
        index_words(matrix.n / D * B / 32),
        last_input(matrix.k - 1) {
    const int inside = first < matrix.n ? first : matrix.n - R;
    const int bit = inside / D * B - S;
    const int word = (bit + 32) / 32 - 1;
    sign = matrix.signs + inside / 32;
    sign_offset = inside % 32;
    head = matrix.indices + (word < 0 ? index_words - 1 : word);
    rest = matrix.indices + word + 1;
    index_offset = bit & 31;
    fill_table<T, D>(matrix, type, memory, kCopies, kLogStride, threads);
  }

  DEVICE void load(Words& words, int input) const {
    const int inside = input < last_input ? input : last_input;
    words.signs = load_word(sign + uint32_t(inside * sign_words));
    const uint32_t column = inside * index_words;
    words.indices[0] = load_word(head + column);
#pragma unroll
    for (int i = 1; i < kLoaded; ++i) words.indices[i] = load_word(rest + column + (i - 1));
  }

  DEVICE uint32_t signs(const Words& words) const {
    const uint32_t word = swap_bytes(words.signs);
    return R < 32 ? word << sign_offset : word;
  }

  template <typename Use>
  DEVICE void decode(const Words& words, Use&& use) const {
    uint32_t loaded[kLoaded], bits[kUsed + 1] = {};  // the first window on top
#pragma unroll
    for (int i = 0; i < kLoaded; ++i) loaded[i] = swap_bytes(words.indices[i]);
#pragma unroll
    for (int i = 0; i < kUsed; ++i)
      bits[i] = funnel(loaded[i], loaded[i + 1 < kLoaded ? i + 1 : i], index_offset);
#pragma unroll
    for (int slice = 0; slice < R / D; ++slice) {
      const int word = slice * B / 32, bit = slice * B % 32;
      const uint32_t turned = funnel(bits[word], bits[word + 1], bit % 8);
      const uint32_t place = place_of(turned, 3 - bit / 8, copy);
      use(slice, *reinterpret_cast<const Row*>(rows + place));
    }
  }
};
