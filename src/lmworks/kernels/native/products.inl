// Small matrix products along vectors, and how their operands are laid out.
#pragma once

#include <algorithm>
#include <utility>

#include "simd.hpp"
#include "table.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size TALL = 6;                      // rows of a tile: with VECTORS columns they fill the registers
constexpr Size VECTORS = W == 16 ? 4 : 2;
constexpr Size PANEL = VECTORS * W;

inline Size up_to(Size n, Size step) { return (n + step - 1) / step * step; }

// c[r][j] = (add ? c : 0) + sum_k a[r * a_row + k * a_column] * b[k * b_row + j], for TALL rows and N vectors
template <int N>
inline void tile(const float* a, Size a_row, Size a_column, const float* b, Size b_row, float* c, Size c_row, Size depth,
                 bool add) {
    Vec acc[TALL][N];
    for (int r = 0; r < TALL; ++r)
        for (int n = 0; n < N; ++n) acc[r][n] = add ? load(c + r * c_row + n * W) : Vec{};
    for (Size k = 0; k < depth; ++k) {
        Vec line[N];
        for (int n = 0; n < N; ++n) line[n] = load(b + k * b_row + n * W);
        for (int r = 0; r < TALL; ++r) {
            const float one = a[r * a_row + k * a_column];
            for (int n = 0; n < N; ++n) acc[r][n] += one * line[n];
        }
    }
    for (int r = 0; r < TALL; ++r)
        for (int n = 0; n < N; ++n) store(c + r * c_row + n * W, acc[r][n]);
}

// The same for up to PANEL columns; whole vectors are read and written.
inline void tiles(const float* a, Size a_row, Size a_column, const float* b, Size b_row, float* c, Size c_row,
                  Size columns, Size depth, bool add) {
    switch ((columns + W - 1) / W) {
        case 1: return tile<1>(a, a_row, a_column, b, b_row, c, c_row, depth, add);
        case 2: return tile<2>(a, a_row, a_column, b, b_row, c, c_row, depth, add);
        case 3: return tile<std::min<Size>(3, VECTORS)>(a, a_row, a_column, b, b_row, c, c_row, depth, add);
        default: return tile<VECTORS>(a, a_row, a_column, b, b_row, c, c_row, depth, add);
    }
}

// (tokens, size) rows at a stride -> (tokens up to whole vectors, wide) floats times a factor; zeros where nothing is
template <class T>
inline void lay(const T* x, Size stride, Size tokens, Size size, float* out, Size wide, float factor = 1.0f) {
    for (Size t = 0; t < tokens; ++t)
        by_vector(size, [&](Size i, int n) { store(out + t * wide + i, load_up_to(x + t * stride + i, n) * factor); });
}

// A row of floats times a factor -> a row of T
template <class T>
inline void lay_back(const float* x, float factor, Size size, T* out) {
    by_vector(size, [&](Size i, int n) { store_up_to(out + i, load(x + i) * factor, n); });
}

template <int... I>
inline Vec interleaved(Vec a, Vec b, bool upper, std::integer_sequence<int, I...>) {
    const Ints low{((I & 1) * W + I / 2)...}, high{((I & 1) * W + I / 2 + W / 2)...};
    return upper ? __builtin_shuffle(a, b, high) : __builtin_shuffle(a, b, low);
}

// A square of W x W numbers, transposed: log2 W rounds that shuffle the upper half of the rows into the lower.
inline void transpose(Vec (&rows)[W]) {
    constexpr auto each = std::make_integer_sequence<int, W>{};
    for (int round = 1; round < W; round *= 2) {
        Vec next[W];
        for (int i = 0; i < W / 2; ++i) {
            next[2 * i] = interleaved(rows[i], rows[i + W / 2], false, each);
            next[2 * i + 1] = interleaved(rows[i], rows[i + W / 2], true, each);
        }
        std::copy(next, next + W, rows);
    }
}

// (tokens, wide) laid rows -> panels of PANEL tokens, each (wide, PANEL): what a product reads one line after another
inline void turn(const float* x, Size tokens, Size wide, float* panels) {
    for (Size t = 0; t < tokens; t += W) {
        float* panel = panels + t / PANEL * PANEL * wide + t % PANEL;
        for (Size d = 0; d < wide; d += W) {
            Vec rows[W];
            for (int i = 0; i < W; ++i) rows[i] = t + i < tokens ? load(x + (t + i) * wide + d) : Vec{};
            transpose(rows);
            for (int i = 0; i < W; ++i) store(panel + (d + i) * PANEL, rows[i]);
        }
    }
}

}  // namespace
}  // namespace lmworks::ISA
