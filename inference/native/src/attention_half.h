// Scores and sums of G query heads over blocks of float16 keys and values.
#pragma once

#include "attention_span.h"
#include "simd.h"

namespace headrace {

template <int G>
class HalfHeads {
 public:
  static constexpr int kVectors = 4;  // of a value that are summed at a time, in registers

  HalfHeads(const Span& span, const float* queries, AttentionScratch&)
      : queries_(queries), size_(span.memory.head_size()) {}

  // Four partial sums a head hide the latency of the additions.
  void score(const uint8_t* block, vf (&scores)[G]) const {
    const uint16_t* keys = reinterpret_cast<const uint16_t*>(block);
    vf partial[G][4] = {};
    for (int d = 0; d < size_; d += 4) {
      for (int j = 0; j < 4; j++) {
        const vf key = load_half(keys + (d + j) * kBlock);
        for (int g = 0; g < G; g++) partial[g][j] = fma(key, splat(queries_[g * size_ + d + j]), partial[g][j]);
      }
    }
    for (int g = 0; g < G; g++) scores[g] = (partial[g][0] + partial[g][1]) + (partial[g][2] + partial[g][3]);
  }

  // Probabilities [G][blocks * 16] are used as they are.
  void weigh(const Span&, float* probabilities) { probabilities_ = probabilities; }

  // acc[g] += probabilities[g][p] * values[p][d .. d + 16 V) over all positions p.
  template <int V>
  void add(const Span& span, int d, vf (&acc)[G][V]) const {
    for (int b = 0; b < span.count; b++) {
      if (d == 0) span.prefetch(span.count + b);
      const uint16_t* values = reinterpret_cast<const uint16_t*>(span.block(b)) + kBlock * size_ + d;
      const float* probabilities = probabilities_ + b * kBlock;
      for (int p = 0; p < kBlock; p++) {
        for (int v = 0; v < V; v++) {
          const vf value = load_half(values + p * size_ + v * kLanes);
          for (int g = 0; g < G; g++) acc[g][v] = fma(value, splat(probabilities[g * span.count * kBlock + p]), acc[g][v]);
        }
      }
    }
  }

 private:
  const float* queries_;
  const float* probabilities_ = nullptr;
  const int size_;
};

}  // namespace headrace
