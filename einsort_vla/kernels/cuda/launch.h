// Launches the kernels of curve.cu through the CUDA driver, from cubins inside this library.
//
// The driver is opened at the first launch, so the library loads where there is none. All
// functions may be called from any thread.

#pragma once

#include <cstdint>

#ifndef EINSORT_EXPORT  // another library that contains the launcher keeps it for itself
#define EINSORT_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

enum EinsortType { kEinsortFloat = 0, kEinsortHalf = 1, kEinsortBFloat16 = 2 };

// A matrix in the `curve` form (docs/format.md), W (n, k). On the device: `words`, aligned to 8
// bytes, and `scale`, (n,) steps from `unit`. `eighths` of a bit a weight, `window` in bits.
struct EinsortMatrix {
  const void *words, *scale;
  int64_t n, k;
  float unit;
  int eighths, window;
};

// Words of 16 bits of a matrix, -1 if there is no such one or no code for it.
EINSORT_EXPORT int64_t einsort_count_words(const struct EinsortMatrix* matrix);

// Bytes that a product with up to `m` rows of x needs as workspace, or decoding, for m = 0; -1
// after an error. The same on every device.
EINSORT_EXPORT int64_t einsort_workspace_bytes(const struct EinsortMatrix* matrix, int64_t m,
                                               int dtype);

// y = x W^T on `stream` of the current context.
//
// x: (m, k) and y: (m, n), both of `dtype` (EinsortType). workspace: einsort_workspace_bytes,
// aligned to 16 bytes as x and y. All on the device.
// Returns 0, or another number after an error, which einsort_last_error tells.
EINSORT_EXPORT int einsort_matmul_curve(const struct EinsortMatrix* matrix, const void* x, void* y,
                                        int64_t m, int dtype, void* workspace, void* stream);

// weight = W, (n, k), of `dtype`; the rest as above.
EINSORT_EXPORT int einsort_decode_curve(const struct EinsortMatrix* matrix, void* weight, int dtype,
                                        void* workspace, void* stream);

// Of the last call in this thread that failed.
EINSORT_EXPORT const char* einsort_last_error();
}
