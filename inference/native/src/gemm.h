// Matrix products y = W x for a few to a few hundred rows x, quantized on the fly: 8-bit inputs times 4- or 8-bit
// weights in integers, one scale for 32 inputs on both sides (the scheme of GGML's Q8_1 times Q4_1), or bfloat16.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace headrace {

// Inputs ready for a product: rows of int8 codes with a scale a group (and scale * sum of codes, which the weights'
// minimums are multiplied by), or of bfloat16.
class Inputs {
 public:
  // Room for rows of this width; keeps its memory when it shrinks.
  void resize(int rows, int columns);

  int rows = 0;
  int columns = 0;
  std::vector<int8_t> codes;       // [rows, columns]
  std::vector<float> scales;       // [rows, columns / 32]
  std::vector<float> scaled_sums;  // [rows, columns / 32]
  std::vector<uint16_t> halves;    // [rows, columns], bfloat16
};

// One product of a stage. `out` is [rows, stride] floats; `bias` may be null. With `add`, out += instead of out =. A
// `large` result is more than the caches hold, and is written past them. Where `out` is a part of the result, `first` is
// the column that it begins with.
struct Product {
  const Matrix* matrix;
  float* out;
  int stride;
  const float* bias;
  bool add;
  bool large = false;
  int first = 0;
};

struct Kernels;

// Rows that the kernels take together: 12 accumulators of integers and 12 of floats leave registers for weights and scales.
constexpr int kRows = 6;

// Runs the products of a stage, all over the same `rows` of inputs; every thread of the team calls it, also one that is so
// late that the inputs are another stage's by then. A row's results are the same bits whatever rows run beside it.
void multiply(const Kernels& kernels, Worker& worker, Scratch& scratch, const Inputs& inputs, int rows,
              const Product* products, int count);

// Whether rows are so many that a tile is gone through more than once: then its arithmetic takes longer than reading it.
bool in_blocks(int rows);

// What kinds of inputs the products of a stage need: all quantized, or all bfloat16.
inline Kind input_kind(const Matrix& matrix) { return matrix.quantized() ? Kind::kInt8 : Kind::kBf16; }

}  // namespace headrace
