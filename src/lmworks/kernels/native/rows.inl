// What happens to each row or element alone: norms, activations, dropout, rotary turns, cross-entropy.
// T is what the arrays are stored in; weights, statistics and the gradients of weights are float32.
// Rows are shared out in blocks of a fixed size, so sums over rows come out the same on any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "simd.hpp"
#include "table.hpp"
#include "team.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size ROWS = 16;           // rows a task
constexpr Size ELEMENTS = 1 << 14;  // elements a task, for passes over elements

template <class Body>
void by_rows(Size rows, Body body) {
    run((rows + ROWS - 1) / ROWS, [&](Size task) { body(task, task * ROWS, std::min(rows, (task + 1) * ROWS)); });
}

template <class Body>
void by_elements(Size count, Body body) {
    run((count + ELEMENTS - 1) / ELEMENTS, [&](Size task) {
        const Size begin = task * ELEMENTS, end = std::min(count, begin + ELEMENTS);
        Size i = begin;
        for (; i + W <= end; i += W) body(i, W);
        if (i < end) body(i, static_cast<int>(end - i));
    });
}

// Adds the tasks' partial sums (tasks, size) to total (size), in the order of the tasks.
void gather(const std::vector<float>& parts, float* total, Size size) {
    for (std::size_t at = 0; at < parts.size(); at += size)
        for (Size i = 0; i < size; ++i) total[i] += parts[at + i];
}

template <class T>
void layer_norm(const T* x, const float* weight, const float* bias, T* y, float* mean, float* scale, Size rows,
                Size size, float eps) {
    by_rows(rows, [&](Size, Size first, Size last) {
        for (Size row = first; row < last; ++row) {
            const T* in = x + row * size;
            T* out = y + row * size;
            Vec total{}, squares{};
            by_vector(size, [&](Size i, int n) { total += load_up_to(in + i, n); });
            const float middle = sum(total) / size;
            by_vector(size, [&](Size i, int n) {
                const Vec off = n == W ? load(in + i) - middle : load_some(in + i, n, middle) - middle;
                squares += off * off;
            });
            const float factor = 1.0f / std::sqrt(sum(squares) / size + eps);
            mean[row] = middle;
            scale[row] = factor;
            by_vector(size, [&](Size i, int n) {
                Vec unit = (load_up_to(in + i, n) - middle) * factor * load_up_to(weight + i, n);
                if (bias) unit += load_up_to(bias + i, n);
                store_up_to(out + i, unit, n);
            });
        }
    });
}

template <class T>
void layer_norm_back(const T* x, const float* weight, const float* mean, const float* scale, const T* dy, T* dx,
                     float* dweight, float* dbias, Size rows, Size size) {
    const Size tasks = (rows + ROWS - 1) / ROWS;
    std::vector<float> weights(dweight ? tasks * size : 0), biases(dbias ? tasks * size : 0);
    by_rows(rows, [&](Size task, Size first, Size last) {
        float* dw = dweight ? weights.data() + task * size : nullptr;
        float* db = dbias ? biases.data() + task * size : nullptr;
        for (Size row = first; row < last; ++row) {
            const T *in = x + row * size, *slope = dy + row * size;
            const float middle = mean[row], factor = scale[row];
            Vec along{}, total{};
            by_vector(size, [&](Size i, int n) {
                const Vec unit = (load_up_to(in + i, n) - middle) * factor, g = load_up_to(slope + i, n);
                const Vec inner = g * load_up_to(weight + i, n);
                along += inner * unit;
                total += inner;
                if (dw) store_up_to(dw + i, load_up_to(dw + i, n) + g * unit, n);
                if (db) store_up_to(db + i, load_up_to(db + i, n) + g, n);
            });
            const float a = sum(along) / size, t = sum(total) / size;
            by_vector(size, [&](Size i, int n) {
                const Vec unit = (load_up_to(in + i, n) - middle) * factor;
                const Vec inner = load_up_to(slope + i, n) * load_up_to(weight + i, n);
                store_up_to(dx + row * size + i, (inner - t - unit * a) * factor, n);
            });
        }
    });
    if (dweight) gather(weights, dweight, size);
    if (dbias) gather(biases, dbias, size);
}

template <class T>
void rms_norm(const T* x, const float* weight, T* y, float* scale, Size rows, Size size, float eps) {
    by_rows(rows, [&](Size, Size first, Size last) {
        for (Size row = first; row < last; ++row) {
            const T* in = x + row * size;
            Vec squares{};
            by_vector(size, [&](Size i, int n) {
                const Vec v = load_up_to(in + i, n);
                squares += v * v;
            });
            const float factor = 1.0f / std::sqrt(sum(squares) / size + eps);
            scale[row] = factor;
            by_vector(size, [&](Size i, int n) {
                store_up_to(y + row * size + i, load_up_to(in + i, n) * factor * load_up_to(weight + i, n), n);
            });
        }
    });
}

template <class T>
void rms_norm_back(const T* x, const float* weight, const float* scale, const T* dy, T* dx, float* dweight, Size rows,
                   Size size) {
    const Size tasks = (rows + ROWS - 1) / ROWS;
    std::vector<float> weights(dweight ? tasks * size : 0);
    by_rows(rows, [&](Size task, Size first, Size last) {
        float* dw = dweight ? weights.data() + task * size : nullptr;
        for (Size row = first; row < last; ++row) {
            const T *in = x + row * size, *slope = dy + row * size;
            const float factor = scale[row];
            Vec along{};
            by_vector(size, [&](Size i, int n) {
                const Vec unit = load_up_to(in + i, n) * factor, g = load_up_to(slope + i, n);
                along += g * load_up_to(weight + i, n) * unit;
                if (dw) store_up_to(dw + i, load_up_to(dw + i, n) + g * unit, n);
            });
            const float a = sum(along) / size;
            by_vector(size, [&](Size i, int n) {
                const Vec unit = load_up_to(in + i, n) * factor;
                const Vec inner = load_up_to(slope + i, n) * load_up_to(weight + i, n);
                store_up_to(dx + row * size + i, (inner - unit * a) * factor, n);
            });
        }
    });
    if (dweight) gather(weights, dweight, size);
}

// act(x), and its derivative in ``slope``
inline Vec activation(int kind, Vec x, Vec& slope) {
    if (kind == 0) {
        Vec bell;
        const Vec share = normal(x, bell);
        slope = share + x * bell * 0.39894228f;  // 1 / sqrt(2 pi)
        return x * share;
    }
    if (kind == 1) {
        const Vec square = x * x, t = tanh(x * (square * 0.035677408f + 0.79788456f));  // sqrt(2 / pi) (x + 0.044715 x^3)
        slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * (square * 0.10703222f + 0.79788456f);
        return 0.5f * x * (1.0f + t);
    }
    if (kind == 2) {
        const Vec s = sigmoid(x);
        slope = s * (1.0f + x * (1.0f - s));
        return x * s;
    }
    slope = x > 0.0f ? all(1.0f) : Vec{};
    return max(x, Vec{});
}

template <class T>
void activate(int kind, const T* x, const T* up, T* y, Size count) {
    by_elements(count, [&](Size i, int n) {
        Vec slope, act = activation(kind, load_up_to(x + i, n), slope);
        if (up) act *= load_up_to(up + i, n);
        store_up_to(y + i, act, n);
    });
}

template <class T>
void activate_back(int kind, const T* x, const T* up, const T* dy, T* dx, T* dup, Size count) {
    by_elements(count, [&](Size i, int n) {
        Vec slope;
        const Vec act = activation(kind, load_up_to(x + i, n), slope), g = load_up_to(dy + i, n);
        if (up) {
            store_up_to(dx + i, g * slope * load_up_to(up + i, n), n);
            store_up_to(dup + i, g * act, n);
        } else {
            store_up_to(dx + i, g * slope, n);
        }
    });
}

// 0 with probability ``rate``, else 1 / (1 - rate): a hash of seed and place (the finalizer of MurmurHash3).
struct Dropper {
    Bits low, high;
    std::uint32_t limit;
    float kept;

    Dropper(float rate, std::uint64_t seed)
        : low(static_cast<std::uint32_t>(seed) - Bits{}),
          high(static_cast<std::uint32_t>(seed >> 32) - Bits{}),
          limit(static_cast<std::uint32_t>(rate * 16777216.0f)),
          kept(1.0f / (1.0f - rate)) {}

    Vec factors(std::uint64_t place) const {
        Bits h;
        for (int i = 0; i < W; ++i) h[i] = static_cast<std::uint32_t>(place) + i;
        h = (h ^ low) * 0x9E3779B1u + (static_cast<std::uint32_t>(place >> 32) ^ high);
        h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
        h = (h ^ (h >> 13)) * 0xC2B2AE35u;
        h = (h ^ (h >> 16)) >> 8;
        return h < limit ? Vec{} : all(kept);
    }
};

template <class T>
void add_dropped(const T* x, const T* part, T* y, Size count, float rate, std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    by_elements(count, [&](Size i, int n) {
        store_up_to(y + i, load_up_to(x + i, n) + load_up_to(part + i, n) * dropper.factors(i), n);
    });
}

template <class T>
void drop(const T* x, T* y, Size count, float rate, std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    by_elements(count, [&](Size i, int n) { store_up_to(y + i, load_up_to(x + i, n) * dropper.factors(i), n); });
}

template <class T>
void rotate(const T* x, Size stride, const float* cos, const float* sin, T* y, Size tokens, Size heads, Size size,
            Size turned, float sign) {
    const Size half = turned / 2;
    by_rows(tokens, [&](Size, Size first, Size last) {
        for (Size token = first; token < last; ++token) {
            const float *c = cos + token * half, *s = sin + token * half;
            for (Size head = 0; head < heads; ++head) {
                const T* in = x + token * stride + head * size;
                T* out = y + (token * heads + head) * size;
                by_vector(half, [&](Size i, int n) {
                    const Vec a = load_up_to(in + i, n), b = load_up_to(in + half + i, n);
                    const Vec cosine = load_up_to(c + i, n), sine = load_up_to(s + i, n) * sign;
                    store_up_to(out + i, a * cosine - b * sine, n);
                    store_up_to(out + half + i, b * cosine + a * sine, n);
                });
                if (turned < size) std::memcpy(out + turned, in + turned, (size - turned) * sizeof(T));
            }
        }
    });
}

void cross_entropy(float* logits, const std::int64_t* targets, const float* weights, float* losses, Size rows,
                   Size words, bool slopes) {
    run(rows, [&](Size row) {
        float* line = logits + row * words;
        Vec most = all(-std::numeric_limits<float>::infinity()), total{};
        by_vector(words, [&](Size i, int n) {
            most = max(most, n == W ? load(line + i) : load_some(line + i, n, most[0]));
        });
        const float top = largest(most);
        by_vector(words, [&](Size i, int n) {
            total += n == W ? exp(load(line + i) - top) : exp(load_some(line + i, n, top - 200.0f) - top);
        });
        const float normaliser = top + std::log(sum(total)), weight = weights[row];
        losses[row] = weight * (normaliser - line[targets[row]]);
        if (!slopes) return;
        by_vector(words, [&](Size i, int n) {
            store_up_to(line + i, exp(load_up_to(line + i, n) - normaliser) * weight, n);
        });
        line[targets[row]] -= weight;
    });
}

}  // namespace
}  // namespace lmworks::ISA
