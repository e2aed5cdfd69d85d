// Gives up the interpreter's lock while kernels compute, so that other threads run, signals are noticed, and neither the end
// of the interpreter nor a fork does harm meanwhile.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "parallel.hpp"

namespace nb = nanobind;

namespace lmworks {

struct InterpreterThreads {
    unsigned long main = 0;                // which runs the handlers of signals
    std::atomic<unsigned long> ending{0};  // which ends the interpreter; 0: it has not begun to
    std::atomic<int> returning{0};         // how many are taking the lock
};
inline InterpreterThreads interpreter_threads;

// Without the interpreter's lock while it lives. Python ends a thread that takes the lock while the interpreter ends (a
// daemon thread) by pthread_exit(), which no C++ destructor can be left by: the process would be aborted. Such a thread
// sleeps here until the process has ended.
class ReleasedInterpreter {
public:
    ReleasedInterpreter() : state_(PyEval_SaveThread()) {}
    ~ReleasedInterpreter() { take_lock(); }
    ReleasedInterpreter(const ReleasedInterpreter&) = delete;
    ReleasedInterpreter& operator=(const ReleasedInterpreter&) = delete;

    // Runs the handlers of signals that came meanwhile, and throws what they raise: KeyboardInterrupt. Other threads than
    // the main one run none.
    void check_signals() {
        if (PyThread_get_thread_ident() != interpreter_threads.main) return;
        take_lock();
        const std::exception_ptr raised = PyErr_CheckSignals() ? std::make_exception_ptr(nb::python_error()) : nullptr;
        state_ = PyEval_SaveThread();
        if (raised) std::rethrow_exception(raised);
    }

private:
    PyThreadState* state_;

    void take_lock() {
        InterpreterThreads& threads = interpreter_threads;
        threads.returning.fetch_add(1);
        const unsigned long ending = threads.ending.load();
        if (ending != 0 && ending != PyThread_get_thread_ident()) {
            threads.returning.fetch_sub(1);
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
        PyEval_RestoreThread(state_);
        threads.returning.fetch_sub(1);
    }
};

// A mutex of a process and of those that are forked from it: where a thread that did not come along holds it, it is refused.
class ForkedMutex {
public:
    void lock() {
        const int own = forks();
        for (int holder = FREE; !holder_.compare_exchange_weak(holder, own); holder = FREE) {
            if (holder != FREE && holder != own)
                throw std::runtime_error("this process was forked while another thread computed with the engine; hint: open "
                                         "the model in the new process, or fork before computing");
            if (holder == own) holder_.wait(own);
        }
    }
    void unlock() {
        holder_.store(FREE);
        holder_.notify_one();
    }

private:
    static constexpr int FREE = -1;
    std::atomic<int> holder_{FREE};  // forks() of the process whose thread has it
};

// Holds a mutex without the interpreter's lock: a thread that waited for the mutex with it would keep the thread that has
// the mutex from ending.
class Locked {
public:
    explicit Locked(ForkedMutex& mutex) : lock_(mutex) {}

    void check_signals() { released_.check_signals(); }

private:
    ReleasedInterpreter released_;
    std::lock_guard<ForkedMutex> lock_;
};

// Called once, when the module is imported.
inline void watch_interpreter() {
    interpreter_threads.main = nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
    nb::module_::import_("atexit").attr("register")(nb::cpp_function([] {
        interpreter_threads.ending.store(PyThread_get_thread_ident());
        const ReleasedInterpreter released;  // for those that are taking the lock already
        while (interpreter_threads.returning.load() > 0) std::this_thread::yield();
    }));
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { interpreter_threads.returning.store(0); });
#endif
    nb::set_leak_warnings(false);  // what daemon threads hold when the process ends is no leak
}

}  // namespace lmworks
