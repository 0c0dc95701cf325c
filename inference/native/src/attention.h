// Attention of one token over keys and values in paged memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kv_memory.h"

namespace headrace {

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

// One thread's working memory; grows as contexts do.
struct AttentionScratch {
  std::vector<float> scores;
  std::vector<int32_t> queries;
  std::vector<uint8_t> weights;
};

// The result depends on the task alone, in every bit.
void attend(const KvMemory& memory, const AttentionTask& task, AttentionScratch& scratch);

}  // namespace headrace
