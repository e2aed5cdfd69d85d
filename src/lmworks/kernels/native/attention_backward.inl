// The backward pass of attention; see attention.inl.
#pragma once

#include "attention.inl"

namespace lmworks::ISA {
namespace {

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

// out (keys, padded_size) += weights^T times x (rows, padded_size), without the rows that do not attend to a key; the
// elements of weights and x are numbers of one row, or pairs of numbers of two rows
template <class E>
inline void add_transposed_product(const AttentionItem& t, Size query, Size rows, const E* weights, const E* x, float* out) {
    constexpr Size NUMBERS = Element<E>::NUMBERS;
    const Size block_keys = t.visible_keys(query, rows), depth = (rows + NUMBERS - 1) / NUMBERS;
    for (Size key = 0; key < block_keys; key += TILE_ROWS) {
        const Size begin = t.causal ? std::max<Size>(0, key - query) * t.heads_per_kv / NUMBERS : 0;
        for (Size j = 0; j < t.padded_size; j += TILE_COLUMNS)
            gemm_tile(weights + begin * t.score_stride + key, 1, t.score_stride, x + begin * t.padded_size + j,
                      t.padded_size, out + key * t.padded_size + j, t.padded_size,
                      std::min(TILE_COLUMNS, t.padded_size - j), depth - begin, true);
    }
}

// The rows of a block (rows, until), ``stride`` apart, as elements of a product that sums over the rows: x itself, or
// pairs of rows, written to ``pairs``.
template <class E>
inline const E* pair_rows(Size rows, Size until, const float* x, Size stride, float* pairs) {
    if constexpr (Element<E>::NUMBERS == 1) return x;
    else {
        for (Size r = 0; r < rows; r += 2)
            for (Size i = 0; i < until; i += W) {
                const float* first = x + r * stride + i;
                store(as<E>(pairs) + r / 2 * stride + i, bf16_pairs(load(first), r + 1 < rows ? load(first + stride) : Vec{}));
            }
        return as<const E>(pairs);
    }
}

// The rows of a block of q or dout (head_size each) as elements of a product that sums over the rows.
template <class E>
inline const E* pair_block(const AttentionItem& t, Size rows, float* block, float* pairs) {
    if constexpr (Element<E>::NUMBERS == 1) return block;
    else {
        pack_row_pairs(as<Bf16>(block), t.padded_size, rows, t.padded_size, as<E>(pairs), t.padded_size);
        return as<const E>(pairs);
    }
}

// The arrays of a work item that are used again for each of its blocks.
struct BackwardWorkspace {
    float *weights, *dscores, *weight_pairs, *dscore_pairs, *key_panels, *value_panels, *keys, *queries, *douts, *query_pairs,
        *dout_pairs, *dqueries;

    template <class E>
    static BackwardWorkspace of(const AttentionItem& t) {
        const Size rows = round_up(t.block_queries * t.heads_per_kv, TILE_ROWS), block = rows * t.padded_size;
        const Size scores = rows * t.score_stride, panels = round_up(t.keys, TILE_COLUMNS) * t.padded_size;
        constexpr bool PAIRED = Element<E>::NUMBERS > 1;
        const auto [w, ds, wp, dsp, kp, vp, k, q, d, qp, dp, dq] =
            workspace({scores, scores, PAIRED * scores / 2, PAIRED * scores / 2, panels, panels,
                       round_up(t.keys, W) * t.padded_size, block, block, PAIRED * block / 2, PAIRED * block / 2, block});
        return {w, ds, wp, dsp, kp, vp, k, q, d, qp, dp, dq};
    }
};

// Writes dq of the work item's queries; adds the work item's contributions to dkeys and dvalues (keys, padded_size).
template <class E, class T>
void attention_backward_item(const AttentionInputs<T>& in, const AttentionItem& t, const AttentionGradients<T>& g,
                             float* dkeys, float* dvalues, float rate, const DropoutFactors& factors) {
    using Number = typename Element<E>::Number;
    const BackwardWorkspace s = BackwardWorkspace::of<E>(t);
    const T *k = in.k + t.first_key * in.k_stride + t.kv_head * t.head_size;
    const T *v = in.v + t.first_key * in.v_stride + t.kv_head * t.head_size;
    pack_panels<E>(t, v, in.v_stride, s.keys, s.value_panels);
    pack_panels<E>(t, k, in.k_stride, s.keys, s.key_panels);
    pack_keys<E>(t, k, in.k_stride, s.keys);
    for (Size query = t.begin; query < t.end; query += t.block_queries) {
        const Size rows = t.rows(query), until = round_up(t.visible_keys(query, rows) + TILE_ROWS, W);
        pack_block(t, query, rows, in.q, in.q_stride, in.scale, as<Number>(s.queries));
        pack_block(t, query, rows, g.dout, t.heads * t.head_size, 1.0f, as<Number>(s.douts));
        multiply_keys(t, query, rows, as<const E>(s.queries), as<const E>(s.key_panels), s.weights);
        multiply_keys(t, query, rows, as<const E>(s.douts), as<const E>(s.value_panels), s.dscores);
        for (Size r = 0; r < rows; ++r) {
            const T *out = g.out + t.offset(query, r), *dout = g.dout + t.offset(query, r);
            Vec delta{};  // dout . out
            for_each_vector(t.head_size, [&](Size i, int n) { delta += load_n(out + i, n) * load_n(dout + i, n); });
            softmax_backward(s.weights + r * t.score_stride, s.dscores + r * t.score_stride,
                             t.visible_keys(query + r / t.heads_per_kv), until, g.logsumexp[t.stats_offset(query, r)],
                             reduce_sum(delta), rate, factors, t.dropout_index(query, r));
        }
        const E* weights = pair_rows<E>(rows, until, s.weights, t.score_stride, s.weight_pairs);
        const E* dscores = pair_rows<E>(rows, until, s.dscores, t.score_stride, s.dscore_pairs);
        add_transposed_product(t, query, rows, dscores, pair_block<E>(t, rows, s.queries, s.query_pairs), dkeys);
        add_transposed_product(t, query, rows, weights, pair_block<E>(t, rows, s.douts, s.dout_pairs), dvalues);
        multiply_values(t, query, rows, round_weights<E>(t, rows, until, s.dscores), as<const E>(s.keys), s.dqueries);
        for (Size r = 0; r < rows; ++r)
            store_row(s.dqueries + r * t.padded_size, in.scale, t.head_size, g.dq + t.offset(query, r));
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

// Writes dq of a work item's queries; adds to its gradients of keys and values, dkeys and then dvalues.
template <class T>
void add_key_gradients(const AttentionInputs<T>& in, const AttentionItem& t, const AttentionGradients<T>& g, float* gradients,
                       float rate, const DropoutFactors& factors) {
    float *dkeys = gradients, *dvalues = gradients + t.key_gradient_size();
    if (t.keys < PAIRED_KEYS) attention_backward_item<float>(in, t, g, dkeys, dvalues, rate, factors);
    else attention_backward_item<ElementOf<T>>(in, t, g, dkeys, dvalues, rate, factors);
}

// Writes dq, dk and dv of a sequence that is one work item.
template <class T>
void short_attention_backward(const AttentionInputs<T>& in, const AttentionItem& t, const AttentionGradients<T>& g, float rate,
                              const DropoutFactors& factors) {
    thread_local std::vector<float> gradients;
    gradients.assign(2 * t.key_gradient_size(), 0.0f);
    add_key_gradients(in, t, g, gradients.data(), rate, factors);
    store_key_gradients(in, t, g, gradients.data(), gradients.data() + t.key_gradient_size());
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
        if (t.parts == 1) return short_attention_backward(in, t, g, rate, factors);
        part_gradients[i].assign(2 * t.key_gradient_size(), 0.0f);
        add_key_gradients(in, t, g, part_gradients[i].data(), rate, factors);
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
