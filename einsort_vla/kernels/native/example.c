/* Multiplies a coded matrix with some rows of inputs: how einsort.h is used from C.
 *
 *   c++ -O3 -std=c++17 -march=native -ffp-contract=off -c kernels.cpp native.cpp choose.cpp
 *   cc example.c kernels.o native.o choose.o -lm -o example
 *   ./example matrix.bin inputs.bin outputs.bin 16
 *
 * matrix.bin holds six int64 (rows, columns, eighths, window, is_rotated, number of words), the unit
 * as float32, the words and the scales; the other two files float32, row by row.
 */
#include <stdio.h>
#include <stdlib.h>

#include "einsort.h"

static void* read_all(const char* path, long* size) {
  FILE* file = fopen(path, "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  *size = ftell(file);
  rewind(file);
  char* content = malloc(*size + 1);
  if (content && fread(content, 1, *size, file) != (size_t)*size) content = NULL;
  fclose(file);
  return content;
}

int main(int argc, char** argv) {
  if (argc != 5) return fprintf(stderr, "usage: example MATRIX INPUTS OUTPUTS 16|8\n"), 2;
  long size = 0, n_bytes = 0;
  char* content = read_all(argv[1], &size);
  float* x = read_all(argv[2], &n_bytes);
  if (!content || !x || size < 52) return fprintf(stderr, "a file cannot be read\n"), 1;

  const int64_t* head = (const int64_t*)content;
  einsort_matrix matrix = {0};
  matrix.rows = head[0];
  matrix.columns = head[1];
  matrix.eighths = (int32_t)head[2];
  matrix.window = (int32_t)head[3];
  matrix.is_rotated = (int32_t)head[4];
  matrix.n_words = head[5];
  matrix.unit = *(const float*)(content + 48);
  matrix.words = (const uint16_t*)(content + 52);
  matrix.scale = (const uint8_t*)(matrix.words + matrix.n_words);
  const char* fault = einsort_fault(&matrix);
  if (!fault && size != 52 + 2 * matrix.n_words + matrix.rows) fault = "the file is cut off";
  if (fault) return fprintf(stderr, "%s: %s\n", argv[1], fault), 1;

  const int64_t n = n_bytes / (int64_t)sizeof(float) / matrix.columns;
  float* y = malloc(n * matrix.rows * sizeof(float));
  if (einsort_multiply(&matrix, x, n, NULL, y, atoi(argv[4]), NULL)) return 1;
  FILE* file = fopen(argv[3], "wb");
  if (!file || fwrite(y, sizeof(float), n * matrix.rows, file) != (size_t)(n * matrix.rows)) return 1;
  printf("%lld rows times (%lld, %lld), on %s\n", (long long)n, (long long)matrix.rows,
         (long long)matrix.columns, einsort_processor());
  return fclose(file);
}
