// Keys and values of one head of a sequence (engine.hpp), in the type E of their numbers: appending to them, and attention
// over them. In 8 bits a vector is whole numbers of -127 to 127 and a scale, which multiplies a score of its key and the
// weight of its value.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine_products.inl"

namespace lmworks::ISA {

inline Vec load(const Int8* p) {
    using VecI8 = std::int8_t __attribute__((vector_size(W)));
    VecI8 numbers;
    std::memcpy(&numbers, p, sizeof numbers);
    return __builtin_convertvector(__builtin_convertvector(numbers, VecI32), Vec);
}

namespace {

void store_number(float* p, float value) { *p = value; }
void store_number(Half* p, float value) { p->bits = float_to_half(value); }
void store_number(Int8* p, float value) { p->value = static_cast<std::int8_t>(std::lrint(value)); }

float as_float(float value) { return value; }
float as_float(Half value) { return half_to_float(value.bits); }
float as_float(Int8 value) { return value.value; }

template <class E>
class CachedHead {
public:
    // head: of all layers' key-value heads; size: of a vector.
    CachedHead(Sequence& sequence, Size head, Size size)
        : size_(size), stride_(size + SCALE),
          keys_(reinterpret_cast<E*>(sequence.keys.data()) + head * sequence.capacity * stride_),
          values_(reinterpret_cast<E*>(sequence.values.data()) + head * sequence.capacity * stride_) {}

    void append(Size position, const float* key, const float* value) {
        E* tile = keys_ + position / GROUP * GROUP * stride_;
        const Size lane = position % GROUP;
        put(key, tile + lane, GROUP, tile + GROUP * size_ + lane * SCALE);
        E* row = values_ + position * stride_;
        put(value, row, 1, row + size_);
    }

    // q K^T * factor for positions first ... last - 1; others of their tiles of 16 are written too.
    void score(const float* q, Size first, Size last, float factor, float* scores) const {
        for (Size tile = first / GROUP * GROUP; tile < last; tile += GROUP) {
            Lanes sums{};
            const E* in = keys_ + tile * stride_;
            for (Size i = 0; i < size_; ++i)
                for (int part = 0; part < PARTS; ++part) sums.part[part] += load(in + i * GROUP + part * W) * q[i];
            for (int part = 0; part < PARTS; ++part) {
                Vec result = sums.part[part] * factor;
                if constexpr (HAS_SCALES) result *= load(reinterpret_cast<const float*>(in + GROUP * size_) + part * W);
                store(scores + tile + part * W, result);
            }
        }
    }

    // The sum of the values of positions first ... last - 1 times their weights, which may be changed, times ``scale``.
    // Columns are added in registers, as many at once as there are: each line of memory is read once.
    void mix(float* weights, Size first, Size last, float scale, float* out) const {
        constexpr int COLUMNS = 4;  // vectors
        if constexpr (HAS_SCALES)
            for (Size i = first; i < last; ++i) weights[i] *= scale_at(values_ + i * stride_ + size_);
        Size column = 0;
        for (; column + COLUMNS * W <= size_; column += COLUMNS * W) {
            Vec sums[COLUMNS] = {};
            for (Size i = first; i < last; ++i)
                for (int c = 0; c < COLUMNS; ++c) sums[c] += load(values_ + i * stride_ + column + c * W) * weights[i];
            for (int c = 0; c < COLUMNS; ++c) store(out + column + c * W, sums[c] * scale);
        }
        for (; column + W <= size_; column += W) {
            Vec sum{};
            for (Size i = first; i < last; ++i) sum += load(values_ + i * stride_ + column) * weights[i];
            store(out + column, sum * scale);
        }
        for (; column < size_; ++column) {
            float sum = 0.0f;
            for (Size i = first; i < last; ++i) sum += as_float(values_[i * stride_ + column]) * weights[i];
            out[column] = sum * scale;
        }
    }

private:
    static constexpr bool HAS_SCALES = std::is_same_v<E, Int8>;
    static constexpr Size SCALE = HAS_SCALES ? sizeof(float) : 0;  // numbers that take the room of a scale
    Size size_, stride_;  // numbers of a vector, without and with its scale
    E *keys_, *values_;

    static float scale_at(const E* place) {
        float scale;
        std::memcpy(&scale, place, sizeof scale);
        return scale;
    }

    // A vector as numbers ``step`` apart, and its scale.
    void put(const float* x, E* out, Size step, E* scale_place) const {
        float inverse = 1.0f;
        if constexpr (HAS_SCALES) {
            float largest = 0.0f;
            for (Size i = 0; i < size_; ++i) largest = std::max(largest, std::abs(x[i]));
            const float scale = largest / 127.0f;
            std::memcpy(scale_place, &scale, sizeof scale);
            inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
        }
        for (Size i = 0; i < size_; ++i) store_number(out + i * step, x[i] * inverse);
    }
};

}  // namespace
}  // namespace lmworks::ISA
