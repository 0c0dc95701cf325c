#include "model.h"

#include <algorithm>
#include <cmath>

namespace headrace {

namespace {

// More stages than a layer, and than the rest of a step, can have.
constexpr int kLayerStages = 25, kOtherStages = 8;

// Logits of more bytes than a core's own caches hold are written past them.
constexpr size_t kCache = size_t(2) << 20;

void grow(std::vector<float>& buffer, size_t size) {
  if (buffer.size() < size) buffer.resize(size);
}

const float* or_null(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

Model::Model(const Config& c)
    : config(c),
      kernels(kernels_of(c.kernels)),
      pool(c.threads, c.layers * kLayerStages + kOtherStages),
      memory(c.kv_kind, c.layers, c.blocks, c.kv_heads, c.head_size),
      layers(c.layers),
      scratch_(pool.size()),
      tiles_(pool.size()) {}

void Model::prepare(const Batch& batch, bool adapted) {
  const size_t n = batch.tokens;
  const size_t query_width = size_t(config.heads) * config.head_size, key_width = size_t(config.kv_heads) * config.head_size;
  grow(x_, n * config.hidden);
  grow(normed_, n * config.hidden);
  grow(branch_, n * config.hidden);
  grow(queries_, n * query_width);
  grow(attended_, n * query_width);
  grow(angles_, rotations.size() * n * config.head_size);
  grow(keys_, n * key_width);
  grow(values_, n * key_width);
  if (adapted) grow(gate_, n * config.intermediate);
  if (adapted) grow(up_, n * config.intermediate);
  gated_.resize(int(n), config.intermediate);
  for (std::vector<float>& tile : tiles_) grow(tile, 2 * n * kTile);
  owners_.resize(n);
  for (int s = 0; s < batch.sequences; s++) {
    for (int t = batch.query_starts[s]; t < batch.query_starts[s + 1]; t++) owners_[t] = s;
  }
  plan_attention(batch);
}

void Model::forward(const Batch& batch, float* logits) {
  bool adapted = false;
  for (int s = 0; s < batch.sequences; s++) adapted |= batch.adapter_ids[s] != 0;
  prepare(batch, adapted);
  // Each thread keeps its own step: a stage shares only rows of the buffers.
  pool.run([&](Worker& worker) {
    Step step{batch, adapted};
    embed(worker, batch);
    for (int layer = 0; layer < config.layers; layer++) {
      attention(worker, step, layer);
      feed_forward(worker, step, layer);
    }
    logits_of(worker, batch, logits);
  });
}

void Model::attend_only(const Batch& batch, int layer, const float* queries, const float* keys, const float* values,
                        float* out) {
  prepare(batch, false);
  const size_t width = size_t(batch.tokens) * config.heads * config.head_size;
  const size_t kv_width = width / config.heads * config.kv_heads;
  std::copy_n(queries, width, queries_.data());
  std::copy_n(keys, kv_width, keys_.data());
  std::copy_n(values, kv_width, values_.data());
  pool.run([&](Worker& worker) {
    Step step{batch, false};
    worker.each(batch.tokens, [&](int t) { set_angles(batch, t); });
    rotate_and_store(worker, step, layer);
    attend_all(worker, step, layer);
  });
  std::copy_n(attended_.data(), width, out);
}

void Model::embed(Worker& worker, const Batch& batch) {
  worker.each(batch.tokens, [&](int t) {
    float* row = &x_[size_t(t) * config.hidden];
    unpack_row(embedding, batch.token_ids[t], row);
    for (int i = 0; i < config.hidden; i++) row[i] *= config.embedding_scale;
    set_angles(batch, t);
  });
}

void Model::set_angles(const Batch& batch, int t) {
  const int half = config.head_size / 2;
  for (size_t r = 0; r < rotations.size(); r++) {
    float* cos = &angles_[(r * batch.tokens + t) * config.head_size];
    for (int i = 0; i < half; i++) sincosf(float(batch.positions[t]) * rotations[r][i], &cos[half + i], &cos[i]);
  }
}

void Model::set_rotation(int layer, std::vector<float> frequencies, int window) {
  size_t r = 0;
  while (r < rotations.size() && rotations[r] != frequencies) r++;
  if (r == rotations.size()) rotations.push_back(std::move(frequencies));
  layers.at(layer).rotation = int(r);
  layers.at(layer).window = window;
}

// Norms rows of x into normed_ and the inputs of the next product.
void Model::normalize(Worker& worker, int count, const float* x, const std::vector<float>& norm, Kind kind) {
  worker.once([&] { inputs_.resize(count, config.hidden); });
  worker.each(count, [&](int t) {
    const size_t at = size_t(t) * config.hidden;
    kernels.rms_norm(x + at, norm.data(), config.hidden, config.norm_eps, &normed_[at]);
    kernels.set_inputs(inputs_, kind, t, 0, config.hidden / kGroup, &normed_[at]);
  });
}

void Model::attention(Worker& worker, Step& step, int index) {
  const Layer& layer = layers[index];
  const int n = step.batch.tokens, query_width = config.heads * config.head_size;
  const int key_width = config.kv_heads * config.head_size;
  const Kind kind = input_kind(layer.projections[kQuery]);
  normalize(worker, n, x_.data(), layer.norms[kBeforeAttention], kind);
  const Product products[] = {
      {&layer.projections[kQuery], queries_.data(), query_width, or_null(layer.biases[kQuery]), false},
      {&layer.projections[kKey], keys_.data(), key_width, or_null(layer.biases[kKey]), false},
      {&layer.projections[kValue], values_.data(), key_width, or_null(layer.biases[kValue]), false},
  };
  multiply(kernels, worker, scratch_[worker.id()], inputs_, n, products, 3);
  adapt(worker, step, index, kQuery, normed_.data(), queries_.data());
  adapt(worker, step, index, kKey, normed_.data(), keys_.data());
  adapt(worker, step, index, kValue, normed_.data(), values_.data());
  rotate_and_store(worker, step, index);
  attend_all(worker, step, index);
  worker.once([&] { inputs_.resize(n, query_width); });
  worker.each(n, [&](int t) { kernels.set_inputs(inputs_, kind, t, 0, query_width / kGroup, &attended_[size_t(t) * query_width]); });
  add_back(worker, step, index, kOutput, inputs_);
}

void Model::rotate_and_store(Worker& worker, Step& step, int index) {
  const Layer& layer = layers[index];
  const int size = config.head_size, half = size / 2;
  worker.each(step.batch.tokens, [&](int t) {
    const int position = step.batch.positions[t];
    const float* cos = &angles_[(size_t(layer.rotation) * step.batch.tokens + t) * size];
    const float* sin = cos + half;
    float* query = &queries_[size_t(t) * config.heads * size];
    for (int h = 0; h < config.heads; h++, query += size) {
      if (!layer.norms[kQueryNorm].empty()) kernels.rms_norm(query, layer.norms[kQueryNorm].data(), size, config.norm_eps, query);
      kernels.rotate(query, cos, sin, size);
      if (config.kv_kind == KvKind::kInt8) kernels.spread(query, size);
      kernels.scale(query, config.attention_scale, size);
    }
    float *key = &keys_[size_t(t) * config.kv_heads * size], *value = &values_[size_t(t) * config.kv_heads * size];
    const int block = step.batch.block_tables[owners_[t] * step.batch.table_width + position / kBlock];
    for (int h = 0; h < config.kv_heads; h++, key += size, value += size) {
      if (!layer.norms[kKeyNorm].empty()) kernels.rms_norm(key, layer.norms[kKeyNorm].data(), size, config.norm_eps, key);
      kernels.rotate(key, cos, sin, size);
      if (config.kv_kind == KvKind::kInt8) kernels.spread(key, size);
      kernels.write_kv(memory, memory.at(index, block, h), position % kBlock, key, value);
    }
  });
}

void Model::feed_forward(Worker& worker, Step& step, int index) {
  const Layer& layer = layers[index];
  normalize(worker, step.batch.tokens, x_.data(), layer.norms[kBeforeFeedForward], input_kind(layer.projections[kGate]));
  if (step.adapted) {
    gate_adapted(worker, step, index);
  } else {
    gate_tiles(worker, step, index);
  }
  add_back(worker, step, index, kDown, gated_);
}

// A tile's columns are a group of the next product's inputs: gate and up never leave the caches.
void Model::gate_tiles(Worker& worker, Step& step, int index) {
  const Layer& layer = layers[index];
  const Matrix &gates = layer.projections[kGate], &ups = layer.projections[kUp];
  const int n = step.batch.tokens;
  const Kind kind = input_kind(gates);
  static_assert(kTile == kGroup);
  worker.each(gates.tiles(), [&](int tile) {
    float *gate = tiles_[worker.id()].data(), *up = gate + size_t(n) * kTile;
    Scratch& scratch = scratch_[worker.id()];
    kernels.multiply_tile(inputs_, {&gates, gate, kTile, or_null(layer.biases[kGate]), false, false, tile * kTile}, tile, scratch);
    kernels.multiply_tile(inputs_, {&ups, up, kTile, or_null(layer.biases[kUp]), false, false, tile * kTile}, tile, scratch);
    kernels.gate(config.activation, gate, up, n * kTile);
    for (int t = 0; t < n; t++) kernels.set_inputs(gated_, kind, t, tile, 1, gate + size_t(t) * kTile);
  }, in_blocks(n));
}

// Adapters add to whole rows of gate and up, and read those of what comes of them.
void Model::gate_adapted(Worker& worker, Step& step, int index) {
  const Layer& layer = layers[index];
  const int n = step.batch.tokens, width = config.intermediate;
  const Product products[] = {
      {&layer.projections[kGate], gate_.data(), width, or_null(layer.biases[kGate]), false},
      {&layer.projections[kUp], up_.data(), width, or_null(layer.biases[kUp]), false},
  };
  multiply(kernels, worker, scratch_[worker.id()], inputs_, n, products, 2);
  adapt(worker, step, index, kGate, normed_.data(), gate_.data());
  adapt(worker, step, index, kUp, normed_.data(), up_.data());
  worker.each(n, [&](int t) {
    float* gate = &gate_[size_t(t) * width];
    kernels.gate(config.activation, gate, &up_[size_t(t) * width], width);
    kernels.set_inputs(gated_, input_kind(layer.projections[kGate]), t, 0, width / kGroup, gate);
  });
}

// The projection that ends a branch, added to x: straight, or through the norm after it.
void Model::add_back(Worker& worker, Step& step, int index, Projection projection, const Inputs& inputs) {
  const Layer& layer = layers[index];
  const std::vector<float>& norm = layer.norms[projection == kOutput ? kAfterAttention : kAfterFeedForward];
  const bool normed = !norm.empty();
  float* out = normed ? branch_.data() : x_.data();
  const Product product{&layer.projections[projection], out, config.hidden, or_null(layer.biases[projection]), !normed};
  multiply(kernels, worker, scratch_[worker.id()], inputs, step.batch.tokens, &product, 1);
  adapt(worker, step, index, projection, projection == kOutput ? attended_.data() : gate_.data(), out);
  if (!normed) return;
  worker.each(step.batch.tokens, [&](int t) {
    const size_t at = size_t(t) * config.hidden;
    kernels.rms_norm(&branch_[at], norm.data(), config.hidden, config.norm_eps, &branch_[at]);
    kernels.add_scaled(&x_[at], &branch_[at], 1.0f, config.hidden);
  });
}

void Model::adapt(Worker& worker, Step& step, int index, Projection projection, const float* x, float* y) {
  if (!step.adapted) return;
  const Matrix& matrix = layers[index].projections[projection];
  worker.each(step.batch.tokens, [&](int t) {
    const int slot = step.batch.adapter_ids[owners_[t]];
    if (slot == 0) return;
    const LoraPair& pair = adapters.at(slot).pairs[index * kProjections + projection];
    const float* in = x + size_t(t) * matrix.columns;
    float* out = y + size_t(t) * matrix.rows;
    for (int r = 0; r < pair.rank; r++) {
      const float *down = &pair.down[size_t(r) * matrix.columns], *up = &pair.up[size_t(r) * matrix.rows];
      kernels.add_scaled(out, up, kernels.dot(in, down, matrix.columns), matrix.rows);
    }
  });
}

void Model::logits_of(Worker& worker, const Batch& batch, float* logits) {
  worker.once([&] { inputs_.resize(batch.rows, config.hidden); });
  worker.each(batch.rows, [&](int r) {
    float* row = &normed_[size_t(r) * config.hidden];
    const float* x = &x_[size_t(batch.logits_rows[r]) * config.hidden];
    kernels.rms_norm(x, final_norm.data(), config.hidden, config.norm_eps, row);
    kernels.set_inputs(inputs_, input_kind(output()), r, 0, config.hidden / kGroup, row);
  });
  const bool large = size_t(batch.rows) * config.vocabulary * sizeof(float) > kCache;
  const Product product{&output(), logits, config.vocabulary, nullptr, false, large};
  multiply(kernels, worker, scratch_[worker.id()], inputs_, batch.rows, &product, 1);
}

}  // namespace headrace
