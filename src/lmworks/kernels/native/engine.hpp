// A model as the native engine computes it: packed weights, the sequences that a decoder continues, and one step. An
// encoder's pass is in engine_encoder.hpp.
//
// The model is that of model/transformer.py: embeddings, blocks of attention and feed-forward, a norm, a head. Its config
// says what a block has; no published family is known here. All sizes count elements.
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

// Memory at the beginning of a cache line, to be freed by std::free; where it is large, in large pages where the system has
// them: with pages of 4 kB many reads would wait for the table of pages. Throws std::bad_alloc.
void* allocate(std::size_t bytes);

// Memory for kernels.
template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(Size count) { resize(count); }

    // What was there is lost; the new elements are not set.
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

// Memory for the weights of a model.
class WeightMemory {
public:
    // So many bytes at the beginning of a cache line, not set; they stay where they are.
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

// A number of a key or value in 8 bits, to be multiplied by the scale of its vector.
struct Int8 {
    std::int8_t value;
};

// How a packed matrix holds its numbers. Quantized ones are products of a scale and a whole number without sign, plus a
// minimum: U4 and U8 have the minimum -8 and -128 times the scale (GGUF's Q4_0 and Q8_0), U4_MIN one of its own (Q4_1), TERNARY
// -1 times the scale, with whole numbers of 0 to 2 (TQ2_0).
enum WeightKind : int {
    F32_WEIGHTS, F16_WEIGHTS, BF16_WEIGHTS, U4_WEIGHTS, U4_MIN_WEIGHTS, U8_WEIGHTS, TERNARY_WEIGHTS, WEIGHT_KINDS
};

constexpr Size GROUP = 16;            // rows of a matrix that are packed together: one vector of AVX-512, two of AVX2
constexpr Size TERNARY_BLOCK = 256;  // columns of a block of TERNARY; of the other quantized kinds QUANT_BLOCK

// A matrix (rows, columns) packed for products with few vectors: groups of 16 rows, one after the other, each at the
// beginning of a cache line; missing rows of the last group are zeros. Within a group, F32 and F16 have for each column its
// 16 numbers, BF16 for each two columns 16 pairs, as instructions multiply them; a missing last column is zeros. Quantized
// kinds have first the whole numbers of each block of 32 columns, four columns of each row beside one another: U8 columns
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

// The numbers of one row (columns).
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

// How a sequence holds the numbers of keys and values.
enum CacheKind : int { F32_CACHE, F16_CACHE, I8_CACHE, CACHE_KINDS };

// What an encoder has besides; it has no head. Its embeddings are kept as rows in float32, so that each is read at once, and
// those of positions have all that does not depend on the token added to them.
struct EncoderParts {
    bool exists = false;
    bool post_norm = false;           // each norm comes after the residual is added
    Size depth = 0;                   // layers of the pass; those of the model, if they are fewer, take turns in equal shares
    Size width = 0;                   // of the embeddings
    std::vector<float> embed_tokens;  // (vocab_size, width)
    WeightMatrix embed_project;       // (hidden, width), where they differ
};

// A decoder, or an encoder.
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

    // Room for so many tokens; those that there are stay.
    void grow(const Decoder& decoder, Size room);
    // Takes over the first ``count`` tokens of a sequence of the same kind; there is room for them.
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

// The vectors of some tokens as products with a quantized matrix read them: whole numbers of 8 bits in blocks of 32, each
// with its scale and the sum of its numbers times the scale. For a ternary matrix a scale is that of 256 numbers, of which
// there are the sums too.
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

// What a step writes to; sized once for a decoder. Those of a thread are used where there is one token: each thread
// computes the same norm for itself, which takes less time than a meeting.
struct StepBuffers {
    struct Rows {
        Buffer<float> normed;
        QuantizedRows quantized;
        Buffer<Bf16> halves;
        Buffer<float> low;  // products with the first factors of adapters: (BLOCK_LINEARS, tokens, rank)
    };
    Buffer<float> x, q, k, v, mixed, inner, part;
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
