// Keys and values in blocks of 16 positions, and attention of one token over them.
//
// Layout: [layer][block][kv head][key: head size x 16 positions | value: 16 positions x head size], float16. Keys lie
// transposed so that 16 scores are one vector, without sums across it.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#include "matrix.h"

namespace headrace {

constexpr int kBlock = 16;

// The memory's pages are made in the background from the start on, because a step that touches them first would wait:
// it took 300 ms for the first prompts of 64 sequences.
class KvMemory {
 public:
  KvMemory(int layers, int blocks, int heads, int head_size);
  void write(int layer, int block, int slot, int head, const float* key, const float* value);
  void copy(int from, int to);
  const uint16_t* key(int layer, int block, int head) const;
  const uint16_t* value(int layer, int block, int head) const { return key(layer, block, head) + kBlock * head_size_; }
  int head_size() const { return head_size_; }

 private:
  const int layers_, blocks_, heads_, head_size_;
  Arena arena_;
  std::jthread page_maker_;
};

// One token's attention in the query heads that share a kv head. Positions first..last are seen.
struct AttentionTask {
  int layer;
  int kv_head;
  int group;             // query heads that share the kv head
  const int32_t* table;  // physical blocks of the sequence
  int first;
  int last;
  const float* queries;  // [group, head size], scaled
  float* out;            // [group, head size]
};

// `scratch` holds the scores and grows as contexts do. The result depends on the task alone, in every bit.
void attend(const KvMemory& memory, const AttentionTask& task, std::vector<float>& scratch);

}  // namespace headrace
