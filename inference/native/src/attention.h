// Attention over keys and values in paged memory: blocks of queries times parts of the context.
//
// A context is cut into parts of kPart positions that begin at multiples of it. What a row gets from a part (its largest
// score, the sum of its weights and that of its weighted values) depends on the row and the part alone, and parts are
// merged in their order (online softmax: Milakov and Gimelshein, 2018; Dao et al., FlashAttention, 2022). So a row's
// result is the same bits whatever block of queries it is in, and whether one thread reads its context or several do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv_memory.h"

namespace headrace {

constexpr int kPartBlocks = 16;
constexpr int kPart = kPartBlocks * kBlock;

// The attention of tokens at consecutive positions of a sequence in the query heads that share a kv head. A token's queries
// and results are [group, head size], `stride` floats after those of the token before. Queries are scaled.
struct AttentionTask {
  int layer;
  int kv_head;
  int group;             // query heads that share the kv head
  const int32_t* table;  // physical blocks of the sequence
  int position;          // of the first token
  int tokens;
  int window;  // positions that a token sees, its own included; 0: all before it
  const float* queries;
  float* out;
  size_t stride;

  int rows() const { return tokens * group; }
  // The last position that token `t` sees, and the first.
  int last(int t) const { return position + t; }
  int first(int t) const { return window && last(t) >= window ? last(t) - window + 1 : 0; }
  int first_part() const { return first(0) / kPart; }
  int last_part() const { return last(tokens - 1) / kPart; }
};

// Floats of a row's result from a part: its weighted values, then its largest score and the sum of its weights.
constexpr size_t partial_floats(int head_size) { return size_t(head_size) + 16; }

}  // namespace headrace
