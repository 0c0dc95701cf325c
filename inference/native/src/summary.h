// Greedy choice and confidence out of rows of logits, in one pass over them.
#pragma once

#include <cstdint>

#include "pool.h"

namespace headrace {

// Every array has `rows` entries; see LogitsSummary in runner_api.py.
struct Summary {
  int64_t* best;
  float *best_logprob, *margin, *entropy, *logsumexp;
};

void summarize(Pool& pool, const float* logits, int rows, int width, const Summary& to);

}  // namespace headrace
