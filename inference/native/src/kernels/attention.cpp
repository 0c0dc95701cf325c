#include <type_traits>

#include "attention_half.h"
#include "attention_half_tiles.h"
#include "attention_int8.h"
#include "attention_int8_tiles.h"
#include "table.h"

namespace headrace {
inline namespace HEADRACE_PATH {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// e^(x - base), where the base may be minus infinity: then nothing has been seen, and x is that too.
inline vf weight_of(vf x, vf base) { return exp(x - (base == kNone ? vf{} : base)); }

// Results of rows over some of the context: `sums` [rows, head size], with each row's largest score and sum of weights.
struct Sums {
  float* values;
  float* largest;
  float* weights;

  Sums(Scratch& scratch, int part, int rows, int size)
      : values(scratch.room<float>(part, padded(rows) * (size_t(size) + 2))),
        largest(values + size_t(padded(rows)) * size),
        weights(largest + padded(rows)) {}

  void clear(int rows, int size) const {
    std::memset(values, 0, size_t(rows) * size * sizeof(float));
    std::memset(weights, 0, rows * sizeof(float));
    for (int row = 0; row < rows; row++) largest[row] = kNone;
  }
};

// One row joined with what it got from the next part of its context.
void merge_row(float* values, float& largest, float& weights, const float* more, float more_largest, float more_weights,
               int size) {
  const float top = more_largest > largest ? more_largest : largest;
  const vf factors = weight_of(vf{largest, more_largest}, splat(top));
  const vf kept = splat(factors[0]), added = splat(factors[1]);
  largest = top;
  weights = weights * factors[0] + more_weights * factors[1];
  for (int d = 0; d < size; d += kLanes) store(values + d, fma(load<vf>(more + d), added, load<vf>(values + d) * kept));
}

void finish_row(float* out, const float* values, float weights, int size) {
  for (int d = 0; d < size; d += kLanes) store(out + d, load<vf>(values + d) * (1.0f / weights));
}

// Scores that a row does not see become minus infinity; returns the largest.
float hide(const ContextPart& part, float* scores, int first, int last) {
  vf best = splat(kNone);
  for (int b = part.begin; b < part.end; b++) {
    const int at = part.position_of(b);
    vf s = load<vf>(scores + b * kBlock);
    if (at < first || at + kBlock - 1 > last) {
      const vi positions = lanes() + at;
      s = (positions >= first) & (positions <= last) ? s : splat(kNone);
      store(scores + b * kBlock, s);
    }
    best = max(best, s);
  }
  return largest(best);
}

// A part's results for all rows of a task.
template <class Way>
void attend_part(const ContextPart& part, Way& way, float* scores, const Sums& to) {
  const AttentionTask& task = part.task;
  way.score(part, scores);
  for (int row = 0; row < task.rows(); row++) {
    const int token = row / task.group;
    float* s = scores + row * kScoreStride;
    const float top = hide(part, s, task.first(token), task.last(token));
    vf total = {};
    for (int b = part.begin; b < part.end; b += 2) {
      const vf one = weight_of(load<vf>(s + b * kBlock), splat(top));
      const vf two = weight_of(load<vf>(s + (b + 1) * kBlock), splat(top));
      total += one;
      total += two;
      way.take(row, b, one, two);
    }
    way.end_row(part, row);
    to.largest[row] = top;
    to.weights[row] = sum(total);
  }
  way.mix(part, to.values);
}

template <class Way>
void attend_parts(const KvMemory& memory, const AttentionTask& task, Scratch& scratch) {
  const int rows = task.rows(), size = memory.head_size();
  float* scores = scratch.room<float>(kScores, size_t(padded(rows)) * kScoreStride);
  const Sums sums(scratch, kSums, rows, size), totals(scratch, kTotals, rows, size);
  Way way(memory, task, scratch);
  totals.clear(rows, size);
  for (int number = task.first_part(); number <= task.last_part(); number++) {
    attend_part(ContextPart(memory, task, number), way, scores, sums);
    for (int row = 0; row < rows; row++) {
      merge_row(totals.values + size_t(row) * size, totals.largest[row], totals.weights[row],
                sums.values + size_t(row) * size, sums.largest[row], sums.weights[row], size);
    }
  }
  for (int row = 0; row < rows; row++) {
    float* out = task.out + row / task.group * task.stride + row % task.group * size;
    finish_row(out, totals.values + size_t(row) * size, totals.weights[row], size);
  }
}

template <class Way>
void attend_one_part(const KvMemory& memory, const AttentionTask& task, int number, float* partial, Scratch& scratch) {
  const int rows = task.rows(), size = memory.head_size();
  float* scores = scratch.room<float>(kScores, size_t(padded(rows)) * kScoreStride);
  const Sums sums(scratch, kSums, rows, size);
  Way way(memory, task, scratch);
  attend_part(ContextPart(memory, task, number), way, scores, sums);
  for (int row = 0; row < rows; row++, partial += partial_floats(size)) {
    std::memcpy(partial, sums.values + size_t(row) * size, size * sizeof(float));
    partial[size] = sums.largest[row];
    partial[size + 1] = sums.weights[row];
  }
}

// Calls body with the way in which this path attends to a task.
template <class Body>
void choose(const KvMemory& memory, const AttentionTask& task, Body&& body) {
  (void)task;
  if (memory.kind() == KvKind::kHalf) {
#if defined(__AMX_BF16__)
    return body(static_cast<HalfTiles*>(nullptr));
#else
    return body(static_cast<HalfVectors*>(nullptr));
#endif
  }
#if defined(__AMX_INT8__)
  if (task.rows() >= Int8Tiles::kLeast) return body(static_cast<Int8Tiles*>(nullptr));
#endif
  body(static_cast<Int8Vectors*>(nullptr));
}

}  // namespace

void attend(const KvMemory& memory, const AttentionTask& task, Scratch& scratch) {
  choose(memory, task, [&](auto* way) { attend_parts<std::remove_pointer_t<decltype(way)>>(memory, task, scratch); });
}

void attend_one(const KvMemory& memory, const AttentionTask& task, int part, float* partial, Scratch& scratch) {
  choose(memory, task,
         [&](auto* way) { attend_one_part<std::remove_pointer_t<decltype(way)>>(memory, task, part, partial, scratch); });
}

void merge(const AttentionTask& task, int size, const float* partials, Scratch& scratch) {
  const int rows = task.rows();
  const Sums totals(scratch, kTotals, 1, size);
  for (int row = 0; row < rows; row++) {
    totals.clear(1, size);
    for (int number = task.first_part(); number <= task.last_part(); number++) {
      const float* more = partials + (size_t(number) * rows + row) * partial_floats(size);
      merge_row(totals.values, *totals.largest, *totals.weights, more, more[size], more[size + 1], size);
    }
    finish_row(task.out + row / task.group * task.stride + row % task.group * size, totals.values, *totals.weights, size);
  }
}

}  // namespace HEADRACE_PATH
}  // namespace headrace
