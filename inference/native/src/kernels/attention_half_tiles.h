// Scores and weighted sums over float16 keys and values, in tiles of bfloat16.
#pragma once

#include "attention_part.h"
#include "tiles.h"

#if defined(__AMX_BF16__)

namespace headrace {
inline namespace HEADRACE_PATH {

// Every number is two bfloat16, a high one and what it leaves: float16 fits exactly, queries and weights to 16 bits. Of the
// four products the one of both rests is left out, which is below 2^-15 of the whole, and 2^-18 on average. Tiles are used for any number of rows:
// their additions are not those of vectors, and a row must not notice how many it is computed with.
class HalfTiles {
 public:
  HalfTiles(const KvMemory& memory, const AttentionTask& task, Scratch& scratch)
      : tiles_(task.rows() < kTileRows ? task.rows() : kTileRows),
        rows_(task.rows()),
        size_(memory.head_size()),
        queries_(scratch.room<uint16_t>(kQueries, 2 * size_t(padded(rows_)) * size_)),
        weights_(scratch.room<uint16_t>(kWeights, 2 * size_t(padded(rows_)) * kStride)),
        keys_(scratch.room<uint32_t>(kKeys, size_t(kPart) * size_)),
        values_(scratch.room<uint32_t>(kValues, size_t(kPart) * size_)) {
    for (int row = 0; row < rows_; row++) {
      const float* query = task.queries + row / task.group * task.stride + row % task.group * size_;
      uint16_t *high = queries_ + size_t(row) * size_, *low = high + rests(size_);
      for (int d = 0; d < size_; d += 2 * kLanes) split(load<vf>(query + d), load<vf>(query + d + kLanes), high + d, low + d);
    }
  }

  void score(const ContextPart& part, float* scores) const {
    if (rows_ <= kTileRows) return score_rows<1, true>(part, scores, 0);
    for (int b = part.begin; b < part.end; b++) interleave_keys(part, b, keys_ + b * panel());
    stored();
    int row = 0;
    for (; row + kTileRows < rows_; row += 2 * kTileRows) score_rows<2, false>(part, scores, row);
    if (row < rows_) score_rows<1, false>(part, scores, row);
  }

  // The weights of positions 16 v to 16 v + 31 of the part.
  void take(int row, int v, vf a, vf b) {
    uint16_t* high = weights_ + size_t(row) * kStride + v * kLanes;
    split(a, b, high, high + rests(kStride));
  }
  void end_row(const ContextPart&, int) {}

  // sums [rows, head size] = weights times values.
  void mix(const ContextPart& part, float* sums) const {
    if (rows_ <= kTileRows) return mix_row_tile<true>(part, sums, 0);
    for (int b = part.begin; b < part.end; b++) interleave_values(part, b, 0, size_, values_ + b / 2 * 2 * panel());
    stored();
    for (int row = 0; row < rows_; row += kTileRows) mix_row_tile<false>(part, sums, row);
  }

 private:
  static constexpr int kStride = kPart + 2 * kLanes;  // of a row's weights

  // How far behind the high numbers the rests of rows lie; words of a block's keys or values.
  size_t rests(int stride) const { return size_t(padded(rows_)) * stride; }
  size_t panel() const { return size_t(kBlock) * size_ / 2; }
  // How many words behind the high numbers of keys and values their rests lie.
  size_t rest() const { return size_t(kPart) * size_ / 2; }

  static vf high_of(vf x) { return (vf)(((vi)x + 0x8000) & int32_t(0xffff0000)); }

  static void split(vf a, vf b, uint16_t* high, uint16_t* low) {
    const vf ha = high_of(a), hb = high_of(b);
    store(high, (vb)_mm512_cvtne2ps_pbh((__m512)hb, (__m512)ha));
    store(low, (vb)_mm512_cvtne2ps_pbh((__m512)(b - hb), (__m512)(a - ha)));
  }

  // Pairs (a[n], b[n]) of high numbers, and of rests `rest` words on. Cut off, not rounded, which is less work.
  static void interleave(vf a, vf b, uint32_t* to, size_t rest) {
    const vi high = vi{} + int32_t(0xffff0000);
    store(to, pairs(a, b));
    store(to + rest, pairs(a - (vf)((vi)a & high), b - (vf)((vi)b & high)));
  }
  static vi pairs(vf a, vf b) {
    return (vi)_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32((__m512i)a, 16), (__m512i)b);
  }

  void interleave_keys(const ContextPart& part, int b, uint32_t* to) const {
    const uint16_t* keys = reinterpret_cast<const uint16_t*>(part.block(b));
    const uint8_t* ahead = part.keys_ahead(b);
    for (int d = 0; d < size_; d += 2) {
      fetch(ahead + d * kBlock * sizeof(uint16_t));
      interleave(load_half(keys + d * kBlock), load_half(keys + (d + 1) * kBlock), to + d / 2 * kLanes, rest());
    }
  }

  // Channels `from` to `end`, in tiles of 32 positions and 16 channels: a block fills one half of them.
  void interleave_values(const ContextPart& part, int b, int from, int end, uint32_t* to) const {
    const uint16_t* values = reinterpret_cast<const uint16_t*>(part.block(b)) + kBlock * size_;
    to += b % 2 * 8 * kLanes;
    const uint8_t* ahead = part.values_ahead(b);
    const int written = part.written(b);
    for (int d = from; d < end; d += kLanes, to += 16 * kLanes) {
      for (int p = 0; p < kBlock; p += 2) {
        fetch(ahead + (p + d / kLanes % 2) * size_ * sizeof(uint16_t) + d / 32 * 64);
        // What has not been written in this context may be left of another: not even zero times it is zero.
        const bool all = written >= kBlock;
        const vf one = all || p < written ? load_half(values + p * size_ + d) : vf{};
        const vf two = all || p + 1 < written ? load_half(values + (p + 1) * size_ + d) : vf{};
        interleave(one, two, to + p / 2 * kLanes, rest());
      }
    }
  }

  // With `Few` rows, keys are made ready a pair of blocks at a time and never leave the first cache.
  template <int M, bool Few>
  void score_rows(const ContextPart& part, float* scores, int row) const {
    const size_t line = size_t(size_) * 2, rest = this->rest();
    for (int b = part.begin; b < part.end; b += 2) {
      const uint32_t* keys = keys_ + (Few ? b % 4 : b) * panel();
      if constexpr (Few) {
        interleave_keys(part, b, keys_ + b % 4 * panel());
        interleave_keys(part, b + 1, keys_ + (b % 4 + 1) * panel());
        stored();
      }
      _tile_zero(0);
      _tile_zero(1);
      if constexpr (M == 2) {
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int d = 0; d < size_; d += 32) {
        const uint16_t *high = queries_ + size_t(row) * size_ + d, *low = high + rests(size_);
        const uint32_t *one = keys + d / 2 * kLanes, *two = one + panel();
        _tile_loadd(4, high, line);
        _tile_loadd(6, one + rest, 64);
        _tile_loadd(7, two + rest, 64);
        if constexpr (M == 2) _tile_loadd(5, high + kTileRows * size_, line);
        multiply<M>();
        _tile_loadd(6, one, 64);
        _tile_loadd(7, two, 64);
        multiply<M>();
        _tile_loadd(4, low, line);
        if constexpr (M == 2) _tile_loadd(5, low + kTileRows * size_, line);
        multiply<M>();
      }
      float* to = scores + row * kScoreStride + b * kBlock;
      _tile_stored(0, to, kScoreStride * 4);
      _tile_stored(1, to + kBlock, kScoreStride * 4);
      if constexpr (M == 2) _tile_stored(2, to + kTileRows * kScoreStride, kScoreStride * 4);
      if constexpr (M == 2) _tile_stored(3, to + kTileRows * kScoreStride + kBlock, kScoreStride * 4);
    }
  }

  template <int M>
  static void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (M == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (M == 2) _tile_dpbf16ps(3, 5, 7);
  }

  template <bool Few>
  void mix_row_tile(const ContextPart& part, float* sums, int row) const {
    int d = 0;
    for (; d + 64 <= size_; d += 64) mix_rows<4, Few>(part, sums, row, d);
    if (d < size_) mix_rows<2, Few>(part, sums, row, d);
  }

  template <int D, bool Few>
  void mix_rows(const ContextPart& part, float* sums, int row, int d) const {
    const size_t rest = this->rest();
    _tile_zero(0);
      _tile_zero(1);
    if constexpr (D == 4) {
        _tile_zero(2);
        _tile_zero(3);
      }
    for (int b = part.begin; b < part.end; b += 2) {
      const uint16_t* high = weights_ + size_t(row) * kStride + b * kBlock;
      uint32_t* values = values_ + (Few ? b % 4 * panel() : b * panel() + d * kLanes);
      if constexpr (Few) {
        interleave_values(part, b, d, d + D * kLanes, values);
        interleave_values(part, b + 1, d, d + D * kLanes, values);
        stored();
      }
      _tile_loadd(4, high, kStride * 2);
      _tile_loadd(5, high + rests(kStride), kStride * 2);
#define HEADRACE_MIX(tile)                                 \
  _tile_loadd(6, values + rest + (tile)*16 * kLanes, 64); \
  _tile_loadd(7, values + (tile)*16 * kLanes, 64);        \
  _tile_dpbf16ps(tile, 4, 6);                              \
  _tile_dpbf16ps(tile, 4, 7);                              \
  _tile_dpbf16ps(tile, 5, 7);
      HEADRACE_MIX(0)
      HEADRACE_MIX(1)
      if constexpr (D == 4) {
        HEADRACE_MIX(2)
        HEADRACE_MIX(3)
      }
#undef HEADRACE_MIX
    }
    float* to = sums + size_t(row) * size_ + d;
    _tile_stored(0, to, size_ * 4);
    _tile_stored(1, to + kLanes, size_ * 4);
    if constexpr (D == 4) _tile_stored(2, to + 2 * kLanes, size_ * 4);
    if constexpr (D == 4) _tile_stored(3, to + 3 * kLanes, size_ * 4);
  }

  const Tiles tiles_;
  const int rows_, size_;
  uint16_t *queries_, *weights_;
  uint32_t *keys_, *values_;  // pairs: [blocks][head size / 2][16 positions]; [pairs of blocks][head size / 16][16][16 channels]
};

}  // namespace HEADRACE_PATH
}  // namespace headrace

#endif
