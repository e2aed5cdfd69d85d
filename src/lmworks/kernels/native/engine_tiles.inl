// Products of quantized matrices with many vectors on processors with AMX: groups of rows are dequantized to bfloat16 once
// for all vectors and multiplied in tiles of 16 x 16 x 32. Compiled within the set avx512_bf16; used where the processor and
// the system have the tiles.
#pragma once

#include "engine_products.inl"

#if defined(__AVX512BF16__) && defined(__linux__)
#define LMWORKS_TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cpuid.h>
#endif

namespace lmworks::ISA {
namespace {

constexpr Size MATRIX_TILE = 16, MATRIX_TILE_DEPTH = 32;  // vectors of a tile, and numbers of each
// With fewer vectors dequantizing takes longer than tiles save; ternary numbers are multiplied faster without them.
constexpr Size fewest_tile_vectors(Size block) { return block == TERNARY_BLOCK ? 64 : 32; }

#if defined(LMWORKS_TILES)

bool has_tiles() {
    static const bool result = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1u) || !(d >> 24 & 1u)) return false;
        constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // the system saves tiles for threads that ask for them
        return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    }();
    return result;
}

struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The tiles of this thread while it lives.
class TileScope {
public:
    __attribute__((target("amx-tile"))) TileScope() {
        static const TileConfig config;
        _tile_loadconfig(&config);
    }
    __attribute__((target("amx-tile"))) ~TileScope() { _tile_release(); }
};

// 16 numbers of one column and 16 of the next as pairs of bfloat16.
VecU32 pairs_of(Vec first, Vec second) {
    const auto narrow = [](Vec v) {
        return __builtin_convertvector(bit_cast<VecU16>(_mm512_cvtneps_pbh(bit_cast<__m512>(v))), VecU32);
    };
    return narrow(first) | narrow(second) << 16;
}

// Two rows of a tile: four columns of each lane, dequantized.
void put_columns(VecU32 numbers, Vec scale, Vec minimum, std::uint32_t* out) {
    Vec column[4];
    for (int i = 0; i < 4; ++i)
        column[i] = __builtin_convertvector(bit_cast<VecI32>(numbers >> 8 * i & 0xFFu), Vec) * scale + minimum;
    for (int i = 0; i < 2; ++i) {
        const VecU32 pairs = pairs_of(column[2 * i], column[2 * i + 1]);
        std::memcpy(out + i * GROUP, &pairs, sizeof pairs);
    }
}

// A group in bfloat16, as tiles read it: for each 32 columns 16 rows of memory, of which each has two columns of all lanes.
template <int KIND>
void dequantize_group(const std::uint8_t* group, Size columns, std::uint32_t* out) {
    constexpr bool WIDE = KIND == U8_WEIGHTS, HAS_MINIMA = KIND == U4_MIN_WEIGHTS;
    constexpr Size QUADS = WIDE ? 8 : 4, QUAD_BYTES = GROUP * 4;
    const Size blocks = columns / QUANT_BLOCK;
    const Half* scales = reinterpret_cast<const Half*>(group + blocks * number_bytes(KIND));
    for (Size block = 0; block < blocks; ++block, group += number_bytes(KIND), scales += scale_bytes(KIND) / 2, out += MATRIX_TILE * GROUP) {
        const Vec scale = load(scales), minimum = HAS_MINIMA ? load(scales + GROUP) : scale * (WIDE ? -128.0f : -8.0f);
        const auto put = [&](VecU8 bytes, Size row) { put_columns(bit_cast<VecU32>(bytes), scale, minimum, out + row * GROUP); };
        for (Size quad = 0; quad < QUADS; ++quad) {
            const VecU8 bytes = load_numbers(group + quad * QUAD_BYTES).part[0];
            if constexpr (WIDE) {
                put(bytes, 2 * quad);
            } else {
                put(low_halves(bytes), 2 * quad);
                put(high_halves(bytes), 2 * quad + MATRIX_TILE / 2);
            }
        }
    }
}

// The same of a ternary group.
void dequantize_ternary_group(const std::uint8_t* group, Size columns, std::uint32_t* out) {
    constexpr Size BYTES = number_bytes(TERNARY_WEIGHTS), QUADS = QUANT_BLOCK / 4, QUAD_BYTES = GROUP * 4, TILE_SIZE = MATRIX_TILE * GROUP;
    const Size blocks = columns / TERNARY_BLOCK;
    const Half* scales = reinterpret_cast<const Half*>(group + blocks * BYTES);
    for (Size block = 0; block < blocks; ++block, group += BYTES, scales += GROUP)
        for (Size half = 0; half < 2; ++half, out += PLACES * TILE_SIZE)
            for (Size quad = 0; quad < QUADS; ++quad) {
                const VecU8 bytes = load_numbers(group + (half * QUADS + quad) * QUAD_BYTES).part[0];
                const Vec scale = load(scales);
                for (int place = 0; place < PLACES; ++place)
                    put_columns(bit_cast<VecU32>(ternary_at(bytes, place)), scale, -scale, out + place * TILE_SIZE + 2 * quad * GROUP);
            }
}

// A dequantized group times 16 * TILES vectors; y (vectors, GROUP).
template <int TILES>
__attribute__((target("amx-tile,amx-bf16"))) void multiply_tiles(const std::uint32_t* group, const Bf16* x, Size columns, float* y) {
    const auto stride = static_cast<int>(columns * 2);
    _tile_zero(0);
    if constexpr (TILES > 1) _tile_zero(1);
    if constexpr (TILES > 2) _tile_zero(2);
    if constexpr (TILES > 3) _tile_zero(3);
    for (Size column = 0; column < columns; column += MATRIX_TILE_DEPTH, group += MATRIX_TILE * GROUP) {
        _tile_loadd(4, group, 64);
        _tile_loadd(5, x + column, stride);
        _tile_dpbf16ps(0, 5, 4);
        if constexpr (TILES > 1) {
            _tile_loadd(5, x + column + MATRIX_TILE * columns, stride);
            _tile_dpbf16ps(1, 5, 4);
        }
        if constexpr (TILES > 2) {
            _tile_loadd(5, x + column + 2 * MATRIX_TILE * columns, stride);
            _tile_dpbf16ps(2, 5, 4);
        }
        if constexpr (TILES > 3) {
            _tile_loadd(5, x + column + 3 * MATRIX_TILE * columns, stride);
            _tile_dpbf16ps(3, 5, 4);
        }
    }
    _tile_stored(0, y, 64);
    if constexpr (TILES > 1) _tile_stored(1, y + MATRIX_TILE * GROUP, 64);
    if constexpr (TILES > 2) _tile_stored(2, y + 2 * MATRIX_TILE * GROUP, 64);
    if constexpr (TILES > 3) _tile_stored(3, y + 3 * MATRIX_TILE * GROUP, 64);
}

// As multiply(), of a quantized matrix and vectors in bfloat16, of which there are rows for whole tiles.
// scratch: a group in bfloat16, and results of 64 vectors.
template <class Take>
void multiply_in_tiles(const WeightMatrix& matrix, const Bf16* x, Size count, Size begin, Size end, std::uint32_t* scratch,
                       Take take) {
    TileScope tiles;
    const Size bytes = matrix.group_bytes(), columns = matrix.columns;
    float* results = reinterpret_cast<float*>(scratch + columns / 2 * GROUP);
    for (Size number = begin; number < end; ++number) {
        const std::uint8_t* group = matrix.data + number * bytes;
        if (matrix.kind == U4_WEIGHTS) dequantize_group<U4_WEIGHTS>(group, columns, scratch);
        else if (matrix.kind == U4_MIN_WEIGHTS) dequantize_group<U4_MIN_WEIGHTS>(group, columns, scratch);
        else if (matrix.kind == TERNARY_WEIGHTS) dequantize_ternary_group(group, columns, scratch);
        else dequantize_group<U8_WEIGHTS>(group, columns, scratch);
        const Size row = number * GROUP, rows = std::min(GROUP, matrix.rows - row);
        for (Size first = 0; first < count; first += 4 * MATRIX_TILE) {
            const Size left = count - first;
            const Bf16* in = x + first * columns;
            if (left > 3 * MATRIX_TILE) multiply_tiles<4>(scratch, in, columns, results);
            else if (left > 2 * MATRIX_TILE) multiply_tiles<3>(scratch, in, columns, results);
            else if (left > MATRIX_TILE) multiply_tiles<2>(scratch, in, columns, results);
            else multiply_tiles<1>(scratch, in, columns, results);
            for (Size i = 0; i < std::min(left, 4 * MATRIX_TILE); ++i) {
                float* values = results + i * GROUP;
                add_bias(matrix, row, rows, values);
                take(first + i, row, rows, values);
            }
        }
    }
}

#else

bool has_tiles() { return false; }

template <class Take>
void multiply_in_tiles(const WeightMatrix&, const Bf16*, Size, Size, Size, std::uint32_t*, Take) {}

#endif

}  // namespace
}  // namespace lmworks::ISA
