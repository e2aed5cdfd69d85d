// Attention over packed sequences of different lengths, forward and backward (Vaswani et al. 2017, eq. 1). The backward
// pass recomputes the scores from logsumexp (Dao et al. 2022). The scores of a block of queries, of all heads that share
// a key-value head, are held at a time; keys that no query of a tile attends to are skipped. A work item is one
// key-value head and one sequence, or a part of a long sequence. The number of parts depends on the sequence's length
// alone and their gradients are added in order, so the bits do not depend on the number of threads.
//
// Products read elements E: float32 numbers, or pairs of bfloat16 numbers where the arrays are bfloat16 and the
// instruction set multiplies such pairs. Their sums are float32. The weights are then rounded to bfloat16, as the values
// that they are multiplied with are.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "gemm.inl"
#include "kernel_table.hpp"
#include "parallel.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size BLOCK_ROWS = 24;      // queries times heads whose scores are held at a time, approximately
constexpr Size PART_QUERIES = 256;   // queries of a part of a sequence, approximately
constexpr Size MAX_PARTS = 4;

constexpr Size PAIRED_KEYS = 64;  // for fewer keys, packing pairs takes longer than their products save

template <class T>
using ElementOf = std::conditional_t<HAS_BF16_DOT && std::is_same_v<T, Bf16>, Bf16Pair, float>;

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
                                 in.head_size, round_up(in.head_size, W * Element<ElementOf<T>>::NUMBERS),
                                 round_up(keys, W) + 2 * W, block_queries,
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

// Memory of the workspace as another type of the same or a smaller size.
template <class To>
inline To* as(float* memory) {
    static_assert(sizeof(To) <= sizeof(float));
    return reinterpret_cast<To*>(memory);
}

// Packs keys or values (keys, head_size) transposed into panels; ``rows`` (keys, padded_size) is overwritten.
template <class E, class T>
inline void pack_panels(const AttentionItem& t, const T* x, Size stride, float* rows, float* panels) {
    pack_rows(x, stride, t.keys, t.head_size, as<typename Element<E>::Number>(rows), t.padded_size);
    pack_transposed(rows, t.keys, t.padded_size / Element<E>::NUMBERS, panels);
}

// Packs keys or values (keys, head_size) for a product that sums over the keys.
template <class E, class T>
inline void pack_keys(const AttentionItem& t, const T* x, Size stride, float* out) {
    if constexpr (Element<E>::NUMBERS == 1) pack_rows(x, stride, t.keys, t.head_size, out, t.padded_size);
    else pack_row_pairs(x, stride, t.keys, t.head_size, as<E>(out), t.padded_size);
}

// Packs the rows of a block of x times a factor -> out (rows up to whole tiles, padded_size).
template <class Number, class T>
inline void pack_block(const AttentionItem& t, Size query, Size rows, const T* x, Size stride, float factor, Number* out) {
    for (Size r = 0; r < rows; ++r) {
        const T* row = x + t.token(query, r) * stride + t.head(r) * t.head_size;
        pack_rows(row, 0, 1, t.head_size, out + r * t.padded_size, t.padded_size, factor);
    }
    std::fill(out + rows * t.padded_size, out + round_up(rows, TILE_ROWS) * t.padded_size, Number{});
}

// scores (rows, score_stride) = x (rows, head_size) times packed panels of keys, for the keys visible to each tile's
// last row
template <class E>
inline void multiply_keys(const AttentionItem& t, Size query, Size rows, const E* x, const E* panels, float* scores) {
    constexpr Size NUMBERS = Element<E>::NUMBERS;
    const Size block_keys = t.visible_keys(query, rows), stride = t.padded_size / NUMBERS;
    const Size depth = (t.head_size + NUMBERS - 1) / NUMBERS;
    for (Size j = 0; j < block_keys; j += TILE_COLUMNS)
        for (Size r = 0; r < rows; r += TILE_ROWS) {
            const Size columns = std::min(TILE_COLUMNS, t.visible_keys(query, std::min(r + TILE_ROWS, rows)) - j);
            if (columns > 0)
                gemm_tile(x + r * stride, stride, 1, panels + j * stride, TILE_COLUMNS, scores + r * t.score_stride + j,
                          t.score_stride, columns, depth, false);
        }
}

// out (rows, padded_size) = weights (rows, score_stride) times values (keys, padded_size), DEPTH keys at a time;
// rows of weights are score_stride elements apart
template <class E>
inline void multiply_values(const AttentionItem& t, Size query, Size rows, const E* weights, const E* values, float* out) {
    constexpr Size DEPTH = 128, NUMBERS = Element<E>::NUMBERS;
    const Size block_keys = t.visible_keys(query, rows);
    for (Size k = 0; k < block_keys; k += DEPTH)
        for (Size r = 0; r < rows; r += TILE_ROWS) {
            const Size depth = std::min(DEPTH, t.visible_keys(query, std::min(r + TILE_ROWS, rows)) - k);
            if (depth > 0)
                for (Size j = 0; j < t.padded_size; j += TILE_COLUMNS)
                    gemm_tile(weights + r * t.score_stride + k / NUMBERS, t.score_stride, 1,
                              values + k / NUMBERS * t.padded_size + j, t.padded_size, out + r * t.padded_size + j,
                              t.padded_size, std::min(TILE_COLUMNS, t.padded_size - j), (depth + NUMBERS - 1) / NUMBERS,
                              k > 0);
        }
}

// The rows of a block of weights as elements of a product that sums over the keys, in place.
template <class E>
inline const E* round_weights(const AttentionItem& t, Size rows, Size until, float* weights) {
    if constexpr (Element<E>::NUMBERS > 1)
        for (Size r = 0; r < rows; ++r) {
            float* row = weights + r * t.score_stride;
            for (Size i = 0; i < until; i += W) store(as<Bf16>(row) + i, load(row + i));
        }
    return as<E>(weights);
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

template <class E, class T>
void attention_item(const AttentionInputs<T>& in, const AttentionItem& t, T* out, float* logsumexp, float rate,
                    const DropoutFactors& factors) {
    const Size block_rows = round_up(t.block_queries * t.heads_per_kv, TILE_ROWS), block_size = block_rows * t.padded_size;
    const Size panels_size = round_up(t.keys, TILE_COLUMNS) * t.padded_size, keys_size = round_up(t.keys, W) * t.padded_size;
    const auto [scores, key_panels, values, queries, block_out, sums] =
        workspace({block_rows * t.score_stride, panels_size, keys_size, block_size, block_size, block_rows});
    const T *k = in.k + t.first_key * in.k_stride + t.kv_head * t.head_size;
    const T *v = in.v + t.first_key * in.v_stride + t.kv_head * t.head_size;
    pack_panels<E>(t, k, in.k_stride, values, key_panels);
    pack_keys<E>(t, v, in.v_stride, values);
    for (Size query = t.begin; query < t.end; query += t.block_queries) {
        const Size rows = t.rows(query), until = round_up(t.visible_keys(query, rows), W);
        pack_block(t, query, rows, in.q, in.q_stride, in.scale, as<typename Element<E>::Number>(queries));
        multiply_keys(t, query, rows, as<const E>(queries), as<const E>(key_panels), scores);
        float* row_sums = sums;
        for (Size r = 0; r < rows; ++r) {
            float max_score, *row = scores + r * t.score_stride;
            row_sums[r] = exponentiate(row, t.visible_keys(query + r / t.heads_per_kv), until, max_score);
            logsumexp[t.stats_offset(query, r)] = max_score + std::log(row_sums[r]);
            if (rate > 0)
                for (Size i = 0; i < until; i += W)
                    store(row + i, load(row + i) * factors.at(t.dropout_index(query, r) + i));
        }
        multiply_values(t, query, rows, round_weights<E>(t, rows, until, scores), as<const E>(values), block_out);
        for (Size r = 0; r < rows; ++r)
            store_row(block_out + r * t.padded_size, 1.0f / row_sums[r], t.head_size, out + t.offset(query, r));
    }
}

template <class T>
void varlen_attention(const AttentionInputs<T>& in, T* out, float* logsumexp, float rate, std::uint64_t seed) {
    const DropoutFactors factors(rate, seed);
    const std::vector<AttentionItem> items = make_items(in);
    parallel_for(items.size(), [&](Size i) {
        if (items[i].keys < PAIRED_KEYS) attention_item<float>(in, items[i], out, logsumexp, rate, factors);
        else attention_item<ElementOf<T>>(in, items[i], out, logsumexp, rate, factors);
    });
}

}  // namespace
}  // namespace lmworks::ISA
