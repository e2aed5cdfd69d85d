// parallel_for() on PyTorch's OpenMP team, found in the running process, or on a thread pool of its own.
#include "parallel.hpp"

#include "team.hpp"

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace lmworks {
namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using GompQuery = int (*)();

// Functions of the libgomp that PyTorch loaded; null where there is none.
struct OpenMP {
    GompParallel parallel = nullptr;
    GompQuery max_threads = nullptr;
    GompQuery in_parallel = nullptr;
    GompQuery team_size = nullptr;
};

#if defined(__linux__)
// Looks for a libgomp among the libraries that the process has loaded; loads none. Returns 1 to end the search.
int visit_library(dl_phdr_info* info, std::size_t, void* result) {
    const char* name = std::strrchr(info->dlpi_name, '/');
    if (name == nullptr || std::strncmp(name + 1, "libgomp", 7) != 0) return 0;
    auto* openmp = static_cast<OpenMP*>(result);
    void* library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_LAZY);
    if (library == nullptr) return 0;
    openmp->parallel = reinterpret_cast<GompParallel>(dlsym(library, "GOMP_parallel"));
    openmp->max_threads = reinterpret_cast<GompQuery>(dlsym(library, "omp_get_max_threads"));
    openmp->in_parallel = reinterpret_cast<GompQuery>(dlsym(library, "omp_in_parallel"));
    openmp->team_size = reinterpret_cast<GompQuery>(dlsym(library, "omp_get_num_threads"));
    if (openmp->parallel && openmp->max_threads && openmp->in_parallel && openmp->team_size) return 1;
    *openmp = {};
    return 0;
}

const OpenMP& openmp() {
    static const OpenMP functions = [] {
        OpenMP result;
        dl_iterate_phdr(visit_library, &result);
        return result;
    }();
    return functions;
}
#else
const OpenMP& openmp() {  // on other systems the thread pool below is used
    static const OpenMP none;
    return none;
}
#endif

thread_local bool inside_job = false;  // this thread is computing a work item

struct Job {
    const ItemFunction* compute;
    std::ptrdiff_t items;
    std::atomic<std::ptrdiff_t> next{0};

    // Runs work items until none is left; every thread of the team calls it.
    void run_items() {
        const bool outermost = !std::exchange(inside_job, true);
        for (std::ptrdiff_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) (*compute)(item);
        if (outermost) inside_job = false;
    }
};

void run_job(void* job) { static_cast<Job*>(job)->run_items(); }

// Threads that sleep between jobs, and while the process ends.
class ThreadPool {
public:
    void run(Job& job, int threads) {
        std::unique_lock<std::mutex> one_job(job_mutex_);  // one job at a time
        for (; workers_ < threads - 1; ++workers_) std::thread([this] { wait_for_jobs(); }).detach();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            running_ = workers_;
            ++job_number_;
        }
        wake_.notify_all();
        job.run_items();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return running_ == 0; });
        job_ = nullptr;
    }

private:
    void wait_for_jobs() {
        std::size_t last_job = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return job_number_ != last_job && job_ != nullptr; });
            last_job = job_number_;
            Job* job = job_;
            lock.unlock();
            job->run_items();
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex job_mutex_, mutex_;
    std::condition_variable wake_, done_;
    int workers_ = 0;
    Job* job_ = nullptr;
    std::size_t job_number_ = 0;
    int running_ = 0;  // workers that have not finished the job
};

std::atomic<int> fork_count{0};
std::atomic<ThreadPool*> process_pool{nullptr};

#if defined(__unix__) || defined(__APPLE__)
// A forked process has none of its parent's threads: it starts a pool of its own when it needs one. OpenMP's team would
// wait for those that did not come along.
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
    fork_count.fetch_add(1);
    process_pool.store(nullptr);
});
#endif

// It is never destroyed: a daemon thread may have a job while the process ends.
ThreadPool& pool() {
    ThreadPool* pool = process_pool.load();
    if (pool != nullptr) return *pool;
    auto own = std::make_unique<ThreadPool>();
    return process_pool.compare_exchange_strong(pool, own.get()) ? *own.release() : *pool;
}

bool has_openmp_team() { return openmp().parallel != nullptr && forks() == 0; }

struct TeamJob {
    const TeamFunction* work;
    Team team{0};
    std::atomic<int> next{0};
};

// Called by each thread of an OpenMP team, which may have fewer threads than were asked for.
void join_team(void* argument) {
    auto* job = static_cast<TeamJob*>(argument);
    const bool outermost = !std::exchange(inside_job, true);
    job->team.set_threads(openmp().team_size());
    (*job->work)(job->team, job->next.fetch_add(1));
    if (outermost) inside_job = false;
}

std::atomic<int> pool_threads{static_cast<int>(std::thread::hardware_concurrency())};

}  // namespace

void parallel_for(std::ptrdiff_t items, const ItemFunction& compute) {
    const int threads = num_threads();
    Job job{&compute, items};
    if (items < 2 || threads < 2 || inside_job) {
        job.run_items();
    } else if (has_openmp_team()) {
        openmp().parallel(run_job, &job, static_cast<unsigned>(threads), 0);
    } else {
        pool().run(job, threads);
    }
}

void run_team(const TeamFunction& work) {
    const int threads = num_threads();
    if (threads < 2 || inside_job) {
        Team alone(1);
        work(alone, 0);
    } else if (has_openmp_team()) {
        TeamJob job{&work};
        openmp().parallel(join_team, &job, static_cast<unsigned>(threads), 0);
    } else {  // an item does not end before all have begun, so that each has a thread of its own
        Team team(threads);
        const ItemFunction member = [&](std::ptrdiff_t thread) { work(team, static_cast<int>(thread)); };
        Job job{&member, threads};
        pool().run(job, threads);
    }
}

int num_threads() {
    if (!openmp().parallel) return pool_threads.load();
    return openmp().in_parallel() ? 1 : openmp().max_threads();
}

void set_num_threads(int count) { pool_threads.store(count < 1 ? 1 : count); }

const char* thread_pool() { return has_openmp_team() ? "OpenMP of PyTorch" : "own"; }

int forks() { return fork_count.load(); }

}  // namespace lmworks
