// What the values of the `curve` form are computed by; as `POLYNOMIALS` of codec/curve/values.py.
#pragma once

#include <cstdint>

namespace einsort {

// The value of a window is the sum of the four bytes of (window ^ flip) * factor, less 508, in
// quarters. Below 16 bits `flip` is all bits above the window.
struct Polynomial {
  int window;
  uint32_t factor, flip;
};

constexpr Polynomial kPolynomials[] = {
    {10, 34223, 0xFC00}, {12, 34759, 0xF000}, {13, 34481, 0xE000},
    {14, 38317, 0xC000}, {16, 2038493529, 0xC39B},
};

inline const Polynomial* polynomial(int window) {
  for (const Polynomial& own : kPolynomials)
    if (own.window == window) return &own;
  return nullptr;
}

}  // namespace einsort
