// The memory of a sequence's keys and values; kv_cache.inl writes and reads them.
#include <algorithm>

#include "engine.hpp"

namespace lmworks {

Size Sequence::vector_bytes(const Decoder& decoder) const {
    switch (kind) {
        case F32_CACHE: return decoder.head_size * 4;
        case F16_CACHE: return decoder.head_size * 2;
        default: return decoder.head_size + static_cast<Size>(sizeof(float));
    }
}

void Sequence::grow(const Decoder& decoder, Size room) {
    Sequence larger;
    larger.kind = kind;
    larger.capacity = (room + GROUP - 1) / GROUP * GROUP;
    const Size heads = static_cast<Size>(decoder.layers.size()) * decoder.kv_heads;
    larger.keys.resize(heads * larger.capacity * vector_bytes(decoder));
    larger.values.resize(larger.keys.count());
    // scores of 16 positions are computed at once: those behind the last must not be NaN
    std::fill_n(larger.keys.data(), larger.keys.count(), std::uint8_t{0});
    larger.copy_tokens(decoder, *this, length);
    capacity = larger.capacity;
    keys = std::move(larger.keys);
    values = std::move(larger.values);
}

void Sequence::copy_tokens(const Decoder& decoder, const Sequence& from, Size count) {
    const Size size = vector_bytes(decoder), rounded = (count + GROUP - 1) / GROUP * GROUP;
    const Size heads = count > 0 ? static_cast<Size>(decoder.layers.size()) * decoder.kv_heads : 0;
    for (Size head = 0; head < heads; ++head) {
        std::copy_n(from.keys.data() + head * from.capacity * size, rounded * size, keys.data() + head * capacity * size);
        std::copy_n(from.values.data() + head * from.capacity * size, count * size, values.data() + head * capacity * size);
    }
}

}  // namespace lmworks
