// The threads that share a kernel's work. PyTorch's own OpenMP team is borrowed where it is loaded, so that the two
// never wait for each other's spinning threads on a small machine; else there are threads of our own.
#pragma once

#include <cstddef>
#include <functional>

namespace lmworks {

using Work = std::function<void(std::ptrdiff_t)>;

// Calls work(0) ... work(tasks - 1), each once, on as many threads as the team has; returns when all are done.
// Which thread takes which task is not told: tasks must not depend on it.
void run(std::ptrdiff_t tasks, const Work& work);

// Threads that run() uses. With a borrowed team it follows torch.set_num_threads.
int threads();
void use_threads(int count);  // of our own team

// "OpenMP of PyTorch", or "own".
const char* team_kind();

}  // namespace lmworks
