#include "matrix.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

#include "half.h"

namespace headrace {
namespace {

constexpr size_t kLargePage = size_t(2) << 20;

struct Place {
  int lane;     // column within its half
  int half;
};

Place place(int row) { return {row % kTile % kLanes, row % kTile / kLanes}; }

void pack_group(const Matrix& m, uint8_t* group, int row, const uint8_t* codes, float scale, float minimum) {
  const Place at = place(row);
  const bool int4 = m.kind == Kind::kInt4;
  uint8_t* half = group + at.half * (int4 ? 256 : 512);
  for (int k = 0; k < kGroup; k++) {
    const int vector = int4 ? k % 16 / 4 : k / 4;
    uint8_t& byte = half[vector * 64 + at.lane * 4 + k % 4];
    byte = int4 && k >= 16 ? uint8_t(byte | codes[k] << 4) : codes[k];
  }
  uint16_t* scales = reinterpret_cast<uint16_t*>(group + (int4 ? 512 : 1024));
  scales[at.half * kLanes + at.lane] = to_half(scale);
  if (int4) scales[kTile + at.half * kLanes + at.lane] = to_half(minimum);
}

void unpack_group(const Matrix& m, const uint8_t* group, int row, float* to) {
  const Place at = place(row);
  const bool int4 = m.kind == Kind::kInt4;
  const uint8_t* half = group + at.half * (int4 ? 256 : 512);
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(group + (int4 ? 512 : 1024));
  const float scale = from_half(scales[at.half * kLanes + at.lane]);
  const float minimum = int4 ? from_half(scales[kTile + at.half * kLanes + at.lane]) : -128.0f * scale;
  for (int k = 0; k < kGroup; k++) {
    const int vector = int4 ? k % 16 / 4 : k / 4;
    const uint8_t byte = half[vector * 64 + at.lane * 4 + k % 4];
    to[k] = scale * float(!int4 ? byte : k < 16 ? byte & 15 : byte >> 4) + minimum;
  }
}

Matrix empty(Kind kind, int rows, int columns) {
  Matrix m;
  m.kind = kind;
  m.rows = rows;
  m.columns = columns;
  m.arena = Arena(m.tiles() * m.tile_bytes());
  return m;
}

uint8_t* group_at(const Matrix& m, int row, int group) {
  return m.arena.data() + row / kTile * m.tile_bytes() + group * m.group_bytes();
}

}  // namespace

Arena::Arena(size_t bytes) : bytes_((bytes + kLargePage - 1) / kLargePage * kLargePage) {
  void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<uint8_t*>(at);
  if (bytes >= kLargePage) madvise(data_, bytes_, MADV_HUGEPAGE);
}

void Arena::make_pages(const std::stop_token& stop) const {
#if defined(MADV_POPULATE_WRITE)
  constexpr size_t kStep = 16 * kLargePage;
  for (size_t at = 0; at < bytes_ && !stop.stop_requested(); at += kStep) {
    // An old kernel refuses; then the pages come when they are touched.
    if (madvise(data_ + at, bytes_ - at < kStep ? bytes_ - at : kStep, MADV_POPULATE_WRITE) != 0) return;
  }
#else
  (void)stop;
#endif
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Arena::~Arena() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

Matrix pack_codes(Kind kind, int rows, int columns, const uint8_t* codes, const float* scales, const float* minimums) {
  Matrix m = empty(kind, rows, columns);
  const int groups = columns / kGroup;
  for (int row = 0; row < rows; row++) {
    for (int g = 0; g < groups; g++) {
      const size_t at = size_t(row) * groups + g;
      pack_group(m, group_at(m, row, g), row, codes + at * kGroup, scales[at], minimums[at]);
    }
  }
  return m;
}

Matrix pack_bf16(int rows, int columns, const uint16_t* values) {
  Matrix m = empty(Kind::kBf16, rows, columns);
  for (int row = 0; row < rows; row++) {
    const Place at = place(row);
    for (int k = 0; k < columns; k++) {
      uint16_t* pairs = reinterpret_cast<uint16_t*>(group_at(m, row, k / kGroup)) + k % kGroup / 2 * 2 * kTile;
      pairs[(at.half * kLanes + at.lane) * 2 + k % 2] = values[size_t(row) * columns + k];
    }
  }
  return m;
}

void unpack_row(const Matrix& m, int row, float* to) {
  const Place at = place(row);
  for (int g = 0; g < m.columns / kGroup; g++, to += kGroup) {
    const uint8_t* group = group_at(m, row, g);
    if (m.quantized()) {
      unpack_group(m, group, row, to);
      continue;
    }
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(group);
    for (int k = 0; k < kGroup; k++) to[k] = from_bf16(pairs[k / 2 * 2 * kTile + (at.half * kLanes + at.lane) * 2 + k % 2]);
  }
}

}  // namespace headrace
