// Divides texts among threads for an encoder's pass. Each thread takes some texts through all layers by itself, without
// barriers; a few long texts are shared by all threads. Either way a text gets the same bits.
#include "engine_encoder.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

#include "parallel.hpp"

namespace lmworks {
namespace {

// Tokens that a thread takes through all layers at a time, approximately: with more, activations would not fit the
// second-level cache; with fewer, weights would be read too often.
constexpr Size PASS_TOKENS = 256;

Size element_bytes(const Decoder& encoder) { return encoder.layers.front().q_proj.kind == BF16_WEIGHTS ? 2 : 4; }

template <class T>
void resize_with_zeros(Buffer<T>& buffer, Size count) {
    buffer.resize(count);
    std::fill_n(buffer.data(), buffer.count(), T{});  // whole tiles read beyond the last token: what is there must not be NaN
}

void check_texts(const Decoder& encoder, const std::int64_t* ids, Size tokens, const std::int64_t* offsets, Size texts) {
    if (texts < 0 || offsets[0] != 0 || offsets[texts] != tokens)
        throw std::invalid_argument("offsets begin with 0 and end with the number of tokens");
    for (Size text = 0; text < texts; ++text) {
        const std::int64_t length = offsets[text + 1] - offsets[text];
        if (length < 1) throw std::invalid_argument("text " + std::to_string(text) + " is empty");
        if (length > encoder.positions)
            throw std::invalid_argument("text " + std::to_string(text) + " is longer than the model's context");
    }
    for (Size i = 0; i < tokens; ++i)
        if (ids[i] < 0 || ids[i] >= encoder.vocab_size)
            throw std::invalid_argument("there is no token " + std::to_string(ids[i]));
}

// Groups of neighbouring texts of some PASS_TOKENS tokens, nearly equal in size, so that each thread gets as many.
std::vector<EncoderTexts> group_texts(const Decoder& encoder, const std::int64_t* ids, const std::int64_t* offsets, Size texts,
                                      float* hidden, Size threads) {
    const Size tokens = offsets[texts], passes = (tokens + PASS_TOKENS - 1) / PASS_TOKENS;
    const Size wanted = (passes + threads - 1) / threads * threads, size = (tokens + wanted - 1) / wanted;
    std::vector<EncoderTexts> groups;
    for (Size text = 0; text < texts; ++text) {
        if (groups.empty() || groups.back().tokens() >= size)
            groups.push_back({ids + offsets[text], {0}, hidden + offsets[text] * encoder.hidden});
        groups.back().cu_seqlens.push_back(groups.back().tokens() + offsets[text + 1] - offsets[text]);
    }
    return groups;
}

}  // namespace

void EncoderBuffers::reserve(const Decoder& decoder, Size count) {
    if (count <= tokens) return;
    const Size rows = count + SPARE_TOKENS, bytes = element_bytes(decoder), widest = std::max(decoder.hidden, decoder.width());
    resize_with_zeros(x, rows * widest);
    resize_with_zeros(logsumexp, rows * decoder.heads);
    resize_with_zeros(input, rows * widest * bytes);
    resize_with_zeros(q, rows * decoder.q_size() * bytes);
    resize_with_zeros(k, rows * decoder.kv_size() * bytes);
    resize_with_zeros(v, rows * decoder.kv_size() * bytes);
    resize_with_zeros(mixed, rows * decoder.q_size() * bytes);
    resize_with_zeros(inner, rows * decoder.inner * bytes);
    resize_with_zeros(results, rows * PAIR);
    resize_with_zeros(row, std::max(widest, decoder.head_size));
    tokens = count;
}

EncoderParts encoder_parts(bool post_norm, Size depth, Size width, Size layers) {
    constexpr Size MOST_LAYERS = 10000;
    if (width < 1 || layers < 1 || depth < layers || depth > MOST_LAYERS)
        throw std::invalid_argument("an encoder has no such depth or width");
    EncoderParts parts;
    parts.exists = true;
    parts.post_norm = post_norm;
    parts.depth = depth;
    parts.width = width;
    return parts;
}

void check_encoder(const Decoder& encoder) {
    const EncoderParts& parts = encoder.encoder;
    const auto require = [](bool holds, const char* fault) {
        if (!holds) throw std::invalid_argument(fault);
    };
    require(!parts.embed_tokens.empty(), "the embeddings are missing");
    require(parts.width == encoder.hidden || parts.embed_project.exists(), "the matrix that widens the embeddings is missing");
    require(parts.post_norm || encoder.norm.exists(), "the last norm is missing");
    const int kind = encoder.layers.front().q_proj.kind;
    require(kind == F32_WEIGHTS || kind == BF16_WEIGHTS, "the matrices of an encoder are in float32 or bfloat16");
    require(kind == F32_WEIGHTS || (encoder.hidden | encoder.inner | encoder.q_size() | parts.width) % 2 == 0,
            "matrices in bfloat16 need even sizes");
    std::vector<const WeightMatrix*> matrices{&parts.embed_project};
    for (const EngineLayer& layer : encoder.layers) {
        for (const WeightMatrix* matrix : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.gate_proj,
                                           &layer.up_proj, &layer.down_proj})
            matrices.push_back(matrix);
        require(!layer.attention_output.exists() && !layer.mlp_output.exists() && layer.window == 0,
                "an encoder's layer has no norms of outputs, and no window");
    }
    require(encoder.attention_softcap == 0.0f, "an encoder caps no scores");
    for (const WeightMatrix* matrix : matrices)
        require(!matrix->exists() || matrix->kind == kind, "an encoder's matrices are of one kind");
}

void encode(EncodeTexts compute, const Decoder& encoder, const std::int64_t* ids, Size tokens, const std::int64_t* offsets,
            Size texts, float* hidden, std::vector<EncoderBuffers>& buffers) {
    check_texts(encoder, ids, tokens, offsets, texts);
    if (texts == 0) return;
    const auto threads = static_cast<std::size_t>(num_threads());
    const std::vector<EncoderTexts> groups = group_texts(encoder, ids, offsets, texts, hidden, static_cast<Size>(threads));
    const bool are_shared = groups.size() < threads;
    Size most = 0;
    for (const EncoderTexts& group : groups) most = std::max(most, group.tokens());
    if (buffers.size() < threads) buffers.resize(threads);
    for (std::size_t thread = 0; thread < threads; ++thread) buffers[thread].reserve(encoder, most);
    std::atomic<std::size_t> next{0};
    run_team([&](Team& team, int thread) {
        EncoderBuffers& own = buffers[static_cast<std::size_t>(thread)];
        if (are_shared) {
            for (const EncoderTexts& group : groups) compute(encoder, group, buffers.front(), own, team, thread);
            return;
        }
        Team alone(1);
        for (std::size_t i = next.fetch_add(1); i < groups.size(); i = next.fetch_add(1))
            compute(encoder, groups[i], own, own, alone, 0);
    });
}

}  // namespace lmworks
