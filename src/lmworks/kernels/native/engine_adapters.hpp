// LoRA adapters of the native engine: low-rank updates of a decoder's matrices, of which each sequence may have its own.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine.hpp"

namespace lmworks {

// b (a x) is added to the product of a matrix and x (Hu et al. 2021, eq. 3): a (rank, columns), b (rows, rank) with the
// scale in it.
struct LowRankUpdate {
    WeightMatrix a, b;

    bool exists() const { return b.exists(); }
};

struct Adapter {
    std::vector<std::array<LowRankUpdate, BLOCK_LINEARS>> layers;  // by BlockLinearIndex
    Size rank = 0;                                                 // the largest
    WeightMemory memory;
};

// An update as it is given: float32, row after row.
struct GivenUpdate {
    std::int64_t layer;
    std::string linear;  // such as q_proj
    const float *a, *b;
    Size a_rows, a_columns, b_rows, b_columns;
};

constexpr Size MOST_RANK = 4096;  // of an update: a step has room for as many products of each token

// Packs updates. ``a`` is rounded to blocks of 8 bits where its matrix is quantized, so that both read the same rounded
// vectors; else both factors have the precision of the matrix, bfloat16 or float32.
// Throws std::invalid_argument that names the matrix where an update is not one of this decoder's.
std::unique_ptr<Adapter> make_adapter(const Decoder& decoder, const std::vector<GivenUpdate>& updates);

// Puts the tokens of each part of a step that have one adapter beside one another; the largest rank of all adapters.
// ends: of the parts.
Size gather_by_adapter(std::vector<StepToken>& tokens, const std::vector<std::size_t>& ends);

}  // namespace lmworks
