// Matrix products in tiles, on CPUs with AMX.
#pragma once

#include "gemm_tile.h"
#include "tiles.h"

#if defined(__AMX_INT8__)

namespace headrace {
inline namespace HEADRACE_PATH {

// 4- and 8-bit weights. A group's sums are integers, as exact as those of vectors, and what is done with them is the same:
// so are a row's bits. Only the sums are the tiles' work; scaling them takes longer.
class QuantizedTiles {
 public:
  // Fewer rows are as quick in vectors.
  static constexpr int kLeast = 32;

  QuantizedTiles(const Inputs& inputs, const Matrix& matrix, int tile, Scratch& scratch)
      : tiles_(kTileRows, kGroup),
        inputs_(inputs),
        groups_(matrix.columns / kGroup),
        int4_(matrix.kind == Kind::kInt4),
        bytes_(int(matrix.group_bytes())),
        next_(matrix.tile(tile + 1)),
        weights_(matrix.tile(tile)),
        codes_(scratch.room<uint8_t>(kGemmCodes, int4_ ? size_t(groups_) * kTile * kGroup : 0)),
        factors_(scratch.room<float>(kGemmFactors, size_t(groups_) * 2 * kTile)) {
    for (int g = 0; g < groups_; g++) unpack(weights_ + g * bytes_, g);
    stored();
  }

  // Rows from `row` on, 16 or what there is.
  void rows(const Product& product, int tile, int row) const {
    for (int half = 0; half < 2; half++) {
      vf acc[kTileRows] = {};
      sum(acc, row, half);
      const int count = inputs_.rows - row < kTileRows ? inputs_.rows - row : kTileRows;
      for (int m = 0; m < count; m++) put(product, row + m, tile * kTile + half * kLanes, acc[m]);
    }
  }

 private:
  static constexpr int kBatch = 4;  // groups whose sums are in tiles at a time

  // Int8 codes are tiles as they lie; int4 ones become bytes. Scales and minimums become floats, [half][both][16].
  void unpack(const uint8_t* w, int g) {
    float* factors = factors_ + size_t(g) * 2 * kTile;
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(w + (int4_ ? 512 : 1024));
    for (int half = 0; half < 2; half++, factors += kTile) {
      const vf scales = load_half(halves + half * kLanes);
      store(factors, scales);
      store(factors + kLanes, int4_ ? load_half(halves + kTile + half * kLanes) : scales * -128.0f);
      if (!int4_) continue;
      uint8_t* to = codes_ + (size_t(g) * 2 + half) * kLanes * kGroup;
      for (int v = 0; v < 4; v++) {
        const vb codes = load<vb>(w + half * 256 + v * 64);
        store(to + v * 64, codes & uint8_t(15));
        store(to + (4 + v) * 64, codes >> 4);
      }
    }
  }

  const uint8_t* codes(int g, int half) const {
    return int4_ ? codes_ + (size_t(g) * 2 + half) * kLanes * kGroup : weights_ + g * bytes_ + half * kLanes * kGroup;
  }

  // The tiles of one batch of groups work while vectors scale what came of the batch before.
  __attribute__((always_inline)) void sum(vf (&acc)[kTileRows], int row, int half) const {
    alignas(64) int32_t sums[kBatch][kTileRows * kLanes];
    for (int g = 0; g < groups_ + kBatch; g += kBatch) {
      multiply(row, half, g);
      for (int i = 0; g > 0 && i < kBatch && g - kBatch + i < groups_; i++) scale(acc, sums[i], row, half, g - kBatch + i);
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      _tile_stored(2, sums[2], 64);
      _tile_stored(3, sums[3], 64);
    }
  }

  __attribute__((always_inline)) void multiply(int row, int half, int g) const {
    const int8_t* inputs = &inputs_.codes[size_t(row) * inputs_.columns + g * kGroup];
    const int stride = inputs_.columns;
#define HEADRACE_GROUP(n, left, right)              \
  if (g + (n) < groups_) {                          \
    _tile_zero(n);                                  \
    _tile_loadd(left, inputs + (n)*kGroup, stride); \
    _tile_loadd(right, codes(g + (n), half), 64);   \
    _tile_dpbsud(n, left, right);                   \
  }
    HEADRACE_GROUP(0, 4, 6)
    HEADRACE_GROUP(1, 5, 7)
    HEADRACE_GROUP(2, 4, 6)
    HEADRACE_GROUP(3, 5, 7)
#undef HEADRACE_GROUP
  }

  // Asks, with the first rows, for a line of the next tile now and then.
  __attribute__((always_inline)) void scale(vf (&acc)[kTileRows], const int32_t* sums, int row, int half, int g) const {
    const uint8_t* next = row == 0 ? next_ + g * bytes_ + half * bytes_ / 2 : weights_;
    const int step = row == 0 ? bytes_ / kTileRows : 0;
    const float* factors = factors_ + (size_t(g) * 2 + half) * kTile;
    const vf scales = load<vf>(factors), minimums = load<vf>(factors + kLanes);
    const float *own = &inputs_.scales[size_t(row) * groups_ + g], *total = &inputs_.scaled_sums[size_t(row) * groups_ + g];
#pragma GCC unroll 16
    for (int m = 0; m < kTileRows; m++) {
      if (m % 2 == 0) __builtin_prefetch(next + m / 2 * step);
      acc[m] = fma(to_float(load<vi>(sums + m * kLanes)), scales * splat(own[m * groups_]), acc[m]);
      acc[m] = fma(minimums, splat(total[m * groups_]), acc[m]);
    }
  }

  const Tiles tiles_;
  const Inputs& inputs_;
  const int groups_;
  const bool int4_;
  const int bytes_;
  const uint8_t *next_, *weights_;
  uint8_t* codes_;   // [groups][half][8][16 outputs][4]
  float* factors_;   // [groups][half][scales, minimums][16]
};

// bfloat16 weights, for any number of rows: the order of the tiles' sums is their own.
class Bf16Tiles {
 public:
  Bf16Tiles(const Inputs& inputs, const Product& product, int tile)
      : tiles_(inputs.rows < kTileRows ? inputs.rows : kTileRows), inputs_(inputs), product_(product), tile_(tile) {
    int row = 0;
    for (; row + kTileRows < inputs.rows; row += 2 * kTileRows) rows<2>(row);
    if (row < inputs.rows) rows<1>(row);
  }

 private:
  template <int M>
  void rows(int row) const {
    const Matrix& matrix = *product_.matrix;
    const int stride = inputs_.columns * 2;
    const uint16_t* inputs = &inputs_.halves[size_t(row) * inputs_.columns];
    const uint8_t* weights = matrix.tile(tile_);
    stored();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < matrix.columns; k += kGroup, weights += 2 * kTile * kGroup) {
      if (row == 0) fetch_ahead<2 * kTile * kGroup>(weights);
      _tile_loadd(4, inputs + k, stride);
      _tile_loadd(6, weights, 128);
      _tile_loadd(7, weights + 64, 128);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (M == 2) {
        _tile_loadd(5, inputs + size_t(kTileRows) * inputs_.columns + k, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    alignas(64) float sums[2 * M][kTileRows * kLanes];
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    if constexpr (M == 2) {
      _tile_stored(2, sums[2], 64);
      _tile_stored(3, sums[3], 64);
    }
    for (int m = 0; m < M * kTileRows && row + m < inputs_.rows; m++) {
      for (int half = 0; half < 2; half++) {
        const float* from = sums[m / kTileRows * 2 + half] + m % kTileRows * kLanes;
        put(product_, row + m, tile_ * kTile + half * kLanes, load<vf>(from));
      }
    }
  }

  const Tiles tiles_;
  const Inputs& inputs_;
  const Product& product_;
  const int tile_;
};

}  // namespace HEADRACE_PATH
}  // namespace headrace

#endif
