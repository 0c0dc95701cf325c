#include "gemm.h"

#include "kernels.h"

namespace headrace {

void Inputs::resize(int new_rows, int new_columns) {
  rows = new_rows;
  columns = new_columns;
  const size_t values = size_t(padded(rows)) * columns;
  if (codes.size() >= values) return;
  codes.resize(values);
  halves.resize(values);
  scales.resize(values / kGroup);
  scaled_sums.resize(values / kGroup);
}

bool in_blocks(int rows) { return rows > kRows; }

void multiply(const Kernels& kernels, Worker& worker, Scratch& scratch, const Inputs& inputs, int rows,
              const Product* products, int count) {
  int tiles = 0;
  for (int p = 0; p < count; p++) tiles += products[p].matrix->tiles();
  worker.each(tiles, [&](int tile) {
    const Product* product = products;
    for (; tile >= product->matrix->tiles(); product++) tile -= product->matrix->tiles();
    kernels.multiply_tile(inputs, *product, tile, scratch);
  }, in_blocks(rows));
}

}  // namespace headrace
