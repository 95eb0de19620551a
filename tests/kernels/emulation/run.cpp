// Products through launch.h: reads cases from standard input, writes y of each to standard output,
// and what its matrix is decoded to.
// Every buffer has exactly its size, so that a sanitizer sees each access beyond it, and begins at
// a multiple of 16 bytes, but for x, which a case may shift.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "launch.h"

namespace {

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, bytes)) std::abort();
  std::memset(memory, 0xff, bytes);
  return memory;
}

void* read(int64_t bytes, int64_t shift = 0) {
  void* memory = allocate(shift + bytes);
  const size_t n = std::fread(static_cast<char*>(memory) + shift, 1, bytes, stdin);
  if (n != size_t(bytes)) std::abort();
  return memory;
}

}  // namespace

int main() {
  int64_t c[8];  // m, k, n, eighths, window, type, words, elements that x is shifted by
  float unit;
  while (std::fread(c, sizeof c, 1, stdin) == 1 && std::fread(&unit, sizeof unit, 1, stdin) == 1) {
    const int64_t m = c[0], k = c[1], n = c[2], size = c[5] ? 2 : 4, shift = c[7] * size;
    char* x = static_cast<char*>(read(m * k * size, shift));
    void* words = read(2 * c[6]);
    void* scale = read(n);
    const EinsortMatrix matrix{words, scale, n, k, unit, int(c[3]), int(c[4])};
    const int type = int(c[5]);
    void* y = allocate(m * n * size);
    void* weight = allocate(n * k * size);
    void* workspace = allocate(einsort_workspace_bytes(&matrix, m, type));
    void* other = allocate(einsort_workspace_bytes(&matrix, 0, type));
    if (einsort_count_words(&matrix) != c[6] ||
        einsort_matmul_curve(&matrix, x + shift, y, m, type, workspace, nullptr) ||
        einsort_decode_curve(&matrix, weight, type, other, nullptr)) {
      std::fprintf(stderr, "%s\n", einsort_last_error());
      return 1;
    }
    std::fwrite(y, 1, m * n * size, stdout);
    std::fwrite(weight, 1, n * k * size, stdout);
    for (void* memory : {(void*)x, words, scale, y, workspace, other, weight}) std::free(memory);
  }
  return 0;
}
