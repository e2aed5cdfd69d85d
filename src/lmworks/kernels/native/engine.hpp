// A model as the native engine computes it: packed weights, the sequences that a decoder continues, and one step. An
// encoder's pass is in engine_encoder.hpp.
//
// The model is that of model/transformer.py: embeddings, blocks of attention and feed-forward, a norm, a head. Its config
// says what a block has; no published family is known here. Sizes count elements, unless their names say bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "kernel_table.hpp"
#include "team.hpp"

namespace lmworks {

// Memory that begins at a cache line, to be freed by std::free; large blocks are in large pages where the system has them:
// with pages of 4 kB many reads would wait for the page table. Throws std::bad_alloc.
void* allocate(std::size_t bytes);

// An array of allocate(), which frees it.
template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(Size count) { resize(count); }

    // The earlier elements are lost; the new ones are uninitialized.
    void resize(Size count) {
        data_.reset(static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T))));
        count_ = count;
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    Size count() const { return count_; }
    T& operator[](Size index) { return data_.get()[index]; }
    const T& operator[](Size index) const { return data_.get()[index]; }

private:
    struct Free {
        void operator()(T* data) const { std::free(data); }
    };
    std::unique_ptr<T, Free> data_;
    Size count_ = 0;
};

// Memory for the weights of a model, one matrix behind the other in large blocks.
class WeightMemory {
public:
    // Uninitialized bytes that begin at a cache line; their address never changes.
    std::uint8_t* take(Size bytes);
    Size bytes() const { return taken_; }

private:
    struct Free {
        void operator()(std::uint8_t* data) const { std::free(data); }
    };
    std::vector<std::unique_ptr<std::uint8_t, Free>> blocks_;
    std::uint8_t* next_ = nullptr;
    Size left_ = 0, taken_ = 0;
};

// float16.
struct Half {
    std::uint16_t bits;
};

// An element of a key or value in 8 bits, to be multiplied by the scale of its vector.
struct Int8 {
    std::int8_t value;
};

// How a packed matrix stores its elements; generate/native_weights.py has the same numbers. A quantized element is an
// unsigned integer times a scale, plus a minimum: of U4 and U8 -8 and -128 times the scale (GGUF's Q4_0 and Q8_0), of U4_MIN
// a stored one (Q4_1), of TERNARY, whose integers are 0 to 2, -1 times the scale (TQ2_0).
enum WeightKind : int {
    F32_WEIGHTS, F16_WEIGHTS, BF16_WEIGHTS, U4_WEIGHTS, U4_MIN_WEIGHTS, U8_WEIGHTS, TERNARY_WEIGHTS, WEIGHT_KINDS
};

constexpr Size GROUP = 16;            // rows of a matrix that are packed together: one vector of AVX-512, two of AVX2
constexpr Size TERNARY_BLOCK = 256;  // columns of a block of TERNARY; of the other quantized kinds QUANT_BLOCK

// A matrix (rows, columns) packed for products with few vectors: groups of 16 rows, one after the other, each at the
// beginning of a cache line; missing rows of the last group are zeros. Within a group, F32 and F16 have for each column its
// 16 elements, BF16 for each two columns 16 pairs, as instructions multiply them; a missing last column is zeros. Quantized
// kinds have first the integers of each block of 32 columns, four columns of each row beside one another: U8 columns
// 0-3, 4-7 ... 28-31; U4 in the low halves of its bytes columns 0-3 ... 12-15, in the high halves columns 16-19 ... 28-31.
// Then for each block 16 scales in float16, and of U4_MIN 16 minima. TERNARY is the same with blocks of 256 columns: its first
// eight vectors of bytes have columns 0-3, 4-7 ... 28-31 in the lowest two bits of each byte, columns 32-35 ... 60-63 in the
// next two, and so on up to 127; the other eight have columns 128-255.
struct WeightMatrix {
    int kind = F32_WEIGHTS;
    Size rows = 0, columns = 0;
    const std::uint8_t* data = nullptr;  // of the WeightMemory
    std::vector<float> bias;  // (rows), or empty

    bool exists() const { return rows > 0; }
    bool is_quantized() const { return kind >= U4_WEIGHTS; }
    Size groups() const { return (rows + GROUP - 1) / GROUP; }
    Size group_bytes() const;
    Size bytes() const { return groups() * group_bytes(); }
};

constexpr Size block_columns(int kind) { return kind == TERNARY_WEIGHTS ? TERNARY_BLOCK : QUANT_BLOCK; }
constexpr Size number_bits(int kind) { return kind == U8_WEIGHTS ? 8 : kind == TERNARY_WEIGHTS ? 2 : 4; }
constexpr Size scale_bytes(int kind) { return GROUP * 2 * (kind == U4_MIN_WEIGHTS ? 2 : 1); }  // of a block of a group
constexpr Size number_bytes(int kind) { return GROUP * block_columns(kind) * number_bits(kind) / 8; }

// A matrix without data. Throws where there is no such kind, or its blocks do not divide the columns.
WeightMatrix matrix_of(int kind, Size rows, Size columns);

// Packs a matrix: dense numbers of the kind, or blocks of Q4_0 (U4), Q4_1 (U4_MIN), Q8_0 (U8) or TQ2_0 (TERNARY), row after
// row.
WeightMatrix pack(int kind, const std::uint8_t* data, Size rows, Size columns, WeightMemory& memory);

// Bytes of the rows that pack() reads.
Size unpacked_bytes(int kind, Size rows, Size columns);

// One row, dequantized: out (columns).
void unpack_row(const WeightMatrix& matrix, Size row, float* out);

// weight, bias (size); without weight the norm is left out.
struct EngineNorm {
    std::vector<float> weight, bias;

    bool exists() const { return !weight.empty(); }
};

struct EngineLayer {
    EngineNorm input, attention_output, post_attention, mlp_output, q, k;
    WeightMatrix q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
    Size window = 0;       // keys that a query attends to, its own included; 0: all
    bool is_local = false;  // whether its positions are rotated by the local table
};

// Cosines and sines (positions, rotary_size / 2).
struct RotaryTable {
    std::vector<float> cos, sin;
};

// The precision of a sequence's keys and values; generate/native_stepper.py has the same numbers.
enum CacheKind : int { F32_CACHE, F16_CACHE, I8_CACHE, CACHE_KINDS };

// What an encoder has besides; it has no head. Its embeddings are rows in float32, which are not packed: nothing multiplies
// them. Decoder::embed_positions contains the embedding of the first token type, which all tokens here have.
struct EncoderParts {
    bool exists = false;
    bool post_norm = false;           // each norm comes after the residual is added
    Size depth = 0;                   // layers of the pass: each of the model's is computed depth / layers times in a row
    Size width = 0;                   // of the embeddings
    std::vector<float> embed_tokens;  // (vocab_size, width)
    WeightMatrix embed_project;       // (hidden, width), where they differ
};

// The config and the weights of a model: of a decoder, or where encoder.exists of an encoder. hidden and inner are the
// config's hidden_size and intermediate_size; positions: tokens that a text may have.
struct Decoder {
    Size vocab_size = 0, hidden = 0, inner = 0, heads = 0, kv_heads = 0, head_size = 0, rotary_size = 0, positions = 0;
    bool layer_norm = false;
    int activation = SILU;
    float eps = 1e-5f, attention_scale = 1.0f, embedding_scale = 1.0f, head_scale = 1.0f;
    float attention_softcap = 0.0f, logit_softcap = 0.0f;  // 0: none
    WeightMatrix embed_tokens, lm_head;                    // lm_head does not exist where it is tied
    std::vector<float> embed_positions, head_bias;         // (positions, width); (vocab_size); or empty
    EngineNorm embed_norm, norm;
    RotaryTable rotary, local_rotary;
    std::vector<EngineLayer> layers;
    int cache_kind = F16_CACHE;  // of sequences that name none
    EncoderParts encoder;

    const WeightMatrix& head() const { return lm_head.exists() ? lm_head : embed_tokens; }
    Size width() const { return encoder.exists ? encoder.width : hidden; }  // of the embeddings
    Size q_size() const { return heads * head_size; }
    Size kv_size() const { return kv_heads * head_size; }
};

struct Adapter;  // of engine_adapters.hpp

// Keys and values of one sequence, for each layer and key-value head: keys (capacity / 16, head_size, 16), so that the
// scores of 16 positions are computed at once; values (capacity, head_size). In float16, or in float32 where the weights
// are: rounding of keys would be most of the error of such a model. In 8 bits each key and each value has a scale in float32:
// those of 16 keys follow their numbers, that of a value its own.
struct Sequence {
    Size length = 0, capacity = 0;
    int kind = F16_CACHE;  // a CacheKind
    Buffer<std::uint8_t> keys, values;
    std::shared_ptr<const Adapter> adapter;  // or null; the sequence keeps it when the engine forgets it

    // Makes room for so many tokens and keeps its own.
    void grow(const Decoder& decoder, Size room);
    // Copies the keys and values of the first ``count`` tokens of a sequence of the same kind; there is room for them.
    void copy_tokens(const Decoder& decoder, const Sequence& from, Size count);
    Size vector_bytes(const Decoder& decoder) const;  // of a key or value of one head
};

// A token to be computed: it is appended to its sequence at ``position``; the logits of some are wanted.
struct StepToken {
    std::int64_t id;
    Sequence* sequence;
    Size position;
    float* logits;  // (vocab_size), or null
};

constexpr Size STEP_TOKENS = 256;  // of one step at most; longer prompts are read in several

// The vectors of some tokens as products with a quantized matrix read them: integers of 8 bits, numbers (rows, columns), and
// of each block of 32 the scale, and the sum of its integers times the scale: both (rows, columns / 32). For a ternary matrix
// blocks of 256 share a scale, and totals (rows, columns / 256) are the sums of their integers.
struct QuantizedRows {
    Buffer<std::int8_t> numbers;
    Buffer<float> scales, sums;
    Buffer<std::int32_t> totals;

    void resize(Size rows, Size columns) {
        numbers.resize(rows * columns);
        scales.resize(rows * ((columns + QUANT_BLOCK - 1) / QUANT_BLOCK));
        sums.resize(scales.count());
        totals.resize(rows * ((columns + TERNARY_BLOCK - 1) / TERNARY_BLOCK));
    }
};

// The largest score so far, and the sum of e^(score - largest).
struct Softmax {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0.0f;

    // What earlier sums are to be multiplied by, as the largest score becomes ``score`` or stays.
    float raise(float score) {
        const float next = std::max(largest, score), factor = std::exp(largest - next);
        largest = next;
        sum *= factor;
        return factor;
    }
};

constexpr Size ATTENTION_ROWS = 96;   // queries of all heads that attend together: whole tiles of either kind of products
constexpr Size ATTENTION_KEYS = 256;  // keys that they attend to at a time

// What a thread needs for attention (engine_attention.inl): a block's queries, keys, values, scores, weights and results; of
// single tokens the results of a part.
struct AttentionBuffers {
    Buffer<float> queries, keys, values, scores, weights, out;
    Buffer<Softmax> softmax;

    void resize(const Decoder& decoder);
};

// Results of parts of the context where threads share it: (parts, heads, head_size), and of softmax (parts, heads).
struct PartBuffers {
    Buffer<float> out;
    Buffer<Softmax> softmax;

    void reserve(Size results, Size size) {
        if (softmax.count() >= results && out.count() >= results * size) return;
        softmax.resize(results);
        out.resize(results * size);
    }
};

// What a step writes to; sized once for a decoder. Of one token each thread norms and rounds the inputs of products for
// itself, into ``own``: that takes less time than a barrier.
struct StepBuffers {
    // The inputs of products, (tokens, columns of the matrix), in each form that a product may read.
    struct Rows {
        Buffer<float> normed;
        QuantizedRows quantized;
        Buffer<Bf16> halves;  // in bfloat16, tile by tile (put_in_tiles())
        Buffer<float> low;  // products with the first factors of adapters: (BLOCK_LINEARS, tokens, rank)
    };
    Buffer<float> x, q, k, v;          // (tokens, size): x is the residual stream
    Buffer<float> mixed, inner, part;  // of attention, of the activation, of a product that is normed before it is added to x
    Rows shared;
    std::vector<Rows> own;              // by thread
    std::vector<AttentionBuffers> attention;  // by thread
    PartBuffers parts;
    std::vector<Buffer<std::uint32_t>> tiles;  // by thread: two groups in bfloat16, and their products with all vectors
    Size rank = 0;  // for which ``low`` has room

    StepBuffers(const Decoder& decoder, int threads);
    void set_rank(Size largest);
};

}  // namespace lmworks
