// What the files of a path give to its table: see Kernels.
#pragma once

#include "../kernels.h"

namespace headrace {
inline namespace HEADRACE_PATH {

void multiply_tile(const Inputs& inputs, const Product& product, int tile, Scratch& scratch);
void set_inputs(Inputs& inputs, Kind kind, int row, int first, int groups, const float* values);
void write_kv(const KvMemory& memory, uint8_t* block, int slot, const float* key, const float* value);
void attend(const KvMemory& memory, const AttentionTask& task, Scratch& scratch);
void attend_one(const KvMemory& memory, const AttentionTask& task, int part, float* partial, Scratch& scratch);
void merge(const AttentionTask& task, int size, const float* partials, Scratch& scratch);
Part look_at(const float* logits, int width);
Choice best_allowed(const float* logits, const uint32_t* words, int width);
void temper(float* to, const float* logits, const uint32_t* words, int width, float temperature);
int next_above(const float* values, int from, int width, float bound);

}  // namespace HEADRACE_PATH
}  // namespace headrace
