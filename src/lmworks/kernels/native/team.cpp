#include "team.hpp"

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

namespace lmworks {
namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using GompCount = int (*)();

struct Borrowed {
    GompParallel parallel = nullptr;
    GompCount count = nullptr;
    GompCount inside = nullptr;
};

#if defined(__linux__)
// Finds a libgomp that the process has loaded already; loads none.
int note_gomp(dl_phdr_info* info, std::size_t, void* found) {
    const char* name = std::strrchr(info->dlpi_name, '/');
    if (name == nullptr || std::strncmp(name + 1, "libgomp", 7) != 0) return 0;
    auto* borrowed = static_cast<Borrowed*>(found);
    void* library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_LAZY);
    if (library == nullptr) return 0;
    borrowed->parallel = reinterpret_cast<GompParallel>(dlsym(library, "GOMP_parallel"));
    borrowed->count = reinterpret_cast<GompCount>(dlsym(library, "omp_get_max_threads"));
    borrowed->inside = reinterpret_cast<GompCount>(dlsym(library, "omp_in_parallel"));
    if (borrowed->parallel && borrowed->count && borrowed->inside) return 1;
    *borrowed = {};
    return 0;
}

const Borrowed& borrowed() {
    static const Borrowed found = [] {
        Borrowed one;
        dl_iterate_phdr(note_gomp, &one);
        return one;
    }();
    return found;
}
#else
const Borrowed& borrowed() {  // elsewhere the threads are our own
    static const Borrowed none;
    return none;
}
#endif

struct Job {
    const Work* work;
    std::ptrdiff_t tasks;
    std::atomic<std::ptrdiff_t> next{0};

    void take() {
        for (std::ptrdiff_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) (*work)(task);
    }
};

void take_all(void* job) { static_cast<Job*>(job)->take(); }

// Threads of our own, asleep between jobs.
class Own {
public:
    void run(Job& job, int count) {
        std::unique_lock<std::mutex> turn(turn_);  // one job at a time
        while (static_cast<int>(helpers_.size()) < count - 1) helpers_.emplace_back([this] { serve(); });
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            wanted_ = static_cast<int>(helpers_.size());
            ++number_;
        }
        wake_.notify_all();
        job.take();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return wanted_ == 0; });
        job_ = nullptr;
    }

    ~Own() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (auto& helper : helpers_) helper.join();
    }

private:
    void serve() {
        std::size_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return ending_ || (number_ != seen && job_ != nullptr); });
            if (ending_) return;
            seen = number_;
            Job* job = job_;
            lock.unlock();
            job->take();
            lock.lock();
            if (--wanted_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> helpers_;
    Job* job_ = nullptr;
    std::size_t number_ = 0;
    int wanted_ = 0;
    bool ending_ = false;
};

std::atomic<int> own_threads{static_cast<int>(std::thread::hardware_concurrency())};

}  // namespace

void run(std::ptrdiff_t tasks, const Work& work) {
    const int count = threads();
    Job job{&work, tasks};
    if (tasks < 2 || count < 2) {
        job.take();
    } else if (borrowed().parallel) {
        borrowed().parallel(take_all, &job, static_cast<unsigned>(count), 0);
    } else {
        static Own team;
        team.run(job, count);
    }
}

int threads() {
    if (!borrowed().parallel) return own_threads.load();
    return borrowed().inside() ? 1 : borrowed().count();
}

void use_threads(int count) { own_threads.store(count < 1 ? 1 : count); }

const char* team_kind() { return borrowed().parallel ? "OpenMP of PyTorch" : "own"; }

}  // namespace lmworks
