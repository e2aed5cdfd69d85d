// Every kernel, once for each instruction set that the library was built for. Rows are contiguous; sizes count elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lmworks {

using Size = std::ptrdiff_t;

// bfloat16: the upper half of a float32.
struct Bf16 {
    std::uint16_t bits;
};

// A row of documents one after another, heads side by side: q (tokens, heads * size), k and v (tokens', kv_heads * size).
// ``offsets`` and ``key_offsets``: count + 1 borders of the documents among the queries and the keys.
template <class T>
struct Heads {
    const T *q, *k, *v;
    Size q_stride, k_stride, v_stride;  // elements from one token to the next
    const std::int64_t *offsets, *key_offsets;
    Size documents, heads, kv_heads, size;
    float scale;
    bool causal;
};

// Kernels that read and write numbers stored as T, and compute in float32.
template <class T>
struct Kernels {
    // y = (x - mean) / sqrt(var + eps) * weight + bias; keeps mean and 1 / sqrt(var + eps) of each row
    void (*layer_norm)(const T* x, const float* weight, const float* bias, T* y, float* mean, float* scale, Size rows,
                       Size size, float eps);
    // dx; adds dweight and dbias (null: not wanted)
    void (*layer_norm_back)(const T* x, const float* weight, const float* mean, const float* scale, const T* dy, T* dx,
                            float* dweight, float* dbias, Size rows, Size size);
    // y = x / sqrt(mean(x^2) + eps) * weight; keeps 1 / sqrt(...) of each row
    void (*rms_norm)(const T* x, const float* weight, T* y, float* scale, Size rows, Size size, float eps);
    void (*rms_norm_back)(const T* x, const float* weight, const float* scale, const T* dy, T* dx, float* dweight,
                          Size rows, Size size);
    // kind 0: gelu, 1: gelu with tanh, 2: silu, 3: relu; up null: y = act(x), else y = act(x) * up
    void (*activate)(int kind, const T* x, const T* up, T* y, Size count);
    void (*activate_back)(int kind, const T* x, const T* up, const T* dy, T* dx, T* dup, Size count);
    // y = x + dropped(part); the factors follow from the seed and the place alone
    void (*add_dropped)(const T* x, const T* part, T* y, Size count, float rate, std::uint64_t seed);
    void (*drop)(const T* x, T* y, Size count, float rate, std::uint64_t seed);
    // turns (tokens, heads, size): pairs (i, i + turned / 2) of the first ``turned`` dimensions by cos and sin
    // (tokens, turned / 2); sign -1 turns back
    void (*rotate)(const T* x, Size stride, const float* cos, const float* sin, T* y, Size tokens, Size heads,
                   Size size, Size turned, float sign);
    // out (tokens, heads * size); log_sum (tokens, heads): log of the sum of exponentials, kept for the way back
    void (*attend)(const Heads<T>& heads, T* out, float* log_sum, float rate, std::uint64_t seed);
    void (*attend_back)(const Heads<T>& heads, const T* out, const float* log_sum, const T* dout, T* dq, T* dk, T* dv,
                        float rate, std::uint64_t seed);
};

struct Table {
    const char* name;
    int width;  // floats of a vector
    Kernels<float> wide;
    Kernels<Bf16> brief;
    // logits (rows, words) become weight * (softmax - one-hot); losses (rows) receive weight * -log p(target)
    void (*cross_entropy)(float* logits, const std::int64_t* targets, const float* weights, float* losses, Size rows,
                          Size words, bool slopes);

    template <class T>
    const Kernels<T>& of() const {
        if constexpr (sizeof(T) == sizeof(Bf16)) return brief;
        else return wide;
    }
};

const Table& table_portable();
const Table& table_avx2();
const Table& table_avx512();

}  // namespace lmworks
