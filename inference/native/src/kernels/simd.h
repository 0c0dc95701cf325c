// Vectors of 16 floats or integers. GCC's vector extensions carry the arithmetic to any CPU; the few operations that
// they lack have an AVX-512 form and a plain one.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "../half.h"
#include "../matrix.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace headrace {
inline namespace HEADRACE_PATH {

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint8_t vb __attribute__((vector_size(64)));

template <class V, class T>
inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
inline void store(T* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

// Not a sum with zero, which the compiler may not leave out: -0 would become 0.
inline vf splat(float x) { return vf{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

// Stores past the caches, which keep what they have; nor is the line read first. `to` must be aligned to 64 bytes, and
// `stores_done` be called before another thread reads.
inline void store_past_caches(float* to, vf v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#else
  store(to, v);
#endif
}

inline void stores_done() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

inline vi lanes() { return vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

// a * b + c, rounded once where the CPU can: the same in every kernel, so that a row's result does not depend on how
// many rows run beside it.
inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  const auto half = [&](int i) {
    const auto at = [&](const vf& v) { return load<__m256>(reinterpret_cast<const float*>(&v) + i); };
    return _mm256_fmadd_ps(at(a), at(b), at(c));
  };
  vf v;
  store(reinterpret_cast<float*>(&v), half(0));
  store(reinterpret_cast<float*>(&v) + 8, half(8));
  return v;
#else
  vf v;
  for (int i = 0; i < kLanes; i++) v[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return v;
#endif
}

inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }
inline vf abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
inline vf to_float(vi a) { return __builtin_convertvector(a, vf); }

// A comparison's result as one bit a lane.
inline uint32_t bits_of(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; i++) bits |= uint32_t(mask[i] & 1) << i;
  return bits;
#endif
}

// Sums halves, and their halves again: one order on every path.
inline float sum(vf a) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)a);
#else
  for (int stride = kLanes / 2; stride > 0; stride /= 2) {
    for (int i = 0; i < stride; i++) a[i] += a[i + stride];
  }
  return a[0];
#endif
}

inline int32_t sum(vi a) {
  int32_t total = 0;
  for (int i = 0; i < kLanes; i++) total += a[i];
  return total;
}

inline float largest(vf a) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)a);
#else
  float best = a[0];
  for (int i = 1; i < kLanes; i++) best = a[i] > best ? a[i] : best;
  return best;
#endif
}

// acc[n] += sum over 4 k of weights[n][k] (unsigned) * x[k] (signed), x being four bytes in one word.
inline vi dot4(vi acc, vb weights, int32_t x) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, _mm512_set1_epi32(x));
#else
  int8_t bytes[4];
  std::memcpy(bytes, &x, 4);
  for (int n = 0; n < kLanes; n++)
    for (int k = 0; k < 4; k++) acc[n] += int32_t(weights[4 * n + k]) * bytes[k];
  return acc;
#endif
}

// acc[n] += sum over 4 k of x[k] (unsigned) * values[n][k] (signed).
inline vi dot4_of_signed(vi acc, const uint8_t* x, vb values) {
#if defined(__AVX512VNNI__)
  int32_t word;
  std::memcpy(&word, x, 4);
  return (vi)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(word), (__m512i)values);
#else
  for (int n = 0; n < kLanes; n++)
    for (int k = 0; k < 4; k++) acc[n] += int32_t(x[k]) * int8_t(values[4 * n + k]);
  return acc;
#endif
}

// acc[n] += w[n][0] * x[0] + w[n][1] * x[1] for pairs of bfloat16, x being two in one word.
inline vf dot2_bf16(vf acc, const uint16_t* weights, uint32_t x) {
#if defined(__AVX512BF16__)
  return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(weights), (__m512bh)_mm512_set1_epi32(int(x)));
#else
  const vi pairs = load<vi>(weights);
  const vi pair = vi{} + int32_t(x);
  acc = fma((vf)(pairs << 16), (vf)(pair << 16), acc);
  return fma((vf)(pairs & int32_t(0xffff0000)), (vf)(pair & int32_t(0xffff0000)), acc);
#endif
}

inline vf load_half(const uint16_t* from) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  vf v;
  for (int i = 0; i < kLanes; i++) {
    _Float16 h;
    std::memcpy(&h, from + i, 2);
    v[i] = float(h);
  }
  return v;
#endif
}

// To float16, to the nearest; what does not fit becomes the largest that does.
inline void store_half(uint16_t* to, vf v) {
  v = max(min(v, splat(65504.0f)), splat(-65504.0f));
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; i++) {
    const _Float16 h = _Float16(v[i]);
    std::memcpy(to + i, &h, 2);
  }
#endif
}

// To the nearest integer, ties to even, for |x| below 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
inline vf nearest(vf x) {
  const vf magic = splat(12582912.0f);
  return (x + magic) - magic;
}

// e^x to about 2 units in the last place; exactly 0 below -87. Coefficients: Cephes' expf.
inline vf exp(vf x) {
  const vf clamped = max(min(x, splat(88.0f)), splat(-87.0f));
  const vf n = nearest(clamped * 1.44269504088896341f);
  vf r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  vf p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.0f);
  const vi exponent = (__builtin_convertvector(n, vi) + 127) << 23;
  return x < -87.0f ? vf{} : p * (vf)exponent;
}

}  // namespace HEADRACE_PATH
}  // namespace headrace
