// Small matrix products, and the packing of their operands (Goto & van de Geijn 2008).
#pragma once

#include <algorithm>
#include <utility>

#include "kernel_table.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size TILE_ROWS = 6;  // the accumulators, TILE_ROWS x TILE_VECTORS vectors, and one row of b fill the registers
constexpr Size TILE_VECTORS = W == 16 ? 4 : 2;
constexpr Size TILE_COLUMNS = TILE_VECTORS * W;

inline Size round_up(Size n, Size multiple) { return (n + multiple - 1) / multiple * multiple; }

// Elements that a small product reads: float, or pairs of bfloat16 numbers. ``Number`` is the type of one number.
template <class E>
struct Element {
    using Number = E;
    static constexpr Size NUMBERS = 1;
};
template <>
struct Element<Bf16Pair> {
    using Number = Bf16;
    static constexpr Size NUMBERS = 2;
};

// A tile of c, R rows and N vectors = addend (null: zeros) + a b: element (r, k) of a is a[r * a_row + k * a_column], row
// k of b begins at b + k * b_row. Strides and depth count elements; the addend may be c.
template <int R, int N, class E>
inline void multiply_tile(const E* a, Size a_row, Size a_column, const E* b, Size b_row, Size depth, const float* addend,
                          Size addend_row, float* c, Size c_row) {
    Vec sums[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sums[r][n] = addend ? load(addend + r * addend_row + n * W) : Vec{};
    for (Size k = 0; k < depth; ++k) {
        decltype(load(b)) b_vectors[N];
        for (int n = 0; n < N; ++n) b_vectors[n] = load(b + k * b_row + n * W);
        for (int r = 0; r < R; ++r) {
            const E a_element = load_element(a + r * a_row + k * a_column);
            for (int n = 0; n < N; ++n) sums[r][n] = add_product(sums[r][n], a_element, b_vectors[n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(c + r * c_row + n * W, sums[r][n]);
}

// c = (accumulate ? c : 0) + a b for TILE_ROWS rows and up to TILE_COLUMNS columns; reads and writes whole vectors.
template <class E>
inline void gemm_tile(const E* a, Size a_row, Size a_column, const E* b, Size b_row, float* c, Size c_row, Size columns,
                      Size depth, bool accumulate) {
    constexpr int ROWS = TILE_ROWS, THREE = std::min<int>(3, TILE_VECTORS), ALL = TILE_VECTORS;
    const float* addend = accumulate ? c : nullptr;
    switch ((columns + W - 1) / W) {
        case 1: return multiply_tile<ROWS, 1>(a, a_row, a_column, b, b_row, depth, addend, c_row, c, c_row);
        case 2: return multiply_tile<ROWS, 2>(a, a_row, a_column, b, b_row, depth, addend, c_row, c, c_row);
        case 3: return multiply_tile<ROWS, THREE>(a, a_row, a_column, b, b_row, depth, addend, c_row, c, c_row);
        default: return multiply_tile<ROWS, ALL>(a, a_row, a_column, b, b_row, depth, addend, c_row, c, c_row);
    }
}

// Packs rows of x (tokens, size), ``stride`` elements apart, times a factor -> out (tokens, padded_size).
// Zeros follow the last element of a row; padded_size is a multiple of W.
template <class T, class Out>
inline void pack_rows(const T* x, Size stride, Size tokens, Size size, Out* out, Size padded_size, float factor = 1.0f) {
    const Size vectors = round_up(size, W);
    for (Size t = 0; t < tokens; ++t) {
        for_each_vector(size, [&](Size i, int n) { store(out + t * padded_size + i, load_n(x + t * stride + i, n) * factor); });
        for (Size i = vectors; i < padded_size; i += W) store(out + t * padded_size + i, Vec{});
    }
}

// Packs rows of x (tokens, size) in pairs: out (tokens / 2 rounded up, padded_size), zeros where there is no number.
template <class T>
inline void pack_row_pairs(const T* x, Size stride, Size tokens, Size size, Bf16Pair* out, Size padded_size) {
    for (Size t = 0; t < tokens; t += 2, out += padded_size)
        for (Size i = 0; i < padded_size; i += W) {
            const int n = static_cast<int>(std::clamp<Size>(size - i, 0, W));
            const T* row = x + t * stride + i;
            const Vec first = n > 0 ? load_n(row, n) : Vec{};
            store(out + i, bf16_pairs(first, n > 0 && t + 1 < tokens ? load_n(row + stride, n) : Vec{}));
        }
}

// out = x * factor, converted from float32 to T; both (size)
template <class T>
inline void store_row(const float* x, float factor, Size size, T* out) {
    for_each_vector(size, [&](Size i, int n) { store_n(out + i, load(x + i) * factor, n); });
}

template <int... I>
inline Vec interleave(Vec a, Vec b, bool upper, std::integer_sequence<int, I...>) {
    const VecI32 low{((I & 1) * W + I / 2)...}, high{((I & 1) * W + I / 2 + W / 2)...};
    return upper ? __builtin_shuffle(a, b, high) : __builtin_shuffle(a, b, low);
}

// Transposes W x W elements in log2 W rounds, each of which interleaves the lower half of the rows with the upper.
inline void transpose(Vec (&rows)[W]) {
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    for (int round = 1; round < W; round *= 2) {
        Vec next[W];
        for (int i = 0; i < W / 2; ++i) {
            next[2 * i] = interleave(rows[i], rows[i + W / 2], false, lanes);
            next[2 * i + 1] = interleave(rows[i], rows[i + W / 2], true, lanes);
        }
        std::copy(next, next + W, rows);
    }
}

// Packs x (tokens, padded_size) transposed into panels of TILE_COLUMNS tokens, each (padded_size, TILE_COLUMNS): a
// product with x transposed reads a panel from its begin to its end.
inline void pack_transposed(const float* x, Size tokens, Size padded_size, float* panels) {
    for (Size t = 0; t < tokens; t += W) {
        float* panel = panels + t / TILE_COLUMNS * TILE_COLUMNS * padded_size + t % TILE_COLUMNS;
        for (Size d = 0; d < padded_size; d += W) {
            Vec rows[W];
            for (int i = 0; i < W; ++i) rows[i] = t + i < tokens ? load(x + (t + i) * padded_size + d) : Vec{};
            transpose(rows);
            for (int i = 0; i < W; ++i) store(panel + (d + i) * TILE_COLUMNS, rows[i]);
        }
    }
}

}  // namespace
}  // namespace lmworks::ISA
