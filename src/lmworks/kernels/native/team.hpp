// A team of threads that stay together through a whole step of a model and meet at barriers. Products of one token take
// microseconds: waking sleeping threads for each of them would take longer than the products.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lmworks {

class Team {
public:
    explicit Team(int threads) : threads_(threads) {}

    int threads() const { return threads_.load(std::memory_order_relaxed); }
    // Called by each thread before it does anything else, with the same number.
    void set_threads(int threads) { threads_.store(threads, std::memory_order_relaxed); }

    // Returns when all threads of the team have called it.
    void meet() {
        const int threads = this->threads();
        if (threads == 1) return;
        const unsigned phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int tries = 0; phase_.load(std::memory_order_acquire) == phase; ++tries) {
            if (tries > SPINS) std::this_thread::yield();  // another program has this thread's partner's core
            else pause();
        }
    }

private:
    static constexpr int SPINS = 4000;

    static void pause() {
#if defined(__x86_64__)
        _mm_pause();
#endif
    }

    std::atomic<int> threads_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> phase_{0};
};

using TeamFunction = std::function<void(Team& team, int thread)>;

// Calls work(team, 0) ... work(team, threads - 1), each on a thread of its own at the same time; returns when all have
// returned. ``work`` must not throw.
void run_team(const TeamFunction& work);

}  // namespace lmworks
