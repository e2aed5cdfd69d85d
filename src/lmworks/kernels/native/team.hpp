// A team of threads that stay together through a whole step of a model and meet at barriers. Products of one token take
// microseconds: waking sleeping threads for each of them would take longer than the products.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <functional>
#include <thread>
#include <utility>

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
        if (threads == 1) return clear_taken();
        const unsigned phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            clear_taken();
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int tries = 0; phase_.load(std::memory_order_acquire) == phase; ++tries) {
            if (tries > SPINS) std::this_thread::yield();  // another program has this thread's partner's core
            else pause();
        }
    }

    static constexpr int WORKS = 4;

    // The first of the next ``count`` items of work ``number`` (0 to WORKS - 1) since the last meeting.
    std::ptrdiff_t take(int number, std::ptrdiff_t count) { return taken_[number].fetch_add(count, std::memory_order_relaxed); }

private:
    static constexpr int SPINS = 4000;

    void clear_taken() {
        for (auto& taken : taken_)  // what is not written stays in the caches of all cores
            if (taken.load(std::memory_order_relaxed) != 0) taken.store(0, std::memory_order_relaxed);
    }

    static void pause() {
#if defined(__x86_64__)
        _mm_pause();
#endif
    }

    std::atomic<int> threads_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> phase_{0};
    alignas(64) std::atomic<std::ptrdiff_t> taken_[WORKS]{};
};

// A thread of a team.
class TeamThread {
public:
    TeamThread(Team& team, int number) : team_(team), number_(number) {}

    int threads() const { return team_.threads(); }

    void meet() {
        team_.meet();
        works_ = 0;
    }

    // This thread's part of ``count`` items, the same in each step: begin and end.
    std::pair<std::ptrdiff_t, std::ptrdiff_t> share(std::ptrdiff_t count) const {
        return {count * number_ / threads(), count * (number_ + 1) / threads()};
    }

    // Calls compute(begin, end) for pieces of ``count`` items that no other thread takes: one that another program delays
    // takes fewer. At most Team::WORKS times between two meetings.
    template <class Compute>
    void take_pieces(std::ptrdiff_t count, std::ptrdiff_t piece, Compute compute) {
        assert(works_ < Team::WORKS);
        const int work = works_++;
        for (std::ptrdiff_t begin; (begin = team_.take(work, piece)) < count;) compute(begin, std::min(begin + piece, count));
    }

private:
    Team& team_;
    const int number_;
    int works_ = 0;  // since the last meeting
};

using TeamFunction = std::function<void(Team& team, int thread)>;

// Calls work(team, 0) ... work(team, threads - 1), each on a thread of its own at the same time; returns when all have
// returned. ``work`` must not throw.
void run_team(const TeamFunction& work);

}  // namespace lmworks
