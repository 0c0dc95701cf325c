// The blocks that a task reads.
#pragma once

#include "attention.h"

namespace headrace {

// Panels are read one after the other: the keys of all blocks, then the values of all.
struct Span {
  const KvMemory& memory;
  const AttentionTask& task;
  const int first, count;

  const uint8_t* block(int b) const { return memory.at(task.layer, task.table[first + b], task.kv_head); }

  // Asks for the panel that is read `kAhead` panels after this one, into the second cache: in the first, panels that lie
  // 4 kB apart, as float16's do, push each other out before they are read. Always inline: GCC sees no effect in a
  // function that only prefetches, and drops calls of it.
  __attribute__((always_inline)) void prefetch(int panel) const {
    const int wanted = panel + kAhead;
    if (wanted >= 2 * count) return;
    const size_t bytes = memory.panel_bytes();
    const uint8_t* at = wanted < count ? block(wanted) : block(wanted - count) + bytes;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
    if (memory.kind() == KvKind::kInt8 && wanted < count) __builtin_prefetch(at + 2 * bytes, 0, 2);
  }

  static constexpr int kAhead = 6;
};

}  // namespace headrace
