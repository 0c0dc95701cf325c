// A thread's working memory, which kernels may not allocate themselves.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

// What the parts of it are for: attention's, then products'.
enum { kScores, kWeights, kQueries, kKeys, kValues, kSums, kTotals, kIntegers, kGemmCodes, kGemmFactors };

class Scratch {
 public:
  static constexpr int kParts = 10;

  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();

  // At least `bytes` of memory, aligned to 64, for what is numbered `part`. Growing it forgets what it held.
  template <class T>
  T* room(int part, size_t count) {
    return reinterpret_cast<T*>(count * sizeof(T) <= sizes_[part] ? parts_[part] : grow(part, count * sizeof(T)));
  }

 private:
  uint8_t* grow(int part, size_t bytes);

  uint8_t* parts_[kParts] = {};
  size_t sizes_[kParts] = {};
};

}  // namespace headrace
