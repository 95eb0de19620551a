// Which kernels run here: the only ones that were built, or the best of several.
//
// Libraries that are shipped are built with EINSORT_SEVERAL, from kernels.cpp once for each level.
#include "kernels.h"

namespace einsort {

#ifdef EINSORT_SEVERAL

extern const Kernels kernels_plain, kernels_avx2, kernels_avx512, kernels_vnni;

const Kernels& here() {
  // Whoever asks twice gets the same answer, so that no lock is needed.
  static const Kernels* found = nullptr;
  if (!found) {
    __builtin_cpu_init();
    const bool has_avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    found = !__builtin_cpu_supports("avx2")                          ? &kernels_plain
            : !has_avx512                                            ? &kernels_avx2
            : __builtin_cpu_supports("avx512vnni") ? &kernels_vnni : &kernels_avx512;
  }
  return *found;
}

#else

extern const Kernels kernels_here;
const Kernels& here() { return kernels_here; }

#endif

}  // namespace einsort
