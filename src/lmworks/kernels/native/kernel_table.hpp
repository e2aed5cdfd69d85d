// The kernels as a table of function pointers, one table for each instruction set that the module was compiled for.
// Rows are contiguous; sizes count elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lmworks {

using Size = std::ptrdiff_t;

// bfloat16: the upper half of a float32.
struct Bf16 {
    std::uint16_t bits;
};

// Numbers of the activations, as in NATIVE_ACTIVATIONS of kernels/native_module.py.
enum Activation : int { GELU, GELU_TANH, SILU, RELU, ACTIVATIONS };

// Quantized formats, as in FORMATS of kernels/quantized.py: numbers and bytes of a block.
enum QuantFormat : int { Q4_0, Q4_1, Q8_0, QUANT_FORMATS };
constexpr Size QUANT_BLOCK = 32;
constexpr Size QUANT_BYTES[QUANT_FORMATS] = {18, 20, 34};

// Numbers of a row that share a scale in NF4 and int8, as BLOCK of model/blockwise.py.
constexpr Size BLOCKWISE_BLOCK = 64;

// Packed sequences: q (tokens, heads * head_size), k and v (key tokens, kv_heads * head_size).
// cu_seqlens_q and cu_seqlens_k (sequences + 1): cumulative lengths of the sequences of queries and of keys.
template <class T>
struct AttentionInputs {
    const T *q, *k, *v;
    Size q_stride, k_stride, v_stride;  // elements from one token to the next
    const std::int64_t *cu_seqlens_q, *cu_seqlens_k;
    Size sequences, heads, kv_heads, head_size;
    float scale;
    bool causal;
};

// Kernels whose arrays are stored as T; they compute in float32. dx is the gradient of x, and so on.
template <class T>
struct Kernels {
    // Ba et al. 2016. x, y (rows, size); weight, bias (size), bias may be null: y = (x - mean) / sqrt(var + eps) * weight
    // + bias. Writes mean and scale = 1 / sqrt(var + eps), both (rows), for the backward pass.
    void (*layer_norm)(const T* x, const float* weight, const float* bias, T* y, float* mean, float* scale, Size rows,
                       Size size, float eps);
    // Writes dx (rows, size); adds to dweight and dbias (size), where these are not null.
    void (*layer_norm_backward)(const T* x, const float* weight, const float* mean, const float* scale, const T* dy,
                                T* dx, float* dweight, float* dbias, Size rows, Size size);
    // Zhang & Sennrich 2019, eq. 4: y = x / sqrt(mean(x^2) + eps) * weight. Writes scale = 1 / sqrt(mean(x^2) + eps).
    void (*rms_norm)(const T* x, const float* weight, T* y, float* scale, Size rows, Size size, float eps);
    void (*rms_norm_backward)(const T* x, const float* weight, const float* scale, const T* dy, T* dx, float* dweight,
                              Size rows, Size size);
    // y = act(x), or act(x) * up where up is not null (Shazeer 2020); all (count). ``kind``: an Activation.
    void (*activate)(int kind, const T* x, const T* up, T* y, Size count);
    void (*activate_backward)(int kind, const T* x, const T* up, const T* dy, T* dx, T* dup, Size count);
    // y = residual + dropout(x), all (count). The factor of an element follows from the seed and its index alone.
    void (*dropout_add)(const T* residual, const T* x, T* y, Size count, float rate, std::uint64_t seed);
    // y = dropout(x); its backward pass is the same function of dy.
    void (*dropout)(const T* x, T* y, Size count, float rate, std::uint64_t seed);
    // Su et al. 2021, eq. 34. x, y (tokens, heads, head_size); cos, sin (tokens, rotary_size / 2). Rotates the pairs
    // (i, i + rotary_size / 2) of the first rotary_size dimensions; sign -1 rotates by the negative angles.
    void (*rotate)(const T* x, Size stride, const float* cos, const float* sin, T* y, Size tokens, Size heads,
                   Size head_size, Size rotary_size, float sign);
    // Vaswani et al. 2017, eq. 1, of each sequence alone. out (tokens, heads * head_size); writes logsumexp
    // (tokens, heads) of the scores for the backward pass. ``rate``: of dropout on the attention weights.
    void (*varlen_attention)(const AttentionInputs<T>& inputs, T* out, float* logsumexp, float rate, std::uint64_t seed);
    void (*varlen_attention_backward)(const AttentionInputs<T>& inputs, const T* out, const float* logsumexp,
                                      const T* dout, T* dq, T* dk, T* dv, float rate, std::uint64_t seed);
    // blocks (count, bytes of a block) -> y (count, 32). ``format``: a QuantFormat.
    void (*dequantize)(int format, const std::uint8_t* blocks, T* y, Size count);
    // codes of each row, of four bits where there are levels (16), else int8; scales (rows, blocks of a row) -> y (rows,
    // columns) = scale * level, or scale * code.
    void (*dequantize_blockwise)(const std::uint8_t* codes, const float* scales, const float* levels, T* y, Size rows,
                                 Size columns);
    // logits (rows, vocab_size) become weight * (softmax - one-hot) if write_gradient; writes losses (rows) =
    // weight * -log softmax(logits)[target].
    void (*cross_entropy)(T* logits, const std::int64_t* targets, const float* weights, float* losses, Size rows,
                          Size vocab_size, bool write_gradient);
};

// Element (i, j) of a matrix is data[i * row + j * column]; one of the strides is 1.
struct MatrixView {
    const float* data;
    Size row, column;
};

// A moment of AdamW in 8 bits (Dettmers et al. 2022): codes (count), and scales of blocks of 256 numbers.
constexpr Size MOMENT_BLOCK = 256;
struct EightBitMoment {
    std::uint8_t* codes;
    float* scales;
};

// One step of AdamW: corrections are 1 - beta1^t and sqrt(1 - beta2^t); gradients are multiplied by gradient_scale.
// weight1 and weight2 are 1 - beta1 and 1 - beta2: in float32 that subtraction would be wrong by 5e-5 of its result.
struct AdamWStep {
    float learning_rate, weight1, beta2, weight2, weight_decay, eps, correction1, correction2, gradient_scale;
};

// A tensor of AdamW's step with float32 moments; all (count).
struct AdamWTensor {
    float* weights;
    const float* gradient;
    float *first, *second;
    Size count;
};

// The linears of a block, in the order of its parameters (model/fused.py).
enum BlockLinearIndex : int { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, BLOCK_LINEARS };

// weight (outputs, inputs), bias (outputs) or null; the weight is null if the block has no such linear. dweight and dbias
// are overwritten, or added to.
struct BlockLinear {
    const float *weight, *bias;
    Size inputs, outputs;
    float *dweight, *dbias;
    bool accumulate_weight, accumulate_bias;
};

// weight, bias (hidden); mean, scale (tokens): statistics of the rows, null mean for RMSNorm. Gradients are added to.
struct BlockNorm {
    const float *weight, *bias;
    float *mean, *scale, *dweight, *dbias;
};

// A transformer block over packed documents, (tokens, size) each: x, y, sum1, sum2 (hidden), q, mixed (heads * head_size),
// k, v (kv_heads * head_size), up, gate (inner). The forward pass writes y and all arrays from q on, which the backward
// pass reads; sum1 and sum2 are the residual sums, sum2 is null where the norms come first, gate where the feed-forward is
// not gated. Rates and seeds are those of dropout.
struct BlockCall {
    bool pre_norm, layer_norm, causal;
    int activation;
    float eps, scale, attention_rate, hidden_rate, mlp_rate;
    std::uint64_t attention_seed, seed1, mlp_seed, seed2;
    Size tokens, hidden, inner, heads, kv_heads, head_size, sequences, rotary_size;
    const std::int64_t* cu_seqlens;
    const float *cos, *sin;  // (tokens, rotary_size / 2)
    BlockNorm norm1, norm2;
    BlockLinear linears[BLOCK_LINEARS];
    float *x, *y, *q, *k, *v, *mixed, *logsumexp, *sum1, *up, *gate, *sum2;
    const float* dy;
    float* dx;
};

// Embeddings (rows, columns) with the moments of AdamW, and for each row whether any of its moments is not zero.
struct RowMoments {
    float *weights, *first, *second;
    std::uint8_t* has_moments;
    Size rows;
};

struct Decoder;  // of the native engine (engine.hpp)
struct StepBuffers;
struct StepToken;
struct EncoderTexts;  // of an encoder in it (engine_encoder.hpp)
struct EncoderBuffers;
class Team;

struct KernelTable {
    const char* name;  // of the instruction set
    Kernels<float> f32;
    Kernels<Bf16> bf16;
    // c (rows, columns) = addend + scale * a (rows, depth) b (depth, columns). ``addend``: c itself, another matrix, one
    // row for all (stride 0), or null for zeros.
    void (*matmul)(const MatrixView& a, const MatrixView& b, Size rows, Size depth, Size columns, float scale,
                   const float* addend, Size addend_row, float* c, Size c_row);
    // Loshchilov & Hutter 2019, algorithm 2, on weights and gradient (count) and 8-bit moments.
    void (*adamw_8bit)(float* weights, const float* gradient, const EightBitMoment& first, const EightBitMoment& second,
                       Size count, const AdamWStep& step);
    // The same on several tensors, with float32 moments.
    void (*adamw)(const AdamWTensor* tensors, Size count, const AdamWStep& step);
    // Of all elements of several tensors.
    double (*sum_of_squares)(const float* const* tensors, const Size* sizes, Size count);
    void (*block_forward)(const BlockCall& block);
    void (*block_backward)(const BlockCall& block);
    // The same with float32 moments for embeddings of which few rows (ascending) have gradients (count, columns).
    void (*adamw_rows)(const RowMoments& table, const float* gradients, const std::int64_t* rows, Size count, Size columns,
                       const AdamWStep& step);
    // Returns the sum of x (count), rounded down to whole parts of 2^18 numbers; measures the speed of reading memory.
    float (*read_memory)(const float* x, Size count);
    // A step of a decoder, called by each thread of a team.
    void (*decoder_step)(const Decoder& decoder, const StepToken* tokens, Size count, StepBuffers& buffers, Team& team,
                         int thread);
    // A pass of an encoder over whole texts, the same; ``own`` are the buffers of the thread.
    void (*encode_texts)(const Decoder& encoder, const EncoderTexts& texts, EncoderBuffers& shared, EncoderBuffers& own,
                         Team& team, int thread);

    template <class T>
    const Kernels<T>& of() const {
        if constexpr (sizeof(T) == sizeof(Bf16)) return bf16;
        else return f32;
    }
};

const KernelTable& table_portable();
const KernelTable& table_avx2();
const KernelTable& table_avx512();
const KernelTable& table_avx512_bf16();

}  // namespace lmworks
