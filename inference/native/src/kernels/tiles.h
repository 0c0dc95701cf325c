// The matrix registers of CPUs with AMX: eight tiles of 16 rows of 64 bytes.
#pragma once

#if defined(__AMX_TILE__)

#include <immintrin.h>

#include <cstdint>

#include "simd.h"

namespace headrace {
inline namespace HEADRACE_PATH {

// GCC's loads of tiles and of their shapes do not say that they read memory: what was stored before must be there.
inline void stored() { asm volatile("" ::: "memory"); }

// Shapes of the tiles while one of these lives. Sums are tiles 0 to 3, left operands 4 and 5, right ones 6 and 7.
class Tiles {
 public:
  // Left operands have `rows` rows of `depth` bytes, right ones depth / 4 rows of 64 bytes.
  explicit Tiles(int rows, int depth = 64) {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int i = 0; i < 8; i++) {
      shapes.bytes[i] = uint16_t(i == 4 || i == 5 ? depth : 64);
      shapes.rows[i] = uint8_t(i < 6 ? rows : depth / 4);
    }
    asm volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
  }
  // Leaves nothing for the system to save when it switches threads.
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

}  // namespace HEADRACE_PATH
}  // namespace headrace

#endif
