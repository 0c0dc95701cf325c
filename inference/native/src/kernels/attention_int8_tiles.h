// Scores and weighted sums over int8 keys and values, in tiles.
#pragma once

#include "attention_int8.h"
#include "tiles.h"

#if defined(__AMX_INT8__)

namespace headrace {
inline namespace HEADRACE_PATH {

class Int8Tiles : public Int8Rows {
 public:
  // Fewer rows are as quick in vectors.
  static constexpr int kLeast = 8;

  Int8Tiles(const KvMemory& memory, const AttentionTask& task, Scratch& scratch)
      : Int8Rows(memory, task, scratch),
        tiles_(kTileRows),
        values_(scratch.room<uint8_t>(kValues, size_t(kPart) * size)) {}

  // A block's keys are a tile as they lie. Where a head does not fill it, values follow, and meet queries' zeros.
  void score(const ContextPart& part, float* scores) const {
    stored();
    for (int row = 0; row < rows; row += kTileRows) {
      for (int b = part.begin; b < part.end; b++) {
        const uint8_t *block = part.block(b), *ahead = part.keys_ahead(b);
        for (int d = 0; row == 0 && d < size; d += 4) fetch(ahead + d * kBlock);
        alignas(64) int32_t sums[2][kTileRows * kLanes];
        _tile_zero(0);
      _tile_zero(1);
        for (int d = 0; d < size; d += 64) {
          _tile_loadd(4, query(row, 0) + d, 2 * line);
          _tile_loadd(5, query(row, 1) + d, 2 * line);
          _tile_loadd(6, block + d * kBlock, 64);
          _tile_dpbsud(0, 4, 6);
          _tile_dpbsud(1, 5, 6);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        const vf scales = load_half(key_scales(block, size));
        for (int r = 0; r < kTileRows && row + r < rows; r++) {
          const vi high = load<vi>(sums[0] + r * kLanes), low = load<vi>(sums[1] + r * kLanes);
          store(scores + (row + r) * kScoreStride + b * kBlock, Int8Rows::score(row + r, high, low, scales));
        }
      }
    }
  }

  // sums [rows, head size] = weights times values.
  void mix(const ContextPart& part, float* sums) const {
    gather(part);
    for (int row = 0; row < rows; row += kTileRows) {
      for (int d = 0; d < size; d += kLanes) mix_tile(part, sums, row, d);
    }
  }

 private:
  // Tiles of 64 positions and 16 channels, of four blocks each. Of a block that is not read nothing is taken.
  void gather(const ContextPart& part) const {
    for (int b = part.begin; b < part.end; b++) {
      const uint8_t *values = part.block(b) + kBlock * size, *ahead = part.values_ahead(b);
      uint8_t* to = values_ + b / 4 * 4 * kBlock * size + b % 4 * 4 * 64;
      for (int quad = 0; quad < 4; quad++) {
        for (int d = 0; d < size; d += kLanes) {
          fetch(ahead + (quad * size + d) * 4);
          store(to + d * 64 + quad * 64, load<vb>(values + (quad * size + d) * 4));
        }
      }
    }
    stored();
  }

  void mix_tile(const ContextPart& part, float* sums, int row, int d) const {
    vf acc[kTileRows] = {};
    for (int chunk = 0; chunk < kChunks; chunk++) {
      const int first = chunk * kChunk / kBlock, last = first + kChunk / kBlock;
      if (part.end <= first || part.begin >= last) continue;
      alignas(64) int32_t products[2][kTileRows * kLanes];
      _tile_zero(0);
      _tile_zero(1);
      for (int b = first; b < last; b += 4) {
        if (part.end <= b || part.begin >= b + 4) continue;
        _tile_loadd(4, weight(row, 0) + b * kBlock, kWeightStride);
        _tile_loadd(5, weight(row, 1) + b * kBlock, kWeightStride);
        _tile_loadd(6, values_ + b * kBlock * size + d * 64, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 5, 6);
      }
      _tile_stored(0, products[0], 64);
      _tile_stored(1, products[1], 64);
      for (int r = 0; r < kTileRows && row + r < rows; r++) {
        acc[r] = add(acc[r], row + r, chunk, load<vi>(products[0] + r * kLanes), load<vi>(products[1] + r * kLanes));
      }
    }
    for (int r = 0; r < kTileRows && row + r < rows; r++) store(sums + size_t(row + r) * size + d, acc[r]);
  }

  const Tiles tiles_;
  uint8_t* values_;  // [fours of blocks][head size / 16][16 fours of positions][16 channels][4]
};

}  // namespace HEADRACE_PATH
}  // namespace headrace

#endif
