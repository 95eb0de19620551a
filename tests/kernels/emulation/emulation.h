// In place of ptx.cuh: lets a C++ compiler make host code of curve.cu. A CUDA thread is a fiber;
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
  uint32_t a[4], b[2];
};
Lane* warp();  // 32 of them
}  // namespace emulation

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define gridDim emulation::grid

inline void __syncthreads() { emulation::sync_block(); }
inline unsigned char* shared_memory() { return emulation::shared; }

inline uint32_t funnel(uint32_t high, uint32_t low, int shift) {
  const int own = shift & 31;
  return own ? high << own | low >> (32 - own) : high;
}

inline uint32_t upper_halves(uint32_t low, uint32_t high) {
  return low >> 16 | (high & 0xffff0000u);
}
inline uint32_t lower_halves(uint32_t low, uint32_t high) { return (low & 0xffffu) | high << 16; }
inline uint32_t in_register(uint32_t value) { return value; }

inline void wait_for_previous() {}
inline void let_next_begin() {}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

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
inline float bfloat_to_float(uint16_t bits) { return bits_to_float(uint32_t(bits) << 16); }
inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = float_to_bits(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint32_t add_bytes(uint32_t word, uint32_t base) {
  for (int i = 0; i < 4; ++i) base += 64 * (word >> 8 * i & 0xffu);
  return base;
}
inline uint32_t odd_bytes(uint32_t low, uint32_t high) {
  return (low >> 8 & 0xffu) | (low >> 16 & 0xff00u) | (high << 8 & 0xff0000u) |
         (high & 0xff000000u);
}
inline uint32_t center_halves(uint32_t both) {
  uint32_t centered = 0;
  for (int i = 0; i < 32; i += 16)
    centered |= uint32_t(float_to_half(half_to_float(both >> i) - 1152)) << i;
  return centered;
}
inline uint32_t center_bfloats(uint32_t both) {
  uint32_t centered = 0;
  for (int i = 0; i < 32; i += 16) {
    const float once = bfloat_to_float(both >> i) - 256, half = once / 2;
    centered |= uint32_t(float_to_bfloat(once < half ? once : half)) << i;
  }
  return centered;
}

template <bool is_half>
void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto convert = is_half ? half_to_float : bfloat_to_float;
  const int lane = threadIdx.x % 32;
  emulation::Lane* lanes = emulation::warp();
  std::memcpy(lanes[lane].a, a, sizeof a);
  std::memcpy(lanes[lane].b, b, sizeof b);
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
