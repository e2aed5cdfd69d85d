// The low-rank terms that adapters add to the products of a step. Tokens of one adapter stand beside one another. Where
// each token has its own, factors are read once in a step, from memory in small pieces: what comes next is fetched while
// something else is computed.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "engine_adapters.hpp"
#include "engine_products.inl"

namespace lmworks::ISA {
namespace {

class StepAdapters {
public:
    // rows: where products with the first factors go, with room for ``rank`` each.
    StepAdapters(const StepToken* tokens, Size count, StepBuffers::Rows& rows, Size rank)
        : tokens_(tokens), count_(count), rows_(rows), rank_(rank) {
        for (Size token = 0; token < count; ++token) exist_ = exist_ || adapter_of(token) != nullptr;
    }

    // Whether any token has an adapter.
    bool exist() const { return exist_; }

    // a x of tokens begin ... end - 1 for some linears of a layer that read the vectors x of all tokens.
    void lower(Size layer, std::initializer_list<BlockLinearIndex> linears, const Vectors& x, Size begin, Size end) const {
        if (!exist_ || linears.size() == 0) return;
        for (Size first = begin, last; first < end; first = last) {
            const Adapter* own = adapter_of(first);
            for (last = first + 1; last < end && adapter_of(last) == own;) ++last;
            if (last < end && adapter_of(last) != nullptr) {  // from there on products fetch what they need
                const WeightMatrix& next = update_of(*adapter_of(last), layer, *linears.begin()).a;
                if (next.exists()) fetch(next.data, next.group_bytes());
            }
            if (own == nullptr) continue;
            for (const BlockLinearIndex linear : linears) {
                const WeightMatrix& a = update_of(*own, layer, linear).a;
                multiply(a, x.from(first), last - first, 0, a.groups(), [&](Size i, Size row, Size rows, const float* values) {
                    std::copy_n(values, rows, low(linear, first + i) + row);
                });
            }
        }
    }

    // Fetches what add() reads of all tokens for 16 rows.
    void fetch_rows(Size layer, BlockLinearIndex linear, Size row) const {
        for (Size token = 0; token < count_; ++token) {
            const Adapter* own = adapter_of(token);
            if (own == nullptr || (token > 0 && adapter_of(token - 1) == own)) continue;
            const WeightMatrix& b = update_of(*own, layer, linear).b;
            if (b.exists()) fetch(b.data + row / GROUP * b.group_bytes(), b.group_bytes());
        }
    }

    // Adds b (a x) to the 16 results of a token from ``row`` on; lower() came before.
    void add(Size layer, BlockLinearIndex linear, Size token, Size row, float* values) const {
        const Adapter* own = adapter_of(token);
        if (own == nullptr) return;
        const WeightMatrix& b = update_of(*own, layer, linear).b;
        if (!b.exists()) return;
        const Size bytes = b.group_bytes();
        const std::uint8_t* group = b.data + row / GROUP * bytes;
        const bool is_last = token + 1 == count_ || adapter_of(token + 1) != own;  // of the tokens with this adapter
        if (is_last) fetch(group + bytes, bytes);  // of the next rows, which come when all tokens have these
        const Vectors x{low(linear, token), nullptr, nullptr, nullptr, nullptr, nullptr, b.columns};
        Lanes y;
        if (b.kind == F32_WEIGHTS) multiply_dense<float, 1, 1, 0>(reinterpret_cast<const float*>(group), 0, x, &y);
        else multiply_dense<Bf16, 1, 1, 0>(reinterpret_cast<const Bf16*>(group), 0, x, &y);
        for (int part = 0; part < PARTS; ++part) store(values + part * W, load(values + part * W) + y.part[part]);
    }

private:
    const StepToken* tokens_;
    const Size count_;
    StepBuffers::Rows& rows_;
    const Size rank_;
    bool exist_ = false;

    const Adapter* adapter_of(Size token) const { return tokens_[token].sequence->adapter.get(); }

    static const LowRankUpdate& update_of(const Adapter& adapter, Size layer, BlockLinearIndex linear) {
        return adapter.layers[static_cast<std::size_t>(layer)][linear];
    }

    static void fetch(const std::uint8_t* begin, Size bytes) {
        constexpr Size LINE = 64;
        for (Size place = 0; place < std::min(bytes, WEIGHTS_AHEAD); place += LINE) __builtin_prefetch(begin + place);
    }

    float* low(BlockLinearIndex linear, Size token) const { return rows_.low.data() + (linear * count_ + token) * rank_; }
};

}  // namespace
}  // namespace lmworks::ISA
