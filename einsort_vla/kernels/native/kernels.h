// What is compiled once for each kind of processor, and the table by which it is found.
#pragma once

#include <cstdint>

namespace einsort {

constexpr int kBand = 8;           // rows that are decoded together; they take whole bits a weight
constexpr int kTileColumns = 32;   // whose words lie side by side
constexpr int kMostWords = 6;      // that the windows of a band lie in
constexpr int kMostProducts = 512; // in a sum of 32 bits, of two columns each step
constexpr int kLeastEighths = 8, kMostEighths = 40, kLeastGrid = 6, kMostGrid = 8;

// Eight rows of one segment, over some blocks of 32 columns.
struct Band {
  const uint16_t* words[kMostWords];  // of the first block, from the one before the first bit on
  int64_t stride;                     // words from one block to the next
  int64_t blocks;
  const char* ahead;  // what is fetched into the cache meanwhile, so many lines a block
  int lines;
  int phase;        // bits of the second word that belong to rows before
  uint32_t factor, flip;  // of the polynomial
  bool is_masked;   // whether `flip` sets bits beyond the window (else it flips)
};

// Values are whole numbers within -128 and 127; inputs are of 16 bits, and 0 beyond the columns.
struct Kernels {
  const char* name;
  int lanes, sums;
  // (kBand, stride) values of a band.
  void (*decode)(const Band&, int eighths, int16_t* values, int64_t stride);
  // Adds to (kBand,) sums the products of a band's values with one row of inputs.
  void (*multiply)(const Band&, int eighths, const int16_t* x, const int32_t* start,
                   int64_t* totals);
  // What `multiply` starts from: values are counted from their least, this takes it back.
  void (*start)(const int16_t* x, int64_t columns, int eighths, int32_t* start);
  // Adds to (n, kBand) totals the products of (kBand, stride) values with n rows of inputs.
  void (*product)(const int16_t* values, int64_t stride, const int16_t* x, int64_t x_stride,
                  int64_t n, int64_t columns, int64_t* totals);
  // In place: Walsh-Hadamard over the first axis of (n / m, m), the (m, m) cosine over the second;
  // 2 n of scratch.
  void (*turn)(float* x, const float* cosine, bool is_inverse, int64_t n, int64_t m,
               float* scratch);
  // Whole numbers of 16 bits, and what one of them is; NaN if an input is not finite.
  float (*quantize)(const float* x, int64_t n, int64_t padded, int limit, int16_t* out);
};

// Those of the processor that this runs on; see choose.cpp.
const Kernels& here();

}  // namespace einsort
