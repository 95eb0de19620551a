// The inverse of the rotation in codec/rotation.py.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kLanes = 32;  // rows that are turned at once
using Vector = float __attribute__((vector_size(4 * kLanes), aligned(4)));

// data, (size * m,), becomes what einsort_unrotate says; work: (m,).
void unrotate(Vector* data, int64_t size, int64_t m, const float* cosine, const float* signs,
              Vector* work) {
  for (int64_t half = m; half < size * m; half *= 2)
    for (int64_t first = 0; first < size * m; first += 2 * half)
      for (int64_t k = first; k < first + half; ++k) {
        const Vector one = data[k], other = data[k + half];
        data[k] = one + other;
        data[k + half] = one - other;
      }
  const float root = std::sqrt(float(size));
  for (int64_t p = 0; p < size * m; p += m) {
    for (int64_t i = 0; i < m; ++i) work[i] = data[p + i] / root;
    for (int64_t j = 0; j < m; ++j) {
      Vector sum = {};
      for (int64_t i = 0; i < m; ++i) sum += cosine[j * m + i] * work[i];
      data[p + j] = sum * signs[p + j];
    }
  }
}

}  // namespace

extern "C" {

// data: (size * m, rows), `stride` floats apart, the transpose of a matrix whose rows are turned
// back, in place: each is multiplied by the orthonormal Walsh-Hadamard matrix of width `size`, then
// by cosine's transpose, (m, m), and by the signs. Rows are shared out to `parts` threads, where OpenMP is there.
void einsort_unrotate(float* data, int64_t rows, int64_t stride, int64_t size, int64_t m,
                      const float* cosine, const float* signs, int parts) {
  const int64_t n = size * m, blocks = (rows + kLanes - 1) / kLanes;
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) {
    std::vector<float> memory((n + m) * kLanes);
    Vector* const block = reinterpret_cast<Vector*>(memory.data());
    for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; ++i) {
      const int64_t first = i * kLanes;
      const size_t n_bytes = sizeof(float) * (rows - first < kLanes ? rows - first : kLanes);
      for (int64_t k = 0; k < n; ++k) std::memcpy(block + k, data + k * stride + first, n_bytes);
      unrotate(block, size, m, cosine, signs, block + n);
      for (int64_t k = 0; k < n; ++k) std::memcpy(data + k * stride + first, block + k, n_bytes);
    }
  }
}
}
