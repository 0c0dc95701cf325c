// Keys and values in blocks of 16 positions.
//
// Layout: [layer][block][kv head][keys | values | scales], keys transposed so that 16 scores are one vector, without sums
// across it.
//   float16: keys [head size][16 positions], values [16 positions][head size]; no scales.
//   int8: keys [head size / 4][16 positions][4], 128 + code, values [16 / 4 positions][head size][4], code: four bytes
//     that one instruction sums lie together. Scales, float16: one for each position's key, then for each one's value.
//     A position's own scale is fixed when it is written, so nothing is ever rounded twice.
#pragma once

#include <cstdint>
#include <thread>

#include "matrix.h"

namespace headrace {

constexpr int kBlock = 16;

enum class KvKind : int32_t { kHalf = 0, kInt8 = 1 };

// The memory's pages are made in the background from the start on, because a step that touches them first would wait:
// it took 300 ms for the first prompts of 64 sequences.
class KvMemory {
 public:
  KvMemory(KvKind kind, int layers, int blocks, int heads, int head_size);
  void copy(int from, int to);
  // Keys of a block, then its values and scales.
  uint8_t* at(int layer, int block, int head) const {
    return arena_.data() + ((size_t(layer) * blocks_ + block) * heads_ + head) * bytes_;
  }
  KvKind kind() const { return kind_; }
  int head_size() const { return head_size_; }
  // Bytes of a block in one head, and those of its keys alone, which are as many as its values'.
  size_t bytes() const { return bytes_; }
  size_t panel_bytes() const { return panel_bytes_; }

 private:
  const KvKind kind_;
  const int layers_, blocks_, heads_, head_size_;
  const size_t panel_bytes_, bytes_;  // bytes: of both panels and the scales
  Arena arena_;
  std::jthread page_maker_;
};

}  // namespace headrace
