// One team of threads that runs a whole forward step together. Between the stages of a step the threads meet at a
// barrier that spins, because a stage lasts microseconds; between steps they sleep.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace headrace {

class Pool;

// One thread's view of a running step: shares out the items of each stage and meets the others after it.
class Worker {
 public:
  Worker(Pool& pool, int id) : pool_(pool), id_(id) {}
  int id() const { return id_; }

  // Waits until every thread has come here.
  void meet();

  // Calls body(i) for this thread's share of 0..count-1, then waits until all threads are done. Items are taken in
  // chunks as threads come free, so a thread that the system interrupts holds the others up little.
  template <class Body>
  void each(int count, Body&& body);

 private:
  Pool& pool_;
  int id_;
  int stage_ = 0;
};

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  int size() const { return size_; }

  // Runs `work` once in every thread, the caller's included; returns when all are done.
  void run(const std::function<void(Worker&)>& work);

 private:
  friend class Worker;
  // A stage's counter is reset two stages before it is used again, when no thread can be in it any more.
  static constexpr int kCounters = 4;
  struct alignas(64) Counter {
    std::atomic<int> next{0};
  };

  void meet();
  void loop(int id);

  const int size_;
  Counter counters_[kCounters];
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
  alignas(64) std::atomic<unsigned> epoch_{0};
  std::atomic<bool> stopping_{false};
  const std::function<void(Worker&)>* work_ = nullptr;
  std::vector<std::thread> threads_;
};

inline void Worker::meet() { pool_.meet(); }

template <class Body>
void Worker::each(int count, Body&& body) {
  std::atomic<int>& next = pool_.counters_[stage_ % Pool::kCounters].next;
  if (id_ == 0) pool_.counters_[(stage_ + 2) % Pool::kCounters].next.store(0, std::memory_order_relaxed);
  stage_++;
  const int chunk = count / (pool_.size() * 8) + 1;
  for (int first = next.fetch_add(chunk); first < count; first = next.fetch_add(chunk)) {
    const int end = first + chunk < count ? first + chunk : count;
    for (int i = first; i < end; i++) body(i);
  }
  pool_.meet();
}

}  // namespace headrace
