// Checks the updates of an adapter and packs them.
#include "engine_adapters.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>

#include "half.hpp"

namespace lmworks {
namespace {

struct Linear {
    const char* name;
    WeightMatrix EngineLayer::* matrix;
};

constexpr Linear LINEARS[BLOCK_LINEARS] = {  // by BlockLinearIndex
    {"q_proj", &EngineLayer::q_proj},       {"k_proj", &EngineLayer::k_proj},   {"v_proj", &EngineLayer::v_proj},
    {"o_proj", &EngineLayer::o_proj},       {"gate_proj", &EngineLayer::gate_proj},
    {"up_proj", &EngineLayer::up_proj},     {"down_proj", &EngineLayer::down_proj},
};

std::string shape_text(Size rows, Size columns) {
    return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

// The BlockLinearIndex of the linear that an update is for. Throws std::invalid_argument where it does not fit the linear.
int check_update(const Decoder& decoder, const GivenUpdate& given) {
    const std::string name = given.linear + " of layer " + std::to_string(given.layer);
    const auto linear = std::find_if(std::begin(LINEARS), std::end(LINEARS), [&](const Linear& entry) { return given.linear == entry.name; });
    if (given.layer < 0 || static_cast<std::size_t>(given.layer) >= decoder.layers.size() || linear == std::end(LINEARS))
        throw std::invalid_argument("the model has no " + name);
    const WeightMatrix& matrix = decoder.layers[static_cast<std::size_t>(given.layer)].*(linear->matrix);
    if (!matrix.exists()) throw std::invalid_argument("the model has no " + name);
    if (given.b_rows != matrix.rows || given.a_columns != matrix.columns)
        throw std::invalid_argument("the adapter's " + name + " is " + shape_text(given.b_rows, given.a_columns) + ", the model's " +
                                    shape_text(matrix.rows, matrix.columns));
    if (given.a_rows != given.b_columns || given.a_rows < 1 || given.a_rows > MOST_RANK)
        throw std::invalid_argument("the factors of " + name + " have ranks " + std::to_string(given.a_rows) + " and " +
                                    std::to_string(given.b_columns) + ": they must be equal, and 1 to " + std::to_string(MOST_RANK));
    const auto is_finite = [](const float* x, Size count) { return std::all_of(x, x + count, [](float value) { return std::isfinite(value); }); };
    if (!is_finite(given.a, given.a_rows * given.a_columns) || !is_finite(given.b, given.b_rows * given.b_columns))
        throw std::invalid_argument("the adapter's " + name + " has numbers that are not finite");
    return static_cast<int>(linear - LINEARS);
}

std::uint16_t to_bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);  // to the nearest, ties to even
}

// x (32) -> a block of Q8_0: its scale in float16, and 32 integers of -127 to 127.
void quantize_block(const float* x, std::uint8_t* block) {
    float most = 0.0f;
    for (Size i = 0; i < QUANT_BLOCK; ++i) most = std::max(most, std::fabs(x[i]));
    const std::uint16_t scale = float_to_half(most / 127.0f);
    std::memcpy(block, &scale, sizeof scale);
    for (Size i = 0; i < QUANT_BLOCK; ++i) {
        const auto number = static_cast<std::int8_t>(most > 0.0f ? std::lround(x[i] / most * 127.0f) : 0);
        std::memcpy(block + 2 + i, &number, sizeof number);
    }
}

// x (rows, columns), rounded to a kind (F32, BF16 or U8) and packed.
WeightMatrix pack_floats(int kind, const float* x, Size rows, Size columns, WeightMemory& memory) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(unpacked_bytes(kind, rows, columns)));
    const Size count = rows * columns;
    if (kind == F32_WEIGHTS) {
        std::memcpy(bytes.data(), x, bytes.size());
    } else if (kind == BF16_WEIGHTS) {
        for (Size i = 0; i < count; ++i) {
            const std::uint16_t narrow = to_bf16(x[i]);
            std::memcpy(bytes.data() + i * 2, &narrow, sizeof narrow);
        }
    } else {
        for (Size block = 0; block < count / QUANT_BLOCK; ++block)
            quantize_block(x + block * QUANT_BLOCK, bytes.data() + block * QUANT_BYTES[Q8_0]);
    }
    return pack(kind, bytes.data(), rows, columns, memory);
}

LowRankUpdate pack_update(const GivenUpdate& given, const WeightMatrix& matrix, Adapter& adapter) {
    const Size rank = given.a_rows;
    const int dense = matrix.kind == F32_WEIGHTS || matrix.kind == F16_WEIGHTS ? F32_WEIGHTS : BF16_WEIGHTS;
    if (!matrix.is_quantized())
        return {pack_floats(dense, given.a, rank, given.a_columns, adapter.a_memory),
                pack_floats(dense, given.b, given.b_rows, rank, adapter.b_memory)};
    // each row of ``a`` is divided by its largest magnitude, and ``b`` multiplied: scales in float16 would lose small ones
    std::vector<float> a(given.a, given.a + rank * given.a_columns), b(given.b, given.b + given.b_rows * rank);
    for (Size i = 0; i < rank; ++i) {
        float most = 0.0f, *row = a.data() + i * given.a_columns;
        for (Size j = 0; j < given.a_columns; ++j) most = std::max(most, std::fabs(row[j]));
        if (most == 0.0f) continue;
        for (Size j = 0; j < given.a_columns; ++j) row[j] /= most;
        for (Size j = 0; j < given.b_rows; ++j) b[static_cast<std::size_t>(j * rank + i)] *= most;
    }
    return {pack_floats(U8_WEIGHTS, a.data(), rank, given.a_columns, adapter.a_memory),
            pack_floats(dense, b.data(), given.b_rows, rank, adapter.b_memory)};
}

}  // namespace

std::unique_ptr<Adapter> make_adapter(const Decoder& decoder, const std::vector<GivenUpdate>& updates) {
    auto adapter = std::make_unique<Adapter>();
    adapter->layers.resize(decoder.layers.size());
    std::map<std::pair<std::int64_t, int>, const GivenUpdate*> in_order;  // by layer and linear
    for (const GivenUpdate& given : updates)
        if (!in_order.emplace(std::pair(given.layer, check_update(decoder, given)), &given).second)
            throw std::invalid_argument("two updates of " + given.linear + " of layer " + std::to_string(given.layer));
    for (const auto& [place, given] : in_order) {
        const auto layer = static_cast<std::size_t>(place.first), linear = static_cast<std::size_t>(place.second);
        adapter->layers[layer][linear] = pack_update(*given, decoder.layers[layer].*(LINEARS[linear].matrix), *adapter);
        adapter->rank = std::max(adapter->rank, given->a_rows);
    }
    return adapter;
}

Size gather_by_adapter(std::vector<StepToken>& tokens, const std::vector<std::size_t>& ends) {
    const auto adapter = [](const StepToken& token) { return token.sequence->adapter.get(); };
    Size rank = 0;
    for (const StepToken& token : tokens)
        if (adapter(token) != nullptr) rank = std::max(rank, adapter(token)->rank);
    if (rank == 0) return 0;
    auto begin = tokens.begin();
    for (const std::size_t end : ends) {
        const auto next = tokens.begin() + static_cast<std::ptrdiff_t>(end);
        std::stable_sort(begin, next, [&](const StepToken& one, const StepToken& other) {
            return std::less<const Adapter*>()(adapter(one), adapter(other));
        });
        begin = next;
    }
    return rank;
}

}  // namespace lmworks
