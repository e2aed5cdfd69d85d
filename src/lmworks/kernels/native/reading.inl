// Reads memory at the machine's bandwidth: several streams per thread, with prefetching. Used only to measure it.
#include <algorithm>
#include <vector>

#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size STREAMS = 4;             // streams of a thread: together they keep more cache lines in flight than one
constexpr Size PREFETCH_BYTES = 2048;   // ahead of each stream
constexpr Size READING_ITEM = 1 << 18;  // floats of a work item

// The sum of count floats; count is a multiple of STREAMS * 4 * W.
float sum_streams(const float* x, Size count) {
    const Size length = count / STREAMS;
    Vec sums[STREAMS] = {};
    for (Size i = 0; i < length; i += 4 * W)
        for (Size s = 0; s < STREAMS; ++s) {
            const float* p = x + s * length + i;
            for (Size line = 0; line < 4 * W; line += 16)
                __builtin_prefetch(reinterpret_cast<const char*>(p + line) + PREFETCH_BYTES);
            for (Size v = 0; v < 4; ++v) sums[s] += load(p + v * W);
        }
    Vec total{};
    for (const Vec& sum : sums) total += sum;
    return reduce_sum(total);
}

float read_memory(const float* x, Size count) {
    const Size items = count / READING_ITEM;
    std::vector<float> sums(items);
    parallel_for(items, [&](Size item) { sums[item] = sum_streams(x + item * READING_ITEM, READING_ITEM); });
    float total = 0.0f;
    for (float sum : sums) total += sum;
    return total;
}

}  // namespace
}  // namespace lmworks::ISA
