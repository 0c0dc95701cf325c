// The functions that are compiled once for each path, and the choice between the paths.
#pragma once

#include <cstdint>
#include <string>

#include "attention.h"
#include "gemm.h"
#include "kv_memory.h"
#include "scratch.h"
#include "summary.h"

namespace headrace {

enum class Activation : int32_t { kSilu = 0, kGeluTanh = 1 };

// Counts are multiples of 16 unless something else is said.
struct Kernels {
  // One tile of a product, for all rows: a row's results are the same bits whatever rows run beside it.
  void (*multiply_tile)(const Inputs& inputs, const Product& product, int tile, Scratch& scratch);
  // Makes `groups` groups of 32 values from group `first` on the inputs of a row.
  void (*set_inputs)(Inputs& inputs, Kind kind, int row, int first, int groups, const float* values);

  // Root mean square norm of n values; `to` may be `from`.
  void (*rms_norm)(const float* from, const float* weight, int n, float eps, float* to);
  // Rotary embedding of one head, halves paired, in place; cos and sin have size / 2 values.
  void (*rotate)(float* head, const float* cos, const float* sin, int size);
  // Hadamard transform of one head in place.
  void (*spread)(float* head, int size);
  // activation(gate) * up for n values, in place in `gate`.
  void (*gate)(Activation activation, float* gate, const float* up, int n);
  // x *= factor, and y += factor * x, for n values.
  void (*scale)(float* x, float factor, int n);
  void (*add_scaled)(float* y, const float* x, float factor, int n);
  // The sum of n products.
  float (*dot)(const float* a, const float* b, int n);

  // One position's key and value in one head.
  void (*write_kv)(const KvMemory& memory, uint8_t* block, int slot, const float* key, const float* value);
  // All of a task's context; or one part of it, [rows, partial_floats], which `merge` makes the results of, from
  // [parts, rows, partial_floats]. Both ways give the same bits.
  void (*attend)(const KvMemory& memory, const AttentionTask& task, Scratch& scratch);
  void (*attend_one)(const KvMemory& memory, const AttentionTask& task, int part, float* partial, Scratch& scratch);
  void (*merge)(const AttentionTask& task, int head_size, const float* partials, Scratch& scratch);

  // Any count: see summary.cpp.
  Part (*look_at)(const float* logits, int width);
  Choice (*best_allowed)(const float* logits, const uint32_t* words, int width);
  void (*temper)(float* to, const float* logits, const uint32_t* words, int width, float temperature);
  // The first index from `from` on whose value exceeds the bound; `width` if there is none.
  int (*next_above)(const float* values, int from, int width, float bound);
};

// The paths that this library has and this CPU can run, the fastest first, as a JSON list of names.
std::string kernel_paths();

// The path of this name. Throws std::invalid_argument for one that this CPU cannot run.
const Kernels& kernels_of(const std::string& name);

}  // namespace headrace
