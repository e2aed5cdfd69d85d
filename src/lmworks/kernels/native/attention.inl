// Attention over packed sequences of different lengths, forward and backward (Vaswani et al. 2017, eq. 1). The backward
// pass recomputes the scores from logsumexp (Dao et al. 2022). The scores of a block of queries, of all heads that share
// a key-value head, are held at a time; keys that no query of a tile attends to are skipped. A work item is one
// key-value head and one sequence, or a part of a long sequence. The number of parts depends on the sequence's length
// alone and their gradients are added in order, so the bits do not depend on the number of threads.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "gemm.inl"
#include "kernel_table.hpp"
#include "parallel.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size BLOCK_ROWS = 24;      // queries times heads whose scores are held at a time, approximately
constexpr Size PART_QUERIES = 256;   // queries of a part of a sequence, approximately
constexpr Size MAX_PARTS = 4;

// A work item: one key-value head, and the queries begin to end of one sequence.
// A block is up to block_queries queries from ``query`` on; its row r is one query and one of the heads_per_kv heads.
struct AttentionItem {
    Size kv_head, first_query, begin, end, first_key, keys, part, parts;
    Size heads_per_kv, heads, head_size, padded_size, score_stride, block_queries;
    bool causal;

    // Number of keys that a query of the sequence attends to.
    Size visible_keys(Size query) const { return causal ? std::min(query + 1, keys) : keys; }
    // The same for the last query of a tile or block that has ``rows`` rows.
    Size visible_keys(Size query, Size rows) const { return visible_keys(query + (rows - 1) / heads_per_kv); }
    Size token(Size query, Size r) const { return first_query + query + r / heads_per_kv; }
    Size head(Size r) const { return kv_head * heads_per_kv + r % heads_per_kv; }
    // Offset of row r in out, dq and dout (tokens, heads, head_size).
    Size offset(Size query, Size r) const { return stats_offset(query, r) * head_size; }
    // Offset of row r in logsumexp (tokens, heads).
    Size stats_offset(Size query, Size r) const { return token(query, r) * heads + head(r); }
    std::uint64_t dropout_index(Size query, Size r) const {
        return static_cast<std::uint64_t>(stats_offset(query, r)) << 24;
    }
    Size rows(Size query) const { return std::min(block_queries, end - query) * heads_per_kv; }
    Size key_gradient_size() const { return round_up(keys, TILE_ROWS) * padded_size; }  // floats of dkeys or dvalues
};

// All work items, the longest first.
template <class T>
std::vector<AttentionItem> make_items(const AttentionInputs<T>& in) {
    std::vector<AttentionItem> items;
    const Size heads_per_kv = in.heads / in.kv_heads, block_queries = std::max<Size>(1, BLOCK_ROWS / heads_per_kv);
    for (Size sequence = 0; sequence < in.sequences; ++sequence) {
        const Size first_query = in.cu_seqlens_q[sequence], queries = in.cu_seqlens_q[sequence + 1] - first_query;
        const Size first_key = in.cu_seqlens_k[sequence], all_keys = in.cu_seqlens_k[sequence + 1] - first_key;
        const Size parts = std::min(MAX_PARTS, (queries + PART_QUERIES - 1) / PART_QUERIES);
        const Size part_queries = round_up((queries + parts - 1) / parts, block_queries);
        for (Size kv_head = 0; kv_head < in.kv_heads; ++kv_head) {
            for (Size part = 0; part < parts; ++part) {
                const bool is_last = part + 1 == parts;
                const Size begin = std::min(queries, part * part_queries);
                const Size end = is_last ? queries : std::min(queries, begin + part_queries);
                const Size keys = in.causal && !is_last ? std::min(end, all_keys) : all_keys;
                items.push_back({kv_head, first_query, begin, end, first_key, keys, part, parts, heads_per_kv, in.heads,
                                 in.head_size, round_up(in.head_size, W), round_up(keys, W) + 2 * W, block_queries,
                                 in.causal});
            }
        }
    }
    const auto cost = [](const AttentionItem& t) { return (t.end - t.begin) * (t.causal ? t.begin + t.end : 2 * t.keys); };
    std::stable_sort(items.begin(), items.end(),
                     [&](const AttentionItem& a, const AttentionItem& b) { return cost(a) > cost(b); });
    return items;
}

// Temporary arrays of this thread for a work item, each aligned to a cache line. The memory grows and is reused.
template <std::size_t N>
std::array<float*, N> workspace(const Size (&sizes)[N]) {
#if defined(__SANITIZE_ADDRESS__)
    thread_local std::array<std::vector<float>, N> buffers;  // separate ones: the sanitizer knows where each array ends
    std::array<float*, N> separate;
    for (std::size_t i = 0; i < N; ++i) buffers[i] = std::vector<float>(sizes[i]), separate[i] = buffers[i].data();
    return separate;
#else
    constexpr Size LINE = 16;
    thread_local std::vector<float> buffer;
    Size total = LINE;
    for (Size size : sizes) total += round_up(size, LINE);
    if (static_cast<Size>(buffer.size()) < total) buffer.resize(total);
    float* next = buffer.data() + (LINE - reinterpret_cast<std::uintptr_t>(buffer.data()) / sizeof(float) % LINE) % LINE;
    std::array<float*, N> arrays;
    for (std::size_t i = 0; i < N; ++i) arrays[i] = next, next += round_up(sizes[i], LINE);
    return arrays;
#endif
}

// Packs the rows of a block of x times a factor -> out (rows up to whole tiles, padded_size) in float32.
template <class T>
inline void pack_block(const AttentionItem& t, Size query, Size rows, const T* x, Size stride, float factor, float* out) {
    for (Size r = 0; r < rows; ++r) {
        const T* row = x + t.token(query, r) * stride + t.head(r) * t.head_size;
        pack_rows(row, 0, 1, t.head_size, out + r * t.padded_size, t.padded_size, factor);
    }
    std::fill(out + rows * t.padded_size, out + round_up(rows, TILE_ROWS) * t.padded_size, 0.0f);
}

// scores (rows, score_stride) = x (rows, head_size) times packed panels of keys, for the keys visible to each tile's
// last row
inline void multiply_keys(const AttentionItem& t, Size query, Size rows, const float* x, const float* panels, float* scores) {
    const Size block_keys = t.visible_keys(query, rows);
    for (Size j = 0; j < block_keys; j += TILE_COLUMNS)
        for (Size r = 0; r < rows; r += TILE_ROWS) {
            const Size columns = std::min(TILE_COLUMNS, t.visible_keys(query, std::min(r + TILE_ROWS, rows)) - j);
            if (columns > 0)
                gemm_tile(x + r * t.padded_size, t.padded_size, 1, panels + j * t.padded_size, TILE_COLUMNS,
                          scores + r * t.score_stride + j, t.score_stride, columns, t.head_size, false);
        }
}

// out (rows, padded_size) = weights (rows, score_stride) times values (keys, padded_size), DEPTH keys at a time
inline void multiply_values(const AttentionItem& t, Size query, Size rows, const float* weights, const float* values,
                            float* out) {
    constexpr Size DEPTH = 128;
    const Size block_keys = t.visible_keys(query, rows);
    for (Size k = 0; k < block_keys; k += DEPTH)
        for (Size r = 0; r < rows; r += TILE_ROWS) {
            const Size depth = std::min(DEPTH, t.visible_keys(query, std::min(r + TILE_ROWS, rows)) - k);
            if (depth > 0)
                for (Size j = 0; j < t.padded_size; j += TILE_COLUMNS)
                    gemm_tile(weights + r * t.score_stride + k, t.score_stride, 1, values + k * t.padded_size + j,
                              t.padded_size, out + r * t.padded_size + j, t.padded_size,
                              std::min(TILE_COLUMNS, t.padded_size - j), depth, k > 0);
        }
}

// out (keys, padded_size) += weights^T times x (rows, padded_size), without the rows that do not attend to a key
inline void add_transposed_product(const AttentionItem& t, Size query, Size rows, const float* weights, const float* x,
                                   float* out) {
    const Size block_keys = t.visible_keys(query, rows);
    for (Size key = 0; key < block_keys; key += TILE_ROWS) {
        const Size begin = t.causal ? std::max<Size>(0, key - query) * t.heads_per_kv : 0;
        for (Size j = 0; j < t.padded_size; j += TILE_COLUMNS)
            gemm_tile(weights + begin * t.score_stride + key, 1, t.score_stride, x + begin * t.padded_size + j,
                      t.padded_size, out + key * t.padded_size + j, t.padded_size,
                      std::min(TILE_COLUMNS, t.padded_size - j), rows - begin, true);
    }
}

// scores (until) -> exp(score - max) in place for the visible keys, zeros from there to ``until``; writes the maximum
// and returns the sum.
inline float exponentiate(float* scores, Size visible, Size until, float& max_score) {
    const Size whole = visible / W * W;
    const VecI32 is_visible = lane_indices() < static_cast<int>(visible - whole);
    Vec maxima = broadcast(-std::numeric_limits<float>::infinity()), total{};
    for (Size i = 0; i < whole; i += W) maxima = max(maxima, load(scores + i));
    if (whole < visible) maxima = max(maxima, is_visible ? load(scores + whole) : maxima);
    max_score = reduce_max(maxima);
    for (Size i = 0; i < whole; i += W) {
        const Vec e = exp(load(scores + i) - max_score);
        store(scores + i, e);
        total += e;
    }
    Size i = whole;
    if (i < visible) {
        const Vec e = is_visible ? exp(load(scores + i) - max_score) : Vec{};
        store(scores + i, e);
        total += e;
        i += W;
    }
    for (; i < until; i += W) store(scores + i, Vec{});
    return reduce_sum(total);
}

template <class T>
void attention_item(const AttentionInputs<T>& in, const AttentionItem& t, T* out, float* logsumexp, float rate,
                    const DropoutFactors& factors) {
    const Size block_rows = round_up(t.block_queries * t.heads_per_kv, TILE_ROWS), block_size = block_rows * t.padded_size;
    const Size panels_size = round_up(t.keys, TILE_COLUMNS) * t.padded_size, keys_size = round_up(t.keys, W) * t.padded_size;
    const auto [scores, key_panels, values, queries, block_out, sums] =
        workspace({block_rows * t.score_stride, panels_size, keys_size, block_size, block_size, block_rows});
    const T *k = in.k + t.first_key * in.k_stride + t.kv_head * t.head_size;
    const T *v = in.v + t.first_key * in.v_stride + t.kv_head * t.head_size;
    pack_rows(k, in.k_stride, t.keys, t.head_size, values, t.padded_size);  // the keys, until they are transposed
    pack_transposed(values, t.keys, t.padded_size, key_panels);
    pack_rows(v, in.v_stride, t.keys, t.head_size, values, t.padded_size);
    for (Size query = t.begin; query < t.end; query += t.block_queries) {
        const Size rows = t.rows(query), until = round_up(t.visible_keys(query, rows), W);
        pack_block(t, query, rows, in.q, in.q_stride, in.scale, queries);
        multiply_keys(t, query, rows, queries, key_panels, scores);
        float* row_sums = sums;
        for (Size r = 0; r < rows; ++r) {
            float max_score, *row = scores + r * t.score_stride;
            row_sums[r] = exponentiate(row, t.visible_keys(query + r / t.heads_per_kv), until, max_score);
            logsumexp[t.stats_offset(query, r)] = max_score + std::log(row_sums[r]);
            if (rate > 0)
                for (Size i = 0; i < until; i += W)
                    store(row + i, load(row + i) * factors.at(t.dropout_index(query, r) + i));
        }
        multiply_values(t, query, rows, scores, values, block_out);
        for (Size r = 0; r < rows; ++r)
            store_row(block_out + r * t.padded_size, 1.0f / row_sums[r], t.head_size, out + t.offset(query, r));
    }
}

template <class T>
void varlen_attention(const AttentionInputs<T>& in, T* out, float* logsumexp, float rate, std::uint64_t seed) {
    const DropoutFactors factors(rate, seed);
    const std::vector<AttentionItem> items = make_items(in);
    parallel_for(items.size(), [&](Size i) { attention_item(in, items[i], out, logsumexp, rate, factors); });
}

// The arrays that the backward pass reads and writes in addition to AttentionInputs.
template <class T>
struct AttentionGradients {
    const T* out;
    const float* logsumexp;
    const T* dout;
    T *dq, *dk, *dv;
};

// One row. In: scores, and in ``dweights`` the gradients of the weights after dropout. Out, in place: the weights after
// dropout, and in ``dweights`` the gradients of the scores, weight * (dweight - delta) (Dao et al. 2022, app. B.2).
inline void softmax_backward(float* scores, float* dweights, Size visible, Size until, float logsumexp, float delta,
                             float rate, const DropoutFactors& factors, std::uint64_t dropout_index) {
    const auto compute = [&](Size i) {
        const Vec weight = exp(load(scores + i) - logsumexp), dweight = load(dweights + i);
        if (rate > 0) {
            const Vec factor = factors.at(dropout_index + i);
            store(dweights + i, weight * (dweight * factor - delta));
            store(scores + i, weight * factor);
        } else {
            store(dweights + i, weight * (dweight - delta));
            store(scores + i, weight);
        }
    };
    const Size whole = visible / W * W;
    for (Size i = 0; i < whole; i += W) compute(i);
    Size i = whole;
    if (i < visible) {
        const VecI32 is_visible = lane_indices() < static_cast<int>(visible - whole);
        compute(i);
        store(scores + i, is_visible ? load(scores + i) : Vec{});
        store(dweights + i, is_visible ? load(dweights + i) : Vec{});
        i += W;
    }
    for (; i < until; i += W) store(scores + i, Vec{}), store(dweights + i, Vec{});
}

// Writes dq of the work item's queries; adds the work item's contributions to dkeys and dvalues (keys, padded_size).
template <class T>
void attention_backward_item(const AttentionInputs<T>& in, const AttentionItem& t, const AttentionGradients<T>& g,
                             float* dkeys, float* dvalues, float rate, const DropoutFactors& factors) {
    const Size block_rows = round_up(t.block_queries * t.heads_per_kv, TILE_ROWS), block_size = block_rows * t.padded_size;
    const Size scores_size = block_rows * t.score_stride, panels_size = round_up(t.keys, TILE_COLUMNS) * t.padded_size;
    const auto [weights, dscores, key_panels, value_panels, keys, queries, douts, dqueries] =
        workspace({scores_size, scores_size, panels_size, panels_size, round_up(t.keys, W) * t.padded_size, block_size,
                   block_size, block_size});
    const T *k = in.k + t.first_key * in.k_stride + t.kv_head * t.head_size;
    const T *v = in.v + t.first_key * in.v_stride + t.kv_head * t.head_size;
    pack_rows(v, in.v_stride, t.keys, t.head_size, keys, t.padded_size);  // the values, until they are transposed
    pack_transposed(keys, t.keys, t.padded_size, value_panels);
    pack_rows(k, in.k_stride, t.keys, t.head_size, keys, t.padded_size);
    pack_transposed(keys, t.keys, t.padded_size, key_panels);
    for (Size query = t.begin; query < t.end; query += t.block_queries) {
        const Size rows = t.rows(query), until = round_up(t.visible_keys(query, rows) + TILE_ROWS, W);
        pack_block(t, query, rows, in.q, in.q_stride, in.scale, queries);
        pack_block(t, query, rows, g.dout, t.heads * t.head_size, 1.0f, douts);
        multiply_keys(t, query, rows, queries, key_panels, weights);
        multiply_keys(t, query, rows, douts, value_panels, dscores);
        for (Size r = 0; r < rows; ++r) {
            const T* out = g.out + t.offset(query, r);
            Vec delta{};  // dout . out
            for_each_vector(t.head_size, [&](Size i, int n) { delta += load_n(out + i, n) * load(douts + r * t.padded_size + i); });
            softmax_backward(weights + r * t.score_stride, dscores + r * t.score_stride,
                             t.visible_keys(query + r / t.heads_per_kv), until, g.logsumexp[t.stats_offset(query, r)],
                             reduce_sum(delta), rate, factors, t.dropout_index(query, r));
        }
        multiply_values(t, query, rows, dscores, keys, dqueries);
        for (Size r = 0; r < rows; ++r)
            store_row(dqueries + r * t.padded_size, in.scale, t.head_size, g.dq + t.offset(query, r));
        add_transposed_product(t, query, rows, dscores, queries, dkeys);
        add_transposed_product(t, query, rows, weights, douts, dvalues);
    }
}

// dkeys and dvalues (keys, padded_size) of a sequence and key-value head -> dk and dv (key tokens, kv_heads, head_size)
template <class T>
void store_key_gradients(const AttentionInputs<T>& in, const AttentionItem& t, const AttentionGradients<T>& g,
                         const float* dkeys, const float* dvalues) {
    for (Size key = 0; key < t.keys; ++key) {
        const Size offset = ((t.first_key + key) * in.kv_heads + t.kv_head) * t.head_size;
        store_row(dkeys + key * t.padded_size, 1.0f, t.head_size, g.dk + offset);
        store_row(dvalues + key * t.padded_size, 1.0f, t.head_size, g.dv + offset);
    }
}

template <class T>
void varlen_attention_backward(const AttentionInputs<T>& in, const T* out, const float* logsumexp, const T* dout, T* dq,
                               T* dk, T* dv, float rate, std::uint64_t seed) {
    const DropoutFactors factors(rate, seed);
    const AttentionGradients<T> g{out, logsumexp, dout, dq, dk, dv};
    const std::vector<AttentionItem> items = make_items(in);
    // dkeys, then dvalues, of each part of a long sequence
    std::vector<std::vector<float>> part_gradients(items.size());
    parallel_for(items.size(), [&](Size i) {
        const AttentionItem& t = items[i];
        const Size size = t.key_gradient_size();
        thread_local std::vector<float> buffer;
        std::vector<float>& gradients = t.parts > 1 ? part_gradients[i] : buffer;
        gradients.assign(2 * size, 0.0f);
        attention_backward_item(in, t, g, gradients.data(), gradients.data() + size, rate, factors);
        if (t.parts == 1) store_key_gradients(in, t, g, gradients.data(), gradients.data() + size);
    });
    // the last part of each long sequence has all keys: add the gradients of the other parts to its own, in order
    parallel_for(items.size(), [&](Size i) {
        const AttentionItem& last = items[i];
        if (last.parts == 1 || last.part + 1 != last.parts) return;
        const Size size = last.key_gradient_size();
        std::vector<const AttentionItem*> others(last.parts - 1);
        for (const AttentionItem& t : items)
            if (t.first_query == last.first_query && t.kv_head == last.kv_head && t.part + 1 < last.parts) others[t.part] = &t;
        std::vector<float>& total = part_gradients[i];
        for (const AttentionItem* t : others) {
            const std::vector<float>& gradients = part_gradients[t - items.data()];
            const Size part_size = t->key_gradient_size();
            for (Size j = 0; j < t->keys * t->padded_size; ++j) {
                total[j] += gradients[j];
                total[size + j] += gradients[part_size + j];
            }
        }
        store_key_gradients(in, last, g, total.data(), total.data() + size);
    });
}

}  // namespace
}  // namespace lmworks::ISA
