// What is drawn from, out of rows of logits: the greedy choice and confidence in one pass, and the best tokens of a row.
#pragma once

#include <cstdint>

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

void summarize(Pool& pool, const Logits& logits, int rows, const Summary& to);

// The `count` best tokens of the `rows` rows that `which` names, largest first, the first of equals first.
void candidates(Pool& pool, const Logits& logits, const int64_t* which, const float* temperature, int rows, int count,
                const Candidates& to);

}  // namespace headrace
