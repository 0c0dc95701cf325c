// The functions that Python calls, with C linkage. Each returns 0, or -1 after an exception whose words hr_error gives.
#include <cstring>
#include <exception>
#include <string>

#include "model.h"
#include "summary.h"

using headrace::Kind;
using headrace::Model;

namespace {

thread_local std::string last_error;

template <class Body>
int guarded(Body&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

// Matrices are numbered as Projection; then the embedding and the output layer, which belong to no layer.
constexpr int kEmbedding = headrace::kProjections, kHead = headrace::kProjections + 1;

headrace::Matrix& matrix_of(Model& model, int layer, int which) {
  if (which == kEmbedding) return model.embedding;
  if (which == kHead) return model.head;
  return model.layers.at(layer).projections[which];
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// What this library was built from, as build.py wrote it.
const char* hr_build() { return HEADRACE_BUILD; }

// See kernel_paths. Valid until the thread's next call.
const char* hr_kernel_paths() {
  thread_local std::string paths;
  paths = headrace::kernel_paths();
  return paths.c_str();
}

const char* hr_error() { return last_error.c_str(); }

int hr_open(const headrace::Config* config, Model** to) {
  return guarded([&] { *to = new Model(*config); });
}

void hr_close(Model* model) { delete model; }

int hr_set_codes(Model* model, int layer, int which, int kind, int rows, int columns, const uint8_t* codes,
                 const float* scales, const float* minimums) {
  return guarded([&] {
    matrix_of(*model, layer, which) = headrace::pack_codes(Kind(kind), rows, columns, codes, scales, minimums);
  });
}

int hr_set_bf16(Model* model, int layer, int which, int rows, int columns, const uint16_t* values) {
  return guarded([&] { matrix_of(*model, layer, which) = headrace::pack_bf16(rows, columns, values); });
}

int hr_set_bias(Model* model, int layer, int projection, const float* values, int count) {
  return guarded([&] { model->layers.at(layer).biases[projection].assign(values, values + count); });
}

int hr_set_norm(Model* model, int layer, int norm, const float* values, int count) {
  return guarded([&] { model->layers.at(layer).norms[norm].assign(values, values + count); });
}

int hr_set_final_norm(Model* model, const float* values, int count) {
  return guarded([&] { model->final_norm.assign(values, values + count); });
}

int hr_set_rotation(Model* model, int layer, const float* frequencies, int count, int window) {
  return guarded([&] { model->set_rotation(layer, {frequencies, frequencies + count}, window); });
}

int hr_forward(Model* model, const headrace::Batch* batch, float* logits) {
  return guarded([&] { model->forward(*batch, logits); });
}

int hr_summarize(Model* model, const headrace::Logits* logits, int rows, const headrace::Summary* to) {
  return guarded([&] { headrace::summarize(model->kernels, model->pool, *logits, rows, *to); });
}

int hr_candidates(Model* model, const headrace::Logits* logits, const int64_t* which, const float* temperature, int rows,
                  int count, const headrace::Candidates* to) {
  return guarded([&] { headrace::candidates(model->kernels, model->pool, *logits, which, temperature, rows, count, *to); });
}

int hr_attend(Model* model, const headrace::Batch* batch, int layer, const float* queries, const float* keys,
              const float* values, float* out) {
  return guarded([&] { model->attend_only(*batch, layer, queries, keys, values, out); });
}

int hr_copy_block(Model* model, int from, int to) {
  return guarded([&] { model->memory.copy(from, to); });
}

int hr_adapter_add(Model* model, int slot, int layer, int projection, int rank, const float* down, int down_count,
                   const float* up, int up_count) {
  return guarded([&] {
    headrace::Adapter& adapter = model->adapters[slot];
    adapter.pairs.resize(model->layers.size() * headrace::kProjections);
    headrace::LoraPair& pair = adapter.pairs.at(layer * headrace::kProjections + projection);
    pair.rank = rank;
    pair.down.assign(down, down + down_count);
    pair.up.assign(up, up + up_count);
  });
}

int hr_adapter_remove(Model* model, int slot) {
  return guarded([&] { model->adapters.erase(slot); });
}

}  // extern "C"
#pragma GCC visibility pop
