// In place of ptx.cuh: lets a C++ compiler make host code of leader.cu. A CUDA thread is a fiber;
// it runs until it waits for others, so what it may not rely on, another order of threads, is
// tried at every block. The layouts of fragments are those of the PTX manual.

#pragma once
#define EINSORT_EMULATED

#include <cstdint>
#include <cstdlib>
#include <cstring>

#define DEVICE inline
#define KERNEL(threads, blocks) extern "C" void

struct Index {
  unsigned x, y, z;
};

namespace emulation {
extern Index thread, block, grid;
extern unsigned char* shared;
void sync_block();
void sync_warp();

// What the lanes of one warp give to each other.
struct Lane {
  const void* row;
  uint32_t a[4], b[2];
};
Lane* warp();  // 32 of them
}  // namespace emulation

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define gridDim emulation::grid

inline void __syncthreads() { emulation::sync_block(); }
inline unsigned char* shared_memory() { return emulation::shared; }

inline uint32_t load_word(const uint32_t* word) { return *word; }
inline uint32_t swap_bytes(uint32_t word) { return __builtin_bswap32(word); }
inline uint32_t funnel(uint32_t high, uint32_t low, int shift) {
  const int own = shift & 31;
  return own ? high << own | low >> (32 - own) : high;
}

inline uint32_t upper_halves(uint32_t low, uint32_t high) {
  return low >> 16 | (high & 0xffff0000u);
}
inline uint32_t lower_halves(uint32_t low, uint32_t high) { return (low & 0xffffu) | high << 16; }
inline uint32_t place_of(uint32_t word, int byte, uint32_t first) {
  return first | (word >> 8 * byte & 0xffu) << 8;
}

inline void wait_for_previous() {}
inline void let_next_begin() {}
inline void prefetch(const void* memory) {
  static volatile char read;
  read = *static_cast<const char*>(memory);  // for the sanitizer, though a GPU would not mind
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float flip(float value, uint32_t sign) { return float_of(bits_of(value) ^ sign); }

inline float half_to_float(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint16_t float_to_half(float value) {
  const _Float16 rounded = value;
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}
inline float bfloat_to_float(uint16_t bits) { return float_of(uint32_t(bits) << 16); }
inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = bits_of(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint32_t floats_to_halves(float low, float high) {
  return float_to_half(low) | uint32_t(float_to_half(high)) << 16;
}
inline uint32_t floats_to_bfloats(float low, float high) {
  return float_to_bfloat(low) | uint32_t(float_to_bfloat(high)) << 16;
}

inline void load_matrices_as(uint32_t (&out)[4], const void* row, bool is_transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16) std::abort();
  const int lane = threadIdx.x % 32;
  emulation::Lane* lanes = emulation::warp();
  lanes[lane].row = row;
  emulation::sync_warp();
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      const int one = lane / 4, other = lane % 4 * 2 + e;
      const int from = is_transposed ? other : one, to = is_transposed ? one : other;
      pair[e] = static_cast<const uint16_t*>(lanes[8 * i + from].row)[to];
    }
    out[i] = pair[0] | uint32_t(pair[1]) << 16;
  }
  emulation::sync_warp();
}
inline void load_matrices(uint32_t (&out)[4], const void* row) {
  load_matrices_as(out, row, false);
}
inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  load_matrices_as(out, row, true);
}

template <typename Convert>
void multiply_as(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                 Convert convert) {
  const int lane = threadIdx.x % 32;
  emulation::Lane* lanes = emulation::warp();
  std::memcpy(lanes[lane].a, a, sizeof a);
  lanes[lane].b[0] = b0, lanes[lane].b[1] = b1;
  emulation::sync_warp();
  for (int e = 0; e < 4; ++e) {
    const int m = lane / 4 + e / 2 * 8, n = lane % 4 * 2 + e % 2;
    for (int k = 0; k < 16; ++k) {
      const uint32_t of_a = lanes[m % 8 * 4 + k % 8 / 2].a[m / 8 + k / 8 * 2];
      const uint32_t of_b = lanes[n * 4 + k % 8 / 2].b[k / 8];
      sum[e] += convert(uint16_t(of_a >> k % 2 * 16)) * convert(uint16_t(of_b >> k % 2 * 16));
    }
  }
  emulation::sync_warp();
}
inline void multiply_half(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_as(sum, a, b0, b1, half_to_float);
}
inline void multiply_bfloat(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_as(sum, a, b0, b1, bfloat_to_float);
}
