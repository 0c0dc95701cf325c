#include "scratch.h"

#include <new>

namespace headrace {
namespace {

constexpr std::align_val_t kLine{64};

}  // namespace

Scratch::~Scratch() {
  for (uint8_t* part : parts_) operator delete(part, kLine);
}

uint8_t* Scratch::grow(int part, size_t bytes) {
  operator delete(parts_[part], kLine);
  parts_[part] = nullptr;
  sizes_[part] = 0;
  parts_[part] = static_cast<uint8_t*>(operator new(bytes * 2, kLine));
  sizes_[part] = bytes * 2;
  return parts_[part];
}

}  // namespace headrace
