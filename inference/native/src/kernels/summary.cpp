#include <cmath>

#include "simd.h"
#include "table.h"

namespace headrace {
inline namespace HEADRACE_PATH {
namespace {

constexpr int kWord = 32;  // tokens that a word of a mask is about
constexpr float kNone = -std::numeric_limits<float>::infinity();

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

}  // namespace

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
    const float below = fmaxf(logits[i] - part.best, -100.0f), e = expf(below);
    part.total += e;
    part.weighted += below * e;
  }
  return part;
}

namespace {

void offer(Choice& choice, float x, int token) {
  if (x > choice.value || (x == choice.value && token < choice.at)) {
    choice.value = x;
    choice.at = token;
  }
}

inline bool bit_of(const uint32_t* words, int i) { return words[i / kWord] >> (i % kWord) & 1; }

// Which lanes a word's lower or upper half allows.
inline vi lanes_of(uint32_t word, int half) {
  return (((vi{} + int32_t(word >> half)) & ((vi{} + 1) << lanes())) != 0);
}

}  // namespace

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
  for (int lane = 0; lane < kLanes; lane++) offer(choice, best[lane], at[lane]);
  for (; i < width; i++)
    if (bit_of(words, i)) offer(choice, logits[i], i);
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

int next_above(const float* values, int from, int width, float bound) {
  int i = from;
  for (; i + kLanes <= width; i += kLanes) {
    const uint32_t above = bits_of(load<vf>(values + i) > bound);
    if (above) return i + __builtin_ctz(above);
  }
  while (i < width && !(values[i] > bound)) i++;
  return i;
}

}  // namespace HEADRACE_PATH
}  // namespace headrace
