// A decoder-only transformer and one forward step of it on paged keys and values.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "gemm.h"
#include "kernels.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace headrace {

enum Projection { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kProjections };
enum Norm { kBeforeAttention, kAfterAttention, kBeforeFeedForward, kAfterFeedForward, kQueryNorm, kKeyNorm, kNorms };

// Passed from Python as it lies: keep in step with Config in library.py.
struct Config {
  int32_t layers, hidden, intermediate, heads, kv_heads, head_size, vocabulary;
  int32_t blocks, threads;
  Activation activation;
  KvKind kv_kind;
  float norm_eps, embedding_scale, attention_scale;
  const char* kernels;  // one of kernel_paths()
};

// Passed from Python as it lies: keep in step with Batch in library.py. Fields as in StepBatch.
struct Batch {
  int32_t tokens, sequences, table_width, rows;
  const int32_t *token_ids, *positions, *query_starts, *block_tables, *logits_rows, *adapter_ids;
};

struct Layer {
  Matrix projections[kProjections];
  std::vector<float> biases[kProjections];  // empty: none
  std::vector<float> norms[kNorms];         // empty: none
  int rotation = 0;                         // which of the model's rotations
  int window = 0;                           // positions that a token sees back, itself included; 0: all
};

// y += up (down x): one projection of a LoRA adapter; down is [rank, in], up is transposed, [rank, out].
struct LoraPair {
  int rank = 0;
  std::vector<float> down, up;
};

struct Adapter {
  std::vector<LoraPair> pairs;  // [layers * kProjections]
};

// Tokens of one sequence, at consecutive positions, whose attention is computed together.
struct QueryBlock {
  int sequence, token, tokens, position;
  size_t partials = 0;  // where its parts' results lie
  bool split = false;   // whether its parts are shared out between the threads

  int parts() const { return (position + tokens - 1) / kPart + 1; }
};

// What one thread does of a block's attention in one kv head: one part of the context, or (-1) all of it.
struct AttentionItem {
  int block, part;
};

class Model {
 public:
  explicit Model(const Config& config);

  // Logits of the wanted rows, [rows, vocabulary].
  void forward(const Batch& batch, float* logits);

  // A layer's attention alone, with rotation and KV memory: [tokens, heads, head size] queries and results, [tokens, kv
  // heads, head size] keys and values. For tests of the kernels.
  void attend_only(const Batch& batch, int layer, const float* queries, const float* keys, const float* values, float* out);

  // The layer's rotary frequencies, radians a position, [head size / 2], and its window.
  void set_rotation(int layer, std::vector<float> frequencies, int window);

  const Config config;
  const Kernels& kernels;
  Pool pool;
  KvMemory memory;
  std::vector<Layer> layers;
  std::vector<std::vector<float>> rotations;  // the different ones among the layers'
  Matrix embedding;
  Matrix head;  // no rows: shares the embedding's
  std::vector<float> final_norm;
  std::map<int, Adapter> adapters;

 private:
  // What every stage of a step needs to know about it.
  struct Step {
    const Batch& batch;
    bool adapted;
  };

  void prepare(const Batch& batch, bool adapted);
  void embed(Worker& worker, const Batch& batch);
  void set_angles(const Batch& batch, int token);
  void attention(Worker& worker, Step& step, int layer);
  void feed_forward(Worker& worker, Step& step, int layer);
  void gate_tiles(Worker& worker, Step& step, int layer);
  void gate_adapted(Worker& worker, Step& step, int layer);
  void logits_of(Worker& worker, const Batch& batch, float* logits);
  void normalize(Worker& worker, int count, const float* x, const std::vector<float>& norm, Kind kind);
  void rotate_and_store(Worker& worker, Step& step, int layer);
  void attend_all(Worker& worker, Step& step, int layer);
  void plan_attention(const Batch& batch);
  AttentionTask task_of(const Batch& batch, const QueryBlock& block, int layer, int kv_head);
  void add_back(Worker& worker, Step& step, int layer, Projection projection, const Inputs& inputs);
  void adapt(Worker& worker, Step& step, int layer, Projection projection, const float* x, float* y);
  const Matrix& output() const { return head.rows ? head : embedding; }

  // Rows of the running step, [tokens, ...].
  std::vector<float> x_, normed_, queries_, keys_, values_, attended_, gate_, up_, branch_;
  std::vector<float> angles_;    // [rotations, tokens, cosines | sines]
  std::vector<int32_t> owners_;  // the sequence of each row
  std::vector<QueryBlock> blocks_;
  std::vector<AttentionItem> items_;       // of every kv head
  std::vector<float> partials_;            // [blocks that are split, kv heads, parts, rows, partial_floats]
  Inputs inputs_, gated_;                  // of the product at hand; of the one that ends a feed-forward branch
  std::vector<Scratch> scratch_;           // one a thread
  std::vector<std::vector<float>> tiles_;  // one a thread: a tile's columns of gate and of up, [2, tokens, 32]
};

}  // namespace headrace
