#include "summary.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <vector>

#include "simd.h"

namespace headrace {
namespace {

// Logits that are looked at together: they stay in the first-level cache between the two passes over them. Parts are
// the same whatever the number of rows, so a row's results are too.
constexpr int kPart = 8192;
constexpr int kWord = 32;  // tokens that a word of a mask is about; parts begin with a word
constexpr float kNone = -std::numeric_limits<float>::infinity();

// `total` is the sum of e^(x - best), `weighted` that of (x - best) e^(x - best).
struct Part {
  float best = kNone, second = kNone;
  int at = 0;
  float total = 0, weighted = 0;
};

void rank(Part& part, float x, int at) {
  if (x > part.best || (x == part.best && at < part.at)) {
    part.second = part.best;
    part.best = x;
    part.at = at;
  } else if (x > part.second) {
    part.second = x;
  }
}

Part two_best(const float* logits, int width) {
  vf best = splat(kNone), second = splat(kNone);
  vi at = {};
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const vf x = load<vf>(logits + i);
    second = max(second, min(x, best));
    at = x > best ? lanes() + i : at;
    best = max(best, x);
  }
  Part part;
  part.at = width;
  for (int lane = 0; lane < kLanes; lane++) {
    rank(part, best[lane], at[lane]);
    if (second[lane] > part.second) part.second = second[lane];
  }
  for (; i < width; i++) rank(part, logits[i], i);
  return part;
}

Part look_at(const float* logits, int width) {
  Part part = two_best(logits, width);
  if (part.best == kNone) return part;
  vf total = {}, weighted = {};
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const vf below = max(load<vf>(logits + i) - part.best, splat(-100.0f));
    const vf e = exp(below);
    total += e;
    weighted = fma(below, e, weighted);
  }
  part.total = sum(total);
  part.weighted = sum(weighted);
  for (; i < width; i++) {
    const float below = std::fmax(logits[i] - part.best, -100.0f), e = std::exp(below);
    part.total += e;
    part.weighted += below * e;
  }
  return part;
}

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

// The largest logit among those that a mask allows, the first of equals.
constexpr int kNowhere = INT_MAX;
struct Choice {
  float value = kNone;
  int at = kNowhere;  // kNowhere: nothing is allowed

  void offer(float x, int token) {
    if (x > value || (x == value && token < at)) {
      value = x;
      at = token;
    }
  }
};

inline bool bit_of(const uint32_t* words, int i) { return words[i / kWord] >> (i % kWord) & 1; }

// Which lanes a word's lower or upper half allows.
inline vi lanes_of(uint32_t word, int half) {
  return (((vi{} + int32_t(word >> half)) & ((vi{} + 1) << lanes())) != 0);
}

Choice best_allowed(const float* logits, const uint32_t* words, int width) {
  vf best = splat(kNone);
  vi at = vi{} + kNowhere;
  int i = 0;
  for (; i + kWord <= width; i += kWord) {
    const uint32_t word = words[i / kWord];
    if (word == 0) continue;
    for (int half = 0; half < kWord; half += kLanes) {
      const vf x = load<vf>(logits + i + half);
      const vi better = (x > best) & lanes_of(word, half);
      at = better ? lanes() + (i + half) : at;
      best = better ? x : best;
    }
  }
  Choice choice;
  for (int lane = 0; lane < kLanes; lane++) choice.offer(best[lane], at[lane]);
  for (; i < width; i++)
    if (bit_of(words, i)) choice.offer(logits[i], i);
  if (choice.value > kNone) return choice;
  // All that is allowed is minus infinity, if anything is.
  choice.at = 0;
  while (choice.at < width && !bit_of(words, choice.at)) choice.at++;
  if (choice.at == width) choice.at = kNowhere;
  return choice;
}

// Divides by the temperature, and puts what is not allowed to minus infinity.
void temper(float* to, const float* logits, const uint32_t* words, int width, float temperature) {
  int i = 0;
  for (; i + kWord <= width; i += kWord) {
    const uint32_t word = words ? words[i / kWord] : ~0u;
    for (int half = 0; half < kWord; half += kLanes) {
      const vf x = load<vf>(logits + i + half) / temperature;
      store(to + i + half, lanes_of(word, half) ? x : splat(kNone));
    }
  }
  for (; i < width; i++) to[i] = !words || bit_of(words, i) ? logits[i] / temperature : kNone;
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
std::vector<uint64_t> largest_of(const float* values, int width, int first, size_t count) {
  std::vector<uint64_t> ranks;
  float bound = kNone;  // what a value must exceed: equals come later, and lose
  const auto offer = [&](int i) {
    ranks.push_back(rank_of(values[i], first + i));
    if (ranks.size() < 2 * count) return;
    keep_best(ranks, count);
    bound = value_of(ranks[count - 1]);
  };
  int i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (uint32_t above = bits_of(load<vf>(values + i) > bound); above; above &= above - 1)
      offer(i + __builtin_ctz(above));
  for (; i < width; i++)
    if (values[i] > bound) offer(i);
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
  const int parts = (width + kPart - 1) / kPart;
  worker.each(rows * parts, [&](int item) {
    const int first = item % parts * kPart;
    body(item, item / parts, first, std::min(kPart, width - first));
  });
}

}  // namespace

void summarize(Pool& pool, const Logits& logits, int rows, const Summary& to) {
  const int parts = (logits.width + kPart - 1) / kPart;
  std::vector<Part> found(size_t(rows) * parts);
  std::vector<Choice> choices(logits.allowed ? found.size() : 0);
  pool.run([&](Worker& worker) {
    each_part(worker, rows, logits.width, [&](int item, int row, int first, int count) {
      found[item] = look_at(logits.row(row) + first, count);
      found[item].at += first;
      if (!logits.allowed) return;
      choices[item] = best_allowed(logits.row(row) + first, logits.words(row) + first / kWord, count);
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

void candidates(Pool& pool, const Logits& logits, const int64_t* which, const float* temperature, int rows, int count,
                const Candidates& to) {
  const int parts = (logits.width + kPart - 1) / kPart;
  std::vector<Part> found(size_t(rows) * parts);
  std::vector<std::vector<uint64_t>> picked(found.size());
  pool.run([&](Worker& worker) {
    each_part(worker, rows, logits.width, [&](int item, int r, int first, int width) {
      alignas(64) float tempered[kPart];
      const int64_t row = which[r];
      const uint32_t* words = logits.allowed ? logits.words(row) + first / kWord : nullptr;
      temper(tempered, logits.row(row) + first, words, width, temperature[r]);
      found[item] = look_at(tempered, width);
      picked[item] = largest_of(tempered, width, first, count);
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
