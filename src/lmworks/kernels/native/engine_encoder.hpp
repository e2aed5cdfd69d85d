// An encoder's pass over whole texts, as the native engine computes it: each token attends to all tokens of its text.
#pragma once

#include <cstdint>
#include <vector>

#include "engine.hpp"

namespace lmworks {

// Whole texts, one after the other.
struct EncoderTexts {
    const std::int64_t* ids;               // (tokens)
    std::vector<std::int64_t> cu_seqlens;  // (texts + 1): their cumulative lengths; the first is 0
    float* hidden;                         // (tokens, hidden): receives the last hidden states

    Size texts() const { return static_cast<Size>(cu_seqlens.size()) - 1; }
    Size tokens() const { return cu_seqlens.back(); }
};

constexpr Size PAIR = 2 * GROUP;   // rows of a matrix that are multiplied at a time
constexpr Size SPARE_TOKENS = 16;  // rows behind the last token's, since products compute whole tiles

// What a pass over ``tokens`` tokens writes to; results and row are those of a thread, all else is shared by a team.
struct EncoderBuffers {
    Size tokens = 0;
    Buffer<float> x, logsumexp;                         // (tokens, hidden), (tokens, heads)
    Buffer<std::uint8_t> input, q, k, v, mixed, inner;  // (tokens, size) in the precision of the matrices
    Buffer<float> results, row;                         // (tokens, PAIR), (hidden)

    // Makes room for ``count`` tokens; what the buffers held is lost.
    void reserve(const Decoder& decoder, Size count);
};

using EncodeTexts = void (*)(const Decoder& decoder, const EncoderTexts& texts, EncoderBuffers& shared, EncoderBuffers& own,
                             Team& team, int thread);

// layers: of the model, fewer than depth where they are repeated. Throws std::invalid_argument where the sizes are not possible.
EncoderParts encoder_parts(bool post_norm, Size depth, Size width, Size layers);

// Checks that nothing is missing of an encoder whose layers are complete. Throws std::invalid_argument.
void check_encoder(const Decoder& encoder);

// Takes whole texts through all layers: text i has the tokens offsets[i] ... offsets[i + 1] - 1 of ids (tokens). Writes hidden
// (tokens, hidden), their last hidden states. compute: encode_texts() of the instruction set. Throws std::invalid_argument
// where a text is empty or too long, or an id unknown.
void encode(EncodeTexts compute, const Decoder& encoder, const std::int64_t* ids, Size tokens, const std::int64_t* offsets,
            Size texts, float* hidden, std::vector<EncoderBuffers>& buffers);

}  // namespace lmworks
