#include "summary.h"

#include <cmath>
#include <vector>

#include "simd.h"

namespace headrace {
namespace {

// Logits that are looked at together: they stay in the first-level cache between the two passes over them. Parts are
// the same whatever the number of rows, so a row's results are too.
constexpr int kPart = 8192;
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

}  // namespace

void summarize(Pool& pool, const float* logits, int rows, int width, const Summary& to) {
  const int parts = (width + kPart - 1) / kPart;
  std::vector<Part> found(size_t(rows) * parts);
  pool.run([&](Worker& worker) {
    worker.each(rows * parts, [&](int item) {
      const int first = item % parts * kPart;
      const int count = width - first < kPart ? width - first : kPart;
      found[item] = look_at(logits + size_t(item / parts) * width + first, count);
      found[item].at += first;
    });
  });
  for (int row = 0; row < rows; row++) {
    Part all = found[size_t(row) * parts];
    for (int p = 1; p < parts; p++) all = join(all, found[size_t(row) * parts + p]);
    const float log_total = std::log(all.total);
    to.best[row] = all.at;
    to.best_logprob[row] = -log_total;
    to.margin[row] = all.best - all.second;
    to.entropy[row] = log_total - all.weighted / all.total;
    to.logsumexp[row] = all.best + log_total;
  }
}

}  // namespace headrace
