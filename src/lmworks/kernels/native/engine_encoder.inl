// A pass of an encoder: whole texts go through all layers, each token attending to all tokens of its text (engine_encoder.hpp).
// Every thread of a team runs encode_texts(); a team of one never waits. Products read T: float32, or bfloat16, to which
// their inputs, queries, keys and values are rounded; sums, norms and what the layers add to are float32. Each sum has an
// order of its own, whichever texts are beside and whichever thread computes it.
#pragma once

#include <optional>
#include <type_traits>
#include <vector>

#include "attention.inl"
#include "engine.inl"
#include "engine_encoder.hpp"
#include "rowwise.inl"

namespace lmworks::ISA {
namespace {

constexpr int PAIR_TOKENS = W == 16 ? 8 : W == 8 ? 2 : 1;  // that are multiplied at once: as many as registers allow
static_assert(PAIR_TOKENS <= SPARE_TOKENS && MATRIX_TILE <= SPARE_TOKENS);

// Numbers as the products without tiles read them: float32, or pairs of bfloat16.
template <class T>
using ProductElement = std::conditional_t<std::is_same_v<T, Bf16>, Bf16Pair, float>;

// y (PAIR_TOKENS, PAIR) = or += x (PAIR_TOKENS, depth) times GROUPS groups of a matrix.
template <int GROUPS, class E>
void multiply_pair(const E* x, Size stride, const E* weights, Size group_stride, Size depth, bool adds, float* y) {
    constexpr int VECTORS = GROUPS * PARTS;
    Vec sums[PAIR_TOKENS][VECTORS];
#pragma GCC unroll 8
    for (int token = 0; token < PAIR_TOKENS; ++token)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sums[token][v] = adds ? load(y + token * PAIR + v * W) : Vec{};
    for (Size column = 0; column < depth; ++column, weights += GROUP) {
        decltype(load(weights)) columns[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) columns[v] = load(weights + v / PARTS * group_stride + v % PARTS * W);
#pragma GCC unroll 8
        for (int token = 0; token < PAIR_TOKENS; ++token) {
            const E own = load_element(x + token * stride + column);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[token][v] = add_product(sums[token][v], own, columns[v]);
        }
    }
#pragma GCC unroll 8
    for (int token = 0; token < PAIR_TOKENS; ++token)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) store(y + token * PAIR + v * W, sums[token][v]);
}

template <class T>
class EncoderPass {
public:
    EncoderPass(const Decoder& encoder, const EncoderTexts& texts, EncoderBuffers& shared, EncoderBuffers& own, Team& team,
                int thread)
        : encoder_(encoder), texts_(texts), tokens_(texts.tokens()), hidden_(encoder.hidden), x_(shared.x.data()),
          logsumexp_(shared.logsumexp.data()), input_(as_rows(shared.input)), q_(as_rows(shared.q)), k_(as_rows(shared.k)),
          v_(as_rows(shared.v)), mixed_(as_rows(shared.mixed)), inner_(as_rows(shared.inner)), results_(own.results.data()),
          row_(own.row.data()), team_(team, thread), attention_items_(make_items(attention_inputs())) {
        for (Size text = 0; text < texts.texts(); ++text)
            for (Size place = 0; place < texts.cu_seqlens[text + 1] - texts.cu_seqlens[text]; ++place) positions_.push_back(place);
    }

    void run() {
        const bool post = encoder_.encoder.post_norm;
        const auto depth = encoder_.encoder.depth, layers = static_cast<Size>(encoder_.layers.size());
        embed();
        settle(nullptr, post ? nullptr : &encoder_.layers.front().input);
        for (Size number = 0; number < depth; ++number) {
            const EngineLayer& layer = encoder_.layers[static_cast<std::size_t>(number * layers / depth)];
            const bool is_last = number + 1 == depth;
            const EngineNorm& next = is_last ? encoder_.norm : encoder_.layers[static_cast<std::size_t>((number + 1) * layers / depth)].input;
            attention(layer);
            settle(post ? &layer.input : nullptr, post ? nullptr : &layer.post_attention);
            feed_forward(layer);
            if (!is_last) settle(post ? &layer.post_attention : nullptr, post ? nullptr : &next);
            else finish(post ? layer.post_attention : next);
        }
    }

private:
    const Decoder& encoder_;
    const EncoderTexts& texts_;
    const Size tokens_, hidden_;
    float *const x_, *const logsumexp_;
    T *const input_, *const q_, *const k_, *const v_, *const mixed_, *const inner_;
    float *const results_, *const row_;
    TeamThread team_;
    const std::vector<AttentionItem> attention_items_;
    std::vector<Size> positions_;  // of each token in its text

    static T* as_rows(Buffer<std::uint8_t>& buffer) { return reinterpret_cast<T*>(buffer.data()); }

    template <class Body>
    void for_each_own_token(Body body) const {
        const auto [begin, end] = team_.share(tokens_);
        for (Size token = begin; token < end; ++token) body(token);
    }

    void normalize_row(const EngineNorm& norm, const float* x, float* y, Size size) const {
        normalize(norm, encoder_.layer_norm, encoder_.eps, x, y, size);
    }

    static void round_row(const float* from, Size size, T* to) {
        for_each_vector(size, [&](Size i, int n) { store_n(to + i, load_n(from + i, n), n); });
    }

    // The sum of a token's embeddings, normed, as wide as the layers.
    void embed() {
        const Size width = encoder_.width();
        const EncoderParts& parts = encoder_.encoder;
        const bool is_widened = parts.embed_project.exists();
        for_each_own_token([&](Size token) {
            const float* table = parts.embed_tokens.data() + texts_.ids[token] * width;
            const float* place = encoder_.embed_positions.empty() ? nullptr : encoder_.embed_positions.data() + positions_[token] * width;
            float* x = is_widened ? row_ : x_ + token * hidden_;
            for_each_vector(width, [&](Size i, int n) {
                Vec sum = load_n(table + i, n) * encoder_.embedding_scale;
                if (place) sum += load_n(place + i, n);
                store_n(x + i, sum, n);
            });
            if (encoder_.embed_norm.exists()) normalize_row(encoder_.embed_norm, x, x, width);
            if (is_widened) round_row(x, width, input_ + token * width);
        });
        team_.meet();
        if (!is_widened) return;
        product(parts.embed_project, input_, [&](Size token, Size i, Vec v, int n) { store_n(x_ + token * hidden_ + i, v, n); });
        team_.meet();
    }

    // Norms x in place, where there is ``after``, and writes it as the next products read it, normed by ``before`` them.
    void settle(const EngineNorm* after, const EngineNorm* before) {
        for_each_own_token([&](Size token) {
            float *x = x_ + token * hidden_, *read = x;
            if (after) normalize_row(*after, x, x, hidden_);
            if (before) normalize_row(*before, x, read = row_, hidden_);
            round_row(read, hidden_, input_ + token * hidden_);
        });
        team_.meet();
    }

    void finish(const EngineNorm& norm) {
        for_each_own_token([&](Size token) { normalize_row(norm, x_ + token * hidden_, texts_.hidden + token * hidden_, hidden_); });
        team_.meet();  // the next texts may share the buffers
    }

    // A pair of a matrix's groups times x (tokens, columns); ``take(token, row, values, n)`` gets n results from a row on.
    template <class Take>
    void multiply_rows(const WeightMatrix& matrix, const T* x, Size pair, Take take) {
        const bool in_tiles = std::is_same_v<T, Bf16> && matrix.columns % MATRIX_TILE_DEPTH == 0 && has_tiles();
        std::optional<TileScope> tiles;
        if (in_tiles) tiles.emplace();
        const Size row = pair * PAIR, rows = std::min(PAIR, matrix.rows - row);
        if (rows > GROUP) multiply_groups<2>(matrix, 2 * pair, x, in_tiles);
        else multiply_groups<1>(matrix, 2 * pair, x, in_tiles);
        for (Size token = 0; token < tokens_; ++token)
            for_each_vector(rows, [&](Size i, int n) {
                Vec v = load(results_ + token * PAIR + i);
                if (!matrix.bias.empty()) v += load_n(matrix.bias.data() + row + i, n);
                take(token, row + i, v, n);
            });
    }

    static Size pairs_of_rows(const WeightMatrix& matrix) { return (matrix.rows + PAIR - 1) / PAIR; }

    // Those rows of a product that this thread takes.
    template <class Take>
    void product(const WeightMatrix& matrix, const T* x, Take take) {
        team_.take_pieces(pairs_of_rows(matrix), 1, [&](Size pair, Size) { multiply_rows(matrix, x, pair, take); });
    }

    // results (tokens, PAIR) = x (tokens, columns) times some groups of a matrix, from number ``group`` on.
    template <int GROUPS>
    void multiply_groups(const WeightMatrix& matrix, Size group, const T* x, bool in_tiles) {
        using E = ProductElement<T>;
        constexpr Size NUMBERS = sizeof(E) / sizeof(T);
        const Size columns = matrix.columns, group_stride = matrix.group_bytes() / static_cast<Size>(sizeof(T));
        const T* weights = reinterpret_cast<const T*>(matrix.data) + group * group_stride;
        for (Size column = 0; column < columns; column += TILE_COLUMNS_AT_ONCE) {
            const Size depth = std::min(TILE_COLUMNS_AT_ONCE, columns - column);
            const T *own = x + column, *part = weights + column * GROUP;
            if constexpr (std::is_same_v<T, Bf16>) {
                if (in_tiles) {
                    multiply_rows_of_tiles<GROUPS>(TileRows::plain(own, columns), tokens_, reinterpret_cast<const Bf16Pair*>(part),
                                                   group_stride / 2, depth, column > 0, results_, PAIR);
                    continue;
                }
            }
            for (Size token = 0; token < tokens_; token += PAIR_TOKENS)
                multiply_pair<GROUPS>(reinterpret_cast<const E*>(own + token * columns), columns / NUMBERS,
                                      reinterpret_cast<const E*>(part), group_stride / NUMBERS, depth / NUMBERS, column > 0,
                                      results_ + token * PAIR);
        }
    }

    void add_to_x(const WeightMatrix& matrix, const T* x) {
        product(matrix, x, [&](Size token, Size i, Vec v, int n) {
            float* sum = x_ + token * hidden_ + i;
            store_n(sum, load_n(sum, n) + v, n);
        });
        team_.meet();
    }

    void attention(const EngineLayer& layer) {
        const Size q_size = encoder_.q_size(), kv_size = encoder_.kv_size();
        const auto store_in = [](T* rows, Size size) {
            return [=](Size token, Size i, Vec v, int n) { store_n(rows + token * size + i, v, n); };
        };
        product(layer.q_proj, input_, store_in(q_, q_size));
        product(layer.k_proj, input_, store_in(k_, kv_size));
        product(layer.v_proj, input_, store_in(v_, kv_size));
        team_.meet();
        if (layer.q.exists() || layer.k.exists() || encoder_.rotary_size > 0) {
            for_each_own_token([&](Size token) {
                place_heads(layer.q, positions_[token], q_ + token * q_size, encoder_.heads);
                place_heads(layer.k, positions_[token], k_ + token * kv_size, encoder_.kv_heads);
            });
            team_.meet();
        }
        const AttentionInputs<T> inputs = attention_inputs();
        const DropoutFactors none(0.0f, 0);
        team_.take_pieces(static_cast<Size>(attention_items_.size()), 1, [&](Size number, Size) {
            const AttentionItem& item = attention_items_[static_cast<std::size_t>(number)];
            if (item.keys < PAIRED_KEYS) attention_item<float>(inputs, item, mixed_, logsumexp_, 0.0f, none);
            else attention_item<ElementOf<T>>(inputs, item, mixed_, logsumexp_, 0.0f, none);
        });
        team_.meet();
        add_to_x(layer.o_proj, mixed_);
    }

    AttentionInputs<T> attention_inputs() const {
        const Size q_size = encoder_.q_size(), kv_size = encoder_.kv_size();
        const std::int64_t* cu_seqlens = texts_.cu_seqlens.data();
        return {q_, k_, v_, q_size, kv_size, kv_size, cu_seqlens, cu_seqlens, texts_.texts(), encoder_.heads, encoder_.kv_heads,
                encoder_.head_size, encoder_.attention_scale, false};
    }

    // Norms and rotates the heads of a token.
    void place_heads(const EngineNorm& norm, Size position, T* heads, Size count) const {
        const Size size = encoder_.head_size;
        for (Size head = 0; head < count; ++head, heads += size) {
            for_each_vector(size, [&](Size i, int n) { store_n(row_ + i, load_n(heads + i, n), n); });
            if (norm.exists()) normalize_row(norm, row_, row_, size);
            if (encoder_.rotary_size > 0) rotate_head(encoder_, encoder_.rotary, position, row_);
            round_row(row_, size, heads);
        }
    }

    void feed_forward(const EngineLayer& layer) {
        const Size size = encoder_.inner;
        const bool is_gated = layer.gate_proj.exists();
        const auto activate_into = [&](Size token, Size i, Vec v, int n) {
            Vec derivative;
            store_n(inner_ + token * size + i, activation(encoder_.activation, v, derivative), n);
        };
        const auto multiply_into = [&](Size token, Size i, Vec v, int n) {
            T* inner = inner_ + token * size + i;
            store_n(inner, load_n(inner, n) * v, n);
        };
        team_.take_pieces(pairs_of_rows(layer.up_proj), 1, [&](Size pair, Size) {  // both by one thread: the second reads what the first wrote
            multiply_rows(is_gated ? layer.gate_proj : layer.up_proj, input_, pair, activate_into);
            if (is_gated) multiply_rows(layer.up_proj, input_, pair, multiply_into);
        });
        team_.meet();
        add_to_x(layer.down_proj, inner_);
    }
};

void encode_texts(const Decoder& encoder, const EncoderTexts& texts, EncoderBuffers& shared, EncoderBuffers& own, Team& team,
                  int thread) {
    if (encoder.layers.front().q_proj.kind == BF16_WEIGHTS) EncoderPass<Bf16>(encoder, texts, shared, own, team, thread).run();
    else EncoderPass<float>(encoder, texts, shared, own, team, thread).run();
}

}  // namespace
}  // namespace lmworks::ISA
