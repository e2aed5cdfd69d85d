// The threads that the kernels run on. Where PyTorch is loaded, they are its OpenMP team: two teams on the same cores
// would wait for each other's spinning threads. Otherwise this file starts threads of its own.
#pragma once

#include <cstddef>
#include <functional>

namespace lmworks {

using ItemFunction = std::function<void(std::ptrdiff_t)>;  // computes the work item of this number

// Calls compute(0) ... compute(items - 1) once each on the available threads; returns when all calls have returned.
// The assignment of these work items to threads is not fixed: results must not depend on it. Called by a work item, it
// stays on that item's thread.
void parallel_for(std::ptrdiff_t items, const ItemFunction& compute);

// Threads that parallel_for() uses. With PyTorch's OpenMP team, torch.set_num_threads changes it.
int num_threads();
// For the threads of this file; without effect on PyTorch's OpenMP team.
void set_num_threads(int count);

// "OpenMP of PyTorch", or "own": also in a process that was forked, whose parent has the threads of the team.
const char* thread_pool();

// How often this process, or one that it was forked from, was forked since this module was loaded.
int forks();

}  // namespace lmworks
