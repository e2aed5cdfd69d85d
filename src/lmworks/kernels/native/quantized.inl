// Decodes llama.cpp's formats of 32 numbers a block (ggml-common.h): a float16 scale d, in Q4_1 a float16 minimum m, and
// the levels, of which a byte of Q4_0 and Q4_1 has two: the low half for the first 16 numbers, the high for the others.
// level * d is exact in float32, so the results have the bits of ggml's own decoding, with fused additions or without.
#include <algorithm>

#include "half.hpp"
#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size BLOCKS_PER_ITEM = 512;

template <class T, class Decode>
void decode_blocks(const std::uint8_t* blocks, Size block_bytes, T* y, Size count, Decode decode) {
    parallel_for((count + BLOCKS_PER_ITEM - 1) / BLOCKS_PER_ITEM, [&](Size item) {
        for (Size block = item * BLOCKS_PER_ITEM; block < std::min(count, (item + 1) * BLOCKS_PER_ITEM); ++block) {
            float levels[QUANT_BLOCK];
            const std::uint8_t* in = blocks + block * block_bytes;
            const float minimum = decode(in, levels);
            const float scale = half_to_float(in);
            T* out = y + block * QUANT_BLOCK;
            for (Size i = 0; i < QUANT_BLOCK; i += W) store(out + i, load(levels + i) * scale + minimum);
        }
    });
}

void unpack_nibbles(const std::uint8_t* in, float* levels, int offset) {
    for (int i = 0; i < QUANT_BLOCK / 2; ++i) {
        levels[i] = static_cast<float>((in[i] & 15) - offset);
        levels[i + QUANT_BLOCK / 2] = static_cast<float>((in[i] >> 4) - offset);
    }
}

template <class T>
void dequantize(int format, const std::uint8_t* blocks, T* y, Size count) {
    const Size bytes = QUANT_BYTES[format];
    if (format == Q4_0) {
        decode_blocks(blocks, bytes, y, count, [](const std::uint8_t* in, float* levels) {
            unpack_nibbles(in + 2, levels, 8);
            return 0.0f;
        });
    } else if (format == Q4_1) {
        decode_blocks(blocks, bytes, y, count, [](const std::uint8_t* in, float* levels) {
            unpack_nibbles(in + 4, levels, 0);
            return half_to_float(in + 2);
        });
    } else {
        decode_blocks(blocks, bytes, y, count, [](const std::uint8_t* in, float* levels) {
            for (int i = 0; i < QUANT_BLOCK; ++i) levels[i] = static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
            return 0.0f;
        });
    }
}

// NF4 and int8 in blocks of 64 numbers of a row (model/blockwise.py). A byte of NF4 has two codes, the first in its high
// half: both levels are read at once from a table of pairs.
template <class T>
void dequantize_blockwise(const std::uint8_t* codes, const float* scales, const float* levels, T* y, Size rows, Size columns) {
    constexpr Size BLOCK = BLOCKWISE_BLOCK, BYTE_VALUES = 256;
    float pairs[BYTE_VALUES][2];
    for (Size byte = 0; levels && byte < BYTE_VALUES; ++byte) {
        pairs[byte][0] = levels[byte >> 4];
        pairs[byte][1] = levels[byte & 15];
    }
    const Size blocks = (columns + BLOCK - 1) / BLOCK, row_bytes = levels ? (columns + 1) / 2 : columns;
    const Size item_rows = std::max<Size>(1, BLOCKS_PER_ITEM / blocks);
    parallel_for((rows + item_rows - 1) / item_rows, [&](Size item) {
        for (Size row = item * item_rows; row < std::min(rows, (item + 1) * item_rows); ++row) {
            for (Size block = 0; block < blocks; ++block) {
                const Size begin = block * BLOCK, count = std::min(BLOCK, columns - begin);
                const std::uint8_t* in = codes + row * row_bytes + (levels ? begin / 2 : begin);
                float values[BLOCK];
                if (levels) {
                    for (Size i = 0; i < (count + 1) / 2; ++i) std::memcpy(values + 2 * i, pairs[in[i]], sizeof pairs[0]);
                } else {
                    for (Size i = 0; i < count; ++i) values[i] = static_cast<float>(static_cast<std::int8_t>(in[i]));
                }
                const float scale = scales[row * blocks + block];
                T* out = y + row * columns + begin;
                for_each_vector(count, [&](Size i, int n) { store_n(out + i, load_n(values + i, n) * scale, n); });
            }
        }
    });
}

}  // namespace
}  // namespace lmworks::ISA
