// Scores and sums of G query heads over blocks of int8 keys and values, in integers. Queries are rounded to 15 bits and
// probabilities to 16, each in two bytes: their rounding is nothing beside that of the 8 bits in memory.
#pragma once

#include <algorithm>
#include <cstring>

#include "attention_span.h"
#include "simd.h"

namespace headrace {

template <int G>
class Int8Heads {
 public:
  static constexpr int kVectors = 2;  // of a value that are summed at a time, in registers

  Int8Heads(const Span& span, const float* queries, AttentionScratch& scratch) : size_(span.memory.head_size()) {
    if (scratch.queries.size() < size_t(G) * size_ / 2) scratch.queries.resize(size_t(G) * size_ / 2);
    const size_t bytes = sizeof(Chunk) * (span.count / kChunk + 1);
    if (scratch.weights.size() < bytes) scratch.weights.resize(bytes * 2);
    queries_ = scratch.queries.data();
    chunks_ = scratch.weights.data();
    for (int g = 0; g < G; g++) round_query(queries + g * size_, g);
  }

  void score(const uint8_t* block, vf (&scores)[G]) const {
    vi sums[G][2];
    for (int g = 0; g < G; g++) {
      for (int part = 0; part < 2; part++) sums[g][part] = vi{} - 128 * totals_[g][part];  // codes lie 128 too high
    }
    for (int i = 0; i < size_ / 4; i++) {
      const vb keys = load<vb>(block + i * 4 * kBlock);
      for (int g = 0; g < G; g++) {
        for (int part = 0; part < 2; part++) sums[g][part] = dot4(sums[g][part], keys, queries_[(i * G + g) * 2 + part]);
      }
    }
    const vf scales = load_half(scales_of(block));
    for (int g = 0; g < G; g++) {
      scores[g] = fma(to_float(sums[g][0]), splat(128.0f), to_float(sums[g][1])) * (scales * query_scales_[g]);
    }
  }

  // Probabilities [G][blocks * 16], times their values' scales, to 16 bits against a chunk's largest. Changes them.
  void weigh(const Span& span, float* probabilities) {
    for (int b = 0; b < span.count; b += kChunk) {
      Chunk& chunk = chunk_of(b);
      const int end = std::min(b + kChunk, span.count);
      for (int g = 0; g < G; g++) weigh_chunk(span, b, end, probabilities + g * span.count * kBlock, chunk, g);
    }
  }

  // acc[g] += weights[g][p] * values[p][d .. d + 16 V) over all positions p.
  template <int V>
  void add(const Span& span, int d, vf (&acc)[G][V]) const {
    for (int b = 0; b < span.count; b += kChunk) add_chunk<V>(span, b, std::min(b + kChunk, span.count), d, acc);
  }

 private:
  typedef uint8_t v16 __attribute__((vector_size(16)));
  static constexpr int kChunk = 8;  // blocks whose values are summed in integers
  struct Chunk {
    uint8_t codes[kChunk][G][2][kBlock];  // high and low bytes
    float scales[G];
  };

  Chunk& chunk_of(int block) const { return reinterpret_cast<Chunk*>(chunks_)[block / kChunk]; }

  template <int V>
  void add_chunk(const Span& span, int from, int end, int d, vf (&acc)[G][V]) const {
    const Chunk& chunk = chunk_of(from);
    vi sums[G][2][V] = {};
    for (int b = from; b < end; b++) {
      if (d == 0) span.prefetch(span.count + b);
      const uint8_t* values = span.block(b) + (kBlock * size_) + d * 4;
      for (int quad = 0; quad < 4; quad++) {
        for (int v = 0; v < V; v++) {
          const vb four = load<vb>(values + (quad * size_ + v * kLanes) * 4);
          for (int g = 0; g < G; g++) {
            for (int part = 0; part < 2; part++) {
              sums[g][part][v] = dot4_of_signed(sums[g][part][v], chunk.codes[b - from][g][part] + quad * 4, four);
            }
          }
        }
      }
    }
    for (int g = 0; g < G; g++) {
      for (int v = 0; v < V; v++) {
        acc[g][v] = fma(to_float((sums[g][0][v] << 8) + sums[g][1][v]), splat(chunk.scales[g]), acc[g][v]);
      }
    }
  }

  const uint16_t* scales_of(const uint8_t* block) const {
    return reinterpret_cast<const uint16_t*>(block + 2 * kBlock * size_);
  }

  void weigh_chunk(const Span& span, int from, int end, float* probabilities, Chunk& chunk, int g) const {
    vf most = {};
    for (int b = from; b < end; b++) {
      const vf weight = load<vf>(probabilities + b * kBlock) * load_half(scales_of(span.block(b)) + kBlock);
      store(probabilities + b * kBlock, weight);
      most = max(most, weight);
    }
    const float largest_code = 65535.0f, biggest = largest(most);
    // Below it the chunk adds nothing that a sum could hold.
    const float inverse = biggest > 1e-30f ? largest_code / biggest : 0.0f;
    for (int b = from; b < end; b++) {
      const vi codes = __builtin_convertvector(nearest(load<vf>(probabilities + b * kBlock) * inverse), vi);
      store(chunk.codes[b - from][g][0], __builtin_convertvector(codes >> 8, v16));
      store(chunk.codes[b - from][g][1], __builtin_convertvector(codes & 255, v16));
    }
    chunk.scales[g] = biggest / largest_code;
  }

  // To codes of +-127 * 128: 128 times a high byte, and a low one of -64..63.
  void round_query(const float* query, int g) {
    vf most = {};
    for (int d = 0; d < size_; d += kLanes) most = max(most, abs(load<vf>(query + d)));
    const float largest_code = 127.0f * 128.0f, biggest = largest(most);
    const float inverse = biggest > 1e-30f ? largest_code / biggest : 0.0f;
    query_scales_[g] = biggest / largest_code;
    vi high_total = {}, low_total = {};
    for (int d = 0; d < size_; d += kLanes) {
      const vi codes = __builtin_convertvector(nearest(load<vf>(query + d) * inverse), vi);
      const vi high = (codes + 64) >> 7, low = codes - (high << 7);
      high_total += high;
      low_total += low;
      uint8_t parts[2][kLanes];
      store(parts[0], __builtin_convertvector(high, v16));
      store(parts[1], __builtin_convertvector(low, v16));
      for (int i = 0; i < 4; i++) {
        int32_t* words = &queries_[((d / 4 + i) * G + g) * 2];
        for (int part = 0; part < 2; part++) std::memcpy(words + part, parts[part] + i * 4, 4);
      }
    }
    totals_[g][0] = sum(high_total);
    totals_[g][1] = sum(low_total);
  }

  const int size_;
  int32_t* queries_;  // [size / 4][G][high, low], four bytes in each
  uint8_t* chunks_;   // of Chunk
  int32_t totals_[G][2];
  float query_scales_[G];
};

}  // namespace headrace
