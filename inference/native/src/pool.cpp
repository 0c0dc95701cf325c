#include "pool.h"

#include <sched.h>

namespace headrace {
namespace {

// Spins this often before giving the core away: about 50 microseconds, longer than any stage's imbalance on idle cores.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Pool::Pool(int threads) : size_(threads < 1 ? 1 : threads) {
  for (int id = 1; id < size_; id++) threads_.emplace_back([this, id] { loop(id); });
}

Pool::~Pool() {
  stopping_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::run(const std::function<void(Worker&)>& work) {
  for (Counter& counter : counters_) counter.next = 0;
  work_ = &work;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  Worker worker(*this, 0);
  work(worker);
  meet();
}

void Pool::loop(int id) {
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && epoch_.load() == seen; i++) pause();
    epoch_.wait(seen);
    seen = epoch_.load();
    if (stopping_) return;
    Worker worker(*this, id);
    (*work_)(worker);
    meet();
  }
}

void Pool::meet() {
  const unsigned round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round;) {
    if (++spins < kSpins) {
      pause();
    } else {
      sched_yield();
    }
  }
}

}  // namespace headrace
