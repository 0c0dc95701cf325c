// The small operators of a layer, one row at a time, in float32.
#pragma once

#include "simd.h"

namespace headrace {

enum class Activation : int32_t { kSilu = 0, kGeluTanh = 1 };

// Root mean square norm of n values (a multiple of 16); `to` may be `from`.
inline void rms_norm(const float* from, const float* weight, int n, float eps, float* to) {
  vf squares = {};
  for (int i = 0; i < n; i += kLanes) {
    const vf x = load<vf>(from + i);
    squares = fma(x, x, squares);
  }
  const float scale = 1.0f / __builtin_sqrtf(sum(squares) / float(n) + eps);
  for (int i = 0; i < n; i += kLanes) store(to + i, load<vf>(from + i) * scale * load<vf>(weight + i));
}

// Rotary embedding of one head, halves paired, in place; cos and sin have size / 2 values (a multiple of 16).
inline void rotate(float* head, const float* cos, const float* sin, int size) {
  const int half = size / 2;
  for (int i = 0; i < half; i += kLanes) {
    const vf a = load<vf>(head + i), b = load<vf>(head + half + i), c = load<vf>(cos + i), s = load<vf>(sin + i);
    store(head + i, a * c - b * s);
    store(head + half + i, b * c + a * s);
  }
}

// activation(gate) * up for 16 values. gelu's tanh form is x * sigmoid of twice its argument.
inline vf gated(Activation activation, vf gate, vf up) {
  vf inner = gate;
  if (activation == Activation::kGeluTanh) {
    inner = gate * 1.5957691216057308f * fma(gate * gate, splat(0.044715f), splat(1.0f));
  }
  return gate / (exp(-inner) + 1.0f) * up;
}

}  // namespace headrace
