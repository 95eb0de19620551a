// What the kernels need of the machine: types, conversions, and the warp's matrix instructions.
// The only file with PTX; no header of CUDA is needed.

#pragma once

typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef long long int64_t;

#define DEVICE __device__ __forceinline__
// At least `blocks` of them fit on a multiprocessor.
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)

DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
}

DEVICE uint32_t load_word(const uint32_t* word) { return __ldg(word); }

DEVICE uint32_t swap_bytes(uint32_t word) { return __byte_perm(word, 0, 0x0123); }

// The upper word of (high, low) << (shift mod 32).
DEVICE uint32_t funnel(uint32_t high, uint32_t low, int shift) {
  return __funnelshift_l(low, high, shift);
}

// The upper, or lower, halves of two words.
DEVICE uint32_t upper_halves(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x7632); }
DEVICE uint32_t lower_halves(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x5410); }

// Byte `byte` of a word, the lowest is 0, as the second byte; `first` < 256 as the first.
DEVICE uint32_t place_of(uint32_t word, int byte, uint32_t first) {
  return __byte_perm(word, first, 0x5504 | byte << 4);
}

// The launcher lets a kernel begin while the one before it ends; from here on that one is complete.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may begin as soon as every block has come here.
DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Brings what lies there to the L2 cache.
DEVICE void prefetch(const void* memory) { asm volatile("prefetch.global.L2 [%0];" ::"l"(memory)); }

// The value with its sign changed where the top bit of `sign` is set; the other bits are 0.
DEVICE float flip(float value, uint32_t sign) {
  return __uint_as_float(__float_as_uint(value) ^ sign);
}

DEVICE float half_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

DEVICE uint16_t float_to_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

DEVICE float bfloat_to_float(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

DEVICE uint16_t float_to_bfloat(float value) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// Both as 16 bits, the first one below.
DEVICE uint32_t floats_to_halves(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

DEVICE uint32_t floats_to_bfloats(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Four 8 x 8 matrices of 16-bit numbers; lane 8 i + j of the warp points to row j of matrix i.
DEVICE void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

// sum (16 x 8, float32) += a (16 x 16) b (16 x 8), in the fragments of mma.m16n8k16.
DEVICE void multiply_half(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE void multiply_bfloat(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
