// Products through launch.h: reads cases from standard input, writes y of each to standard output.
// Every buffer has exactly its size, so that a sanitizer sees each access beyond it.

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

void* read(int64_t bytes) {
  void* memory = allocate(bytes);
  if (std::fread(memory, 1, bytes, stdin) != size_t(bytes)) std::abort();
  return memory;
}

}  // namespace

int main() {
  int64_t c[8];  // m, k, n, d, b, s, type, words of signs; then those of indices
  while (std::fread(c, sizeof c, 1, stdin) == 1) {
    int64_t n_index_words;
    if (std::fread(&n_index_words, sizeof n_index_words, 1, stdin) != 1) return 2;
    const int64_t m = c[0], k = c[1], n = c[2], size = c[6] ? 2 : 4;
    void* x = read(m * k * size);
    void* signs = read(4 * c[7]);
    void* indices = read(4 * n_index_words);
    void* table = read((int64_t(4) << (c[4] + c[5])) * c[3]);
    void* scale = read(2 * n);
    void* y = allocate(m * n * size);
    void* workspace = allocate(einsort_workspace_bytes(m, k, n, int(c[6])));
    if (einsort_matmul_leader(x, signs, indices, table, scale, y, m, k, n, int(c[3]), int(c[4]),
                              int(c[5]), int(c[6]), workspace, nullptr)) {
      std::fprintf(stderr, "%s\n", einsort_last_error());
      return 1;
    }
    std::fwrite(y, 1, m * n * size, stdout);
    for (void* memory : {x, signs, indices, table, scale, y, workspace}) std::free(memory);
  }
  return 0;
}
