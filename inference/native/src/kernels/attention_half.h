// Scores and weighted sums over float16 keys and values, in vectors of floats.
#pragma once

#include "attention_part.h"

namespace headrace {
inline namespace HEADRACE_PATH {

// Each sum runs through its terms one after the other, whatever the number of rows and of vectors that run together: those
// only hide the latency of the additions.
class HalfVectors {
 public:
  HalfVectors(const KvMemory& memory, const AttentionTask& task, Scratch& scratch)
      : task_(task), size_(memory.head_size()), weights_(scratch.room<float>(kWeights, size_t(task.rows()) * kScoreStride)) {}

  void score(const ContextPart& part, float* scores) const {
    each_rows([&](auto rows, int row) { score_rows<decltype(rows)::value>(part, scores, row); });
  }

  // The weights of positions 16 v to 16 v + 31 of the part.
  void take(int row, int v, vf a, vf b) {
    store(weights_ + row * kScoreStride + v * kLanes, a);
    store(weights_ + row * kScoreStride + (v + 1) * kLanes, b);
  }
  void end_row(const ContextPart&, int) {}

  // sums [rows, head size] = weights times values.
  void mix(const ContextPart& part, float* sums) const {
    each_rows([&](auto rows, int row) { mix_rows<decltype(rows)::value>(part, sums, row); });
  }

 private:
#if defined(__AVX512F__)
  static constexpr int kRows = 6;
#else
  static constexpr int kRows = 3;
#endif
  template <int N>
  struct Rows {
    static constexpr int value = N;
  };

  template <class Body>
  void each_rows(Body&& body) const {
    const int rows = task_.rows();
    int row = 0;
    for (; row + kRows <= rows; row += kRows) body(Rows<kRows>{}, row);
    for (; row + 3 <= rows; row += 3) body(Rows<3>{}, row);
    for (; row < rows; row++) body(Rows<1>{}, row);
  }

  const float* query(int row) const {
    return task_.queries + row / task_.group * task_.stride + row % task_.group * size_;
  }

  template <int R>
  void score_rows(const ContextPart& part, float* scores, int row) const {
    const float* queries[R];
    for (int r = 0; r < R; r++) queries[r] = query(row + r);
    for (int b = part.begin; b < part.end; b += 2) {
      const uint16_t *one = reinterpret_cast<const uint16_t*>(part.block(b)),
                     *two = reinterpret_cast<const uint16_t*>(part.block(b + 1));
      const uint8_t *ahead = part.keys_ahead(b), *ahead_two = part.keys_ahead(b + 1);
      vf acc[R][2] = {};
      for (int d = 0; d < size_; d++) {
        if (row == 0) fetch((d % 2 ? ahead : ahead_two) + d / 2 * 64);
        const vf keys[2] = {load_half(one + d * kBlock), load_half(two + d * kBlock)};
        for (int r = 0; r < R; r++) {
          const vf q = splat(queries[r][d]);
          for (int n = 0; n < 2; n++) acc[r][n] = fma(keys[n], q, acc[r][n]);
        }
      }
      for (int r = 0; r < R; r++) {
        for (int n = 0; n < 2; n++) store(scores + (row + r) * kScoreStride + (b + n) * kBlock, acc[r][n]);
      }
    }
  }

  template <int R>
  void mix_rows(const ContextPart& part, float* sums, int row) const {
    for (int d = 0; d < size_; d += 2 * kLanes) {
      vf acc[R][2] = {};
      for (int b = part.begin; b < part.end; b++) {
        const uint16_t* values = reinterpret_cast<const uint16_t*>(part.block(b)) + kBlock * size_ + d;
        // What has not been written in this context may be left of another: not even zero times it is zero.
        const int count = part.written(b) < kBlock ? part.written(b) : kBlock;
        const float* weights = weights_ + row * kScoreStride + b * kBlock;
        const uint8_t* ahead = part.values_ahead(b) + d * sizeof(uint16_t);
        for (int p = 0; p < count; p++) {
          if (row == 0) fetch(ahead + p * size_ * sizeof(uint16_t));
          const vf value[2] = {load_half(values + p * size_), load_half(values + p * size_ + kLanes)};
          for (int r = 0; r < R; r++) {
            const vf weight = splat(weights[r * kScoreStride + p]);
            for (int n = 0; n < 2; n++) acc[r][n] = fma(value[n], weight, acc[r][n]);
          }
        }
      }
      for (int r = 0; r < R; r++) {
        for (int n = 0; n < 2; n++) store(sums + size_t(row + r) * size_ + d + n * kLanes, acc[r][n]);
      }
    }
  }

  const AttentionTask& task_;
  const int size_;
  float* weights_;
};

}  // namespace HEADRACE_PATH
}  // namespace headrace
