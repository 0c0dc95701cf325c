// The small operators of a layer, one row at a time, in float32.
#pragma once

#include "../kernels.h"
#include "simd.h"

namespace headrace {
inline namespace HEADRACE_PATH {

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

// Hadamard transform of one head in place, in parts of the largest power of two that divides `size` (a multiple of 16).
// Queries and keys that are both transformed have the same products, and what stands out in one channel of a key (as
// Qwen's biases do) is spread over all of them, where it does not drown the others when they are rounded together.
inline void spread(float* head, int size) {
  const int part = size & -size;
  for (int stride = 1; stride < kLanes; stride *= 2) {
    for (int i = 0; i < size; i += kLanes) {
      const vf x = load<vf>(head + i), other = __builtin_shuffle(x, lanes() ^ stride);
      store(head + i, (lanes() & stride) != 0 ? other - x : x + other);
    }
  }
  for (int stride = kLanes; stride < part; stride *= 2) {
    for (int i = 0; i < size; i += kLanes) {
      if (i & stride) continue;
      const vf a = load<vf>(head + i), b = load<vf>(head + i + stride);
      store(head + i, a + b);
      store(head + i + stride, a - b);
    }
  }
  const float length = 1.0f / __builtin_sqrtf(float(part));
  for (int i = 0; i < size; i += kLanes) store(head + i, load<vf>(head + i) * length);
}

// activation(gate) * up for 16 values. gelu's tanh form is x * sigmoid of twice its argument.
inline vf gated(Activation activation, vf gate, vf up) {
  vf inner = gate;
  if (activation == Activation::kGeluTanh) {
    inner = gate * 1.5957691216057308f * fma(gate * gate, splat(0.044715f), splat(1.0f));
  }
  return gate / (exp(-inner) + 1.0f) * up;
}

// The same for n values (a multiple of 16), in place in `gate`.
inline void gate_all(Activation activation, float* gate, const float* up, int n) {
  for (int i = 0; i < n; i += kLanes) store(gate + i, gated(activation, load<vf>(gate + i), load<vf>(up + i)));
}

// x *= factor for n values (a multiple of 16).
inline void scale(float* x, float factor, int n) {
  for (int i = 0; i < n; i += kLanes) store(x + i, load<vf>(x + i) * factor);
}

// y += factor * x for n values (a multiple of 16).
inline void add_scaled(float* y, const float* x, float factor, int n) {
  for (int i = 0; i < n; i += kLanes) store(y + i, fma(load<vf>(x + i), splat(factor), load<vf>(y + i)));
}

// The sum of n products (a multiple of 16).
inline float dot(const float* a, const float* b, int n) {
  vf products = {};
  for (int i = 0; i < n; i += kLanes) products = fma(load<vf>(a + i), load<vf>(b + i), products);
  return sum(products);
}

}  // namespace HEADRACE_PATH
}  // namespace headrace
