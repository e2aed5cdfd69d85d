// One step of a decoder: some tokens, each appended to its sequence, pass through all layers. Every thread of a team runs
// decoder_step(); they share each product's rows, with a barrier where one needs what another has computed. The order of
// all sums is the same for any number of threads and, where no tiles multiply, for any other tokens of the step.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine_adapters.inl"
#include "engine_attention.inl"

namespace lmworks::ISA {
namespace {

// x, y (size): LayerNorm (Ba et al. 2016) where ``centers``, else RMSNorm (Zhang & Sennrich 2019, eq. 4); y may be x.
void normalize(const EngineNorm& norm, bool centers, float eps, const float* x, float* y, Size size) {
    Vec sum{};
    for_each_vector(size, [&](Size i, int n) { sum += load_n(x + i, n); });
    const float mean = centers ? reduce_sum(sum) / static_cast<float>(size) : 0.0f;
    Vec squares{};
    for_each_vector(size, [&](Size i, int n) {
        const Vec d = n == W ? load(x + i) - mean : load_partial(x + i, n, mean) - mean;
        squares += d * d;
    });
    const float scale = 1.0f / std::sqrt(reduce_sum(squares) / static_cast<float>(size) + eps);
    for_each_vector(size, [&](Size i, int n) {
        Vec v = (load_n(x + i, n) - mean) * scale * load_n(norm.weight.data() + i, n);
        if (!norm.bias.empty()) v += load_n(norm.bias.data() + i, n);
        store_n(y + i, v, n);
    });
}

// Gemma 2's soft cap; a cap of 0 is none.
float apply_softcap(float x, float cap) { return cap > 0.0f ? cap * std::tanh(x / cap) : x; }

// Rotates the pairs (i, i + rotary_size / 2) of a head (Su et al. 2021, eq. 34).
void rotate_head(const Decoder& decoder, const RotaryTable& table, Size position, float* head) {
    const Size half = decoder.rotary_size / 2;
    const float *cos = table.cos.data() + position * half, *sin = table.sin.data() + position * half;
    for (Size i = 0; i < half; ++i) {
        const float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i] + first * sin[i];
    }
}

constexpr Size PIECES = 8;  // of a product, for each thread

class Step {
public:
    Step(const Decoder& decoder, const StepToken* tokens, Size count, StepBuffers& buffers, Team& team, int thread)
        : decoder_(decoder), tokens_(tokens), count_(count), buffers_(buffers), team_(team, thread), thread_(thread),
          adapters_(tokens, count, rows_for(count), buffers.rank) {}

    void run() {
        embed();
        for (std::size_t number = 0; number < decoder_.layers.size(); ++number) {
            const EngineLayer& layer = decoder_.layers[number];
            layer_ = static_cast<Size>(number);
            attention(layer, static_cast<Size>(number));
            feed_forward(layer);
        }
        head();
    }

private:
    const Decoder& decoder_;
    const StepToken* tokens_;
    const Size count_;
    StepBuffers& buffers_;
    TeamThread team_;
    const int thread_;
    const StepAdapters adapters_;
    Size layer_ = 0;  // index of the layer that is being computed

    void embed() {
        const auto [begin, end] = team_.share(count_);
        for (Size token = begin; token < end; ++token) {
            float* x = buffers_.x.data() + token * decoder_.hidden;
            unpack_row(decoder_.embed_tokens, tokens_[token].id, x);
            for (Size i = 0; i < decoder_.hidden; ++i) x[i] *= decoder_.embedding_scale;
            if (!decoder_.embed_positions.empty()) {
                const float* added = decoder_.embed_positions.data() + tokens_[token].position * decoder_.hidden;
                for (Size i = 0; i < decoder_.hidden; ++i) x[i] += added[i];
            }
            if (decoder_.embed_norm.exists()) norm(decoder_.embed_norm, x, x, decoder_.hidden);
        }
        team_.meet();
    }

    void norm(const EngineNorm& norm, const float* x, float* y, Size size) const {
        normalize(norm, decoder_.layer_norm, decoder_.eps, x, y, size);
    }

    // Elements of an input that share a scale, for the matrices that read it; 0 where all of these are dense.
    static Size block_for(std::initializer_list<const WeightMatrix*> matrices) {
        Size block = 0;
        for (const WeightMatrix* matrix : matrices)
            if (matrix->is_quantized()) block = std::max(block, block_columns(matrix->kind));
        return block;
    }

    // Where the inputs of products with so many tokens are written: of one, each thread writes its own copy.
    StepBuffers::Rows& rows_for(Size count) const {
        return count == 1 ? buffers_.own[static_cast<std::size_t>(thread_)] : buffers_.shared;
    }

    // Writes the vectors ``in(0)`` ... ``in(count - 1)`` (size) as products read them: normed, if the norm exists, times
    // ``scale``, and rounded as ``block``, of block_for(), says. Then the products of the first factors of adapters with
    // them, for the ``linears`` that read them.
    template <class In>
    Vectors prepare(const EngineNorm& before, Size count, Size size, Size block, float scale, In in,
                    std::initializer_list<BlockLinearIndex> linears = {}) {
        const bool alone = count == 1;
        const bool in_tiles = block > 0 && count >= fewest_tile_vectors(block) && size % MATRIX_TILE_DEPTH == 0 && has_tiles();
        StepBuffers::Rows& rows = rows_for(count);
        const Size blocks = size / QUANT_BLOCK, wide_blocks = size / TERNARY_BLOCK;
        const auto [begin, end] = alone ? std::pair<Size, Size>{0, 1} : team_.share(count);
        for (Size row = begin; row < end; ++row) {
            float* normed = rows.normed.data() + row * size;
            const float* vector = before.exists() || block == 0 || scale != 1.0f || adapters_.exist() ? normed : in(row);
            if (before.exists()) norm(before, in(row), normed, size);
            else if (vector == normed) std::copy_n(in(row), size, normed);
            if (scale != 1.0f)
                for (Size i = 0; i < size; ++i) normed[i] *= scale;
            if (in_tiles) put_in_tiles(vector, row, size, rows.halves.data());
            if (block > 0 && (!in_tiles || adapters_.exist()))
                quantize_vector(vector, size, block, rows.quantized.numbers.data() + row * size,
                                rows.quantized.scales.data() + row * blocks, rows.quantized.sums.data() + row * blocks,
                                rows.quantized.totals.data() + row * wide_blocks);
        }
        const Vectors x{rows.normed.data(), rows.quantized.numbers.data(), rows.quantized.scales.data(),
                        rows.quantized.sums.data(), rows.quantized.totals.data(), in_tiles ? rows.halves.data() : nullptr, size};
        adapters_.lower(layer_, linears, x, begin, end);
        if (!alone) team_.meet();
        return x;
    }

    // Calls compute(begin, end) for groups of rows of matrices that are multiplied with so many vectors; all groups of all
    // threads are each taken once.
    template <class Compute>
    void take_groups(Size groups, Size count, Compute compute) {
        if (count == 1) {  // weights are fetched ahead, also behind the end of a piece
            const auto [begin, end] = team_.share(groups);
            compute(begin, end);
        } else {
            const Size pairs = groups / (2 * PIECES * team_.threads());  // tiles take two groups at a time
            team_.take_pieces(groups, 2 * std::max<Size>(pairs, 1), compute);
        }
    }

    // Groups begin ... end - 1 of a matrix times ``count`` vectors, by whatever is fastest for so many, plus the adapters' terms
    // of the linear; BLOCK_LINEARS: of none. take(token, row, rows, values): gets the results of some rows.
    template <class Take>
    void multiply_groups(const WeightMatrix& matrix, const Vectors& x, Size count, Size begin, Size end, Take take,
                         BlockLinearIndex linear = BLOCK_LINEARS) {
        const bool is_adapted = adapters_.exist() && linear != BLOCK_LINEARS;
        const auto take_adapted = [&](Size token, Size row, Size rows, float* values) {
            for (Size group = 0; is_adapted && group < rows; group += GROUP) adapters_.add(layer_, linear, token, row + group, values + group);
            take(token, row, rows, values);
        };
        if (is_adapted && begin < end) adapters_.fetch_rows(layer_, linear, begin * GROUP);
        if (x.halves != nullptr && matrix.is_quantized())
            multiply_in_tiles(matrix, x.halves, count, begin, end, buffers_.tiles[static_cast<std::size_t>(thread_)].data(), take_adapted);
        else
            multiply(matrix, x, count, begin, end, take_adapted);
    }

    // The same of those groups that this thread takes.
    template <class Take>
    void multiply_share(const WeightMatrix& matrix, const Vectors& x, Size count, Take take, BlockLinearIndex linear = BLOCK_LINEARS) {
        take_groups(matrix.groups(), count, [&](Size begin, Size end) { multiply_groups(matrix, x, count, begin, end, take, linear); });
    }

    // Writes those rows of the product that this thread takes to ``out`` (tokens, rows of the matrix).
    void product(const WeightMatrix& matrix, const Vectors& x, float* out, BlockLinearIndex linear) {
        multiply_share(matrix, x, count_, [&](Size token, Size row, Size rows, const float* values) {
            std::copy_n(values, rows, out + token * matrix.rows + row);
        }, linear);
    }

    // Adds matrix * x, normed where a norm follows, to the residual stream.
    void add_to_residual(const WeightMatrix& matrix, const Vectors& x, const EngineNorm& after, BlockLinearIndex linear) {
        const Size hidden = decoder_.hidden;
        if (!after.exists()) {
            multiply_share(matrix, x, count_, [&](Size token, Size row, Size rows, const float* values) {
                float* sum = buffers_.x.data() + token * hidden + row;
                for (Size i = 0; i < rows; ++i) sum[i] += values[i];
            }, linear);
            team_.meet();
            return;
        }
        product(matrix, x, buffers_.part.data(), linear);
        team_.meet();
        const auto [begin, end] = team_.share(count_);
        for (Size token = begin; token < end; ++token) {
            float *part = buffers_.part.data() + token * hidden, *sum = buffers_.x.data() + token * hidden;
            norm(after, part, part, hidden);
            for (Size i = 0; i < hidden; ++i) sum[i] += part[i];
        }
        team_.meet();
    }

    const float* residual(Size token) const { return buffers_.x.data() + token * decoder_.hidden; }

    void attention(const EngineLayer& layer, Size number) {
        const Size block = block_for({&layer.q_proj, &layer.k_proj, &layer.v_proj});
        const auto in = [&](Size token) { return residual(token); };
        const Vectors x = prepare(layer.input, count_, decoder_.hidden, block, 1.0f, in, {Q_PROJ, K_PROJ, V_PROJ});
        product(layer.q_proj, x, buffers_.q.data(), Q_PROJ);
        product(layer.k_proj, x, buffers_.k.data(), K_PROJ);
        product(layer.v_proj, x, buffers_.v.data(), V_PROJ);
        team_.meet();
        const auto [begin, end] = team_.share(count_ * decoder_.kv_heads);
        for (Size item = begin; item < end; ++item) append(layer, number, item / decoder_.kv_heads, item % decoder_.kv_heads);
        if (thread_ == 0 && shares_context()) buffers_.parts.reserve(count_ * decoder_.heads * most_parts(), decoder_.head_size);
        team_.meet();
        if (is_one_sequence() && count_ >= fewest_tile_vectors(block)) attend_in_blocks(layer, number);
        else attend_tokens(layer, number);
        team_.meet();
        const auto mixed = [&](Size token) { return buffers_.mixed.data() + token * decoder_.q_size(); };
        const Vectors values = prepare({}, count_, decoder_.q_size(), block_for({&layer.o_proj}), 1.0f, mixed, {O_PROJ});
        add_to_residual(layer.o_proj, values, layer.attention_output, O_PROJ);
    }

    const RotaryTable& table(const EngineLayer& layer) const { return layer.is_local ? decoder_.local_rotary : decoder_.rotary; }

    // A query or key of one head, normed where the model norms them, and rotated to its position.
    void norm_and_rotate(const EngineLayer& layer, const EngineNorm& before, Size position, float* head) const {
        if (before.exists()) norm(before, head, head, decoder_.head_size);
        if (decoder_.rotary_size > 0) rotate_head(decoder_, table(layer), position, head);
    }

    // Norms and rotates a token's key and queries of a key-value head, and appends key and value to its sequence.
    void append(const EngineLayer& layer, Size number, Size token, Size kv_head) {
        const Size position = tokens_[token].position, offset = token * decoder_.kv_size() + kv_head * decoder_.head_size;
        float* key = buffers_.k.data() + offset;
        norm_and_rotate(layer, layer.k, position, key);
        with_cache(*tokens_[token].sequence, number, kv_head,
                   [&](auto cached) { cached.append(position, key, buffers_.v.data() + offset); });
        float* queries = buffers_.q.data() + token * decoder_.q_size() + kv_head * heads_per_kv() * decoder_.head_size;
        for (Size head = 0; head < heads_per_kv(); ++head) norm_and_rotate(layer, layer.q, position, queries + head * decoder_.head_size);
    }

    // Calls use() with a CachedHead: the keys and values of a layer's key-value head, in the precision of the sequence.
    template <class Use>
    void with_cache(Sequence& sequence, Size number, Size kv_head, Use use) const {
        const Size head = number * decoder_.kv_heads + kv_head;
        switch (sequence.kind) {
            case F32_CACHE: return use(CachedHead<float>(sequence, head, decoder_.head_size));
            case F16_CACHE: return use(CachedHead<Half>(sequence, head, decoder_.head_size));
            default: return use(CachedHead<Int8>(sequence, head, decoder_.head_size));
        }
    }

    Size heads_per_kv() const { return decoder_.heads / decoder_.kv_heads; }
    // Whether the tokens are several of one sequence; else each is of another one.
    // A part has tokens of one sequence, or of several of which none follows itself (Engine::part_ends); those with one
    // adapter stand beside one another afterwards.
    bool is_one_sequence() const {
        const Sequence* first = tokens_[0].sequence;
        return count_ > 1 && tokens_[1].sequence == first && tokens_[count_ - 1].sequence == first;
    }

    // Queries of ``tokens`` tokens of one sequence, from ``token`` on, of some of the heads that share a key-value head.
    Queries queries_of(const EngineLayer& layer, Size token, Size tokens, Size kv_head, Size first_head, Size heads) const {
        const Size offset = token * decoder_.q_size() + (kv_head * heads_per_kv() + first_head) * decoder_.head_size;
        return {buffers_.q.data() + offset, buffers_.mixed.data() + offset, decoder_.q_size(), tokens_[token].position, tokens, heads,
                decoder_.head_size, layer.window, decoder_.attention_scale, decoder_.attention_softcap};
    }

    void attend_in_blocks(const EngineLayer& layer, Size number) {
        const Size heads = std::min(heads_per_kv(), ATTENTION_ROWS), tokens = ATTENTION_ROWS / heads;
        Size item = 0;
        for (Size token = 0; token < count_; token += tokens)
            for (Size kv_head = 0; kv_head < decoder_.kv_heads; ++kv_head)
                for (Size head = 0; head < heads_per_kv(); head += heads) {
                    if (item++ % team_.threads() != thread_) continue;
                    const Queries queries = queries_of(layer, token, std::min(tokens, count_ - token), kv_head, head, std::min(heads, heads_per_kv() - head));
                    with_cache(*tokens_[token].sequence, number, kv_head, [&](auto cached) {
                        attend_block_fast(cached, queries, buffers_.attention[static_cast<std::size_t>(thread_)]);
                    });
                }
    }

    // With few tokens threads share the context of each: otherwise some would have nothing to do.
    bool shares_context() const { return count_ * decoder_.kv_heads < 4 * team_.threads(); }

    // Parts of PART_KEYS keys of the longest sequence.
    Size most_parts() const {
        Size longest = 0;
        for (Size token = 0; token < count_; ++token) longest = std::max(longest, tokens_[token].position + 1);
        return (longest + PART_KEYS - 1) / PART_KEYS;
    }

    // An item is a token and a key-value head. Where threads share contexts, they first compute all parts of all items, and
    // each item's parts are joined behind a barrier; else a thread computes and joins the parts of an item one by one.
    void attend_tokens(const EngineLayer& layer, Size number) {
        const bool is_shared = shares_context();
        const Size items = count_ * decoder_.kv_heads, parts = is_shared ? most_parts() : 0, threads = team_.threads();
        const auto queries_at = [&](Size item) {
            return queries_of(layer, item / decoder_.kv_heads, 1, item % decoder_.kv_heads, 0, heads_per_kv());
        };
        const auto shared_result = [&](Size item, Size part) {
            const Size first_head = (item * parts + part) * heads_per_kv();
            return PartResult{buffers_.parts.softmax.data() + first_head, buffers_.parts.out.data() + first_head * decoder_.head_size};
        };
        const auto attend = [&](Size item, const Queries& queries, Size part, const PartResult& result) {
            with_cache(*tokens_[item / decoder_.kv_heads].sequence, number, item % decoder_.kv_heads,
                       [&](auto cached) { attend_part(cached, queries, part, result); });
        };
        const auto [begin, last] = team_.share(items * parts);
        for (Size piece = begin; piece < last; ++piece) {
            const Size item = piece / parts, part = piece % parts;
            const Queries queries = queries_at(item);
            const auto [first, end] = key_parts(queries);
            if (part >= first && part < end) attend(item, queries, part, shared_result(item, part));
        }
        if (is_shared) team_.meet();
        AttentionBuffers& scratch = buffers_.attention[static_cast<std::size_t>(thread_)];
        for (Size item = thread_; item < items; item += threads) {
            const Queries queries = queries_at(item);
            const PartResult all{scratch.softmax.data(), queries.out}, next{scratch.softmax.data() + queries.heads, scratch.out.data()};
            clear(queries, all);
            for (auto [part, end] = key_parts(queries); part < end; ++part) {
                if (!is_shared) attend(item, queries, part, next);
                join(queries, all, is_shared ? shared_result(item, part) : next);
            }
            divide_by_sums(queries, all);
        }
    }

    void feed_forward(const EngineLayer& layer) {
        const Size block = block_for({&layer.up_proj, &layer.gate_proj});
        const Vectors x = prepare(layer.post_attention, count_, decoder_.hidden, block, 1.0f,
                                  [&](Size token) { return residual(token); }, {GATE_PROJ, UP_PROJ});
        const Size inner_size = decoder_.inner;
        float* inner = buffers_.inner.data();
        const auto activate_into = [&](Size token, Size row, Size rows, const float* values) {
            float* out = inner + token * inner_size + row;
            for_each_vector(rows, [&](Size i, int n) {
                Vec derivative;
                store_n(out + i, activation(decoder_.activation, load_n(values + i, n), derivative), n);
            });
        };
        const auto multiply_into = [&](Size token, Size row, Size rows, const float* values) {
            float* out = inner + token * inner_size + row;
            for (Size i = 0; i < rows; ++i) out[i] *= values[i];
        };
        const bool gated = layer.gate_proj.exists();
        take_groups(layer.up_proj.groups(), count_, [&](Size begin, Size end) {  // both by one thread: the second reads what the first wrote
            multiply_groups(gated ? layer.gate_proj : layer.up_proj, x, count_, begin, end, activate_into, gated ? GATE_PROJ : UP_PROJ);
            if (gated) multiply_groups(layer.up_proj, x, count_, begin, end, multiply_into, UP_PROJ);
        });
        team_.meet();
        const Vectors active = prepare({}, count_, inner_size, block_for({&layer.down_proj}), 1.0f,
                                       [&](Size token) { return inner + token * inner_size; }, {DOWN_PROJ});
        add_to_residual(layer.down_proj, active, layer.mlp_output, DOWN_PROJ);
    }

    void head() {
        Size wanted[STEP_TOKENS], number = 0;
        for (Size token = 0; token < count_; ++token)
            if (tokens_[token].logits != nullptr) wanted[number++] = token;
        if (number == 0) return;
        const WeightMatrix& matrix = decoder_.head();
        const Vectors x = prepare(decoder_.norm, number, decoder_.hidden, block_for({&matrix}), decoder_.head_scale,
                                  [&](Size i) { return residual(wanted[i]); });
        multiply_share(matrix, x, number, [&](Size i, Size row, Size rows, const float* values) {
            float* out = tokens_[wanted[i]].logits + row;
            for (Size j = 0; j < rows; ++j) {
                const float bias = decoder_.head_bias.empty() ? 0.0f : decoder_.head_bias[static_cast<std::size_t>(row + j)];
                out[j] = apply_softcap(values[j] + bias, decoder_.logit_softcap);
            }
        });
    }
};

void decoder_step(const Decoder& decoder, const StepToken* tokens, Size count, StepBuffers& buffers, Team& team, int thread) {
    Step(decoder, tokens, count, buffers, team, thread).run();
}

}  // namespace
}  // namespace lmworks::ISA
