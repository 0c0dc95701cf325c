#include "attention.h"

#include <algorithm>

#include "simd.h"

namespace headrace {
namespace {

// Scores of G query heads against the keys of one block. Four partial sums a head hide the latency of the additions.
template <int G>
void block_scores(const uint16_t* keys, const uint16_t* next, const float* queries, int size, vf (&scores)[G]) {
  vf partial[G][4] = {};
  for (int d = 0; d < size; d += 4) {
    for (int j = 0; j < 4; j++) {
      const vf key = load_half(keys + (d + j) * kBlock);
      for (int g = 0; g < G; g++) partial[g][j] = fma(key, splat(queries[g * size + d + j]), partial[g][j]);
    }
    __builtin_prefetch(next + d * kBlock);
    __builtin_prefetch(next + d * kBlock + 32);
  }
  for (int g = 0; g < G; g++) scores[g] = (partial[g][0] + partial[g][1]) + (partial[g][2] + partial[g][3]);
}

// out[g][0 .. 16 V) += probabilities[g][p] * values[p] over the positions of one block.
template <int G, int V>
void add_values(const uint16_t* values, const float* probabilities, int stride, int size, vf (&acc)[G][V]) {
  for (int p = 0; p < kBlock; p++) {
    for (int v = 0; v < V; v++) {
      const vf value = load_half(values + p * size + v * kLanes);
      for (int g = 0; g < G; g++) acc[g][v] = fma(value, splat(probabilities[g * stride + p]), acc[g][v]);
    }
  }
}

struct Span {
  int first_block, blocks, stride;
};

template <int G>
void score(const KvMemory& memory, const AttentionTask& t, const float* queries, Span span, float* scores, vf (&best)[G]) {
  for (int g = 0; g < G; g++) best[g] = splat(-std::numeric_limits<float>::infinity());
  for (int b = 0; b < span.blocks; b++) {
    const int block = span.first_block + b;
    const uint16_t* keys = memory.key(t.layer, t.table[block], t.kv_head);
    const uint16_t* next = b + 1 < span.blocks ? memory.key(t.layer, t.table[block + 1], t.kv_head) : keys;
    vf block_score[G];
    block_scores<G>(keys, next, queries, memory.head_size(), block_score);
    const vi positions = lanes() + block * kBlock;
    const vi seen = (positions >= t.first) & (positions <= t.last);
    for (int g = 0; g < G; g++) {
      const vf s = seen ? block_score[g] : splat(-std::numeric_limits<float>::infinity());
      best[g] = max(best[g], s);
      store(scores + g * span.stride + b * kBlock, s);
    }
  }
}

// Scores to probabilities that are not yet divided by their sum; returns the sum.
float soften(float* scores, Span span, float best) {
  vf total = {};
  for (int i = 0; i < span.blocks * kBlock; i += kLanes) {
    const vf p = exp(load<vf>(scores + i) - best);
    total += p;
    store(scores + i, p);
  }
  return sum(total);
}

template <int G, int V>
void mix(const KvMemory& memory, const AttentionTask& t, Span span, const float* scores, const float* sums, int d, float* out) {
  const int size = memory.head_size();
  vf acc[G][V] = {};
  for (int b = 0; b < span.blocks; b++) {
    const uint16_t* values = memory.value(t.layer, t.table[span.first_block + b], t.kv_head);
    add_values<G, V>(values + d, scores + b * kBlock, span.stride, size, acc);
  }
  for (int g = 0; g < G; g++) {
    for (int v = 0; v < V; v++) store(out + g * size + d + v * kLanes, acc[g][v] * (1.0f / sums[g]));
  }
}

template <int G>
void attend_group(const KvMemory& memory, const AttentionTask& t, int head, std::vector<float>& scratch) {
  const int size = memory.head_size();
  const int first_block = t.first / kBlock;
  const Span span{first_block, t.last / kBlock + 1 - first_block, (t.last / kBlock + 1 - first_block) * kBlock};
  if (scratch.size() < size_t(G) * span.stride) scratch.resize(size_t(G) * span.stride * 2);
  vf best[G];
  score<G>(memory, t, t.queries + head * size, span, scratch.data(), best);
  float sums[G];
  for (int g = 0; g < G; g++) sums[g] = soften(scratch.data() + g * span.stride, span, largest(best[g]));
  int d = 0;
  float* out = t.out + head * size;
  for (; d + 4 * kLanes <= size; d += 4 * kLanes) mix<G, 4>(memory, t, span, scratch.data(), sums, d, out);
  for (; d < size; d += kLanes) mix<G, 1>(memory, t, span, scratch.data(), sums, d, out);
}

}  // namespace

KvMemory::KvMemory(int layers, int blocks, int heads, int head_size)
    : layers_(layers),
      blocks_(blocks),
      heads_(heads),
      head_size_(head_size),
      arena_(size_t(layers) * blocks * heads * 2 * kBlock * head_size * sizeof(uint16_t)),
      page_maker_([this](std::stop_token stop) { arena_.make_pages(stop); }) {}

const uint16_t* KvMemory::key(int layer, int block, int head) const {
  const size_t at = (size_t(layer) * blocks_ + block) * heads_ + head;
  return reinterpret_cast<const uint16_t*>(arena_.data()) + at * 2 * kBlock * head_size_;
}

void KvMemory::write(int layer, int block, int slot, int head, const float* key_row, const float* value_row) {
  uint16_t* keys = const_cast<uint16_t*>(key(layer, block, head));
  uint16_t* values = keys + kBlock * head_size_ + slot * head_size_;
  for (int d = 0; d < head_size_; d += kLanes) {
    store_half(values + d, load<vf>(value_row + d));
    uint16_t column[kLanes];
    store_half(column, load<vf>(key_row + d));
    for (int i = 0; i < kLanes; i++) keys[(d + i) * kBlock + slot] = column[i];
  }
}

void KvMemory::copy(int from, int to) {
  const size_t bytes = size_t(heads_) * 2 * kBlock * head_size_ * sizeof(uint16_t);
  for (int layer = 0; layer < layers_; layer++) {
    std::memcpy(const_cast<uint16_t*>(key(layer, to, 0)), key(layer, from, 0), bytes);
  }
}

void attend(const KvMemory& memory, const AttentionTask& task, std::vector<float>& scratch) {
  int head = 0;
  for (; head + 3 <= task.group; head += 3) attend_group<3>(memory, task, head, scratch);
  if (task.group - head == 2) attend_group<2>(memory, task, head, scratch);
  if (task.group - head == 1) attend_group<1>(memory, task, head, scratch);
}

}  // namespace headrace
