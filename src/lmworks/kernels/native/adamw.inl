// A step of AdamW (Loshchilov & Hutter 2019, algorithm 2) in one pass over memory.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size TABLE_ROWS_PER_ITEM = 64;

inline void adamw_update(float* weights, const float* gradient, float* first, float* second, Size count,
                         const AdamWStep& step) {
    const float step_size = step.learning_rate / step.correction1, root_factor = 1.0f / step.correction2;
    for_each_vector(count, [&](Size i, int n) {
        const Vec g = load_n(gradient + i, n) * step.gradient_scale;
        Vec m = load_n(first + i, n), v = load_n(second + i, n);
        m += (1.0f - step.beta1) * (g - m);
        v = v * step.beta2 + (1.0f - step.beta2) * g * g;
        store_n(first + i, m, n), store_n(second + i, v, n);
        Vec root = v;
        for (int lane = 0; lane < W; ++lane) root[lane] = std::sqrt(v[lane]);
        const Vec w = load_n(weights + i, n) * (1.0f - step.learning_rate * step.weight_decay);
        store_n(weights + i, w - step_size * m / (root * root_factor + step.eps), n);
    });
}

// A row whose moments are zero stays as it is without a gradient, whatever the step, as there is no weight decay: it is
// not read at all. The result is that of a dense step.
void adamw_rows(const RowMoments& table, const float* gradients, const std::int64_t* rows, Size count, Size columns,
                const AdamWStep& step) {
    for (Size i = 0; i < count; ++i) table.has_moments[rows[i]] = 1;
    const std::vector<float> zeros(columns);
    parallel_for((table.rows + TABLE_ROWS_PER_ITEM - 1) / TABLE_ROWS_PER_ITEM, [&](Size item) {
        const Size begin = item * TABLE_ROWS_PER_ITEM, end = std::min(table.rows, begin + TABLE_ROWS_PER_ITEM);
        Size next = std::lower_bound(rows, rows + count, begin) - rows;
        for (Size row = begin; row < end; ++row) {
            const bool has_gradient = next < count && rows[next] == row;
            const float* gradient = has_gradient ? gradients + next * columns : zeros.data();
            next += has_gradient;
            const Size place = row * columns;
            if (table.has_moments[row])
                adamw_update(table.weights + place, gradient, table.first + place, table.second + place, columns, step);
        }
    });
}

}  // namespace
}  // namespace lmworks::ISA
