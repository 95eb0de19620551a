// Launches the kernels of leader.cu through the CUDA driver, from cubins inside this library.
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

// 0 if there are kernels for slices of `d` weights, `b` index bits and `s` bits before them.
EINSORT_EXPORT int einsort_check_window(int d, int b, int s);

// Bytes that a product with up to `m` rows of x needs as workspace, -1 after an error; the same
// on every device.
EINSORT_EXPORT int64_t einsort_workspace_bytes(int64_t m, int64_t k, int64_t n, int dtype);

// y = x W^T on `stream` of the current context, W (n, k) in the `leader` form (docs/format.md).
//
// x: (m, k) and y: (m, n), both of `dtype` (EinsortType). signs, indices: the streams in words of 4
// bytes, with a word of zeros after the last. table: (2^(s+b), d) float32. scale: (n,) float16.
// workspace: einsort_workspace_bytes, aligned to 16 bytes as all the others. All on the device.
// Returns 0, or another number after an error, which einsort_last_error tells.
EINSORT_EXPORT int einsort_matmul_leader(const void* x, const void* signs, const void* indices,
                                         const void* table, const void* scale, void* y, int64_t m,
                                         int64_t k, int64_t n, int d, int b, int s, int dtype,
                                         void* workspace, void* stream);

// weight = the transpose of W, (k, n), of `dtype`, with the scales in it; the rest as above.
EINSORT_EXPORT int einsort_decode_leader(const void* signs, const void* indices, const void* table,
                                         const void* scale, void* weight, int64_t k, int64_t n,
                                         int d, int b, int s, int dtype, void* stream);

// Of the last call in this thread that failed.
EINSORT_EXPORT const char* einsort_last_error();
}
