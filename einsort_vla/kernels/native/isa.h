// What the kernels need of a processor: registers of 16-bit lanes, and sums of 32 bits.
//
// One `Isa` for what the compiler builds for: AVX-512 (with or without VNNI), AVX2, NEON, or plain
// C++. `V` holds kLanes 16-bit numbers, `A` sums of products of neighbouring lanes; `keep` says that
// a sum is needed now, as compilers else multiply everything first and run out of registers.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace einsort {

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512BW__) || defined(__AVX2__)

// Adds four sums, each of which stands in both halves of a register in part.
INLINE void add_halves(__m256i both, int64_t* totals) {
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  __m256i* to = reinterpret_cast<__m256i*>(totals);
  _mm256_storeu_si256(to, _mm256_add_epi64(_mm256_loadu_si256(to), _mm256_cvtepi32_epi64(four)));
}

#endif

#if defined(__AVX512BW__)

struct Isa {
  static constexpr const char* kName = "AVX-512";
  static constexpr int kLanes = 32, kSums = 16;
  using V = __m512i;
  using A = __m512i;
  INLINE V load(const void* p) { return _mm512_loadu_si512(p); }
  INLINE void store(void* p, V a) { _mm512_storeu_si512(p, a); }
  INLINE V set(int a) { return _mm512_set1_epi16(static_cast<int16_t>(a)); }
  template <int n>
  INLINE V left(V a) {
    return _mm512_slli_epi16(a, n);
  }
  template <int n>
  INLINE V right(V a) {
    return _mm512_srli_epi16(a, n);
  }
  INLINE V left(V a, int n) { return _mm512_sll_epi16(a, _mm_cvtsi32_si128(n)); }
  INLINE V right(V a, int n) { return _mm512_srl_epi16(a, _mm_cvtsi32_si128(n)); }
  INLINE V either(V a, V b) { return _mm512_or_si512(a, b); }
  INLINE V either(V a, V b, V c) { return _mm512_ternarylogic_epi32(a, b, c, 0xFE); }
  INLINE V both(V a, V b) { return _mm512_and_si512(a, b); }
  INLINE V differ(V a, V b) { return _mm512_xor_si512(a, b); }
  INLINE V minus(V a, V b) { return _mm512_sub_epi16(a, b); }
  // The four bytes of each product modulo 2^32, added; a factor may have an upper half.
  INLINE V byte_sums(V a, V factor) {
    return all_bytes(_mm512_mullo_epi16(a, factor), _mm512_mulhi_epu16(a, factor));
  }
  INLINE V byte_sums(V a, V factor, V upper) {
    const V high = _mm512_add_epi16(_mm512_mulhi_epu16(a, factor), _mm512_mullo_epi16(a, upper));
    return all_bytes(_mm512_mullo_epi16(a, factor), high);
  }
  INLINE V all_bytes(V low, V high) {
    const V ones = _mm512_set1_epi8(1);
    return _mm512_add_epi16(_mm512_maddubs_epi16(low, ones), _mm512_maddubs_epi16(high, ones));
  }
  INLINE A zero() { return _mm512_setzero_si512(); }
  INLINE A add_products(A sum, V a, V b) {
#ifdef __AVX512VNNI__
    return _mm512_dpwssd_epi32(sum, a, b);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
  }
  INLINE void keep(A& a) { asm("" : "+v"(a)); }
  INLINE A sums(const int32_t* p) { return _mm512_loadu_si512(p); }
  INLINE int64_t total(A a) {
    const __m256i low = _mm512_castsi512_si256(a), high = _mm512_extracti64x4_epi64(a, 1);
    return _mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_cvtepi32_epi64(low), _mm512_cvtepi32_epi64(high)));
  }
  INLINE __m256i halves(A a) {
    return _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  }
  // Adds four sums, none of which reaches 2^31.
  INLINE void add_totals(const A* a, int step, int64_t* totals) {
    const __m256i both = _mm256_hadd_epi32(_mm256_hadd_epi32(halves(a[0]), halves(a[step])),
                                           _mm256_hadd_epi32(halves(a[2 * step]), halves(a[3 * step])));
    add_halves(both, totals);
  }
};

#elif defined(__AVX2__)

struct Isa {
  static constexpr const char* kName = "AVX2";
  static constexpr int kLanes = 16, kSums = 8;
  using V = __m256i;
  using A = __m256i;
  INLINE V load(const void* p) { return _mm256_loadu_si256(static_cast<const V*>(p)); }
  INLINE void store(void* p, V a) { _mm256_storeu_si256(static_cast<V*>(p), a); }
  INLINE V set(int a) { return _mm256_set1_epi16(static_cast<int16_t>(a)); }
  template <int n>
  INLINE V left(V a) {
    return _mm256_slli_epi16(a, n);
  }
  template <int n>
  INLINE V right(V a) {
    return _mm256_srli_epi16(a, n);
  }
  INLINE V left(V a, int n) { return _mm256_sll_epi16(a, _mm_cvtsi32_si128(n)); }
  INLINE V right(V a, int n) { return _mm256_srl_epi16(a, _mm_cvtsi32_si128(n)); }
  INLINE V either(V a, V b) { return _mm256_or_si256(a, b); }
  INLINE V either(V a, V b, V c) { return either(either(a, b), c); }
  INLINE V both(V a, V b) { return _mm256_and_si256(a, b); }
  INLINE V differ(V a, V b) { return _mm256_xor_si256(a, b); }
  INLINE V minus(V a, V b) { return _mm256_sub_epi16(a, b); }
  INLINE V byte_sums(V a, V factor) {
    return all_bytes(_mm256_mullo_epi16(a, factor), _mm256_mulhi_epu16(a, factor));
  }
  INLINE V byte_sums(V a, V factor, V upper) {
    const V high = _mm256_add_epi16(_mm256_mulhi_epu16(a, factor), _mm256_mullo_epi16(a, upper));
    return all_bytes(_mm256_mullo_epi16(a, factor), high);
  }
  INLINE V all_bytes(V low, V high) {
    const V ones = _mm256_set1_epi8(1);
    return _mm256_add_epi16(_mm256_maddubs_epi16(low, ones), _mm256_maddubs_epi16(high, ones));
  }
  INLINE A zero() { return _mm256_setzero_si256(); }
  INLINE A add_products(A sum, V a, V b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
  INLINE void keep(A& a) { asm("" : "+x"(a)); }
  INLINE A sums(const int32_t* p) { return load(p); }
  INLINE int64_t total(A a) {
    const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(a));
    const __m256i both = _mm256_add_epi64(low, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1)));
    const __m128i half =
        _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    return _mm_extract_epi64(half, 0) + _mm_extract_epi64(half, 1);
  }
  INLINE void add_totals(const A* a, int step, int64_t* totals) {
    const A both = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[step]),
                                     _mm256_hadd_epi32(a[2 * step], a[3 * step]));
    add_halves(both, totals);
  }
};

#elif defined(__ARM_NEON)

struct Isa {
  static constexpr const char* kName = "NEON";
  static constexpr int kLanes = 16, kSums = 8;
  struct V {
    uint16x8_t a, b;
  };
  struct A {
    int32x4_t a, b;
  };
  INLINE V load(const void* p) {
    const uint16_t* own = static_cast<const uint16_t*>(p);
    return {vld1q_u16(own), vld1q_u16(own + 8)};
  }
  INLINE void store(void* p, V v) {
    vst1q_u16(static_cast<uint16_t*>(p), v.a);
    vst1q_u16(static_cast<uint16_t*>(p) + 8, v.b);
  }
  INLINE V set(int a) { return {vdupq_n_u16(a), vdupq_n_u16(a)}; }
  template <int n>
  INLINE V left(V v) {
    return {vshlq_n_u16(v.a, n), vshlq_n_u16(v.b, n)};
  }
  template <int n>
  INLINE V right(V v) {
    return {vshrq_n_u16(v.a, n), vshrq_n_u16(v.b, n)};
  }
  INLINE V left(V v, int n) {
    return {vshlq_u16(v.a, vdupq_n_s16(n)), vshlq_u16(v.b, vdupq_n_s16(n))};
  }
  INLINE V right(V v, int n) { return left(v, -n); }
  INLINE V either(V v, V w) { return {vorrq_u16(v.a, w.a), vorrq_u16(v.b, w.b)}; }
  INLINE V either(V a, V b, V c) { return either(either(a, b), c); }
  INLINE V both(V v, V w) { return {vandq_u16(v.a, w.a), vandq_u16(v.b, w.b)}; }
  INLINE V differ(V v, V w) { return {veorq_u16(v.a, w.a), veorq_u16(v.b, w.b)}; }
  INLINE V minus(V v, V w) { return {vsubq_u16(v.a, w.a), vsubq_u16(v.b, w.b)}; }
  INLINE uint16x8_t all_bytes(uint32x4_t low, uint32x4_t high) {
    return vpaddq_u16(vpaddlq_u8(vreinterpretq_u8_u32(low)),
                      vpaddlq_u8(vreinterpretq_u8_u32(high)));
  }
  INLINE uint16x8_t byte_sums(uint16x8_t a, uint16x8_t factor) {
    return all_bytes(vmull_u16(vget_low_u16(a), vget_low_u16(factor)),
                     vmull_high_u16(a, factor));
  }
  INLINE uint16x8_t byte_sums(uint16x8_t a, uint16x8_t factor, uint16x8_t upper) {
    const uint16x8_t above = vmulq_u16(a, upper);
    const uint32x4_t low = vmull_u16(vget_low_u16(a), vget_low_u16(factor));
    const uint32x4_t high = vmull_high_u16(a, factor);
    return all_bytes(vaddq_u32(low, vshll_n_u16(vget_low_u16(above), 16)),
                     vaddq_u32(high, vshll_high_n_u16(above, 16)));
  }
  INLINE V byte_sums(V v, V factor) {
    return {byte_sums(v.a, factor.a), byte_sums(v.b, factor.b)};
  }
  INLINE V byte_sums(V v, V factor, V upper) {
    return {byte_sums(v.a, factor.a, upper.a), byte_sums(v.b, factor.b, upper.b)};
  }
  INLINE A zero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
  INLINE int32x4_t add_products(int32x4_t sum, uint16x8_t a, uint16x8_t b) {
    const int16x8_t x = vreinterpretq_s16_u16(a), y = vreinterpretq_s16_u16(b);
    return vmlal_high_s16(vmlal_s16(sum, vget_low_s16(x), vget_low_s16(y)), x, y);
  }
  INLINE A add_products(A sum, V v, V w) {
    return {add_products(sum.a, v.a, w.a), add_products(sum.b, v.b, w.b)};
  }
  INLINE void keep(A& v) { asm("" : "+w"(v.a), "+w"(v.b)); }
  INLINE A sums(const int32_t* p) { return {vld1q_s32(p), vld1q_s32(p + 4)}; }
  INLINE int64_t total(A v) { return vaddlvq_s32(v.a) + vaddlvq_s32(v.b); }
  INLINE void add_totals(const A* a, int step, int64_t* totals) {
    for (int i = 0; i < 4; ++i) totals[i] += total(a[i * step]);
  }
};

#else

struct Isa {
  static constexpr const char* kName = "plain C++";
  static constexpr int kLanes = 8, kSums = 4;
  struct V {
    uint16_t of[kLanes];
  };
  struct A {
    int32_t of[kSums];
  };
  template <class F>
  INLINE V each(F f) {
    V v;
    for (int i = 0; i < kLanes; ++i) v.of[i] = static_cast<uint16_t>(f(i));
    return v;
  }
  INLINE V load(const void* p) {
    V v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  INLINE void store(void* p, V v) { std::memcpy(p, &v, sizeof(v)); }
  INLINE V set(int a) {
    return each([=](int) { return a; });
  }
  template <int n>
  INLINE V left(V v) {
    return each([=](int i) { return v.of[i] << n; });
  }
  template <int n>
  INLINE V right(V v) {
    return each([=](int i) { return v.of[i] >> n; });
  }
  INLINE V left(V v, int n) {
    return each([=](int i) { return v.of[i] << n; });
  }
  INLINE V right(V v, int n) {
    return each([=](int i) { return v.of[i] >> n; });
  }
  INLINE V either(V v, V w) {
    return each([=](int i) { return v.of[i] | w.of[i]; });
  }
  INLINE V either(V a, V b, V c) { return either(either(a, b), c); }
  INLINE V both(V v, V w) {
    return each([=](int i) { return v.of[i] & w.of[i]; });
  }
  INLINE V differ(V v, V w) {
    return each([=](int i) { return v.of[i] ^ w.of[i]; });
  }
  INLINE V minus(V v, V w) {
    return each([=](int i) { return v.of[i] - w.of[i]; });
  }
  INLINE V byte_sums(V v, V factor) { return byte_sums(v, factor, set(0)); }
  INLINE V byte_sums(V v, V factor, V upper) {
    return each([=](int i) {
      const uint32_t p = v.of[i] * (factor.of[i] | static_cast<uint32_t>(upper.of[i]) << 16);
      return (p & 255) + (p >> 8 & 255) + (p >> 16 & 255) + (p >> 24);
    });
  }
  INLINE A zero() { return {}; }
  INLINE int32_t product(V v, V w, int i) {
    return static_cast<int16_t>(v.of[i]) * static_cast<int16_t>(w.of[i]);
  }
  INLINE A add_products(A sum, V v, V w) {
    // Modulo 2^32, as registers do.
    for (int i = 0; i < kSums; ++i)
      sum.of[i] = static_cast<int32_t>(static_cast<uint32_t>(sum.of[i]) +
                                       static_cast<uint32_t>(product(v, w, 2 * i)) +
                                       static_cast<uint32_t>(product(v, w, 2 * i + 1)));
    return sum;
  }
  INLINE void keep(A&) {}
  INLINE A sums(const int32_t* p) {
    A a;
    std::memcpy(&a, p, sizeof(a));
    return a;
  }
  INLINE int64_t total(A a) {
    int64_t sum = 0;
    for (int i = 0; i < kSums; ++i) sum += a.of[i];
    return sum;
  }
  INLINE void add_totals(const A* a, int step, int64_t* totals) {
    for (int i = 0; i < 4; ++i) totals[i] += total(a[i * step]);
  }
};

#endif

}  // namespace einsort
