// AdamW over all weights of a network in one pass (Loshchilov & Hutter 2019, algorithm 2), and the sum of squares that
// clipping needs. One call for all tensors: a small network has many tensors, and starting the threads for each of them
// would take longer than its update. The order of a sum does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size WEIGHTS_PER_ITEM = 1 << 15;
constexpr Size TABLE_ROWS_PER_ITEM = 64;

inline void adamw_update(float* weights, const float* gradient, float* first, float* second, Size count,
                         const AdamWStep& step) {
    const float step_size = step.learning_rate / step.correction1, root_factor = 1.0f / step.correction2;
    for_each_vector(count, [&](Size i, int n) {
        const Vec g = load_n(gradient + i, n) * step.gradient_scale;
        Vec m = load_n(first + i, n), v = load_n(second + i, n);
        m += step.weight1 * (g - m);
        v = v * step.beta2 + step.weight2 * g * g;
        store_n(first + i, m, n), store_n(second + i, v, n);
        Vec root = v;
        for (int lane = 0; lane < W; ++lane) root[lane] = std::sqrt(v[lane]);
        const Vec w = load_n(weights + i, n) * (1.0f - step.learning_rate * step.weight_decay);
        store_n(weights + i, w - step_size * m / (root * root_factor + step.eps), n);
    });
}

// Parts of all tensors as work items: the parts of one item have together WEIGHTS_PER_ITEM elements, except for the last.
class TensorParts {
public:
    template <class SizeOf>
    TensorParts(Size tensors, SizeOf size_of) {
        Size filled = WEIGHTS_PER_ITEM;
        for (Size tensor = 0; tensor < tensors; ++tensor)
            for (Size begin = 0, size = size_of(tensor); begin < size;) {
                if (filled == WEIGHTS_PER_ITEM) first_.push_back(parts_.size()), filled = 0;
                const Size end = std::min(size, begin + WEIGHTS_PER_ITEM - filled);
                parts_.push_back({tensor, begin, end});
                filled += end - begin, begin = end;
            }
        first_.push_back(parts_.size());
    }

    Size items() const { return static_cast<Size>(first_.size()) - 1; }

    template <class Body>
    void for_each(Body body) const {
        parallel_for(items(), [&](Size item) {
            for (std::size_t i = first_[item]; i < first_[item + 1]; ++i)
                body(item, parts_[i].tensor, parts_[i].begin, parts_[i].end);
        });
    }

private:
    struct Part {
        Size tensor, begin, end;
    };
    std::vector<Part> parts_;
    std::vector<std::size_t> first_;  // part of each work item, and the number of parts
};

void adamw(const AdamWTensor* tensors, Size count, const AdamWStep& step) {
    TensorParts(count, [&](Size i) { return tensors[i].count; }).for_each([&](Size, Size tensor, Size begin, Size end) {
        const AdamWTensor& t = tensors[tensor];
        adamw_update(t.weights + begin, t.gradient + begin, t.first + begin, t.second + begin, end - begin, step);
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

double sum_of_squares(const float* const* tensors, const Size* sizes, Size count) {
    const TensorParts parts(count, [&](Size i) { return sizes[i]; });
    std::vector<double> sums(parts.items());
    parts.for_each([&](Size item, Size tensor, Size begin, Size end) {
        Vec sum{};
        const float* x = tensors[tensor] + begin;
        for_each_vector(end - begin, [&](Size i, int n) {
            const Vec v = load_n(x + i, n);
            sum += v * v;
        });
        sums[item] += reduce_sum(sum);
    });
    double total = 0;
    for (double sum : sums) total += sum;
    return total;
}

}  // namespace
}  // namespace lmworks::ISA
