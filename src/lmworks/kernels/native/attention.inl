// Attention over documents that lie one after another in a flat row, forward and backward (Vaswani et al. 2017, eq. 1;
// its gradient makes the scores anew, as Dao et al. 2022 do). Scores of a few queries of all heads that share a head of
// keys are held at a time, and every product runs along vectors; keys that nobody in a tile of queries may see are
// left out. A task is one head of keys and one document, or a part of a long one: what two tasks add to is summed in
// the order of the parts, and how a document is parted follows from its length alone, so sums have one order.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "products.inl"
#include "table.hpp"
#include "team.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size ROWS_HELD = 24;    // queries times heads whose scores are held together, about
constexpr Size LONG = 256;        // queries of a part of a document, about
constexpr Size MOST_PARTS = 4;

// What a task does: one head of keys, and queries begin to end of one document.
struct Piece {
    Size group, first, begin, end, key_first, keys, part, parts;
    Size each, heads, size, wide, room, block;
    bool causal;

    // Keys that the query at a place of the document may see.
    Size seen(Size query) const { return causal ? std::min(query + 1, keys) : keys; }
    Size row(Size query, Size r) const { return first + query + r / each; }
    Size head(Size r) const { return group * each + r % each; }
    // Where row r of the block that begins at ``query`` lies in queries, outputs and their gradients.
    Size place(Size query, Size r) const { return (row(query, r) * heads + head(r)) * size; }
    Size rows(Size query) const { return std::min(block, end - query) * each; }
    Size keys_kept() const { return up_to(keys, TALL) * wide; }  // floats of a gradient of keys or values
};

// All tasks, those that take longest first.
template <class T>
std::vector<Piece> pieces_of(const Heads<T>& h) {
    std::vector<Piece> pieces;
    const Size each = h.heads / h.kv_heads, block = std::max<Size>(1, ROWS_HELD / each);
    for (Size document = 0; document < h.documents; ++document) {
        const Size first = h.offsets[document], tokens = h.offsets[document + 1] - first;
        const Size key_first = h.key_offsets[document], all_keys = h.key_offsets[document + 1] - key_first;
        const Size parts = std::min(MOST_PARTS, (tokens + LONG - 1) / LONG), step = up_to((tokens + parts - 1) / parts, block);
        for (Size group = 0; group < h.kv_heads; ++group) {
            for (Size part = 0; part < parts; ++part) {
                const Size begin = std::min(tokens, part * step), end = part + 1 == parts ? tokens : std::min(tokens, begin + step);
                const Size keys = h.causal && part + 1 < parts ? std::min(end, all_keys) : all_keys;
                pieces.push_back({group, first, begin, end, key_first, keys, part, parts, each, h.heads, h.size,
                                  up_to(h.size, W), up_to(keys, W) + 2 * W, block, h.causal});
            }
        }
    }
    const auto work = [](const Piece& p) { return (p.end - p.begin) * (p.causal ? p.begin + p.end : 2 * p.keys); };
    std::stable_sort(pieces.begin(), pieces.end(), [&](const Piece& a, const Piece& b) { return work(a) > work(b); });
    return pieces;
}

// Memory of this thread for a task, each array at a border of the cache's lines; it grows and is kept.
template <std::size_t N>
std::array<float*, N> scratch(const Size (&sizes)[N]) {
#if defined(__SANITIZE_ADDRESS__)
    thread_local std::array<std::vector<float>, N> alone;  // so that the sanitizer knows where each array ends
    std::array<float*, N> ends_known;
    for (std::size_t i = 0; i < N; ++i) alone[i] = std::vector<float>(sizes[i]), ends_known[i] = alone[i].data();
    return ends_known;
#else
    constexpr Size LINE = 16;
    thread_local std::vector<float> kept;
    Size total = LINE;
    for (Size size : sizes) total += up_to(size, LINE);
    if (static_cast<Size>(kept.size()) < total) kept.resize(total);
    float* next = kept.data() + (LINE - reinterpret_cast<std::uintptr_t>(kept.data()) / sizeof(float) % LINE) % LINE;
    std::array<float*, N> arrays;
    for (std::size_t i = 0; i < N; ++i) arrays[i] = next, next += up_to(sizes[i], LINE);
    return arrays;
#endif
}

// Rows of a block of queries, times a factor, one after another.
template <class T>
inline void lay_rows(const Piece& p, Size query, Size rows, const T* x, Size stride, float factor, float* out) {
    for (Size r = 0; r < rows; ++r)
        lay(x + p.row(query, r) * stride + p.head(r) * p.size, 0, 1, p.size, out + r * p.wide, p.wide, factor);
    std::fill(out + rows * p.wide, out + up_to(rows, TALL) * p.wide, 0.0f);
}

// out (rows, room) = rows (rows, size) times keys turned into panels, for the keys that a tile's last row may see
inline void score(const Piece& p, Size query, Size rows, const float* x, const float* panels, float* out) {
    const Size most = p.seen(query + (rows - 1) / p.each);
    for (Size j = 0; j < most; j += PANEL)
        for (Size r = 0; r < rows; r += TALL) {
            const Size columns = std::min(PANEL, p.seen(query + (std::min(r + TALL, rows) - 1) / p.each) - j);
            if (columns > 0)
                tiles(x + r * p.wide, p.wide, 1, panels + j * p.wide, PANEL, out + r * p.room + j, p.room, columns, p.size, false);
        }
}

// out (rows, wide) = weights (rows, room) times values (keys, wide), some keys at a time
inline void mix(const Piece& p, Size query, Size rows, const float* weights, const float* values, float* out) {
    constexpr Size DEEP = 128;
    const Size most = p.seen(query + (rows - 1) / p.each);
    for (Size k = 0; k < most; k += DEEP)
        for (Size r = 0; r < rows; r += TALL) {
            const Size depth = std::min(DEEP, p.seen(query + (std::min(r + TALL, rows) - 1) / p.each) - k);
            if (depth > 0)
                for (Size j = 0; j < p.wide; j += PANEL)
                    tiles(weights + r * p.room + k, p.room, 1, values + k * p.wide + j, p.wide, out + r * p.wide + j, p.wide,
                          std::min(PANEL, p.wide - j), depth, k > 0);
        }
}

// out (keys, wide) += weights (rows, room) turned, times x (rows, wide), without rows that do not see a key
inline void spread(const Piece& p, Size query, Size rows, const float* weights, const float* x, float* out) {
    const Size most = p.seen(query + (rows - 1) / p.each);
    for (Size key = 0; key < most; key += TALL) {
        const Size begin = p.causal ? std::max<Size>(0, key - query) * p.each : 0;
        for (Size j = 0; j < p.wide; j += PANEL)
            tiles(weights + begin * p.room + key, 1, p.room, x + begin * p.wide + j, p.wide, out + key * p.wide + j, p.wide,
                  std::min(PANEL, p.wide - j), rows - begin, true);
    }
}

// Scores of one query -> exponentials of their distance to the largest, in place; from ``seen`` to ``until`` zeros.
inline float exponentials(float* line, Size seen, Size until, float& top) {
    const Size whole = seen / W * W;
    const Ints inside = lanes() < static_cast<int>(seen - whole);
    Vec most = all(-std::numeric_limits<float>::infinity()), total{};
    for (Size i = 0; i < whole; i += W) most = max(most, load(line + i));
    if (whole < seen) most = max(most, inside ? load(line + whole) : most);
    top = largest(most);
    for (Size i = 0; i < whole; i += W) {
        const Vec e = exp(load(line + i) - top);
        store(line + i, e);
        total += e;
    }
    Size i = whole;
    if (i < seen) {
        const Vec e = inside ? exp(load(line + i) - top) : Vec{};
        store(line + i, e);
        total += e;
        i += W;
    }
    for (; i < until; i += W) store(line + i, Vec{});
    return sum(total);
}

inline std::uint64_t drawn_at(const Piece& p, Size query, Size r) {
    return static_cast<std::uint64_t>(p.row(query, r) * p.heads + p.head(r)) << 24;
}

template <class T>
void attend_piece(const Heads<T>& h, const Piece& p, T* out, float* log_sum, float rate, const Dropper& dropper) {
    const Size held = up_to(p.block * p.each, TALL), key_rows = up_to(p.keys, W);
    const auto [scores, panels, values, queries, mixed, sums] =
        scratch({held * p.room, up_to(p.keys, PANEL) * p.wide, key_rows * p.wide, held * p.wide, held * p.wide, held});
    lay(h.k + p.key_first * h.k_stride + p.group * p.size, h.k_stride, p.keys, p.size, values, p.wide);
    turn(values, p.keys, p.wide, panels);
    lay(h.v + p.key_first * h.v_stride + p.group * p.size, h.v_stride, p.keys, p.size, values, p.wide);
    for (Size query = p.begin; query < p.end; query += p.block) {
        const Size rows = p.rows(query), until = up_to(p.seen(query + (rows - 1) / p.each), W);
        lay_rows(p, query, rows, h.q, h.q_stride, h.scale, queries);
        score(p, query, rows, queries, panels, scores);
        float* totals = sums;
        for (Size r = 0; r < rows; ++r) {
            float top, *line = scores + r * p.room;
            totals[r] = exponentials(line, p.seen(query + r / p.each), until, top);
            log_sum[p.row(query, r) * p.heads + p.head(r)] = top + std::log(totals[r]);
            if (rate > 0)
                for (Size i = 0; i < until; i += W) store(line + i, load(line + i) * dropper.factors(drawn_at(p, query, r) + i));
        }
        mix(p, query, rows, scores, values, mixed);
        for (Size r = 0; r < rows; ++r) lay_back(mixed + r * p.wide, 1.0f / totals[r], p.size, out + p.place(query, r));
    }
}

template <class T>
void attend(const Heads<T>& h, T* out, float* log_sum, float rate, std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    const std::vector<Piece> pieces = pieces_of(h);
    run(pieces.size(), [&](Size task) { attend_piece(h, pieces[task], out, log_sum, rate, dropper); });
}

// What the way back reads and writes beside Heads.
template <class T>
struct Slopes {
    const T* out;
    const float* log_sum;
    const T* dout;
    T *dq, *dk, *dv;
};

// Scores and the slopes of the weights, of one query -> weights with dropout, and the slopes of the scores.
inline void unweigh(float* line, float* dline, Size seen, Size until, float log_total, float delta, float rate,
                    const Dropper& dropper, std::uint64_t place) {
    const auto both = [&](Size i) {
        const Vec share = exp(load(line + i) - log_total), slope = load(dline + i);
        if (rate > 0) {
            const Vec factors = dropper.factors(place + i);
            store(dline + i, share * (slope * factors - delta));
            store(line + i, share * factors);
        } else {
            store(dline + i, share * (slope - delta));
            store(line + i, share);
        }
    };
    const Size whole = seen / W * W;
    for (Size i = 0; i < whole; i += W) both(i);
    Size i = whole;
    if (i < seen) {
        const Ints inside = lanes() < static_cast<int>(seen - whole);
        both(i);
        store(line + i, inside ? load(line + i) : Vec{});
        store(dline + i, inside ? load(dline + i) : Vec{});
        i += W;
    }
    for (; i < until; i += W) store(line + i, Vec{}), store(dline + i, Vec{});
}

// Adds to the gradients of keys and values (keys, wide) what this task finds, and writes that of its queries.
template <class T>
void attend_back_piece(const Heads<T>& h, const Piece& p, const Slopes<T>& s, float* dkeys, float* dvalues, float rate,
                       const Dropper& dropper) {
    const Size held = up_to(p.block * p.each, TALL), few = held * p.wide, panelled = up_to(p.keys, PANEL) * p.wide;
    const auto [weights, slopes, key_panels, value_panels, keys, queries, douts, mixed] =
        scratch({held * p.room, held * p.room, panelled, panelled, up_to(p.keys, W) * p.wide, few, few, few});
    lay(h.v + p.key_first * h.v_stride + p.group * p.size, h.v_stride, p.keys, p.size, keys, p.wide);
    turn(keys, p.keys, p.wide, value_panels);
    lay(h.k + p.key_first * h.k_stride + p.group * p.size, h.k_stride, p.keys, p.size, keys, p.wide);
    turn(keys, p.keys, p.wide, key_panels);
    for (Size query = p.begin; query < p.end; query += p.block) {
        const Size rows = p.rows(query), until = up_to(p.seen(query + (rows - 1) / p.each) + TALL, W);
        lay_rows(p, query, rows, h.q, h.q_stride, h.scale, queries);
        lay_rows(p, query, rows, s.dout, p.heads * p.size, 1.0f, douts);
        score(p, query, rows, queries, key_panels, weights);
        score(p, query, rows, douts, value_panels, slopes);
        for (Size r = 0; r < rows; ++r) {
            const T* result = s.out + p.place(query, r);
            Vec along{};
            by_vector(p.size, [&](Size i, int n) { along += load_up_to(result + i, n) * load(douts + r * p.wide + i); });
            unweigh(weights + r * p.room, slopes + r * p.room, p.seen(query + r / p.each), until,
                    s.log_sum[p.row(query, r) * p.heads + p.head(r)], sum(along), rate, dropper, drawn_at(p, query, r));
        }
        mix(p, query, rows, slopes, keys, mixed);
        for (Size r = 0; r < rows; ++r) lay_back(mixed + r * p.wide, h.scale, p.size, s.dq + p.place(query, r));
        spread(p, query, rows, slopes, queries, dkeys);
        spread(p, query, rows, weights, douts, dvalues);
    }
}

// Gradients of keys and values of one document and head of keys -> their places.
template <class T>
void give(const Heads<T>& h, const Piece& p, const Slopes<T>& s, const float* dkeys, const float* dvalues) {
    for (Size key = 0; key < p.keys; ++key) {
        const Size at = ((p.key_first + key) * h.kv_heads + p.group) * p.size;
        lay_back(dkeys + key * p.wide, 1.0f, p.size, s.dk + at);
        lay_back(dvalues + key * p.wide, 1.0f, p.size, s.dv + at);
    }
}

template <class T>
void attend_back(const Heads<T>& h, const T* out, const float* log_sum, const T* dout, T* dq, T* dk, T* dv, float rate,
                 std::uint64_t seed) {
    const Dropper dropper(rate, seed);
    const Slopes<T> s{out, log_sum, dout, dq, dk, dv};
    const std::vector<Piece> pieces = pieces_of(h);
    // parts of long documents keep their sums apart until all are there
    std::vector<std::vector<float>> sums(pieces.size());
    run(pieces.size(), [&](Size task) {
        const Piece& p = pieces[task];
        const Size count = p.keys_kept();
        thread_local std::vector<float> own;
        std::vector<float>& both = p.parts > 1 ? sums[task] : own;
        both.assign(2 * count, 0.0f);
        attend_back_piece(h, p, s, both.data(), both.data() + count, rate, dropper);
        if (p.parts == 1) give(h, p, s, both.data(), both.data() + count);
    });
    run(pieces.size(), [&](Size task) {
        const Piece& last = pieces[task];
        if (last.parts == 1 || last.part + 1 != last.parts) return;
        const Size count = last.keys_kept();
        std::vector<const Piece*> others(last.parts - 1);
        for (const Piece& p : pieces)
            if (p.first == last.first && p.group == last.group && p.part + 1 < last.parts) others[p.part] = &p;
        for (const Piece* p : others) {
            const std::vector<float>& part = sums[p - pieces.data()];
            const Size found = p->keys_kept();
            for (Size i = 0; i < p->keys * p->wide; ++i) {
                sums[task][i] += part[i];
                sums[task][count + i] += part[found + i];
            }
        }
        give(h, last, s, sums[task].data(), sums[task].data() + count);
    });
}

}  // namespace
}  // namespace lmworks::ISA
