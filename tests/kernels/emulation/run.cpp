// Products through launch.h: reads cases from standard input, writes y of each to standard output,
// and what its matrix is decoded to.
// Every buffer has exactly its size, so that a sanitizer sees each access beyond it, and begins at a
// multiple of 16 bytes, but for x, which a case may shift.

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
  if (std::fread(static_cast<char*>(memory) + shift, 1, bytes, stdin) != size_t(bytes)) std::abort();
  return memory;
}

}  // namespace

int main() {
  int64_t c[10];  // m, k, n, d, b, s, type, words of signs, of indices, elements that x is shifted by
  while (std::fread(c, sizeof c, 1, stdin) == 1) {
    const int64_t m = c[0], k = c[1], n = c[2], size = c[6] ? 2 : 4;
    const int64_t shift = c[9] * size;
    void* x = read(m * k * size, shift);
    void* signs = read(4 * c[7]);
    void* indices = read(4 * c[8]);
    void* table = read((int64_t(4) << (c[4] + c[5])) * c[3]);
    void* scale = read(2 * n);
    void* y = allocate(m * n * size);
    void* workspace = allocate(einsort_workspace_bytes(m, k, n, int(c[6])));
    if (einsort_matmul_leader(static_cast<char*>(x) + shift, signs, indices, table, scale, y, m, k, n,
                              int(c[3]), int(c[4]), int(c[5]), int(c[6]), workspace, nullptr)) {
      std::fprintf(stderr, "%s\n", einsort_last_error());
      return 1;
    }
    void* weight = allocate(k * n * size);
    if (einsort_decode_leader(signs, indices, table, scale, weight, k, n, int(c[3]), int(c[4]),
                              int(c[5]), int(c[6]), nullptr)) {
      std::fprintf(stderr, "%s\n", einsort_last_error());
      return 1;
    }
    std::fwrite(y, 1, m * n * size, stdout);
    std::fwrite(weight, 1, k * n * size, stdout);
    for (void* memory : {x, signs, indices, table, scale, y, workspace, weight}) std::free(memory);
  }
  return 0;
}
