// How a step's attention is shared out between the threads.
#include <algorithm>

#include "model.h"

namespace headrace {
namespace {

// Rows of queries that share the reading and converting of keys and values: more no longer pay, and need more cache.
constexpr int kQueryRows = 96;

// Parts are shared out where there are few rows: of a few tokens, or in steps with few in all. Their results take memory,
// which is bounded, and blocks beyond it are read by one thread each.
constexpr int kFewTokens = 4, kSmallStep = 64;
constexpr size_t kMostPartials = size_t(4) << 20;

}  // namespace

// Blocks and items of the step, the longest contexts first.
void Model::plan_attention(const Batch& batch) {
  const int group = config.heads / config.kv_heads, most = std::max(1, kQueryRows / group);
  blocks_.clear();
  for (int s = 0; s < batch.sequences; s++) {
    const int end = batch.query_starts[s + 1];
    for (int t = batch.query_starts[s], count; t < end; t += count) {
      for (count = 1; t + count < end && count < most; count++) {
        if (batch.positions[t + count] != batch.positions[t] + count) break;
      }
      blocks_.push_back({s, t, count, batch.positions[t]});
    }
  }
  std::stable_sort(blocks_.begin(), blocks_.end(),
                   [](const QueryBlock& a, const QueryBlock& b) { return a.parts() * a.tokens > b.parts() * b.tokens; });
  size_t used = 0;
  items_.clear();
  for (size_t b = 0; b < blocks_.size(); b++) {
    QueryBlock& block = blocks_[b];
    const size_t needed = partial_floats(config.head_size) * config.heads * block.tokens * block.parts();
    const bool few = block.tokens <= kFewTokens || batch.tokens <= kSmallStep;
    block.split = few && block.parts() > 1 && used + needed <= kMostPartials;
    block.partials = used;
    if (block.split) used += needed;
    for (int part = 0; part < (block.split ? block.parts() : 1); part++) items_.push_back({int(b), block.split ? part : -1});
  }
  if (partials_.size() < used) partials_.resize(used);
}

AttentionTask Model::task_of(const Batch& batch, const QueryBlock& block, int layer, int kv_head) {
  const int group = config.heads / config.kv_heads;
  const size_t stride = size_t(config.heads) * config.head_size;
  const size_t at = block.token * stride + size_t(kv_head) * group * config.head_size;
  const int32_t* table = batch.block_tables + size_t(block.sequence) * batch.table_width;
  return {layer,         kv_head,         group,  table,         block.position, block.tokens, layers[layer].window,
          &queries_[at], &attended_[at], stride};
}

void Model::attend_all(Worker& worker, Step& step, int layer) {
  const int heads = config.kv_heads;
  Scratch& scratch = scratch_[worker.id()];
  // A block's parts' results in one head, [parts, rows, partial_floats].
  const auto partials_of = [&](const QueryBlock& block, const AttentionTask& task) {
    return &partials_[block.partials + task.kv_head * partial_floats(config.head_size) * task.rows() * block.parts()];
  };
  worker.each(int(items_.size()) * heads, [&](int i) {
    const AttentionItem& item = items_[i / heads];
    const QueryBlock& block = blocks_[item.block];
    const AttentionTask task = task_of(step.batch, block, layer, i % heads);
    if (item.part < 0) return kernels.attend(memory, task, scratch);
    if (item.part < task.first_part()) return;
    float* to = partials_of(block, task) + item.part * partial_floats(config.head_size) * task.rows();
    kernels.attend_one(memory, task, item.part, to, scratch);
  }, true);
  if (items_.size() == blocks_.size()) return;
  worker.each(int(blocks_.size()) * heads, [&](int i) {
    const QueryBlock& block = blocks_[i / heads];
    if (!block.split) return;
    const AttentionTask task = task_of(step.batch, block, layer, i % heads);
    kernels.merge(task, config.head_size, partials_of(block, task), scratch);
  });
}

}  // namespace headrace
