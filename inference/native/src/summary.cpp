#include "summary.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace headrace {
namespace {

// Logits that are looked at together: they stay in the first-level cache between the two passes over them. Parts are
// the same whatever the number of rows, so a row's results are too.
constexpr int kSlice = 8192;
constexpr int kWord = 32;  // tokens that a word of a mask is about; parts begin with a word
constexpr float kNone = -std::numeric_limits<float>::infinity();

Part join(const Part& a, const Part& b) {
  if (b.best == kNone) return a;
  if (a.best == kNone) return b;
  const Part &high = b.best > a.best ? b : a, &low = b.best > a.best ? a : b;
  Part joined = high;
  joined.second = std::fmax(high.second, low.best);
  const float gap = low.best - high.best, share = std::exp(gap);
  joined.total += share * low.total;
  joined.weighted += share * (low.weighted + gap * low.total);
  return joined;
}

// A token and its value in one number: smaller is better, and of equals the one with the smaller id.
uint64_t rank_of(float x, int token) {
  x += 0.0f;  // one zero
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = bits >> 31 ? bits : ~bits & 0x7fffffff;
  return uint64_t(bits) << 32 | uint32_t(token);
}

float value_of(uint64_t rank) {
  uint32_t bits = uint32_t(rank >> 32);
  bits = bits >> 31 ? bits : ~bits & 0x7fffffff;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

void keep_best(std::vector<uint64_t>& ranks, size_t count) {
  if (ranks.size() <= count) return;
  std::nth_element(ranks.begin(), ranks.begin() + count - 1, ranks.end());
  ranks.resize(count);
}

// The ranks of the `count` largest values above minus infinity, in no order.
std::vector<uint64_t> largest_of(const Kernels& kernels, const float* values, int width, int first, size_t count) {
  std::vector<uint64_t> ranks;
  float bound = kNone;  // what a value must exceed: equals come later, and lose
  const auto offer = [&](int i) {
    ranks.push_back(rank_of(values[i], first + i));
    if (ranks.size() < 2 * count) return;
    keep_best(ranks, count);
    bound = value_of(ranks[count - 1]);
  };
  for (int i = kernels.next_above(values, 0, width, bound); i < width; i = kernels.next_above(values, i + 1, width, bound)) {
    offer(i);
  }
  keep_best(ranks, count);
  return ranks;
}

Part joined(const Part* parts, int count) {
  Part all = parts[0];
  for (int p = 1; p < count; p++) all = join(all, parts[p]);
  return all;
}

// Calls body(item, row, first, count) for each part of `rows` rows, items being numbered row by row.
template <class Body>
void each_part(Worker& worker, int rows, int width, Body&& body) {
  const int parts = (width + kSlice - 1) / kSlice;
  worker.each(rows * parts, [&](int item) {
    const int first = item % parts * kSlice;
    body(item, item / parts, first, std::min(kSlice, width - first));
  });
}

}  // namespace

void summarize(const Kernels& kernels, Pool& pool, const Logits& logits, int rows, const Summary& to) {
  const int parts = (logits.width + kSlice - 1) / kSlice;
  std::vector<Part> found(size_t(rows) * parts);
  std::vector<Choice> choices(logits.allowed ? found.size() : 0);
  pool.run([&](Worker& worker) {
    each_part(worker, rows, logits.width, [&](int item, int row, int first, int count) {
      found[item] = kernels.look_at(logits.row(row) + first, count);
      found[item].at += first;
      if (!logits.allowed) return;
      choices[item] = kernels.best_allowed(logits.row(row) + first, logits.words(row) + first / kWord, count);
      if (choices[item].at != kNowhere) choices[item].at += first;
    });
  });
  for (int row = 0; row < rows; row++) {
    const Part all = joined(&found[size_t(row) * parts], parts);
    const float log_total = std::log(all.total), logsumexp = all.best + log_total;
    to.best[row] = all.at;
    to.best_logprob[row] = -log_total;
    to.margin[row] = all.best - all.second;
    to.entropy[row] = log_total - all.weighted / all.total;
    to.logsumexp[row] = logsumexp;
    if (!logits.allowed) continue;
    Choice choice = choices[size_t(row) * parts];
    for (int p = 1; p < parts; p++) {
      const Choice& next = choices[size_t(row) * parts + p];
      if (next.value > choice.value || choice.at == kNowhere) choice = next;
    }
    if (choice.at == all.at) continue;
    to.best[row] = choice.at == kNowhere ? 0 : choice.at;
    to.best_logprob[row] = logits.row(row)[to.best[row]] - logsumexp;
  }
}

void candidates(const Kernels& kernels, Pool& pool, const Logits& logits, const int64_t* which, const float* temperature,
                int rows, int count, const Candidates& to) {
  const int parts = (logits.width + kSlice - 1) / kSlice;
  std::vector<Part> found(size_t(rows) * parts);
  std::vector<std::vector<uint64_t>> picked(found.size());
  pool.run([&](Worker& worker) {
    each_part(worker, rows, logits.width, [&](int item, int r, int first, int width) {
      alignas(64) float tempered[kSlice];
      const int64_t row = which[r];
      const uint32_t* words = logits.allowed ? logits.words(row) + first / kWord : nullptr;
      kernels.temper(tempered, logits.row(row) + first, words, width, temperature[r]);
      found[item] = kernels.look_at(tempered, width);
      picked[item] = largest_of(kernels, tempered, width, first, count);
    });
    worker.each(rows, [&](int r) {
      std::vector<uint64_t>& ranks = picked[size_t(r) * parts];
      for (int p = 1; p < parts; p++) {
        const std::vector<uint64_t>& more = picked[size_t(r) * parts + p];
        ranks.insert(ranks.end(), more.begin(), more.end());
      }
      keep_best(ranks, count);
      std::sort(ranks.begin(), ranks.end());
      for (int i = 0; i < count; i++) {
        const bool there = size_t(i) < ranks.size();
        to.values[size_t(r) * count + i] = there ? value_of(ranks[i]) : kNone;
        to.tokens[size_t(r) * count + i] = there ? uint32_t(ranks[i]) : 0;
      }
      const Part all = joined(&found[size_t(r) * parts], parts);
      to.logsumexp[r] = all.best + std::log(all.total);
    });
  });
}

}  // namespace headrace
