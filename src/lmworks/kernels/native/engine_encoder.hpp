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
constexpr Size SPARE_TOKENS = 16;  // rows behind those of the last token: products compute whole tiles

// What a pass over so many tokens writes to; results and row are those of a thread, all else is shared by a team.
struct EncoderBuffers {
    Size tokens = 0;
    Buffer<float> x, logsumexp;                         // (tokens, hidden), (tokens, heads)
    Buffer<std::uint8_t> input, q, k, v, mixed, inner;  // (tokens, size) in the precision of the matrices
    Buffer<float> results, row;                         // (tokens, PAIR), (hidden)

    // Makes room for ``count`` tokens; nothing of what was there is needed any more.
    void reserve(const Decoder& decoder, Size count);
};

using EncodeTexts = void (*)(const Decoder& decoder, const EncoderTexts& texts, EncoderBuffers& shared, EncoderBuffers& own,
                             Team& team, int thread);

// Throws std::invalid_argument where depth or width are not possible; ``layers``: of the model, which the depth may repeat.
EncoderParts encoder_parts(bool post_norm, Size depth, Size width, Size layers);

// Checks that nothing is missing of an encoder whose layers are complete. Throws std::invalid_argument.
void check_encoder(const Decoder& encoder);

// Texts of the ids offsets[i] ... offsets[i + 1] - 1 pass through all layers; writes hidden (tokens, hidden size). ``compute``
// is that of the instruction set. Throws std::invalid_argument where a text is empty or too long, or an id unknown.
void encode(EncodeTexts compute, const Decoder& encoder, const std::int64_t* ids, Size tokens, const std::int64_t* offsets,
            Size texts, float* hidden, std::vector<EncoderBuffers>& buffers);

}  // namespace lmworks
