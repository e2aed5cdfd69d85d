// Products of packed matrices (engine.hpp) with a few vectors at a time. A group of 16 rows gives 16 results: lanes of one
// vector of AVX-512, of two of AVX2, of four of SSE. Whole numbers of 8 bits are multiplied four at a time and added to
// sums of 32 bits; where there is no instruction for that (VNNI), two instructions do it for numbers of four bits.
#pragma once

#include "engine.hpp"
#include "half.hpp"
#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace lmworks::ISA {

inline Vec load(const Half* p) {
#if defined(__AVX512F__)
    // all lanes; the instruction without a mask makes GCC 12 warn of a variable that is not set
    return bit_cast<Vec>(_mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return bit_cast<Vec>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    Vec v;
    for (int i = 0; i < W; ++i) v[i] = half_to_float(p[i].bits);
    return v;
#endif
}

namespace {

constexpr int PARTS = GROUP / W;  // vectors of a group
// How far ahead weights are fetched that are read once: the processor itself does not fetch across pages of memory.
constexpr Size WEIGHTS_AHEAD = 4096;
constexpr int TILE = W == 16 ? 8 : W == 8 ? 2 : 1;  // vectors that are multiplied at once: as many as registers allow

using VecU8 = std::uint8_t __attribute__((vector_size(W * 4)));

struct Lanes {
    Vec part[PARTS];
};
struct Sums {
    VecI32 part[PARTS];
};
struct Numbers {
    VecU8 part[PARTS];
};

Numbers load_numbers(const std::uint8_t* p) {
    Numbers numbers;
    std::memcpy(&numbers, p, sizeof numbers);
    return numbers;
}

VecU8 low_halves(VecU8 bytes) { return bit_cast<VecU8>(bit_cast<VecU32>(bytes) & 0x0F0F0F0Fu); }
VecU8 high_halves(VecU8 bytes) { return bit_cast<VecU8>(bit_cast<VecU32>(bytes) >> 4 & 0x0F0F0F0Fu); }

// The ternary numbers at one of the four places of each byte, 0 to 2; where they stand, that is times 4^place, or moved down.
constexpr int PLACES = 4;
VecU8 ternary_in_place(VecU8 bytes, int place) { return bit_cast<VecU8>(bit_cast<VecU32>(bytes) & 0x03030303u << 2 * place); }
VecU8 ternary_at(VecU8 bytes, int place) { return bit_cast<VecU8>(bit_cast<VecU32>(bytes) >> 2 * place & 0x03030303u); }

// sum + the four products of each lane; numbers of 0 to 128, so that two products fit 16 bits, with VNNI of 0 to 255; x has
// four numbers of -127 to 127, the same for all.
VecI32 add_products(VecI32 sum, VecU8 numbers, std::int32_t x) {
#if defined(__AVX512VNNI__)
    return bit_cast<VecI32>(_mm512_dpbusd_epi32(bit_cast<__m512i>(sum), bit_cast<__m512i>(numbers), _mm512_set1_epi32(x)));
#elif defined(__AVX512BW__)
    const __m512i pairs = _mm512_maddubs_epi16(bit_cast<__m512i>(numbers), _mm512_set1_epi32(x));
    return sum + bit_cast<VecI32>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_maddubs_epi16(bit_cast<__m256i>(numbers), _mm256_set1_epi32(x));
    return sum + bit_cast<VecI32>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
    for (int lane = 0; lane < W; ++lane)
        for (int i = 0; i < 4; ++i) sum[lane] += numbers[lane * 4 + i] * static_cast<std::int8_t>(x >> 8 * i);
    return sum;
#endif
}

// The same of numbers of 0 to 255.
VecI32 add_wide_products(VecI32 sum, VecU8 numbers, std::int32_t x) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    const VecI32 high = add_products(VecI32{}, high_halves(numbers), x);
    return add_products(sum, low_halves(numbers), x) + (high << 4);
#else
    return add_products(sum, numbers, x);
#endif
}

std::int32_t four_numbers(const std::int8_t* p) {
    std::int32_t numbers;
    std::memcpy(&numbers, p, sizeof numbers);
    return numbers;
}

// Vectors as products read them: ``dense`` and ``quantized`` begin with the first of them.
struct Vectors {
    const float* dense;
    const std::int8_t* numbers;
    const float *scales, *sums;
    const std::int32_t* totals;
    const Bf16* halves;  // for products in tiles, else null
    Size columns;

    Vectors from(Size row) const {
        const Size blocks = columns / QUANT_BLOCK;
        return {dense + row * columns, numbers + row * columns, scales + row * blocks, sums + row * blocks,
                totals + row * (columns / TERNARY_BLOCK), nullptr, columns};
    }
};

// The numbers of column ``even`` + ``odd`` (0 or 1) of a dense group, of a part of its rows.
template <class E>
Vec load_column(const E* group, Size even, int odd, int part) {
    return load(group + (even + odd) * GROUP + part * W);
}

Vec load_column(const Bf16* group, Size even, int odd, int part) {
    const VecU32 pairs = load(reinterpret_cast<const Bf16Pair*>(group) + even / 2 * GROUP + part * W);
    return bit_cast<Vec>(odd ? pairs & 0xFFFF0000u : pairs << 16);
}

// GROUPS groups of a dense matrix times COUNT vectors -> y (GROUPS, COUNT); what follows so many bytes behind is fetched, if any.
template <class E, int COUNT, int GROUPS = 1, Size AHEAD = COUNT == 1 && GROUPS == 1 ? WEIGHTS_AHEAD : 0>
void multiply_dense(const E* groups, Size group_stride, const Vectors& x, Lanes* y) {
    constexpr int CHAINS = 2;  // independent sums, as one would wait for each addition; as many for any COUNT, for the same bits
    constexpr int VECTORS = GROUPS * PARTS;
    Vec sums[COUNT][VECTORS][CHAINS] = {};
    Size column = 0;
    for (; column + CHAINS <= x.columns; column += CHAINS)
#pragma GCC unroll 2
        for (int chain = 0; chain < CHAINS; ++chain) {
            Vec weights[VECTORS];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                weights[v] = load_column(groups + v / PARTS * group_stride, column, chain, v % PARTS);
                if constexpr (AHEAD > 0)
                    __builtin_prefetch(reinterpret_cast<const char*>(groups + (column + chain) * GROUP + v * W) + AHEAD);
            }
#pragma GCC unroll 8
            for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) sums[i][v][chain] += weights[v] * x.dense[i * x.columns + column + chain];
        }
    for (; column < x.columns; ++column)
        for (int v = 0; v < VECTORS; ++v)
            for (int i = 0; i < COUNT; ++i)
                sums[i][v][0] += load_column(groups + v / PARTS * group_stride, column, 0, v % PARTS) * x.dense[i * x.columns + column];
    for (int v = 0; v < VECTORS; ++v)
        for (int i = 0; i < COUNT; ++i) {
            Vec& sum = y[v / PARTS * COUNT + i].part[v % PARTS];
            sum = sums[i][v][0];
            for (int chain = 1; chain < CHAINS; ++chain) sum += sums[i][v][chain];
        }
}

// A group of a quantized matrix times COUNT vectors.
template <int KIND, int COUNT>
void multiply_quantized(const std::uint8_t* group, const Vectors& x, Lanes* y) {
    constexpr bool WIDE = KIND == U8_WEIGHTS, HAS_MINIMA = KIND == U4_MIN_WEIGHTS;
    constexpr Size QUADS = WIDE ? 8 : 4, QUAD_BYTES = GROUP * 4;
    const Size blocks = x.columns / QUANT_BLOCK;
    const Half* scales = reinterpret_cast<const Half*>(group + blocks * number_bytes(KIND));
    for (int i = 0; i < COUNT; ++i) y[i] = {};
    for (Size block = 0; block < blocks; ++block, group += number_bytes(KIND), scales += scale_bytes(KIND) / 2) {
        const std::int8_t* numbers = x.numbers + block * QUANT_BLOCK;
        // a single vector has two sums: one would wait for each addition
        Sums sums[COUNT] = {}, more[1] = {};
#pragma GCC unroll 8  // so that sums stay in registers
        for (Size quad = 0; quad < QUADS; ++quad) {
            const Numbers weights = load_numbers(group + quad * QUAD_BYTES);
            if constexpr (COUNT == 1) __builtin_prefetch(group + quad * QUAD_BYTES + WEIGHTS_AHEAD);
#pragma GCC unroll 4
            for (int part = 0; part < PARTS; ++part)
#pragma GCC unroll 8
                for (int i = 0; i < COUNT; ++i) {
                    const std::int8_t* own = numbers + i * x.columns + quad * 4;
                    VecI32& sum = sums[i].part[part];
                    VecI32& second = COUNT == 1 ? more[0].part[part] : sum;
                    if constexpr (WIDE) {
                        if (quad % 2) second = add_wide_products(second, weights.part[part], four_numbers(own));
                        else sum = add_wide_products(sum, weights.part[part], four_numbers(own));
                    } else {
                        sum = add_products(sum, low_halves(weights.part[part]), four_numbers(own));
                        second = add_products(second, high_halves(weights.part[part]), four_numbers(own + QUANT_BLOCK / 2));
                    }
                }
        }
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) {
            const Vec scale = load(scales + part * W);
            const Vec minimum = HAS_MINIMA ? load(scales + GROUP + part * W) : scale * (WIDE ? -128.0f : -8.0f);
#pragma GCC unroll 8
            for (int i = 0; i < COUNT; ++i) {
                const VecI32 sum = COUNT == 1 ? sums[i].part[part] + more[0].part[part] : sums[i].part[part];
                const Vec whole = __builtin_convertvector(sum, Vec);
                y[i].part[part] += scale * (whole * x.scales[i * blocks + block]) + minimum * x.sums[i * blocks + block];
            }
        }
    }
}

// A group of a ternary matrix times COUNT vectors: its numbers of 0 to 2, less the sum of the vector's numbers, which is
// that of a number 1 everywhere.
template <int COUNT>
void multiply_ternary(const std::uint8_t* group, const Vectors& x, Lanes* y) {
    // For a single vector numbers are left in place, which saves moving them, and each place has sums of its own; where
    // registers allow it two, one for each half of a block, as one would wait for each addition. Of several vectors each has
    // one sum.
    constexpr bool IN_PLACE = COUNT == 1;
    constexpr int SUMS = IN_PLACE ? PLACES : 1, HALVES = IN_PLACE && PARTS == 1 ? 2 : 1;
    constexpr Size BYTES = number_bytes(TERNARY_WEIGHTS), QUADS = QUANT_BLOCK / 4, QUAD_BYTES = GROUP * 4;
    const Size blocks = x.columns / TERNARY_BLOCK;
    const Half* scales = reinterpret_cast<const Half*>(group + blocks * BYTES);
    for (int i = 0; i < COUNT; ++i) y[i] = {};
    for (Size block = 0; block < blocks; ++block, group += BYTES, scales += GROUP) {
        Sums sums[COUNT][HALVES][SUMS] = {};
        for (Size quad = 0; quad < QUADS; ++quad)
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const std::uint8_t* bytes = group + (half * QUADS + quad) * QUAD_BYTES;
                const std::int8_t* numbers = x.numbers + block * TERNARY_BLOCK + half * TERNARY_BLOCK / 2 + quad * 4;
                const Numbers weights = load_numbers(bytes);
                if constexpr (COUNT == 1) __builtin_prefetch(bytes + WEIGHTS_AHEAD);
#pragma GCC unroll 4
                for (int part = 0; part < PARTS; ++part)
#pragma GCC unroll 4
                    for (int place = 0; place < PLACES; ++place) {
                        const VecU8 own = IN_PLACE ? ternary_in_place(weights.part[part], place) : ternary_at(weights.part[part], place);
#pragma GCC unroll 8
                        for (int i = 0; i < COUNT; ++i) {
                            VecI32& sum = sums[i][half % HALVES][place % SUMS].part[part];
                            sum = add_products(sum, own, four_numbers(numbers + i * x.columns + place * QUANT_BLOCK));
                        }
                    }
            }
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) {
            const Vec scale = load(scales + part * W);
#pragma GCC unroll 8
            for (int i = 0; i < COUNT; ++i) {
                VecI32 total{};
#pragma GCC unroll 2
                for (int half = 0; half < HALVES; ++half)
#pragma GCC unroll 4
                    for (int place = 0; place < SUMS; ++place) total += sums[i][half][place].part[part] >> 2 * place;
                total -= x.totals[i * blocks + block];
                y[i].part[part] += scale * (__builtin_convertvector(total, Vec) * x.scales[(i * x.columns + block * TERNARY_BLOCK) / QUANT_BLOCK]);
            }
        }
    }
}

template <int COUNT>
void multiply_group(const WeightMatrix& matrix, const std::uint8_t* group, const Vectors& x, Lanes* y) {
    switch (matrix.kind) {
        case F32_WEIGHTS: return multiply_dense<float, COUNT>(reinterpret_cast<const float*>(group), 0, x, y);
        case F16_WEIGHTS: return multiply_dense<Half, COUNT>(reinterpret_cast<const Half*>(group), 0, x, y);
        case BF16_WEIGHTS: return multiply_dense<Bf16, COUNT>(reinterpret_cast<const Bf16*>(group), 0, x, y);
        case U4_WEIGHTS: return multiply_quantized<U4_WEIGHTS, COUNT>(group, x, y);
        case U4_MIN_WEIGHTS: return multiply_quantized<U4_MIN_WEIGHTS, COUNT>(group, x, y);
        case TERNARY_WEIGHTS: return multiply_ternary<COUNT>(group, x, y);
        default: return multiply_quantized<U8_WEIGHTS, COUNT>(group, x, y);
    }
}

void add_bias(const WeightMatrix& matrix, Size row, Size rows, float* values) {
    if (matrix.bias.empty()) return;
    for (Size i = 0; i < rows; ++i) values[i] += matrix.bias[static_cast<std::size_t>(row + i)];
}

// Vectors that are multiplied at once with two groups of a dense matrix: with one, loading would take longer than multiplying.
// Fewer vectors than FEWEST_PAIRED have whole tiles of TILE with one group.
constexpr Size PAIR_TILE = 6, PAIR_REST = 2, FEWEST_PAIRED = 24;
constexpr bool HAS_PAIRS = W == 16;  // as many sums need 32 registers

template <class E, int COUNT, class Finish>
Size multiply_dense_pairs(const E* groups, Size group_stride, const Vectors& x, Size vector, Size count, Finish finish) {
    Lanes y[2 * COUNT];
    for (; vector + COUNT <= count; vector += COUNT) {
        multiply_dense<E, COUNT, 2>(groups, group_stride, x.from(vector), y);
        for (int group = 0; group < 2; ++group)
            for (int i = 0; i < COUNT; ++i) finish(group, vector + i, y[group * COUNT + i]);
    }
    return vector;
}

// Groups ``begin`` ... of a dense matrix, two at a time, as multiply(); the first that is left.
template <class E, class Take>
Size multiply_pairs(const WeightMatrix& matrix, const Vectors& x, Size count, Size begin, Size end, Take take) {
    const Size stride = matrix.group_bytes() / static_cast<Size>(sizeof(E));
    for (; begin + 2 <= end; begin += 2) {
        const E* groups = reinterpret_cast<const E*>(matrix.data) + begin * stride;
        const auto finish = [&](Size group, Size vector, const Lanes& lanes) {
            const Size row = (begin + group) * GROUP, rows = std::min(GROUP, matrix.rows - row);
            float values[GROUP];
            std::memcpy(values, &lanes, sizeof values);
            add_bias(matrix, row, rows, values);
            take(vector, row, rows, values);
        };
        Size vector = multiply_dense_pairs<E, PAIR_TILE>(groups, stride, x, 0, count, finish);
        vector = multiply_dense_pairs<E, PAIR_REST>(groups, stride, x, vector, count, finish);
        multiply_dense_pairs<E, 1>(groups, stride, x, vector, count, finish);
    }
    return begin;
}

// Groups begin ... end - 1 of a matrix times ``count`` vectors; ``take(vector, row, rows, values)`` gets the results of
// ``rows`` rows from ``row`` on, with the bias added.
template <class Take>
void multiply(const WeightMatrix& matrix, const Vectors& x, Size count, Size begin, Size end, Take take) {
    const Size bytes = matrix.group_bytes();
    if constexpr (HAS_PAIRS)
        if (count >= FEWEST_PAIRED) switch (matrix.kind) {
            case F32_WEIGHTS: begin = multiply_pairs<float>(matrix, x, count, begin, end, take); break;
            case F16_WEIGHTS: begin = multiply_pairs<Half>(matrix, x, count, begin, end, take); break;
            case BF16_WEIGHTS: begin = multiply_pairs<Bf16>(matrix, x, count, begin, end, take); break;
            default: break;
        }
    for (Size number = begin; number < end; ++number) {
        const std::uint8_t* group = matrix.data + number * bytes;
        const Size row = number * GROUP, rows = std::min(GROUP, matrix.rows - row);
        const auto finish = [&](Size vector, const Lanes& lanes) {
            float values[GROUP];
            std::memcpy(values, &lanes, sizeof values);
            add_bias(matrix, row, rows, values);
            take(vector, row, rows, values);
        };
        Size vector = 0;
        Lanes y[TILE];
        for (; vector + TILE <= count; vector += TILE) {
            multiply_group<TILE>(matrix, group, x.from(vector), y);
            for (int i = 0; i < TILE; ++i) finish(vector + i, y[i]);
        }
        for (; vector < count; ++vector) {
            multiply_group<1>(matrix, group, x.from(vector), y);
            finish(vector, y[0]);
        }
    }
}

// A vector as whole numbers of -127 to 127, of which each ``block`` (32, or TERNARY_BLOCK) shares a scale. For each 32 the
// scale, and the sum of its numbers times the scale; for each TERNARY_BLOCK the sum of its numbers.
void quantize_vector(const float* x, Size columns, Size block, std::int8_t* numbers, float* scales, float* sums, std::int32_t* totals) {
    for (Size begin = 0; begin < columns; begin += block) {
        Vec largest{};
        for (Size i = begin; i < begin + block; i += W) {
            const Vec v = load(x + i);
            largest = max(largest, max(v, -v));
        }
        const float most = reduce_max(largest), scale = most / 127.0f, inverse = most > 0.0f ? 127.0f / most : 0.0f;
        std::int32_t total = 0;
        for (Size part = begin; part < begin + block; part += QUANT_BLOCK) {
            VecI32 lanes{};
            for (Size i = part; i < part + QUANT_BLOCK; i += W) {
                const VecI32 whole = __builtin_convertvector(round(load(x + i) * inverse), VecI32);
                using VecI8 = std::int8_t __attribute__((vector_size(W)));
                const VecI8 narrow = __builtin_convertvector(whole, VecI8);
                std::memcpy(numbers + i, &narrow, sizeof narrow);
                lanes += whole;
            }
            std::int32_t sum = 0;
            for (int lane = 0; lane < W; ++lane) sum += lanes[lane];
            scales[part / QUANT_BLOCK] = scale;
            sums[part / QUANT_BLOCK] = scale * static_cast<float>(sum);
            total += sum;
        }
        if (block == TERNARY_BLOCK) totals[begin / TERNARY_BLOCK] = total;
    }
}

}  // namespace
}  // namespace lmworks::ISA
