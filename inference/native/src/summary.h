// What is drawn from, out of rows of logits: the greedy choice and confidence in one pass, and the best tokens of a row.
#pragma once

#include <climits>
#include <cstdint>
#include <limits>

#include "pool.h"

namespace headrace {

// Passed from Python as they lie: keep in step with library.py.

// Rows of logits, [rows, width], and what may come in each of them: bit t % 32 of a row's word t / 32 is about token t.
struct Logits {
  const float* values;
  const uint32_t* allowed;  // [rows, (width + 31) / 32], or null: everything
  int32_t width;

  const float* row(int64_t r) const { return values + size_t(r) * width; }
  const uint32_t* words(int64_t r) const { return allowed + size_t(r) * ((width + 31) / 32); }
};

// What a pass over a part of a row finds. `total` is the sum of e^(x - best), `weighted` that of (x - best) e^(x - best).
struct Part {
  float best = -std::numeric_limits<float>::infinity(), second = best;
  int at = 0;
  float total = 0, weighted = 0;
};

// The largest logit among those that a mask allows, the first of equals.
constexpr int kNowhere = INT_MAX;
struct Choice {
  float value = -std::numeric_limits<float>::infinity();
  int at = kNowhere;  // kNowhere: nothing is allowed
};

struct Kernels;

// Every array has an entry for each row; see LogitsSummary in runner_api.py.
struct Summary {
  int64_t* best;
  float *best_logprob, *margin, *entropy, *logsumexp;
};

// Values and tokens are [rows, count]; see Candidates in runner_api.py.
struct Candidates {
  float* values;
  int64_t* tokens;
  float* logsumexp;
};

void summarize(const Kernels& kernels, Pool& pool, const Logits& logits, int rows, const Summary& to);

// The `count` best tokens of the `rows` rows that `which` names, largest first, the first of equals first.
void candidates(const Kernels& kernels, Pool& pool, const Logits& logits, const int64_t* which, const float* temperature,
                int rows, int count, const Candidates& to);

}  // namespace headrace
