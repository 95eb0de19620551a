/* Computes on matrices in the `curve` form of einsort-vla (docs/format.md). A plain C interface.
 *
 * Nothing is kept between calls but memory for scratch, of each thread. Threads are the caller's.
 */
#ifndef EINSORT_H_
#define EINSORT_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EINSORT_ABI 1

/* A coded matrix, (rows, columns); its parts as they lie in the file. */
typedef struct {
  const uint16_t* words;
  int64_t n_words;
  const uint8_t* scale; /* (rows,) */
  float unit;
  int64_t rows, columns; /* outputs, inputs */
  int32_t eighths;       /* of a bit a weight: 8 to 40, or 48, 56, 64 for grids */
  int32_t window;        /* bits: 10, 12, 13, 14, 16; of a grid its own */
  int32_t is_rotated;
} einsort_matrix;

/* How a caller runs `n` tasks at once: run(threads, task, context, n) calls task(context, k) for
 * every k below n, and returns when all have. NULL stands for the calling thread alone. */
typedef void (*einsort_task)(void* context, int64_t k);
typedef struct {
  void (*run)(void* threads, einsort_task task, void* context, int64_t n);
  void* threads;
  int64_t n;
} einsort_threads;

enum { EINSORT_INT16 = 16, EINSORT_INT8 = 8 }; /* what inputs are rounded to, with a scale a row */

/* All return 0, or say what is wrong with a matrix: it does not fit, or there is no such code. */
const char* einsort_fault(const einsort_matrix* matrix);

/* (rows, columns) float32, row by row. Bits are the same on every processor. */
int einsort_decode(const einsort_matrix* matrix, float* out, const einsort_threads* threads);

/* y = x W^T (+ bias), (n, columns) to (n, rows), float32; sums are exact, so that bits are the same
 * on every processor and for any number of threads. A row with NaN or infinity gives NaN. */
int einsort_multiply(const einsort_matrix* matrix, const float* x, int64_t n, const float* bias,
                     float* y, int activations, const einsort_threads* threads);

/* What it was built for and chose: "AVX2", "AVX-512", "NEON", "plain C++". */
const char* einsort_processor(void);
int einsort_abi(void);

/* `run` of einsort_threads for the pool of an OpenMP by GNU; `threads` is its GOMP_parallel. */
void einsort_run_gomp(void* threads, einsort_task task, void* context, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
