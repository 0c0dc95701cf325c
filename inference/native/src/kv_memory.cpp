#include "kv_memory.h"

#include <cstring>

#include "simd.h"

namespace headrace {
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

}  // namespace

KvMemory::KvMemory(KvKind kind, int layers, int blocks, int heads, int head_size)
    : kind_(kind),
      layers_(layers),
      blocks_(blocks),
      heads_(heads),
      head_size_(head_size),
      panel_bytes_(size_t(kBlock) * head_size * (kind == KvKind::kInt8 ? 1 : sizeof(uint16_t))),
      bytes_(2 * panel_bytes_ + (kind == KvKind::kInt8 ? 2 * kBlock * sizeof(uint16_t) : 0)),
      arena_(size_t(layers) * blocks * heads * bytes_),
      page_maker_([this](std::stop_token stop) { arena_.make_pages(stop); }) {}

void KvMemory::write(int layer, int block, int slot, int head, const float* key, const float* value) {
  uint8_t* to = const_cast<uint8_t*>(at(layer, block, head));
  kind_ == KvKind::kInt8 ? write_int8(to, slot, key, value) : write_half(to, slot, key, value);
}

void KvMemory::write_half(uint8_t* block, int slot, const float* key, const float* value) const {
  uint16_t* keys = reinterpret_cast<uint16_t*>(block);
  uint16_t* values = keys + (kBlock + slot) * head_size_;
  for (int d = 0; d < head_size_; d += kLanes) {
    store_half(values + d, load<vf>(value + d));
    uint16_t column[kLanes];
    store_half(column, load<vf>(key + d));
    for (int i = 0; i < kLanes; i++) keys[(d + i) * kBlock + slot] = column[i];
  }
}

void KvMemory::write_int8(uint8_t* block, int slot, const float* key, const float* value) const {
  uint8_t* keys = block + slot * 4;
  uint8_t* values = block + panel_bytes_ + slot / 4 * 4 * head_size_ + slot % 4;
  uint16_t* scales = reinterpret_cast<uint16_t*>(block + 2 * panel_bytes_) + slot;
  scales[0] = scale_for(key, head_size_);
  scales[kBlock] = scale_for(value, head_size_);
  const float key_scale = from_half(scales[0]), value_scale = from_half(scales[kBlock]);
  const float key_inverse = key_scale > 0 ? 1 / key_scale : 0, value_inverse = value_scale > 0 ? 1 / value_scale : 0;
  for (int d = 0; d < head_size_; d += kLanes) {
    const vi key_codes = codes_for(load<vf>(key + d), key_inverse) + 128;
    const vi value_codes = codes_for(load<vf>(value + d), value_inverse);
    for (int i = 0; i < kLanes; i++) {
      keys[(d + i) / 4 * 4 * kBlock + i % 4] = uint8_t(key_codes[i]);
      values[(d + i) * 4] = uint8_t(value_codes[i]);
    }
  }
}

void KvMemory::copy(int from, int to) {
  for (int layer = 0; layer < layers_; layer++) {
    std::memcpy(const_cast<uint8_t*>(at(layer, to, 0)), at(layer, from, 0), heads_ * bytes_);
  }
}

}  // namespace headrace
