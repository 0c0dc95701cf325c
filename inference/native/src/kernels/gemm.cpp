#include "gemm_tile.h"
#include "gemm_tiles.h"
#include "table.h"

namespace headrace {
inline namespace HEADRACE_PATH {
namespace {

struct Source {
  const Inputs& inputs;
  int row;

  int32_t word(int m, int k) const {
    int32_t four;
    std::memcpy(&four, &inputs.codes[size_t(row + m) * inputs.columns + k], 4);
    return four;
  }
  uint32_t pair(int m, int k) const {
    uint32_t two;
    std::memcpy(&two, &inputs.halves[size_t(row + m) * inputs.columns + k], 4);
    return two;
  }
  // Sums with zero, not splats: with these GCC 12's products take 2 to 4% longer.
  vf scale(int m, int g) const { return vf{} + (inputs.scales[size_t(row + m) * (inputs.columns / kGroup) + g]); }
  vf scaled_sum(int m, int g) const { return vf{} + (inputs.scaled_sums[size_t(row + m) * (inputs.columns / kGroup) + g]); }
};

template <int M>
using Accumulators = vf[M][2];

template <int M>
inline void scale_up(Accumulators<M>& acc, const vi (&sums)[M][2], const Source& in, int g, const vf (&scales)[2],
                     const vf (&minimums)[2]) {
  for (int m = 0; m < M; m++) {
    const vf scale = in.scale(m, g), scaled_sum = in.scaled_sum(m, g);
    for (int h = 0; h < 2; h++) {
      acc[m][h] = fma(to_float(sums[m][h]), scales[h] * scale, acc[m][h]);
      acc[m][h] = fma(minimums[h], scaled_sum, acc[m][h]);
    }
  }
}

template <int M>
inline void tile_int4(Accumulators<M>& acc, const uint8_t* w, const Source& in, int groups) {
  for (int g = 0; g < groups; g++, w += 640) {
    fetch_ahead<640>(w);
    vi sums[M][2] = {};
    for (int v = 0; v < 4; v++) {
      for (int h = 0; h < 2; h++) {
        const vb codes = load<vb>(w + h * 256 + v * 64);
        const vb low = codes & uint8_t(15), high = codes >> 4;
        for (int m = 0; m < M; m++) {
          sums[m][h] = dot4(sums[m][h], low, in.word(m, g * kGroup + v * 4));
          sums[m][h] = dot4(sums[m][h], high, in.word(m, g * kGroup + 16 + v * 4));
        }
      }
    }
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(w + 512);
    const vf scales[2] = {load_half(halves), load_half(halves + 16)};
    const vf minimums[2] = {load_half(halves + 32), load_half(halves + 48)};
    scale_up<M>(acc, sums, in, g, scales, minimums);
  }
}

template <int M>
inline void tile_int8(Accumulators<M>& acc, const uint8_t* w, const Source& in, int groups) {
  for (int g = 0; g < groups; g++, w += 1088) {
    fetch_ahead<1088>(w);
    vi sums[M][2] = {};
    for (int v = 0; v < 8; v++) {
      for (int h = 0; h < 2; h++) {
        const vb codes = load<vb>(w + h * 512 + v * 64);
        for (int m = 0; m < M; m++) sums[m][h] = dot4(sums[m][h], codes, in.word(m, g * kGroup + v * 4));
      }
    }
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(w + 1024);
    const vf scales[2] = {load_half(halves), load_half(halves + 16)};
    const vf minimums[2] = {scales[0] * -128.0f, scales[1] * -128.0f};
    scale_up<M>(acc, sums, in, g, scales, minimums);
  }
}

template <int M>
inline void tile_bf16(Accumulators<M>& acc, const uint8_t* w, const Source& in, int groups) {
  const uint16_t* pairs = reinterpret_cast<const uint16_t*>(w);
  for (int k = 0; k < groups * kGroup; k += 2, pairs += 2 * kTile) {
    fetch_ahead<128>(reinterpret_cast<const uint8_t*>(pairs));
    for (int m = 0; m < M; m++) {
      acc[m][0] = dot2_bf16(acc[m][0], pairs, in.pair(m, k));
      acc[m][1] = dot2_bf16(acc[m][1], pairs + kTile, in.pair(m, k));
    }
  }
}

template <int M>
void rows_of_tile(const Product& product, const Inputs& inputs, int tile, int row) {
  const Matrix& matrix = *product.matrix;
  const Source in{inputs, row};
  Accumulators<M> acc = {};
  const int groups = matrix.columns / kGroup;
  if (matrix.kind == Kind::kInt4) tile_int4<M>(acc, matrix.tile(tile), in, groups);
  if (matrix.kind == Kind::kInt8) tile_int8<M>(acc, matrix.tile(tile), in, groups);
  if (matrix.kind == Kind::kBf16) tile_bf16<M>(acc, matrix.tile(tile), in, groups);
  for (int m = 0; m < M; m++) {
    for (int h = 0; h < 2; h++) put(product, row + m, tile * kTile + h * kLanes, acc[m][h]);
  }
}

}  // namespace

void multiply_tile(const Inputs& inputs, const Product& product, int tile, Scratch& scratch) {
  int row = 0;
  (void)scratch;
#if defined(__AMX_BF16__)
  if (!product.matrix->quantized()) {
    const Bf16Tiles multiplied(inputs, product, tile);
    return;
  }
#endif
#if defined(__AMX_INT8__)
  if (inputs.rows >= QuantizedTiles::kLeast) {
    const QuantizedTiles tiles(inputs, *product.matrix, tile, scratch);
    for (; row + kTileRows <= inputs.rows; row += kTileRows) tiles.rows(product, tile, row);
  }
#endif
  for (; row + kRows <= inputs.rows; row += kRows) rows_of_tile<kRows>(product, inputs, tile, row);
  switch (inputs.rows - row) {
    case 5: return rows_of_tile<5>(product, inputs, tile, row);
    case 4: return rows_of_tile<4>(product, inputs, tile, row);
    case 3: return rows_of_tile<3>(product, inputs, tile, row);
    case 2: return rows_of_tile<2>(product, inputs, tile, row);
    case 1: return rows_of_tile<1>(product, inputs, tile, row);
    default: return;
  }
}

namespace {

void set_group(Inputs& inputs, Kind kind, int row, int g, const float* values) {
  const size_t at = size_t(row) * inputs.columns + g * kGroup;
  if (kind == Kind::kBf16) {
    for (int k = 0; k < kGroup; k++) inputs.halves[at + k] = to_bf16(values[k]);
    return;
  }
  const vf a = load<vf>(values), b = load<vf>(values + kLanes);
  const float extreme = largest(max(abs(a), abs(b)));
  const float scale = extreme / 127.0f, inverse = extreme > 0 ? 127.0f / extreme : 0.0f;
  const vf qa = nearest(a * inverse), qb = nearest(b * inverse);
  const vi ia = __builtin_convertvector(qa, vi), ib = __builtin_convertvector(qb, vi);
  typedef int8_t v16 __attribute__((vector_size(16)));
  store(&inputs.codes[at], __builtin_convertvector(ia, v16));
  store(&inputs.codes[at + kLanes], __builtin_convertvector(ib, v16));
  inputs.scales[at / kGroup] = scale;
  inputs.scaled_sums[at / kGroup] = scale * sum(qa + qb);
}

}  // namespace

void set_inputs(Inputs& inputs, Kind kind, int row, int first, int groups, const float* values) {
  for (int g = 0; g < groups; g++) set_group(inputs, kind, row, first + g, values + g * kGroup);
}

}  // namespace HEADRACE_PATH
}  // namespace headrace

