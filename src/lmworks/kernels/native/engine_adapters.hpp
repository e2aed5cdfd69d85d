// LoRA adapters of the native engine: low-rank updates of a decoder's matrices, of which each sequence may have its own.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine.hpp"

namespace lmworks {

// b (a x) is added to the product of a matrix and x (Hu et al. 2021, eq. 3): a (rank, columns) is lora_A, b (rows, rank)
// lora_B times the scale.
struct LowRankUpdate {
    WeightMatrix a, b;

    bool exists() const { return b.exists(); }
};

struct Adapter {
    std::vector<std::array<LowRankUpdate, BLOCK_LINEARS>> layers;  // by BlockLinearIndex
    Size rank = 0;                                                 // the largest
    WeightMemory a_memory, b_memory;  // layer after layer, so that what is read next follows
};

// An update that is not packed yet: float32, row after row.
struct GivenUpdate {
    std::int64_t layer;
    std::string linear;  // such as q_proj
    const float *a, *b;
    Size a_rows, a_columns, b_rows, b_columns;
};

constexpr Size MOST_RANK = 4096;  // of an update: bounds the memory of a step, which holds a x of each token

// Packs updates. Where a matrix is quantized, its ``a`` is rounded to blocks of 8 bits, so that both read the same rounded
// vectors, and ``b`` to bfloat16. Beside a matrix in bfloat16 both factors are in bfloat16, beside others in float32.
// Throws std::invalid_argument that names the matrix where an update does not fit this decoder.
std::unique_ptr<Adapter> make_adapter(const Decoder& decoder, const std::vector<GivenUpdate>& updates);

// Sorts the tokens of each part of a step by their adapters, and returns the largest rank of these, or 0.
// ends: of the parts, as indices of tokens.
Size gather_by_adapter(std::vector<StepToken>& tokens, const std::vector<std::size_t>& ends);

}  // namespace lmworks
