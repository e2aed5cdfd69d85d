// Attention over a sequence's cached keys and values, softmax(q K^T * scale) V (Vaswani et al. 2017, eq. 1): of single tokens,
// and of many tokens of one sequence by products of matrices. Both pass over the keys some at a time and join the parts
// (Milakov & Gimelshein 2018; Dao et al. 2022), so that room for scores does not grow with the context. All heads that share
// a key-value head are computed together: keys and values are read once for them.
#pragma once

#include <cmath>
#include <limits>

#include "engine_tiles.inl"
#include "gemm.inl"
#include "kv_cache.inl"

namespace lmworks::ISA {
namespace {

// scores (count) become e^(score - largest), and are added to the sum of the running softmax; returns the factor by which
// what was weighted before is to be multiplied.
float add_scores(float* scores, Size count, float softcap, Softmax& softmax) {
    Vec largest = broadcast(-std::numeric_limits<float>::infinity());
    for_each_vector(count, [&](Size i, int n) {
        Vec score = n == W ? load(scores + i) : load_partial(scores + i, n, -std::numeric_limits<float>::infinity());
        if (softcap > 0.0f) store_n(scores + i, score = softcap * tanh(score / softcap), n);
        largest = max(largest, score);
    });
    const float factor = softmax.raise(reduce_max(largest));
    Vec total{};
    for_each_vector(count, [&](Size i, int n) {
        const Vec weight = exp(load_n(scores + i, n) - softmax.largest);
        store_n(scores + i, weight, n);
        total += n == W ? weight : load_partial(scores + i, n);
    });
    softmax.sum += reduce_sum(total);
    return factor;
}

// The queries of the heads of one key-value head: of a token, or of tokens that follow one another in a sequence.
struct Queries {
    const float* q;  // of the first token's first head; its other heads follow
    float* out;      // the results, laid out as q
    Size stride;     // elements from one token to the next
    Size position;   // of the first token
    Size tokens, heads, size;  // size: of a head
    Size window;  // keys that a query attends to, its own included; 0: all
    float scale, softcap;

    Size first_key(Size token) const { return window > 0 ? std::max<Size>(0, position + token + 1 - window) : 0; }
    Size end(Size token) const { return position + token + 1; }
};

// --- single tokens

constexpr Size PART_KEYS = 64;  // of a part: the same for any number of threads, so that the joined result has the same bits
constexpr Size HEADS_AT_ONCE = 4;  // whose sums registers hold while a key is read

// The parts of the keys that a token attends to: the first, and the one behind the last.
std::pair<Size, Size> key_parts(const Queries& queries) {
    return {queries.first_key(0) / PART_KEYS, (queries.end(0) + PART_KEYS - 1) / PART_KEYS};
}

// Results of a part for each head: sums of values weighted by e^(score - largest).
struct PartResult {
    Softmax* softmax;  // (heads)
    float* out;        // (heads, size)
};

// Sets the result to that of no keys, before the first join().
void clear(const Queries& queries, const PartResult& all) {
    std::fill_n(all.softmax, queries.heads, Softmax{});
    std::fill_n(all.out, queries.heads * queries.size, 0.0f);
}

// After the last join(): all.out becomes the weighted means of the values.
void divide_by_sums(const Queries& queries, const PartResult& all) {
    for (Size i = 0; i < queries.heads * queries.size; ++i) all.out[i] /= all.softmax[i / queries.size].sum;
}

// Joins the next part's results to those of the parts before it.
void join(const Queries& queries, const PartResult& all, const PartResult& part) {
    for (Size head = 0; head < queries.heads; ++head) {
        Softmax &sum = all.softmax[head], &more = part.softmax[head];
        float *out = all.out + head * queries.size, *added = part.out + head * queries.size;
        const float before = sum.raise(more.largest), factor = std::exp(more.largest - sum.largest);
        sum.sum += more.sum * factor;
        for_each_vector(queries.size, [&](Size i, int n) { store_n(out + i, load_n(out + i, n) * before + load_n(added + i, n) * factor, n); });
    }
}

// HEADS heads from ``head`` on, to keys begin ... end - 1.
template <int HEADS, class Cached>
void attend_part_of_heads(const Cached& cached, const Queries& queries, Size begin, Size end, Size head, const PartResult& result) {
    alignas(64) float scores[HEADS * PART_KEYS];
    const Size first = std::max(begin, queries.first_key(0)), tile = first / GROUP * GROUP, skipped = first - tile;
    cached.template score<HEADS>(queries.q + head * queries.size, tile, end, queries.scale, scores, PART_KEYS);
    for (int i = 0; i < HEADS; ++i)
        add_scores(scores + i * PART_KEYS + skipped, end - first, queries.softcap, result.softmax[head + i] = Softmax{});
    cached.template mix<HEADS>(scores + skipped, PART_KEYS, first, end, result.out + head * queries.size);
}

// Attention of a token to the keys of a part.
template <class Cached>
void attend_part(const Cached& cached, const Queries& queries, Size part, const PartResult& result) {
    const Size begin = part * PART_KEYS, end = std::min(begin + PART_KEYS, queries.end(0));
    for (Size head = 0; head < queries.heads; head += HEADS_AT_ONCE)
        switch (std::min(HEADS_AT_ONCE, queries.heads - head)) {
            case 1: attend_part_of_heads<1>(cached, queries, begin, end, head, result); break;
            case 2: attend_part_of_heads<2>(cached, queries, begin, end, head, result); break;
            case 3: attend_part_of_heads<3>(cached, queries, begin, end, head, result); break;
            default: attend_part_of_heads<4>(cached, queries, begin, end, head, result);
        }
}

// --- many tokens of one sequence

static_assert(ATTENTION_ROWS % TILE_ROWS == 0 && ATTENTION_ROWS % MATRIX_TILE == 0 && ATTENTION_KEYS % TILE_COLUMNS == 0 &&
              ATTENTION_KEYS % MATRIX_TILE_DEPTH == 0);

// Products of a block of queries with keys, and of weights with values, in float32.
class FloatProducts {
public:
    FloatProducts(Size size, AttentionBuffers& buffers) : size_(size), padded_(round_up(size, W)), buffers_(buffers) {}

    Size stride() const { return padded_; }  // of results
    Size padded(Size keys) const { return keys; }

    void take_query(Size row, const float* q, float scale) {
        float* out = buffers_.queries.data() + row * padded_;
        for_each_vector(size_, [&](Size i, int n) { store_n(out + i, load_n(q + i, n) * scale, n); });
    }

    // Converts keys first ... first + keys - 1 to panels of TILE_COLUMNS keys, transposed as gemm_tile() reads them, and their
    // values to rows.
    template <class Cached>
    void take_keys(const Cached& cached, Size first, Size keys) {
        for (Size tile = 0; tile < keys; tile += GROUP)
            for (Size i = 0; i < size_; ++i) {
                const Lanes numbers = cached.key_numbers(first + tile, i);
                for (int part = 0; part < PARTS; ++part) {
                    const Size key = tile + part * W, panel = key / TILE_COLUMNS;
                    store(buffers_.keys.data() + (panel * size_ + i) * TILE_COLUMNS + key % TILE_COLUMNS, numbers.part[part]);
                }
            }
        for (Size key = 0; key < keys; ++key)
            for_each_vector(size_, [&](Size i, int n) {
                float* out = buffers_.values.data() + key * padded_ + i;
                if (n == W) return store(out, cached.value_numbers(first + key, i));
                store(out, Vec{});
                for (int lane = 0; lane < n; ++lane) out[lane] = cached.value_number(first + key, i + lane);
            });
    }

    void multiply_keys(Size rows, Size keys) {
        for (Size key = 0; key < keys; key += TILE_COLUMNS)
            for (Size row = 0; row < rows; row += TILE_ROWS)
                gemm_tile(buffers_.queries.data() + row * padded_, padded_, 1, buffers_.keys.data() + key * size_, TILE_COLUMNS,
                          buffers_.scores.data() + row * ATTENTION_KEYS + key, ATTENTION_KEYS, std::min(TILE_COLUMNS, keys - key), size_, false);
    }

    void take_weights(Size, Size) {}  // add_values() reads them where scores were

    void add_values(Size rows, Size keys) {
        for (Size column = 0; column < padded_; column += TILE_COLUMNS)
            for (Size row = 0; row < rows; row += TILE_ROWS)
                gemm_tile(buffers_.scores.data() + row * ATTENTION_KEYS, ATTENTION_KEYS, 1, buffers_.values.data() + column, padded_,
                          buffers_.out.data() + row * padded_ + column, padded_, std::min(TILE_COLUMNS, padded_ - column), keys, true);
    }

private:
    Size size_, padded_;
    AttentionBuffers& buffers_;
};

#if defined(LMWORKS_TILES)

// The same in tiles of bfloat16, for heads whose size divides into them.
class TileProducts {
public:
    TileProducts(Size size, AttentionBuffers& buffers)
        : size_(size), buffers_(buffers), queries_(reinterpret_cast<Bf16*>(buffers.queries.data())),
          weights_(reinterpret_cast<Bf16*>(buffers.weights.data())), keys_(reinterpret_cast<Bf16Pair*>(buffers.keys.data())),
          values_(reinterpret_cast<Bf16Pair*>(buffers.values.data())) {}

    static bool divide(Size size) { return size % MATRIX_TILE_DEPTH == 0; }
    Size stride() const { return size_; }
    Size padded(Size keys) const { return round_up(keys, MATRIX_TILE_DEPTH); }

    void take_query(Size row, const float* q, float scale) {
        for (Size i = 0; i < size_; i += W) store(queries_ + row * size_ + i, load(q + i) * scale);
    }

    // Converts keys to pairs of their elements, 16 keys at a time, and values to pairs of neighbouring positions, 16 columns at
    // a time; behind the last position zeros fill the tile.
    template <class Cached>
    void take_keys(const Cached& cached, Size first, Size keys) {
        Bf16Pair* out = keys_;
        for (Size tile = 0; tile < keys; tile += GROUP)
            for (Size i = 0; i < size_; i += 2, out += GROUP)
                store(out, pairs_of(cached.key_numbers(first + tile, i).part[0], cached.key_numbers(first + tile, i + 1).part[0]));
        const auto value = [&](Size key, Size column) { return key < keys ? cached.value_numbers(first + key, column) : Vec{}; };
        for (Size key = 0; key < padded(keys); key += 2)
            for (Size column = 0; column < size_; column += GROUP)
                store(values_ + column * ATTENTION_KEYS / 2 + key / 2 * GROUP, pairs_of(value(key, column), value(key + 1, column)));
    }

    void multiply_keys(Size rows, Size keys) {
        const TileScope tiles;
        multiply(TileRows::plain(queries_, size_), rows, keys_, size_ / 2 * GROUP, size_, false, buffers_.scores.data(), ATTENTION_KEYS, round_up(keys, GROUP));
    }

    void take_weights(Size row, Size keys) {
        const float* in = buffers_.scores.data() + row * ATTENTION_KEYS;
        for (Size i = 0; i < padded(keys); i += W) store(weights_ + row * ATTENTION_KEYS + i, load(in + i));
    }

    void add_values(Size rows, Size keys) {
        const TileScope tiles;
        multiply(TileRows::plain(weights_, ATTENTION_KEYS), rows, values_, ATTENTION_KEYS / 2 * GROUP, padded(keys), true, buffers_.out.data(), size_, size_);
    }

private:
    Size size_;
    AttentionBuffers& buffers_;
    Bf16 *queries_, *weights_;
    Bf16Pair *keys_, *values_;

    static void multiply(const TileRows& x, Size rows, const Bf16Pair* blocks, Size block_stride, Size depth, bool adds, float* y,
                         Size y_stride, Size columns) {
        for (Size column = 0; column < columns; column += 2 * GROUP, blocks += 2 * block_stride)
            if (columns - column > GROUP) multiply_rows_of_tiles<2>(x, rows, blocks, block_stride, depth, adds, y + column, y_stride);
            else multiply_rows_of_tiles<1>(x, rows, blocks, block_stride, depth, adds, y + column, y_stride);
    }
};

#endif

// scores (padded) of one query, of keys from ``first`` on, become its weights, 0 for keys that it does not attend to; out
// (size), what was weighted before, is multiplied by the factor that follows.
void weigh_row(const Queries& queries, Size token, Size first, Size padded, float* scores, Softmax& softmax, float* out, Size size) {
    const Size begin = std::clamp<Size>(queries.first_key(token) - first, 0, padded), end = std::clamp<Size>(queries.end(token) - first, 0, padded);
    if (begin < end) {
        const float factor = add_scores(scores + begin, end - begin, queries.softcap, softmax);
        for_each_vector(size, [&](Size i, int n) { store_n(out + i, load_n(out + i, n) * factor, n); });
    }
    std::fill(scores, scores + begin, 0.0f);
    std::fill(scores + std::max(begin, end), scores + padded, 0.0f);
}

// Attention of tokens * heads queries, up to ATTENTION_ROWS, by FloatProducts or TileProducts.
template <class Products, class Cached>
void attend_block(const Cached& cached, const Queries& queries, AttentionBuffers& buffers) {
    Products products(queries.size, buffers);
    const Size rows = queries.tokens * queries.heads, stride = products.stride();
    Softmax* softmax = buffers.softmax.data();
    std::fill_n(softmax, rows, Softmax{});
    for (Size row = 0; row < rows; ++row)
        products.take_query(row, queries.q + row / queries.heads * queries.stride + row % queries.heads * queries.size, queries.scale);
    std::fill_n(buffers.out.data(), rows * stride, 0.0f);
    const Size end = queries.end(queries.tokens - 1);
    for (Size first = queries.first_key(0) / ATTENTION_KEYS * ATTENTION_KEYS; first < end; first += ATTENTION_KEYS) {
        const Size keys = std::min(ATTENTION_KEYS, end - first), padded = products.padded(keys);
        products.take_keys(cached, first, keys);
        products.multiply_keys(rows, keys);
        for (Size row = 0; row < rows; ++row) {
            weigh_row(queries, row / queries.heads, first, padded, buffers.scores.data() + row * ATTENTION_KEYS, softmax[row],
                      buffers.out.data() + row * stride, queries.size);
            products.take_weights(row, keys);
        }
        products.add_values(rows, keys);
    }
    for (Size row = 0; row < rows; ++row) {
        const float* in = buffers.out.data() + row * stride;
        float* out = queries.out + row / queries.heads * queries.stride + row % queries.heads * queries.size;
        const float factor = 1.0f / softmax[row].sum;
        for_each_vector(queries.size, [&](Size i, int n) { store_n(out + i, load_n(in + i, n) * factor, n); });
    }
}

// The same by the products that are fastest here; keys and values of float32 models are not rounded to bfloat16.
template <class Cached>
void attend_block_fast(const Cached& cached, const Queries& queries, AttentionBuffers& buffers) {
#if defined(LMWORKS_TILES)
    if (Cached::IS_ROUNDED && TileProducts::divide(queries.size) && has_tiles())
        return attend_block<TileProducts>(cached, queries, buffers);
#endif
    attend_block<FloatProducts>(cached, queries, buffers);
}

}  // namespace
}  // namespace lmworks::ISA
