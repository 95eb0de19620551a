// Decodes the `curve` form into fragments of the tensor cores: docs/format.md, "Decoding curve".
//
// A warp has the 128 outputs of a segment and 16 inputs at once. Lane 4 g + t has outputs 16 g to
// 16 g + 15 of inputs 4 t to 4 t + 3: neighbouring lanes read neighbouring words, and what a lane
// decodes is its part of the left factor of mma.m16n8k16, so that it stays in registers. Slots 2 t,
// 2 t + 1, 2 t + 8 and 2 t + 9 of a product's 16 stand for the inputs 4 t to 4 t + 3.

#pragma once

struct Matrix {
  const uint16_t* words;
  const unsigned char* scale;   // steps of each output
  float unit;                   // that they are counted from
  int n, k;                     // out_features, in_features; the latter a multiple of 4
  uint32_t factor, flip, mask;  // of a window's value; the mask has its bits
};

// Types of weights and activations. Values are exact in all of them.
enum class Type { kFloat, kHalf, kBFloat16 };  // as EinsortType of launch.h

template <int N>
struct alignas(N * 4) Vector {
  uint32_t at[N];
};

constexpr int kSegment = 128, kTileColumns = 32, kWordBits = 16;
constexpr int kInputs = 16, kPieces = kSegment / 16;  // of a fragment; pairs of outputs of a lane
constexpr int kMostCurve = 40;                        // eighths; above it a window is its value

DEVICE constexpr int words_of(int rows, int eighths) {
  return (rows * eighths / 8 + kWordBits - 1) / kWordBits;
}

// The factor of an output: a step of an eighth of an octave, whose mantissa has 24 bits.
DEVICE float row_scale(const Matrix& matrix, int output) {
  constexpr float kMantissas[] = {16777216, 15384775, 14107901, 12937002,
                                  11863283, 10878679, 9975792,  9147842};
  const int step = matrix.scale[output], down = 127 - (step & 127);
  if (down == 127) return 0;
  const float power = bits_to_float(uint32_t(127 - 24 - down / 8) << 23);
  const float scale = kMantissas[down % 8] * power * matrix.unit;
  return step & 128 ? -scale : scale;
}

// Values of the codes with E eighths of a bit, as pairs of 16 bits.
template <int E, Type type>
struct Decoder {
  static constexpr bool kIsGrid = E > kMostCurve;
  // Words that a lane's own bits, 2 E, begin somewhere in, and those that they fill from there on.
  static constexpr int kWords = E % 8 ? (2 * E + 14 + kWordBits - 1) / kWordBits : E / 8;
  static constexpr int kFilled = (2 * E + kWordBits - 1) / kWordBits;

  const Matrix& matrix;
  const uint32_t mask, flip;  // in registers, so that one instruction takes both
  const uint16_t* words;      // of the segment
  uint32_t at[kWords + 1];    // the word before the lane's own, and those; none beyond the end
  uint32_t n_words;           // of a column
  int phase;                  // bits of the lane's first word that are others'

  struct Words {
    Vector<2> at[kWords + 1];  // of four inputs, the first one below
  };

  DEVICE Decoder(const Matrix& matrix, int segment)
      : matrix(matrix), mask(in_register(matrix.mask)), flip(in_register(matrix.flip)) {
    const int first = segment * kSegment, group = threadIdx.x % 32 / 4;
    n_words = words_of(matrix.n - first < kSegment ? matrix.n - first : kSegment, E);
    words = matrix.words + int64_t(matrix.k) * segment * words_of(kSegment, E);
    phase = E % 8 ? 2 * (group * E % 8) : 0;
#pragma unroll
    for (int i = 0; i <= kWords; ++i) {
      const int word = group * E / 8 + i - 1;
      at[i] = word < 0 || word >= int(n_words) ? n_words - 1 : word;  // a stream is a ring
    }
  }

  // Words of 16 inputs from `first` on; of any value from matrix.k on.
  DEVICE void load(Words& to, uint32_t first) const {
    const uint32_t k = matrix.k, inside = first < k ? first : 0;
    const uint32_t tile = inside / kTileColumns * kTileColumns;
    const uint32_t width = k - tile < kTileColumns ? k - tile : kTileColumns;
    const uint32_t column = inside % kTileColumns + threadIdx.x % 4 * 4;
    const uint16_t* own = words + size_t(tile) * n_words + (column < width ? column : 0);
#pragma unroll
    for (int i = 0; i <= kWords; ++i)
      to.at[i] = *reinterpret_cast<const Vector<2>*>(own + at[i] * width);
  }

  struct Bits {
    uint32_t at[4][kFilled];  // of each input, 32 bits that end with word j of the lane's own
  };

  DEVICE Bits align(const Words& from) const {
    Bits bits;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      uint32_t pairs[kFilled + 2];
#pragma unroll
      for (int j = 0; j < kFilled + 2; ++j) {
        const uint32_t before = from.at[j < kWords ? j : kWords].at[c / 2];
        const uint32_t own = from.at[j + 1 < kWords ? j + 1 : kWords].at[c / 2];
        pairs[j] = c % 2 ? upper_halves(own, before) : lower_halves(own, before);
      }
#pragma unroll
      for (int j = 0; j < kFilled; ++j)
        bits.at[c][j] = E % 8 ? funnel(pairs[j], pairs[j + 2], phase) : pairs[j];
    }
    return bits;
  }

  // Calls use(i, a) with the fragments of outputs 2 i (a[0], a[2]) and 2 i + 1 of each lane's 16.
  template <typename Use>
  DEVICE void decode(const Bits& bits, Use use) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      uint32_t a[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int end = (2 * i + e % 2 + 1) * E / 8, word = (end - 1) / kWordBits;
        const int after = (word + 1) * kWordBits - end;
        a[e] = pair(bits.at[e / 2 * 2][word] >> after, bits.at[e / 2 * 2 + 1][word] >> after);
      }
      use(i, a);
    }
  }

 private:
  // Two values, by the second bytes of their counts and the top bytes, which make them numbers.
  DEVICE uint32_t pair(uint32_t low, uint32_t high) const {
    constexpr uint32_t top = type == Type::kHalf ? 0x64 : 0x43;
    const uint32_t both = odd_bytes(count(low, top << 24), count(high, top << 24));
    return type == Type::kHalf ? center_halves(both) : center_bfloats(both);
  }

  // 128 more than the value, in the second byte.
  DEVICE uint32_t count(uint32_t bits, uint32_t base) const {
    if (kIsGrid) return (bits & mask) * 256 + (base + (128 - (1 << (E / 8 - 1))) * 256);
    return add_bytes(((bits & mask) ^ flip) * matrix.factor, base + 256);
  }
};

// x as products take it: rows of 16 bits, `stride` numbers, a multiple of 16, with zeros from k on.
struct Inputs {
  const uint16_t* x;
  int64_t rows;
  int stride;

  // Where the lane's part of a right factor of 8 rows begins; any row in place of those beyond.
  DEVICE const unsigned char* row(int64_t first) const {
    const int64_t own = first + threadIdx.x % 32 / 4;
    const uint16_t* at = x + (own < rows ? own : rows - 1) * stride + threadIdx.x % 4 * 4;
    return reinterpret_cast<const unsigned char*>(at);
  }
  DEVICE Vector<2> load(const unsigned char* row, int input) const {
    if (input >= stride) return {};
    return *reinterpret_cast<const Vector<2>*>(row + uint32_t(2 * input));
  }
};

DEVICE uint16_t round_to(Type type, float value) {
  return type == Type::kHalf ? float_to_half(value) : float_to_bfloat(value);
}

DEVICE void store(void* to, int64_t at, Type type, float value) {
  if (type == Type::kFloat) {
    static_cast<float*>(to)[at] = value;
  } else {
    static_cast<uint16_t*>(to)[at] = round_to(type, value);
  }
}

// Four neighbours, at a multiple of four.
DEVICE void store_four(void* to, int64_t at, Type type, const float (&values)[4]) {
  if (type == Type::kFloat) {
    reinterpret_cast<Vector<4>*>(static_cast<float*>(to) + at)[0] = {
        float_to_bits(values[0]), float_to_bits(values[1]), float_to_bits(values[2]),
        float_to_bits(values[3])};
  } else {
    uint16_t four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = round_to(type, values[i]);
    reinterpret_cast<Vector<2>*>(static_cast<uint16_t*>(to) + at)[0] = {
        four[0] | uint32_t(four[1]) << 16, four[2] | uint32_t(four[3]) << 16};
  }
}
