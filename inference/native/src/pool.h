// One team of threads that runs a whole forward step together, stage by stage. A stage ends when all its items are done,
// not when all threads have come: the others do not wait for a thread that the system has not woken yet, or has put
// aside between two items. A late thread runs through the stages that are done and joins the one that is not.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace headrace {

class Pool;

// One thread's view of a running step.
class Worker {
 public:
  Worker(Pool& pool, int id) : pool_(pool), id_(id) {}
  int id() const { return id_; }

  // Calls body(i) for this thread's share of 0..count-1, then waits until all of them are done. Threads must call `each`
  // and `once` in the same order with the same counts; what `body` writes is seen by all threads afterwards. `even` is for
  // items that take so long that a neighbour's being in the cache matters less than who has one more of them.
  template <class Body>
  void each(int count, Body&& body, bool even = false);

  // Calls body() in one thread; the others wait for it.
  template <class Body>
  void once(Body&& body) {
    each(1, [&](int) { body(); });
  }

 private:
  Pool& pool_;
  int id_;
  int stage_ = 0;
};

class Pool {
 public:
  // `stages` is the most that one run may have.
  Pool(int threads, int stages);
  ~Pool();
  int size() const { return size_; }

  // Runs `work` in the caller's thread and in those of the team that come in time; returns when all have left it.
  void run(const std::function<void(Worker&)>& work);

 private:
  friend class Worker;
  struct alignas(64) Stage {
    std::atomic<int> next{0};
    std::atomic<int> done{0};
  };
  // In the gate: whether threads may enter the run; below it, how many of the team are inside.
  static constexpr unsigned kOpen = 1u << 31;

  void loop(int id);
  bool enter();
  static void wait(const std::atomic<int>& value, int wanted);

  const int size_;
  std::vector<Stage> stages_;
  alignas(64) std::atomic<unsigned> gate_{0};
  alignas(64) std::atomic<unsigned> epoch_{0};
  std::atomic<bool> stopping_{false};
  const std::function<void(Worker&)>* work_ = nullptr;
  std::vector<std::thread> threads_;
};

// Items that a thread takes at a time: about an eighth of its share; with `even`, fewer where that lets all threads have as
// many. In twos, 18 items take two threads as long as 20.
inline int chunk_of(int count, int threads, bool even) {
  int chunk = count / (threads * 8) + 1;
  const int least = (count + threads - 1) / threads;
  const auto most = [&] { return ((count + chunk - 1) / chunk + threads - 1) / threads * chunk; };
  while (even && chunk > 1 && most() > least) chunk--;
  return chunk;
}

template <class Body>
void Worker::each(int count, Body&& body, bool even) {
  Pool::Stage& stage = pool_.stages_.at(stage_++);
  const int chunk = chunk_of(count, pool_.size(), even);
  int done = 0;
  for (int first = stage.next.fetch_add(chunk); first < count; first = stage.next.fetch_add(chunk)) {
    const int end = first + chunk < count ? first + chunk : count;
    for (int i = first; i < end; i++) body(i);
    done += end - first;
  }
  if (done > 0) stage.done.fetch_add(done, std::memory_order_acq_rel);
  Pool::wait(stage.done, count);
}

}  // namespace headrace
