// Scores and weighted sums over int8 keys and values, in integers. Queries are rounded to 15 bits and weights to 16, each in
// two bytes: their rounding is nothing beside that of the 8 bits in memory. Integers sum to the same whatever the order, so
// vectors and tiles are one path.
#pragma once

#include "attention_part.h"

namespace headrace {
inline namespace HEADRACE_PATH {

typedef uint8_t v16 __attribute__((vector_size(16)));

// Queries and weights of all rows as integers.
class Int8Rows {
 public:
  static constexpr int kChunk = 128;  // positions whose weights are rounded against their largest, and summed in integers
  static constexpr int kChunks = kPart / kChunk;
  static constexpr int kWeightStride = 2 * kPart + 64;  // of a row: high bytes, low bytes

  Int8Rows(const KvMemory& memory, const AttentionTask& task, Scratch& scratch)
      : rows(task.rows()), size(memory.head_size()), line((size + 63) / 64 * 64) {
    const size_t all = padded(rows);
    queries = scratch.room<int8_t>(kQueries, all * 2 * line);
    numbers_ = scratch.room<Numbers>(kIntegers, all);
    weights = scratch.room<uint8_t>(kWeights, all * kWeightStride);
    raw_ = scratch.room<float>(kKeys, kPart);
    for (int row = 0; row < rows; row++) round(task.queries + row / task.group * task.stride + row % task.group * size, row);
  }

  const int8_t* query(int row, int part) const { return queries + (size_t(row) * 2 + part) * line; }
  const uint8_t* weight(int row, int part) const { return weights + size_t(row) * kWeightStride + part * kPart; }

  // 16 scores from the sums over keys' codes, which lie 128 too high.
  vf score(int row, vi high, vi low, vf key_scales) const {
    const Numbers& n = numbers_[row];
    high -= n.offsets[0];
    low -= n.offsets[1];
    return fma(to_float(high), splat(128.0f), to_float(low)) * (key_scales * n.query_scale);
  }

  void take(int, int v, vf a, vf b) {
    store(raw_ + v * kLanes, a);
    store(raw_ + (v + 1) * kLanes, b);
  }

  // Rounds a row's weights, times their values' scales. Those of the blocks that fill up fours of them are zero.
  void end_row(const ContextPart& part, int row) {
    for (int b = part.begin & ~3; b < (part.end + 3) / 4 * 4; b++) {
      if (b >= part.begin && b < part.end) continue;
      for (int half = 0; half < 2; half++) store(weights + size_t(row) * kWeightStride + half * kPart + b * kBlock, v16{});
    }
    for (int chunk = 0; chunk < kChunks; chunk++) {
      const int first = chunk * kChunk / kBlock, last = first + kChunk / kBlock;
      const int begin = part.begin > first ? part.begin : first, end = part.end < last ? part.end : last;
      if (begin < end) round_chunk(part, begin, end, row, chunk);
    }
  }

  // What the integers' sums add to a row's floats: high and low bytes, of one chunk.
  vf add(vf to, int row, int chunk, vi high, vi low) const {
    return fma(to_float((high << 8) + low), splat(numbers_[row].weight_scales[chunk]), to);
  }

  static const uint16_t* key_scales(const uint8_t* block, int head_size) {
    return reinterpret_cast<const uint16_t*>(block + 2 * kBlock * head_size);
  }

  const int rows, size, line;
  int8_t* queries;   // [rows][high, low][line], zeros behind the head
  uint8_t* weights;  // [rows][kWeightStride]

 private:
  struct Numbers {
    int32_t offsets[2];
    float query_scale, weight_scales[kChunks];
  };

  // To codes of +-127 * 128: 128 times a high byte, and a low one of -64..63.
  void round(const float* query, int row) {
    vf most = {};
    for (int d = 0; d < size; d += kLanes) most = max(most, abs(load<vf>(query + d)));
    const float largest_code = 127.0f * 128.0f, biggest = largest(most);
    const float inverse = biggest > 1e-30f ? largest_code / biggest : 0.0f;
    vi high_total = {}, low_total = {};
    int8_t *high_to = queries + size_t(row) * 2 * line, *low_to = high_to + line;
    for (int d = 0; d < size; d += kLanes) {
      const vi codes = __builtin_convertvector(nearest(load<vf>(query + d) * inverse), vi);
      const vi high = (codes + 64) >> 7, low = codes - (high << 7);
      high_total += high;
      low_total += low;
      store(high_to + d, __builtin_convertvector(high, v16));
      store(low_to + d, __builtin_convertvector(low, v16));
    }
    std::memset(high_to + size, 0, line - size);
    std::memset(low_to + size, 0, line - size);
    Numbers& n = numbers_[row];
    n.query_scale = biggest / largest_code;
    n.offsets[0] = 128 * sum(high_total);
    n.offsets[1] = 128 * sum(low_total);
  }

  void round_chunk(const ContextPart& part, int begin, int end, int row, int chunk) {
    vf most = {};
    for (int b = begin; b < end; b++) {
      const vf p = load<vf>(raw_ + b * kBlock);
      // A scale that has not been written in this context may be left of another.
      const vf weight = p > 0.0f ? p * load_half(key_scales(part.block(b), size) + kBlock) : vf{};
      store(raw_ + b * kBlock, weight);
      most = max(most, weight);
    }
    const float largest_code = 65535.0f, biggest = largest(most);
    // Below it the chunk adds nothing that a sum could hold.
    const float inverse = biggest > 1e-30f ? largest_code / biggest : 0.0f;
    uint8_t* to = weights + size_t(row) * kWeightStride;
    for (int b = begin; b < end; b++) {
      const vi codes = __builtin_convertvector(nearest(load<vf>(raw_ + b * kBlock) * inverse), vi);
      store(to + b * kBlock, __builtin_convertvector(codes >> 8, v16));
      store(to + kPart + b * kBlock, __builtin_convertvector(codes & 255, v16));
    }
    numbers_[row].weight_scales[chunk] = biggest / largest_code;
  }

  Numbers* numbers_;
  float* raw_;
};

class Int8Vectors : public Int8Rows {
 public:
  using Int8Rows::Int8Rows;

  void score(const ContextPart& part, float* scores) const {
    int row = 0;
    for (; row + 4 <= rows; row += 4) score_rows<4>(part, scores, row);
    if (rows - row == 3) score_rows<3>(part, scores, row);
    if (rows - row == 2) score_rows<2>(part, scores, row);
    if (rows - row == 1) score_rows<1>(part, scores, row);
  }

  // sums [rows, head size] = weights times values.
  void mix(const ContextPart& part, float* sums) const {
    int row = 0;
    for (; row + 3 <= rows; row += 3) mix_rows<3>(part, sums, row);
    for (; row < rows; row++) mix_rows<1>(part, sums, row);
  }

 private:
  template <int R>
  void score_rows(const ContextPart& part, float* scores, int row) const {
    for (int b = part.begin; b < part.end; b++) {
      const uint8_t* block = part.block(b);
      const uint8_t* ahead = part.keys_ahead(b);
      if (row == 0) fetch(ahead + 2 * kBlock * size);
      vi sums[R][2] = {};
      for (int d = 0; d < size; d += 4) {
        if (row == 0) fetch(ahead + d * kBlock);
        const vb keys = load<vb>(block + d * kBlock);
        for (int r = 0; r < R; r++) {
          for (int half = 0; half < 2; half++) {
            int32_t four;
            std::memcpy(&four, query(row + r, half) + d, 4);
            sums[r][half] = dot4(sums[r][half], keys, four);
          }
        }
      }
      const vf scales = load_half(key_scales(block, size));
      for (int r = 0; r < R; r++) {
        store(scores + (row + r) * kScoreStride + b * kBlock, Int8Rows::score(row + r, sums[r][0], sums[r][1], scales));
      }
    }
  }

  template <int R>
  void mix_rows(const ContextPart& part, float* sums, int row) const {
    for (int d = 0; d < size; d += 2 * kLanes) {
      vf acc[R][2] = {};
      for (int chunk = 0; chunk < kChunks; chunk++) mix_chunk<R>(part, row, d, chunk, acc);
      for (int r = 0; r < R; r++) {
        for (int n = 0; n < 2; n++) store(sums + size_t(row + r) * size + d + n * kLanes, acc[r][n]);
      }
    }
  }

  template <int R>
  void mix_chunk(const ContextPart& part, int row, int d, int chunk, vf (&acc)[R][2]) const {
    const int first = chunk * kChunk / kBlock, last = first + kChunk / kBlock;
    const int begin = part.begin > first ? part.begin : first, end = part.end < last ? part.end : last;
    if (begin >= end) return;
    vi sums[R][2][2] = {};
    for (int b = begin; b < end; b++) {
      const uint8_t *values = part.block(b) + kBlock * size + d * 4, *ahead = part.values_ahead(b) + d * 4;
      for (int quad = 0; quad < 4; quad++) {
        for (int n = 0; n < 2; n++) {
          if (row == 0) fetch(ahead + (quad * size + n * kLanes) * 4);
          const vb four = load<vb>(values + (quad * size + n * kLanes) * 4);
          for (int r = 0; r < R; r++) {
            for (int half = 0; half < 2; half++) {
              sums[r][half][n] = dot4_of_signed(sums[r][half][n], weight(row + r, half) + b * kBlock + quad * 4, four);
            }
          }
        }
      }
    }
    for (int r = 0; r < R; r++) {
      for (int n = 0; n < 2; n++) acc[r][n] = add(acc[r][n], row + r, chunk, sums[r][0][n], sums[r][1][n]);
    }
  }
};

}  // namespace HEADRACE_PATH
}  // namespace headrace
