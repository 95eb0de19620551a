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

// The upper word of (high, low) << (shift mod 32).
DEVICE uint32_t funnel(uint32_t high, uint32_t low, int shift) {
  return __funnelshift_l(low, high, shift);
}

// The upper, or lower, halves of two words.
DEVICE uint32_t upper_halves(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x7632); }
DEVICE uint32_t lower_halves(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x5410); }

// 64 times the sum of the four bytes of `word`, and `base`. So a quarter of the sum, rounded down,
// is the second byte.
DEVICE uint32_t add_bytes(uint32_t word, uint32_t base) { return __dp4a(word, 0x40404040u, base); }

// The second and the top byte of each word.
DEVICE uint32_t odd_bytes(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x7531); }

// v - 128 of two v from 0 to 255. As float16 both are 1024 + v, the bits 0x6400 + v.
DEVICE uint32_t center_halves(uint32_t both) {
  uint32_t centered;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(centered) : "r"(both), "r"(0xE480E480));  // -1152
  return centered;
}

// As bfloat16, the bits 0x4300 + v, they are 128 + v, or 2 v from 128 on: less 256 that is v - 128,
// or twice as much where it is positive.
DEVICE uint32_t center_bfloats(uint32_t both) {
  uint32_t once, half;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"
      : "=r"(once) : "r"(both), "r"(0x3F803F80), "r"(0xC380C380));  // x 1 - 256
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"
      : "=r"(half) : "r"(both), "r"(0x3F003F00), "r"(0xC300C300));  // x 0.5 - 128
  asm("min.bf16x2 %0, %0, %1;" : "+r"(once) : "r"(half));
  return once;
}

// The value, which is the same in all threads, from where the compiler cannot tell that it is a
// constant of the kernel: an instruction reads one of those at most.
DEVICE uint32_t in_register(uint32_t value) {
  return __shfl_sync(0xFFFFFFFF, threadIdx.x % 32 ? 0 : value, 0);
}

DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

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

DEVICE uint16_t float_to_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

DEVICE uint16_t float_to_bfloat(float value) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// sum (16 x 8, float32) += a (16 x 16) b (16 x 8), in the fragments of mma.m16n8k16; of float16, or
// of bfloat16.
template <bool is_half>
DEVICE void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if (is_half) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
