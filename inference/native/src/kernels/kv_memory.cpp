#include "simd.h"
#include "table.h"

namespace headrace {
inline namespace HEADRACE_PATH {
namespace {

// The scale that takes n values (a multiple of 16) to codes of -127..127, as float16 holds it.
uint16_t scale_for(const float* values, int n) {
  vf most = {};
  for (int i = 0; i < n; i += kLanes) most = max(most, abs(load<vf>(values + i)));
  return to_half(__builtin_fminf(largest(most) / 127.0f, 65504.0f));
}

vi codes_for(vf values, float inverse) {
  const vf codes = max(min(values * inverse, splat(127.0f)), splat(-127.0f));
  return __builtin_convertvector(nearest(codes), vi);
}

void write_half(const KvMemory& memory, uint8_t* block, int slot, const float* key, const float* value) {
  const int head_size = memory.head_size();
  uint16_t* keys = reinterpret_cast<uint16_t*>(block);
  uint16_t* values = keys + (kBlock + slot) * head_size;
  for (int d = 0; d < head_size; d += kLanes) {
    store_half(values + d, load<vf>(value + d));
    uint16_t column[kLanes];
    store_half(column, load<vf>(key + d));
    for (int i = 0; i < kLanes; i++) keys[(d + i) * kBlock + slot] = column[i];
  }
}

void write_int8(const KvMemory& memory, uint8_t* block, int slot, const float* key, const float* value) {
  const int head_size = memory.head_size();
  uint8_t* keys = block + slot * 4;
  uint8_t* values = block + memory.panel_bytes() + slot / 4 * 4 * head_size + slot % 4;
  uint16_t* scales = reinterpret_cast<uint16_t*>(block + 2 * memory.panel_bytes()) + slot;
  scales[0] = scale_for(key, head_size);
  scales[kBlock] = scale_for(value, head_size);
  const float key_scale = from_half(scales[0]), value_scale = from_half(scales[kBlock]);
  const float key_inverse = key_scale > 0 ? 1 / key_scale : 0, value_inverse = value_scale > 0 ? 1 / value_scale : 0;
  for (int d = 0; d < head_size; d += kLanes) {
    const vi key_codes = codes_for(load<vf>(key + d), key_inverse) + 128;
    const vi value_codes = codes_for(load<vf>(value + d), value_inverse);
    for (int i = 0; i < kLanes; i++) {
      keys[(d + i) / 4 * 4 * kBlock + i % 4] = uint8_t(key_codes[i]);
      values[(d + i) * 4] = uint8_t(value_codes[i]);
    }
  }
}

}  // namespace

void write_kv(const KvMemory& memory, uint8_t* block, int slot, const float* key, const float* value) {
  memory.kind() == KvKind::kInt8 ? write_int8(memory, block, slot, key, value) : write_half(memory, block, slot, key, value);
}

}  // namespace HEADRACE_PATH
}  // namespace headrace
