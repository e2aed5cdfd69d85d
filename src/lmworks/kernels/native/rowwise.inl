// Kernels that compute each row or element independently: norms, activations, dropout, rotary position embeddings,
// cross-entropy. Arrays are stored as T; weights, statistics and gradients of weights are float32. A work item has a
// fixed number of rows, so sums over rows have the same bits on any number of threads. The shapes: kernel_table.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size ROWS_PER_ITEM = 16;
constexpr Size ELEMENTS_PER_ITEM = 1 << 14;

// Calls body(item, first, last) for blocks of rows [first, last).
template <class Body>
void for_each_row_block(Size rows, Body body) {
    parallel_for((rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, [&](Size item) {
        body(item, item * ROWS_PER_ITEM, std::min(rows, (item + 1) * ROWS_PER_ITEM));
    });
}

// Calls body(begin, count) for vectors of [0, count), as for_each_vector does, on all threads.
template <class Body>
void for_each_element_vector(Size count, Body body) {
    parallel_for((count + ELEMENTS_PER_ITEM - 1) / ELEMENTS_PER_ITEM, [&](Size item) {
        const Size begin = item * ELEMENTS_PER_ITEM, end = std::min(count, begin + ELEMENTS_PER_ITEM);
        Size i = begin;
        for (; i + W <= end; i += W) body(i, W);
        if (i < end) body(i, static_cast<int>(end - i));
    });
}

// Adds the partial sums of the work items (items, size) to total (size), in the order of the work items.
void add_partial_sums(const std::vector<float>& partial, float* total, Size size) {
    for (std::size_t offset = 0; offset < partial.size(); offset += size)
        for (Size i = 0; i < size; ++i) total[i] += partial[offset + i];
}

template <class T>
void layer_norm(const T* x, const float* weight, const float* bias, T* y, float* mean, float* scale, Size rows,
                Size size, float eps) {
    for_each_row_block(rows, [&](Size, Size first, Size last) {
        for (Size row = first; row < last; ++row) {
            const T* in = x + row * size;
            T* out = y + row * size;
            Vec total{}, square_sum{};
            for_each_vector(size, [&](Size i, int n) { total += load_n(in + i, n); });
            const float row_mean = reduce_sum(total) / size;
            for_each_vector(size, [&](Size i, int n) {
                const Vec centered = n == W ? load(in + i) - row_mean : load_partial(in + i, n, row_mean) - row_mean;
                square_sum += centered * centered;
            });
            const float row_scale = 1.0f / std::sqrt(reduce_sum(square_sum) / size + eps);
            mean[row] = row_mean;
            scale[row] = row_scale;
            for_each_vector(size, [&](Size i, int n) {
                Vec result = (load_n(in + i, n) - row_mean) * row_scale * load_n(weight + i, n);
                if (bias) result += load_n(bias + i, n);
                store_n(out + i, result, n);
            });
        }
    });
}

template <class T>
void layer_norm_backward(const T* x, const float* weight, const float* mean, const float* scale, const T* dy, T* dx,
                         float* dweight, float* dbias, Size rows, Size size) {
    const Size items = (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM;
    std::vector<float> weight_sums(dweight ? items * size : 0), bias_sums(dbias ? items * size : 0);
    for_each_row_block(rows, [&](Size item, Size first, Size last) {
        float* dw = dweight ? weight_sums.data() + item * size : nullptr;
        float* db = dbias ? bias_sums.data() + item * size : nullptr;
        for (Size row = first; row < last; ++row) {
            const T *in = x + row * size, *grad = dy + row * size;
            const float row_mean = mean[row], row_scale = scale[row];
            Vec projection{}, dsum{};
            for_each_vector(size, [&](Size i, int n) {
                const Vec normalized = (load_n(in + i, n) - row_mean) * row_scale, g = load_n(grad + i, n);
                const Vec dnormalized = g * load_n(weight + i, n);
                projection += dnormalized * normalized;
                dsum += dnormalized;
                if (dw) store_n(dw + i, load_n(dw + i, n) + g * normalized, n);
                if (db) store_n(db + i, load_n(db + i, n) + g, n);
            });
            const float mean_projection = reduce_sum(projection) / size, mean_dsum = reduce_sum(dsum) / size;
            for_each_vector(size, [&](Size i, int n) {
                const Vec normalized = (load_n(in + i, n) - row_mean) * row_scale;
                const Vec dnormalized = load_n(grad + i, n) * load_n(weight + i, n);
                store_n(dx + row * size + i, (dnormalized - mean_dsum - normalized * mean_projection) * row_scale, n);
            });
        }
    });
    if (dweight) add_partial_sums(weight_sums, dweight, size);
    if (dbias) add_partial_sums(bias_sums, dbias, size);
}

template <class T>
void rms_norm(const T* x, const float* weight, T* y, float* scale, Size rows, Size size, float eps) {
    for_each_row_block(rows, [&](Size, Size first, Size last) {
        for (Size row = first; row < last; ++row) {
            const T* in = x + row * size;
            Vec square_sum{};
            for_each_vector(size, [&](Size i, int n) {
                const Vec v = load_n(in + i, n);
                square_sum += v * v;
            });
            const float row_scale = 1.0f / std::sqrt(reduce_sum(square_sum) / size + eps);
            scale[row] = row_scale;
            for_each_vector(size, [&](Size i, int n) {
                store_n(y + row * size + i, load_n(in + i, n) * row_scale * load_n(weight + i, n), n);
            });
        }
    });
}

template <class T>
void rms_norm_backward(const T* x, const float* weight, const float* scale, const T* dy, T* dx, float* dweight,
                       Size rows, Size size) {
    const Size items = (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM;
    std::vector<float> weight_sums(dweight ? items * size : 0);
    for_each_row_block(rows, [&](Size item, Size first, Size last) {
        float* dw = dweight ? weight_sums.data() + item * size : nullptr;
        for (Size row = first; row < last; ++row) {
            const T *in = x + row * size, *grad = dy + row * size;
            const float row_scale = scale[row];
            Vec projection{};
            for_each_vector(size, [&](Size i, int n) {
                const Vec normalized = load_n(in + i, n) * row_scale, g = load_n(grad + i, n);
                projection += g * load_n(weight + i, n) * normalized;
                if (dw) store_n(dw + i, load_n(dw + i, n) + g * normalized, n);
            });
            const float mean_projection = reduce_sum(projection) / size;
            for_each_vector(size, [&](Size i, int n) {
                const Vec normalized = load_n(in + i, n) * row_scale;
                const Vec dnormalized = load_n(grad + i, n) * load_n(weight + i, n);
                store_n(dx + row * size + i, (dnormalized - normalized * mean_projection) * row_scale, n);
            });
        }
    });
    if (dweight) add_partial_sums(weight_sums, dweight, size);
}

// act(x); writes its derivative
inline Vec activation(int kind, Vec x, Vec& derivative) {
    if (kind == GELU) {  // x Phi(x) (Hendrycks & Gimpel 2016)
        Vec exponential;
        const Vec probability = normal_cdf(x, exponential);
        derivative = probability + x * exponential * 0.39894228f;  // 1 / sqrt(2 pi)
        return x * probability;
    }
    if (kind == GELU_TANH) {
        const Vec square = x * x, t = tanh(x * (square * 0.035677408f + 0.79788456f));  // sqrt(2 / pi) (x + 0.044715 x^3)
        derivative = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * (square * 0.10703222f + 0.79788456f);
        return 0.5f * x * (1.0f + t);
    }
    if (kind == SILU) {
        const Vec s = sigmoid(x);
        derivative = s * (1.0f + x * (1.0f - s));
        return x * s;
    }
    derivative = x > 0.0f ? broadcast(1.0f) : Vec{};
    return max(x, Vec{});
}

template <class T>
void activate(int kind, const T* x, const T* up, T* y, Size count) {
    for_each_element_vector(count, [&](Size i, int n) {
        Vec derivative, act = activation(kind, load_n(x + i, n), derivative);
        if (up) act *= load_n(up + i, n);
        store_n(y + i, act, n);
    });
}

template <class T>
void activate_backward(int kind, const T* x, const T* up, const T* dy, T* dx, T* dup, Size count) {
    for_each_element_vector(count, [&](Size i, int n) {
        Vec derivative;
        const Vec act = activation(kind, load_n(x + i, n), derivative), g = load_n(dy + i, n);
        if (up) {
            store_n(dx + i, g * derivative * load_n(up + i, n), n);
            store_n(dup + i, g * act, n);
        } else {
            store_n(dx + i, g * derivative, n);
        }
    });
}

// The factor of an element: 0 with probability ``rate``, else 1 / (1 - rate), from a hash of seed and index (the
// finalizer of MurmurHash3).
struct DropoutFactors {
    VecU32 seed_low, seed_high;
    std::uint32_t threshold;
    float inverse_keep;

    DropoutFactors(float rate, std::uint64_t seed)
        : seed_low(static_cast<std::uint32_t>(seed) - VecU32{}),
          seed_high(static_cast<std::uint32_t>(seed >> 32) - VecU32{}),
          threshold(static_cast<std::uint32_t>(rate * 16777216.0f)),
          inverse_keep(1.0f / (1.0f - rate)) {}

    // The factors of the elements index to index + W - 1.
    Vec at(std::uint64_t index) const {
        VecU32 h;
        for (int i = 0; i < W; ++i) h[i] = static_cast<std::uint32_t>(index) + i;
        h = (h ^ seed_low) * 0x9E3779B1u + (static_cast<std::uint32_t>(index >> 32) ^ seed_high);
        h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
        h = (h ^ (h >> 13)) * 0xC2B2AE35u;
        h = (h ^ (h >> 16)) >> 8;
        return h < threshold ? Vec{} : broadcast(inverse_keep);
    }
};

template <class T>
void dropout_add(const T* residual, const T* x, T* y, Size count, float rate, std::uint64_t seed) {
    const DropoutFactors factors(rate, seed);
    for_each_element_vector(count, [&](Size i, int n) {
        store_n(y + i, load_n(residual + i, n) + load_n(x + i, n) * factors.at(i), n);
    });
}

template <class T>
void dropout(const T* x, T* y, Size count, float rate, std::uint64_t seed) {
    const DropoutFactors factors(rate, seed);
    for_each_element_vector(count, [&](Size i, int n) { store_n(y + i, load_n(x + i, n) * factors.at(i), n); });
}

template <class T>
void rotate(const T* x, Size stride, const float* cos, const float* sin, T* y, Size tokens, Size heads, Size head_size,
            Size rotary_size, float sign) {
    const Size half = rotary_size / 2;
    for_each_row_block(tokens, [&](Size, Size first, Size last) {
        for (Size token = first; token < last; ++token) {
            const float *c = cos + token * half, *s = sin + token * half;
            for (Size head = 0; head < heads; ++head) {
                const T* in = x + token * stride + head * head_size;
                T* out = y + (token * heads + head) * head_size;
                for_each_vector(half, [&](Size i, int n) {
                    const Vec a = load_n(in + i, n), b = load_n(in + half + i, n);
                    const Vec cosine = load_n(c + i, n), sine = load_n(s + i, n) * sign;
                    store_n(out + i, a * cosine - b * sine, n);
                    store_n(out + half + i, b * cosine + a * sine, n);
                });
                if (rotary_size < head_size)
                    std::memcpy(out + rotary_size, in + rotary_size, (head_size - rotary_size) * sizeof(T));
            }
        }
    });
}

inline float read(const float* p) { return *p; }
inline float read(const Bf16* p) { return bf16_to_f32(VecU16{} + p->bits)[0]; }

template <class T>
void cross_entropy(T* logits, const std::int64_t* targets, const float* weights, float* losses, Size rows,
                   Size vocab_size, bool write_gradient) {
    parallel_for(rows, [&](Size row) {
        T* row_logits = logits + row * vocab_size;
        Vec maxima = broadcast(-std::numeric_limits<float>::infinity()), exp_sum{};
        for_each_vector(vocab_size, [&](Size i, int n) {
            maxima = max(maxima, n == W ? load(row_logits + i) : load_partial(row_logits + i, n, maxima[0]));
        });
        const float max_logit = reduce_max(maxima);
        for_each_vector(vocab_size, [&](Size i, int n) {
            exp_sum += n == W ? exp(load(row_logits + i) - max_logit)
                              : exp(load_partial(row_logits + i, n, max_logit - 200.0f) - max_logit);
        });
        const float logsumexp = max_logit + std::log(reduce_sum(exp_sum)), weight = weights[row];
        const float target = read(row_logits + targets[row]);
        losses[row] = weight * (logsumexp - target);
        if (!write_gradient) return;
        for_each_vector(vocab_size, [&](Size i, int n) {
            store_n(row_logits + i, exp(load_n(row_logits + i, n) - logsumexp) * weight, n);
        });
        store_n(row_logits + targets[row], exp(broadcast(target - logsumexp)) * weight - weight, 1);
    });
}

}  // namespace
}  // namespace lmworks::ISA
