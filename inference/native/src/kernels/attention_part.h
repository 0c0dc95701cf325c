// One part of a task's context, and the numbers that every way of attending to it keeps.
#pragma once

#include "../attention.h"
#include "../scratch.h"
#include "simd.h"

namespace headrace {
inline namespace HEADRACE_PATH {

// Rows are padded to those of a tile, and lines of scores so that a tile's rows do not lie in one set of the cache.
constexpr int kScoreStride = kPart + kLanes;

// Blocks `begin` to `end` of part `number`, counted from the part's start; pairs of blocks are taken together, so both are
// even, and the last block may lie behind the last that has been written.
struct ContextPart {
  static constexpr int kAhead = 4;

  const KvMemory& memory;
  const AttentionTask& task;
  const int number, begin, end;

  ContextPart(const KvMemory& m, const AttentionTask& t, int n)
      : memory(m),
        task(t),
        number(n),
        begin(n == t.first_part() ? t.first(0) / kBlock % kPartBlocks & ~1 : 0),
        end(n == t.last_part() ? (t.last(t.tokens - 1) / kBlock % kPartBlocks + 2) & ~1 : kPartBlocks) {}

  int last_block() const { return task.last(task.tokens - 1) / kBlock; }
  int position_of(int block) const { return (number * kPartBlocks + block) * kBlock; }
  // A block behind the last is the last once more: what is read there gets no weight.
  const uint8_t* block(int b) const {
    const int wanted = number * kPartBlocks + b, last = last_block();
    return memory.at(task.layer, task.table[wanted < last ? wanted : last], task.kv_head);
  }
  // Positions of block `b` that any of the rows sees, from its first on.
  int written(int b) const { return task.last(task.tokens - 1) + 1 - position_of(b); }

  // The keys of a block that comes some time after `b`, or its values: a line of it is asked for with each line that is
  // worked on, because many requests at once hold the work up.
  const uint8_t* keys_ahead(int b) const { return block(b + kAhead); }
  const uint8_t* values_ahead(int b) const { return keys_ahead(b) + memory.panel_bytes(); }
};

// Into the second cache. Always inline: GCC sees no effect in a function that only prefetches, and drops calls of it.
__attribute__((always_inline)) inline void fetch(const uint8_t* at) { __builtin_prefetch(at, 0, 2); }

}  // namespace HEADRACE_PATH
}  // namespace headrace
