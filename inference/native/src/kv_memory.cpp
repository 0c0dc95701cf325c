#include "kv_memory.h"

#include <cstring>

namespace headrace {
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

void KvMemory::copy(int from, int to) {
  for (int layer = 0; layer < layers_; layer++) {
    std::memcpy(const_cast<uint8_t*>(at(layer, to, 0)), at(layer, from, 0), heads_ * bytes_);
  }
}

}  // namespace headrace
