#include "attention.h"

#include <algorithm>

#include "attention_half.h"
#include "attention_int8.h"
#include "simd.h"

namespace headrace {
namespace {

template <int G, class Heads>
void score(const Span& span, const Heads& heads, float* scores, vf (&best)[G]) {
  const AttentionTask& t = span.task;
  for (int g = 0; g < G; g++) best[g] = splat(-std::numeric_limits<float>::infinity());
  for (int b = 0; b < span.count; b++) {
    span.prefetch(b);
    vf block_scores[G];
    heads.score(span.block(b), block_scores);
    const vi positions = lanes() + (span.first + b) * kBlock;
    const vi seen = (positions >= t.first) & (positions <= t.last);
    for (int g = 0; g < G; g++) {
      const vf s = seen ? block_scores[g] : splat(-std::numeric_limits<float>::infinity());
      best[g] = max(best[g], s);
      store(scores + (g * span.count + b) * kBlock, s);
    }
  }
}

// Scores to probabilities that are not yet divided by their sum; returns the sum.
float soften(float* scores, int count, float best) {
  vf total = {};
  for (int i = 0; i < count; i += kLanes) {
    const vf p = exp(load<vf>(scores + i) - best);
    total += p;
    store(scores + i, p);
  }
  return sum(total);
}

template <int G, int V, class Heads>
void mix(const Span& span, const Heads& heads, const float* sums, int d, float* out) {
  const int size = span.memory.head_size();
  vf acc[G][V] = {};
  heads.template add<V>(span, d, acc);
  for (int g = 0; g < G; g++) {
    for (int v = 0; v < V; v++) store(out + g * size + d + v * kLanes, acc[g][v] * (1.0f / sums[g]));
  }
}

template <int G, class Heads>
void attend_group(const KvMemory& memory, const AttentionTask& t, int head, AttentionScratch& scratch) {
  const int size = memory.head_size(), first_block = t.first / kBlock;
  const Span span{memory, t, first_block, t.last / kBlock + 1 - first_block};
  for (int panel = -Span::kAhead; panel < 0; panel++) span.prefetch(panel);
  const int stride = span.count * kBlock;
  if (scratch.scores.size() < size_t(G) * stride) scratch.scores.resize(size_t(G) * stride * 2);
  float* scores = scratch.scores.data();
  Heads heads(span, t.queries + head * size, scratch);
  vf best[G];
  score<G>(span, heads, scores, best);
  float sums[G];
  for (int g = 0; g < G; g++) sums[g] = soften(scores + g * stride, stride, largest(best[g]));
  heads.weigh(span, scores);
  int d = 0;
  float* out = t.out + head * size;
  constexpr int kWide = Heads::kVectors;
  for (; d + kWide * kLanes <= size; d += kWide * kLanes) mix<G, kWide>(span, heads, sums, d, out);
  for (; d < size; d += kLanes) mix<G, 1>(span, heads, sums, d, out);
}

template <template <int> class Heads>
void attend_in_groups(const KvMemory& memory, const AttentionTask& task, AttentionScratch& scratch) {
  int head = 0;
  for (; head + 3 <= task.group; head += 3) attend_group<3, Heads<3>>(memory, task, head, scratch);
  if (task.group - head == 2) attend_group<2, Heads<2>>(memory, task, head, scratch);
  if (task.group - head == 1) attend_group<1, Heads<1>>(memory, task, head, scratch);
}

}  // namespace

void attend(const KvMemory& memory, const AttentionTask& task, AttentionScratch& scratch) {
  if (memory.kind() == KvKind::kInt8) {
    attend_in_groups<Int8Heads>(memory, task, scratch);
  } else {
    attend_in_groups<HalfHeads>(memory, task, scratch);
  }
}

}  // namespace headrace
