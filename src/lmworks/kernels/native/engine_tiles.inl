// Products with many vectors on processors with AMX, in tiles of 16 x 16 x 32: of matrices in bfloat16, and of quantized ones,
// whose groups of rows are dequantized to bfloat16 once for all vectors. Compiled within the set avx512_bf16; used where the
// processor and the system have the tiles.
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
constexpr Size TILE_COLUMNS_AT_ONCE = 384;  // of two groups of rows in bfloat16: 24 kB, which stay in the first cache
static_assert(TILE_COLUMNS_AT_ONCE % MATRIX_TILE_DEPTH == 0);
// With fewer vectors dequantizing takes longer than tiles save; ternary numbers are multiplied faster without them.
constexpr Size fewest_tile_vectors(Size block) { return block == TERNARY_BLOCK ? 64 : 32; }

// Whether products in tiles take a matrix: it is quantized, or in bfloat16, as tiles read it.
bool fits_tiles(const WeightMatrix& matrix) { return matrix.is_quantized() || matrix.kind == BF16_WEIGHTS; }

// Writes vector ``number`` among vectors that lie tile after tile: loading a tile reads 16 lines of memory that follow one
// another, whatever the number of columns; at the distance of some numbers they would displace one another from the cache.
void put_in_tiles(const float* vector, Size number, Size columns, Bf16* out) {
    out += number / MATRIX_TILE * MATRIX_TILE * columns + number % MATRIX_TILE * MATRIX_TILE_DEPTH;
    for (Size column = 0; column < columns; column += MATRIX_TILE_DEPTH, out += MATRIX_TILE * MATRIX_TILE_DEPTH)
        for (Size i = 0; i < MATRIX_TILE_DEPTH; i += W) store(out + i, load(vector + column + i));
}

// Rows of bfloat16 numbers as tiles are loaded from them, and the numbers from one row to the next, from a tile to the one
// beside it and to the one below it.
struct TileRows {
    const Bf16* data;
    Size row, beside, below;

    // Rows that lie one after the other.
    static TileRows plain(const Bf16* data, Size stride) { return {data, stride, MATRIX_TILE_DEPTH, MATRIX_TILE * stride}; }
    TileRows from(Size tile_row, Size column) const {
        return {data + tile_row * below + column / MATRIX_TILE_DEPTH * beside, row, beside, below};
    }
};

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

// 16 numbers and as many of the next row or column as pairs of bfloat16.
VecU32 pairs_of(Vec first, Vec second) {
    const auto narrow = [](Vec v) {
        return __builtin_convertvector(bit_cast<VecU16>(_mm512_cvtneps_pbh(bit_cast<__m512>(v))), VecU32);
    };
    return narrow(first) | narrow(second) << 16;
}

// Two rows of a tile: four columns of each lane, dequantized.
void put_columns(VecU32 numbers, Vec scale, Vec minimum, Bf16Pair* out) {
    Vec column[4];
    for (int i = 0; i < 4; ++i)
        column[i] = __builtin_convertvector(bit_cast<VecI32>(numbers >> 8 * i & 0xFFu), Vec) * scale + minimum;
    for (int i = 0; i < 2; ++i) store(out + i * GROUP, pairs_of(column[2 * i], column[2 * i + 1]));
}

// A group in bfloat16, as tiles read it: for each 32 columns 16 rows of memory, of which each has two columns of all lanes.
template <int KIND>
void dequantize_group(const std::uint8_t* group, Size columns, Bf16Pair* out) {
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
void dequantize_ternary_group(const std::uint8_t* group, Size columns, Bf16Pair* out) {
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

// y (16 * ROWS, 16 * COLUMNS) = or += x (16 * ROWS, depth) times COLUMNS blocks of 16 columns, which are packed in pairs of
// their rows: (depth / 2, 16) each. Strides count numbers.
template <int ROWS, int COLUMNS>
__attribute__((target("amx-tile,amx-bf16"))) void multiply_tiles(TileRows x, const Bf16Pair* blocks, Size block_stride, Size depth, bool adds,
                                                                 float* y, Size y_stride) {
    constexpr bool BOTH = ROWS > 1 && COLUMNS > 1;
    constexpr int BLOCK_BYTES = GROUP * sizeof(Bf16Pair);
    const auto x_bytes = static_cast<int>(x.row * static_cast<Size>(sizeof(Bf16)));
    const auto y_bytes = static_cast<int>(y_stride * static_cast<Size>(sizeof(float)));
    float *lower = y + MATRIX_TILE * y_stride, *right = y + GROUP, *lower_right = lower + GROUP;
    if (adds) {
        _tile_loadd(0, y, y_bytes);
        if constexpr (ROWS > 1) _tile_loadd(1, lower, y_bytes);
        if constexpr (COLUMNS > 1) _tile_loadd(2, right, y_bytes);
        if constexpr (BOTH) _tile_loadd(3, lower_right, y_bytes);
    } else {
        _tile_zero(0);
        if constexpr (ROWS > 1) _tile_zero(1);
        if constexpr (COLUMNS > 1) _tile_zero(2);
        if constexpr (BOTH) _tile_zero(3);
    }
    for (Size row = 0; row < depth; row += MATRIX_TILE_DEPTH, x.data += x.beside, blocks += MATRIX_TILE_DEPTH / 2 * GROUP) {
        _tile_loadd(4, x.data, x_bytes);
        _tile_loadd(6, blocks, BLOCK_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (ROWS > 1) {
            _tile_loadd(5, x.data + x.below, x_bytes);
            _tile_dpbf16ps(1, 5, 6);
        }
        if constexpr (COLUMNS > 1) {
            _tile_loadd(7, blocks + block_stride, BLOCK_BYTES);
            _tile_dpbf16ps(2, 4, 7);
        }
        if constexpr (BOTH) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, y, y_bytes);
    if constexpr (ROWS > 1) _tile_stored(1, lower, y_bytes);
    if constexpr (COLUMNS > 1) _tile_stored(2, right, y_bytes);
    if constexpr (BOTH) _tile_stored(3, lower_right, y_bytes);
}

// The same for any number of rows.
template <int COLUMNS>
void multiply_rows_of_tiles(const TileRows& x, Size rows, const Bf16Pair* blocks, Size block_stride, Size depth, bool adds, float* y, Size y_stride) {
    for (Size tile = 0; tile * MATRIX_TILE < rows; tile += 2, y += 2 * MATRIX_TILE * y_stride)
        if ((tile + 1) * MATRIX_TILE < rows) multiply_tiles<2, COLUMNS>(x.from(tile, 0), blocks, block_stride, depth, adds, y, y_stride);
        else multiply_tiles<1, COLUMNS>(x.from(tile, 0), blocks, block_stride, depth, adds, y, y_stride);
}

TileRows in_tiles(const Bf16* vectors, Size columns) {
    return {vectors, MATRIX_TILE_DEPTH, MATRIX_TILE * MATRIX_TILE_DEPTH, MATRIX_TILE * columns};
}

void dequantize_for_tiles(const WeightMatrix& matrix, const std::uint8_t* group, Bf16Pair* out) {
    switch (matrix.kind) {
        case U4_WEIGHTS: return dequantize_group<U4_WEIGHTS>(group, matrix.columns, out);
        case U4_MIN_WEIGHTS: return dequantize_group<U4_MIN_WEIGHTS>(group, matrix.columns, out);
        case TERNARY_WEIGHTS: return dequantize_ternary_group(group, matrix.columns, out);
        default: return dequantize_group<U8_WEIGHTS>(group, matrix.columns, out);
    }
}

// As multiply(), of a matrix that fits_tiles() and vectors in bfloat16, which are whole tiles (put_in_tiles()). Two groups of
// rows are multiplied with all vectors, some columns at a time, so that those of the groups stay in the first cache.
// scratch: two groups in bfloat16, and results of all vectors.
template <class Take>
void multiply_in_tiles(const WeightMatrix& matrix, const Bf16* x, Size count, Size begin, Size end, std::uint32_t* scratch,
                       Take take) {
    TileScope tiles;
    const Size bytes = matrix.group_bytes(), columns = matrix.columns, group_pairs = columns / 2 * GROUP;
    auto* dequantized = reinterpret_cast<Bf16Pair*>(scratch);
    float* results = reinterpret_cast<float*>(scratch + 2 * group_pairs);
    const TileRows vectors = in_tiles(x, columns);
    for (Size number = begin; number < end; number += 2) {
        const Size groups = std::min<Size>(2, end - number);
        const Bf16Pair* pairs = dequantized;
        if (matrix.is_quantized())
            for (Size i = 0; i < groups; ++i) dequantize_for_tiles(matrix, matrix.data + (number + i) * bytes, dequantized + i * group_pairs);
        else pairs = reinterpret_cast<const Bf16Pair*>(matrix.data + number * bytes);
        for (Size column = 0; column < columns; column += TILE_COLUMNS_AT_ONCE) {
            const Size depth = std::min(TILE_COLUMNS_AT_ONCE, columns - column);
            const TileRows own = vectors.from(0, column);
            const Bf16Pair* part = pairs + column / 2 * GROUP;
            if (groups == 2) multiply_rows_of_tiles<2>(own, count, part, group_pairs, depth, column > 0, results, 2 * GROUP);
            else multiply_rows_of_tiles<1>(own, count, part, group_pairs, depth, column > 0, results, 2 * GROUP);
        }
        const Size row = number * GROUP, rows = std::min(groups * GROUP, matrix.rows - row);
        for (Size i = 0; i < count; ++i) {
            float* values = results + i * 2 * GROUP;
            add_bias(matrix, row, rows, values);
            take(i, row, rows, values);
        }
    }
}

#else

bool has_tiles() { return false; }

struct TileScope {};

template <int COLUMNS>
void multiply_rows_of_tiles(const TileRows&, Size, const Bf16Pair*, Size, Size, bool, float*, Size) {}

template <class Take>
void multiply_in_tiles(const WeightMatrix&, const Bf16*, Size, Size, Size, std::uint32_t*, Take) {}

#endif

}  // namespace
}  // namespace lmworks::ISA
