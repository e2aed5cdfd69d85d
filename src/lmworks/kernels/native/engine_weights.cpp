// Packs matrices for the engine, reads single rows of packed ones (the embeddings of tokens), and allocates the memory of
// weights and of a step's buffers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "engine.hpp"
#include "half.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lmworks {
namespace {

constexpr Size LINE = 64;  // bytes of a cache line
constexpr std::size_t LARGE_PAGE = 1 << 21;

Size element_bytes(int kind) { return kind == F32_WEIGHTS ? 4 : 2; }

// Bytes from the begin of a dense group to the element of a row, ``lane``, and a column.
Size dense_offset(int kind, Size column, Size lane) {
    const Size element = kind == BF16_WEIGHTS ? (column / 2 * GROUP + lane) * 2 + column % 2 : column * GROUP + lane;
    return element * element_bytes(kind);
}

// Bytes of a block of GGUF: its integers, and a float16 scale, of Q4_1 a minimum too.
Size block_bytes(int kind) { return (number_bytes(kind) + scale_bytes(kind)) / GROUP; }

// Copies a block of GGUF, of row ``lane`` of a group, to the group's integers and scales. The scale of TQ2_0 comes last in
// its block, that of others first.
void pack_block(int kind, const std::uint8_t* block, Size lane, std::uint8_t* numbers, std::uint8_t* scales) {
    const bool is_ternary = kind == TERNARY_WEIGHTS;
    std::memcpy(scales + lane * 2, is_ternary ? block + number_bytes(kind) / GROUP : block, 2);
    const std::uint8_t* in = is_ternary ? block : block + 2;
    if (kind == U4_MIN_WEIGHTS) {
        std::memcpy(scales + GROUP * 2 + lane * 2, in, 2);
        in += 2;
    }
    // a byte of Q4_0 has columns i and i + 16 of its block, one of TQ2_0 i, i + 32, i + 64 and i + 96 of its half, as here
    const Size quads = number_bytes(kind) / (GROUP * 4);
    const std::uint8_t flip = kind == U8_WEIGHTS ? 0x80 : 0;  // -128 ... 127 -> 0 ... 255
    for (Size quad = 0; quad < quads; ++quad)
        for (Size i = 0; i < 4; ++i) numbers[(quad * GROUP + lane) * 4 + i] = in[quad * 4 + i] ^ flip;
}

}  // namespace

Size WeightMatrix::group_bytes() const {
    if (!is_quantized()) return GROUP * (kind == BF16_WEIGHTS ? columns + columns % 2 : columns) * element_bytes(kind);
    return (columns / block_columns(kind) * (scale_bytes(kind) + number_bytes(kind)) + LINE - 1) / LINE * LINE;
}

Size unpacked_bytes(int kind, Size rows, Size columns) {
    if (kind < U4_WEIGHTS) return rows * columns * element_bytes(kind);
    return rows * (columns / block_columns(kind)) * block_bytes(kind);
}

void* allocate(std::size_t bytes) {
    const std::size_t alignment = bytes >= LARGE_PAGE ? LARGE_PAGE : LINE;
    bytes = std::max((bytes + alignment - 1) / alignment * alignment, alignment);
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == LARGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

std::uint8_t* WeightMemory::take(Size bytes) {
    constexpr Size BLOCK = 16 * LARGE_PAGE;
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (bytes > left_) {
        const Size size = std::max(bytes, BLOCK);
        blocks_.emplace_back(static_cast<std::uint8_t*>(allocate(static_cast<std::size_t>(size))));
        next_ = blocks_.back().get();
        left_ = size;
    }
    std::uint8_t* result = next_;
    next_ += bytes;
    left_ -= bytes;
    taken_ += bytes;
    return result;
}

WeightMatrix matrix_of(int kind, Size rows, Size columns) {
    if (kind < 0 || kind >= WEIGHT_KINDS) throw std::invalid_argument("there is no such kind of weights");
    if (kind >= U4_WEIGHTS && columns % block_columns(kind))
        throw std::invalid_argument("the columns are not whole blocks of " + std::to_string(block_columns(kind)));
    WeightMatrix matrix;
    matrix.kind = kind;
    matrix.rows = rows;
    matrix.columns = columns;
    return matrix;
}

WeightMatrix pack(int kind, const std::uint8_t* data, Size rows, Size columns, WeightMemory& memory) {
    WeightMatrix matrix = matrix_of(kind, rows, columns);
    const Size group_bytes = matrix.group_bytes();
    std::uint8_t* packed = memory.take(matrix.bytes());
    std::memset(packed, 0, static_cast<std::size_t>(matrix.bytes()));  // missing rows of the last group
    matrix.data = packed;
    const Size row_bytes = unpacked_bytes(kind, 1, columns);
    for (Size row = 0; row < rows; ++row) {
        const std::uint8_t* in = data + row * row_bytes;
        std::uint8_t* out = packed + row / GROUP * group_bytes;
        const Size lane = row % GROUP;
        if (matrix.is_quantized()) {
            const Size blocks = columns / block_columns(kind);
            for (Size block = 0; block < blocks; ++block)
                pack_block(kind, in + block * block_bytes(kind), lane, out + block * number_bytes(kind),
                           out + blocks * number_bytes(kind) + block * scale_bytes(kind));
        } else {
            const Size bytes = element_bytes(kind);
            for (Size column = 0; column < columns; ++column)
                std::memcpy(out + dense_offset(kind, column, lane), in + column * bytes, bytes);
        }
    }
    return matrix;
}

namespace {

void unpack_ternary_row(const std::uint8_t* group, Size columns, Size lane, float* out) {
    const Size blocks = columns / TERNARY_BLOCK;
    const std::uint8_t* scales = group + blocks * number_bytes(TERNARY_WEIGHTS);
    for (Size block = 0; block < blocks; ++block, out += TERNARY_BLOCK, group += number_bytes(TERNARY_WEIGHTS)) {
        const float scale = half_to_float(scales + block * scale_bytes(TERNARY_WEIGHTS) + lane * 2);
        for (Size column = 0; column < TERNARY_BLOCK; ++column) {
            const Size quad = column / 128 * 8 + column % 32 / 4, place = column % 128 / 32;
            const int number = group[(quad * GROUP + lane) * 4 + column % 4] >> 2 * place & 3;
            out[column] = scale * static_cast<float>(number - 1);
        }
    }
}

}  // namespace

void unpack_row(const WeightMatrix& matrix, Size row, float* out) {
    const std::uint8_t* group = matrix.data + row / GROUP * matrix.group_bytes();
    const Size lane = row % GROUP;
    const int kind = matrix.kind;
    if (!matrix.is_quantized()) {
        for (Size column = 0; column < matrix.columns; ++column) {
            const std::uint8_t* in = group + dense_offset(kind, column, lane);
            out[column] = kind == F32_WEIGHTS ? load_float(in) : kind == F16_WEIGHTS ? half_to_float(in) : bf16_to_float(in);
        }
        return;
    }
    if (kind == TERNARY_WEIGHTS) return unpack_ternary_row(group, matrix.columns, lane, out);
    const Size blocks = matrix.columns / QUANT_BLOCK;
    for (Size block = 0; block < blocks; ++block, out += QUANT_BLOCK) {
        const std::uint8_t *in = group + block * number_bytes(kind), *scales = group + blocks * number_bytes(kind) + block * scale_bytes(kind);
        const float scale = half_to_float(scales + lane * 2);
        const float minimum = kind == U4_MIN_WEIGHTS ? half_to_float(scales + GROUP * 2 + lane * 2)
                                                     : scale * (kind == U8_WEIGHTS ? -128.0f : -8.0f);
        for (Size column = 0; column < QUANT_BLOCK; ++column) {
            const bool is_high = kind != U8_WEIGHTS && column >= QUANT_BLOCK / 2;
            const Size place = is_high ? column - QUANT_BLOCK / 2 : column;
            int number = in[(place / 4 * GROUP + lane) * 4 + place % 4];
            if (kind != U8_WEIGHTS) number = is_high ? number >> 4 : number & 15;
            out[column] = scale * static_cast<float>(number) + minimum;
        }
    }
}

void AttentionBuffers::resize(const Decoder& decoder) {
    const Size padded = (decoder.head_size + GROUP - 1) / GROUP * GROUP, rows = std::max(ATTENTION_ROWS, decoder.heads / decoder.kv_heads);
    // rows that fill the last tile are multiplied too: left as they were, they could be denormal, which is slow
    const auto resize_with_zeros = [](Buffer<float>& buffer, Size count) {
        buffer.resize(count);
        std::fill_n(buffer.data(), count, 0.0f);
    };
    resize_with_zeros(queries, ATTENTION_ROWS * padded);
    resize_with_zeros(keys, ATTENTION_KEYS * padded);
    resize_with_zeros(values, ATTENTION_KEYS * padded);
    resize_with_zeros(scores, ATTENTION_ROWS * ATTENTION_KEYS);
    resize_with_zeros(weights, ATTENTION_ROWS * ATTENTION_KEYS / 2);  // in bfloat16
    resize_with_zeros(out, rows * padded);
    softmax.resize(2 * rows);
}

StepBuffers::StepBuffers(const Decoder& decoder, int threads)
    : x(STEP_TOKENS * decoder.hidden),
      q(STEP_TOKENS * decoder.q_size()),
      k(STEP_TOKENS * decoder.kv_size()),
      v(STEP_TOKENS * decoder.kv_size()),
      mixed(STEP_TOKENS * decoder.q_size()),
      inner(STEP_TOKENS * decoder.inner),
      part(STEP_TOKENS * decoder.hidden),
      own(threads),
      attention(threads),
      tiles(threads) {
    const Size widest = std::max({decoder.hidden, decoder.inner, decoder.q_size()});
    shared.normed.resize(STEP_TOKENS * widest);
    shared.quantized.resize(STEP_TOKENS, widest);
    shared.halves.resize(STEP_TOKENS * widest);
    std::memset(shared.halves.data(), 0, static_cast<std::size_t>(shared.halves.count()) * sizeof(Bf16));
    for (int thread = 0; thread < threads; ++thread) {
        own[thread].normed.resize(widest);
        own[thread].quantized.resize(1, widest);
        tiles[thread].resize(widest * GROUP + STEP_TOKENS * 2 * GROUP);
        attention[thread].resize(decoder);
    }
}

void StepBuffers::set_rank(Size largest) {
    rank = largest;
    shared.low.resize(BLOCK_LINEARS * STEP_TOKENS * rank);
    for (Rows& rows : own) rows.low.resize(BLOCK_LINEARS * rank);
}

}  // namespace lmworks
