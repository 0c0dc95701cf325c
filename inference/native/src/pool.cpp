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

// One turn of waiting: spins at first, then lets others run.
inline void idle(int& spins) {
  if (++spins < kSpins) {
    pause();
  } else {
    sched_yield();
  }
}

}  // namespace

Pool::Pool(int threads, int stages) : size_(threads < 1 ? 1 : threads), stages_(stages) {
  for (int id = 1; id < size_; id++) threads_.emplace_back([this, id] { loop(id); });
}

Pool::~Pool() {
  stopping_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::run(const std::function<void(Worker&)>& work) {
  for (Stage& stage : stages_) {
    if (stage.next.load(std::memory_order_relaxed) == 0) break;  // the last run had no more
    stage.next.store(0, std::memory_order_relaxed);
    stage.done.store(0, std::memory_order_relaxed);
  }
  work_ = &work;
  gate_.store(kOpen);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  Worker worker(*this, 0);
  work(worker);
  gate_.fetch_and(~kOpen);
  for (int spins = 0; gate_.load() != 0;) idle(spins);
}

bool Pool::enter() {
  unsigned gate = gate_.load();
  while (gate & kOpen) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
  }
  return false;
}

void Pool::loop(int id) {
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && epoch_.load() == seen; i++) pause();
    epoch_.wait(seen);
    seen = epoch_.load();
    if (stopping_) return;
    if (!enter()) continue;
    Worker worker(*this, id);
    (*work_)(worker);
    gate_.fetch_sub(1);
  }
}

void Pool::wait(const std::atomic<int>& value, int wanted) {
  for (int spins = 0; value.load(std::memory_order_acquire) != wanted;) idle(spins);
}

}  // namespace headrace
