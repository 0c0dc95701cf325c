// Weight matrices in tiles of 32 output columns, in the order that the kernels read them: one forward stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stop_token>

namespace headrace {

constexpr int kGroup = 32;  // inputs that share a scale
constexpr int kTile = 32;   // outputs that a tile holds, in two halves of 16
constexpr int kLanes = 16;  // numbers that the kernels take at a time

// Rows of inputs that a matrix register holds: memory for rows is padded to it.
constexpr int kTileRows = 16;
constexpr int padded(int rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }

enum class Kind : int32_t { kInt4 = 0, kInt8 = 1, kBf16 = 2 };

// Memory on large pages where the system gives them; zeroed, and not resident until it is touched.
class Arena {
 public:
  Arena() = default;
  explicit Arena(size_t bytes);
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();
  uint8_t* data() const { return data_; }
  // Makes the memory resident, in steps between which it looks at `stop`. Safe beside threads that use the memory.
  void make_pages(const std::stop_token& stop) const;

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Rows are outputs, columns inputs. Columns must be a multiple of 32; rows are padded with zeros to one.
//
// A tile of int4 holds, for each group: 2 x 256 bytes of codes, 2 x 16 float16 scales, 2 x 16 float16 minimums. Byte 4n+k
// of vector v of a half holds column n, input 4v+k in the low and input 16+4v+k in the high nibble. weight = scale * code
// + minimum. Int8 holds 2 x 512 bytes of codes, vector v for inputs 4v..4v+3, and scales; the minimum is -128 scale.
// Bf16 holds for each pair of inputs 2 x 16 columns x 2.
struct Matrix {
  Kind kind = Kind::kInt4;
  int rows = 0;
  int columns = 0;
  Arena arena;

  int tiles() const { return (rows + kTile - 1) / kTile; }
  size_t group_bytes() const { return kind == Kind::kInt4 ? 640 : kind == Kind::kInt8 ? 1088 : 2048; }
  size_t tile_bytes() const { return size_t(columns / kGroup) * group_bytes(); }
  const uint8_t* tile(int i) const { return arena.data() + i * tile_bytes(); }
  bool quantized() const { return kind != Kind::kBf16; }
};

// Codes [rows, columns] with float32 scales and minimums [rows, columns / 32]; minimums are not read for int8.
Matrix pack_codes(Kind kind, int rows, int columns, const uint8_t* codes, const float* scales, const float* minimums);

// bfloat16 bits [rows, columns].
Matrix pack_bf16(int rows, int columns, const uint16_t* values);

// Row `row` as floats, [columns]: the embedding of a token.
void unpack_row(const Matrix& matrix, int row, float* to);

}  // namespace headrace
