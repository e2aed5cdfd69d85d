// Attention over documents that lie one after another in a flat row, forward and backward.
// A task is one document and one head of keys, so nothing is written by two tasks and sums have one order.
// Scores of a few queries against all keys of the document are held at a time; keys and values are laid out once a
// task so that every product runs along vectors (Vaswani et al. 2017, eq. 1; its gradient recomputes the scores, as
// Dao et al. 2022 do).
#include <algorithm>
#include <cmath>
#include <vector>

#include "simd.hpp"
#include "table.hpp"
#include "team.hpp"

namespace lmworks::ISA {
namespace {

constexpr int ROWS_AT_ONCE = 6;  // queries whose scores are held together
constexpr int VECTORS = W == 16 ? 4 : 2;  // of each row of a product that registers hold

inline Size up_to_vector(Size n) { return (n + W - 1) / W * W; }

// c[r][j] = (add ? c : 0) + sum_k a[r * a_row + k * a_column] * b[k][j] for R rows, N vectors of columns.
template <int R, int N>
inline void tile(const float* a, Size a_row, Size a_column, const float* b, Size b_row, float* c, Size c_row, Size depth,
                 bool add) {
    Vec acc[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) acc[r][n] = add ? load(c + r * c_row + n * W) : Vec{};
    for (Size k = 0; k < depth; ++k) {
        Vec line[N];
        for (int n = 0; n < N; ++n) line[n] = load(b + k * b_row + n * W);
        for (int r = 0; r < R; ++r) {
            const float one = a[r * a_row + k * a_column];
            for (int n = 0; n < N; ++n) acc[r][n] += one * line[n];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(c + r * c_row + n * W, acc[r][n]);
}

template <int R>
inline void row_of_tiles(const float* a, Size a_row, Size a_column, const float* b, Size b_row, float* c, Size c_row,
                         Size columns, Size depth, bool add) {
    Size j = 0;
    for (; j + VECTORS * W <= columns; j += VECTORS * W)
        tile<R, VECTORS>(a, a_row, a_column, b + j, b_row, c + j, c_row, depth, add);
    for (; j < columns; j += W) tile<R, 1>(a, a_row, a_column, b + j, b_row, c + j, c_row, depth, add);
}

// c (rows, columns) = (add ? c : 0) + a (rows, depth) b (depth, columns); columns a multiple of W. Rows of a and c and
// columns of a lie apart as told, so a may be a transpose.
inline void product(const float* a, Size a_row, Size a_column, const float* b, Size b_row, float* c, Size c_row,
                    Size rows, Size columns, Size depth, bool add) {
    Size r = 0;
    for (; r + 6 <= rows; r += 6)
        row_of_tiles<6>(a + r * a_row, a_row, a_column, b, b_row, c + r * c_row, c_row, columns, depth, add);
    const float* rest = a + r * a_row;
    float* out = c + r * c_row;
    switch (rows - r) {
        case 5: return row_of_tiles<5>(rest, a_row, a_column, b, b_row, out, c_row, columns, depth, add);
        case 4: return row_of_tiles<4>(rest, a_row, a_column, b, b_row, out, c_row, columns, depth, add);
        case 3: return row_of_tiles<3>(rest, a_row, a_column, b, b_row, out, c_row, columns, depth, add);
        case 2: return row_of_tiles<2>(rest, a_row, a_column, b, b_row, out, c_row, columns, depth, add);
        case 1: return row_of_tiles<1>(rest, a_row, a_column, b, b_row, out, c_row, columns, depth, add);
        default: return;
    }
}

// (tokens, size) rows at a stride -> (size, room): transposed, zeros in the room beyond the tokens
inline void turn(const float* x, Size stride, Size tokens, Size size, float* out, Size room) {
    for (Size d = 0; d < size; ++d) std::fill(out + d * room + tokens, out + (d + 1) * room, 0.0f);
    for (Size t = 0; t < tokens; ++t)
        for (Size d = 0; d < size; ++d) out[d * room + t] = x[t * stride + d];
}

// (tokens, size) rows at a stride -> (tokens, wide): the same rows with zeros beyond size
inline void lay(const float* x, Size stride, Size tokens, Size size, float* out, Size wide) {
    for (Size t = 0; t < tokens; ++t) {
        std::memcpy(out + t * wide, x + t * stride, size * sizeof(float));
        std::fill(out + t * wide + size, out + (t + 1) * wide, 0.0f);
    }
}

// One document and one head of keys, and what of them every pass needs.
struct Piece {
    Size document, group, first, tokens, key_first, keys, room, wide;

    Piece(const Heads& h, Size task) {
        document = task / h.kv_heads;
        group = task % h.kv_heads;
        first = h.offsets[document];
        tokens = h.offsets[document + 1] - first;
        key_first = h.key_offsets[document];
        keys = h.key_offsets[document + 1] - key_first;
        room = up_to_vector(keys);
        wide = up_to_vector(h.size);
    }
    // Keys that a block of queries ending before ``last`` may see.
    Size seen(const Heads& h, Size last) const { return h.causal ? std::min(last, keys) : keys; }
};

// Scores of one query -> probabilities in place; the log of their sum. Keys from ``seen`` on get 0.
inline float softmax(float* scores, Size seen, Size room, float scale) {
    Vec most = all(scores[0]);
    by_vector(seen, [&](Size i, int n) { most = max(most, n == W ? load(scores + i) : load_some(scores + i, n, scores[0])); });
    const float top = largest(most) * scale;
    Vec total{};
    by_vector(seen, [&](Size i, int n) {
        const Vec e = exp(load_up_to(scores + i, n) * scale - top);
        store_up_to(scores + i, e, n);
        total += load_up_to(scores + i, n);
    });
    const float factor = 1.0f / sum(total);
    by_vector(seen, [&](Size i, int n) { store_up_to(scores + i, load_up_to(scores + i, n) * factor, n); });
    std::fill(scores + seen, scores + room, 0.0f);
    return top + std::log(sum(total));
}

// Multiplies the probabilities of query ``row`` in head ``head`` by dropout's factors.
inline void thin(float* line, Size room, const Dropper& dropper, Size row, Size head, Size heads) {
    const std::uint64_t place = (static_cast<std::uint64_t>(row) * heads + head) << 24;
    by_vector(room, [&](Size i, int n) { store_up_to(line + i, load_up_to(line + i, n) * dropper.factors(place + i), n); });
}

void attend(const Heads& h, float* out, float* log_sum, float rate, std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    run(h.documents * h.kv_heads, [&](Size task) {
        const Piece piece(h, task);
        thread_local std::vector<float> room_of_thread;
        const Size scores_size = ROWS_AT_ONCE * piece.room, turned_size = h.size * piece.room;
        room_of_thread.resize(scores_size + turned_size + piece.keys * piece.wide + ROWS_AT_ONCE * piece.wide);
        float* scores = room_of_thread.data();
        float* turned = scores + scores_size;
        float* values = turned + turned_size;
        float* mixed = values + piece.keys * piece.wide;
        turn(h.k + piece.key_first * h.k_stride + piece.group * h.size, h.k_stride, piece.keys, h.size, turned, piece.room);
        lay(h.v + piece.key_first * h.v_stride + piece.group * h.size, h.v_stride, piece.keys, h.size, values, piece.wide);
        const Size each = h.heads / h.kv_heads;
        for (Size head = piece.group * each; head < (piece.group + 1) * each; ++head) {
            for (Size begin = 0; begin < piece.tokens; begin += ROWS_AT_ONCE) {
                const Size rows = std::min<Size>(ROWS_AT_ONCE, piece.tokens - begin);
                const Size seen = piece.seen(h, begin + rows), columns = up_to_vector(seen);
                const float* q = h.q + (piece.first + begin) * h.q_stride + head * h.size;
                product(q, h.q_stride, 1, turned, piece.room, scores, piece.room, rows, columns, h.size, false);
                for (Size r = 0; r < rows; ++r) {
                    const Size row = piece.first + begin + r;
                    float* line = scores + r * piece.room;
                    log_sum[row * h.heads + head] = softmax(line, piece.seen(h, begin + r + 1), columns, h.scale);
                    if (rate > 0) thin(line, columns, dropper, row, head, h.heads);
                }
                product(scores, piece.room, 1, values, piece.wide, mixed, piece.wide, rows, piece.wide, seen, false);
                for (Size r = 0; r < rows; ++r)
                    std::memcpy(out + ((piece.first + begin + r) * h.heads + head) * h.size, mixed + r * piece.wide,
                                h.size * sizeof(float));
            }
        }
    });
}

void attend_back(const Heads& h, const float* out, const float* log_sum, const float* dout, float* dq, float* dk,
                 float* dv, float rate, std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    run(h.documents * h.kv_heads, [&](Size task) {
        const Piece piece(h, task);
        thread_local std::vector<float> room_of_thread;
        const Size line_size = ROWS_AT_ONCE * piece.room, turned_size = h.size * piece.room;
        const Size laid_size = piece.keys * piece.wide, few_size = ROWS_AT_ONCE * piece.wide;
        room_of_thread.resize(2 * line_size + 2 * turned_size + 3 * laid_size + 3 * few_size);
        float* p = room_of_thread.data();
        float* dp = p + line_size;
        float* keys_turned = dp + line_size;
        float* values_turned = keys_turned + turned_size;
        float* keys = values_turned + turned_size;
        float* key_slopes = keys + laid_size;
        float* value_slopes = key_slopes + laid_size;
        float* q_laid = value_slopes + laid_size;
        float* slope_laid = q_laid + few_size;
        float* mixed = slope_laid + few_size;
        const float* k = h.k + piece.key_first * h.k_stride + piece.group * h.size;
        const float* v = h.v + piece.key_first * h.v_stride + piece.group * h.size;
        turn(k, h.k_stride, piece.keys, h.size, keys_turned, piece.room);
        turn(v, h.v_stride, piece.keys, h.size, values_turned, piece.room);
        lay(k, h.k_stride, piece.keys, h.size, keys, piece.wide);
        std::fill(key_slopes, key_slopes + 2 * laid_size, 0.0f);
        const Size each = h.heads / h.kv_heads, out_stride = h.heads * h.size;
        for (Size head = piece.group * each; head < (piece.group + 1) * each; ++head) {
            for (Size begin = 0; begin < piece.tokens; begin += ROWS_AT_ONCE) {
                const Size rows = std::min<Size>(ROWS_AT_ONCE, piece.tokens - begin), row0 = piece.first + begin;
                const Size seen = piece.seen(h, begin + rows), columns = up_to_vector(seen);
                const float* q = h.q + row0 * h.q_stride + head * h.size;
                const float* slope = dout + row0 * out_stride + head * h.size;
                product(q, h.q_stride, 1, keys_turned, piece.room, p, piece.room, rows, columns, h.size, false);
                product(slope, out_stride, 1, values_turned, piece.room, dp, piece.room, rows, columns, h.size, false);
                lay(q, h.q_stride, rows, h.size, q_laid, piece.wide);
                lay(slope, out_stride, rows, h.size, slope_laid, piece.wide);
                for (Size r = 0; r < rows; ++r) {
                    const Size row = row0 + r, own = piece.seen(h, begin + r + 1);
                    const float log_total = log_sum[row * h.heads + head];
                    const float* result = out + row * out_stride + head * h.size;
                    Vec along{};
                    by_vector(h.size, [&](Size i, int n) {
                        along += load_up_to(result + i, n) * load_up_to(slope + r * out_stride + i, n);
                    });
                    const float delta = sum(along);
                    float *line = p + r * piece.room, *dline = dp + r * piece.room;
                    const std::uint64_t place = (static_cast<std::uint64_t>(row) * h.heads + head) << 24;
                    by_vector(own, [&](Size i, int n) {
                        const Vec share = exp(load_up_to(line + i, n) * h.scale - log_total);
                        const Vec factors = rate > 0 ? dropper.factors(place + i) : all(1.0f);
                        store_up_to(dline + i, share * (load_up_to(dline + i, n) * factors - delta) * h.scale, n);
                        store_up_to(line + i, share * factors, n);
                    });
                    std::fill(line + own, line + columns, 0.0f);
                    std::fill(dline + own, dline + columns, 0.0f);
                }
                product(dp, piece.room, 1, keys, piece.wide, mixed, piece.wide, rows, piece.wide, seen, false);
                for (Size r = 0; r < rows; ++r)
                    std::memcpy(dq + (row0 + r) * out_stride + head * h.size, mixed + r * piece.wide, h.size * sizeof(float));
                product(dp, 1, piece.room, q_laid, piece.wide, key_slopes, piece.wide, seen, piece.wide, rows, true);
                product(p, 1, piece.room, slope_laid, piece.wide, value_slopes, piece.wide, seen, piece.wide, rows, true);
            }
        }
        const Size kv_stride = h.kv_heads * h.size;
        for (Size t = 0; t < piece.keys; ++t) {
            const Size at = (piece.key_first + t) * kv_stride + piece.group * h.size;
            std::memcpy(dk + at, key_slopes + t * piece.wide, h.size * sizeof(float));
            std::memcpy(dv + at, value_slopes + t * piece.wide, h.size * sizeof(float));
        }
    });
}

}  // namespace
}  // namespace lmworks::ISA
