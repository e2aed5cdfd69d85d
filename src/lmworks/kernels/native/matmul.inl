// Matrix products in float32, in blocks that stay in the caches (Goto & van de Geijn 2008): a block of b is packed into
// panels for all threads, and tiles of c are accumulated in registers. The order of a sum, and so its bits, depend neither
// on the number of threads nor on which thread computes a tile.
#pragma once

#include <algorithm>
#include <vector>

#include "gemm.inl"
#include "kernel_table.hpp"
#include "parallel.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size BLOCK_DEPTH = 384;     // rows of b in a panel: a panel stays in the caches of a core
constexpr Size BLOCK_COLUMNS = 1536;  // columns of b that are packed at a time, a multiple of TILE_COLUMNS
constexpr Size BLOCK_TILES = 16;      // tiles of rows of a work item, at most
constexpr Size ITEMS_PER_THREAD = 4;  // at least, if there are enough panels, since all threads wait for the last

// A tile of c, R rows and N vectors = addend (null: zeros) + a b, with b a panel (depth, TILE_COLUMNS).
template <int R, int N>
void multiply_panel(const float* a, Size a_row, Size a_column, const float* b, Size depth, const float* addend,
                    Size addend_row, float* c, Size c_row) {
    multiply_tile<R, N>(a, a_row, a_column, b, TILE_COLUMNS, depth, addend, addend_row, c, c_row);
}

using TileKernel = decltype(&multiply_panel<1, 1>);

template <int R>
TileKernel tile_kernel(Size vectors) {
    constexpr int TWO = std::min<int>(2, TILE_VECTORS), THREE = std::min<int>(3, TILE_VECTORS);
    constexpr TileKernel kernels[] = {multiply_panel<R, 1>, multiply_panel<R, TWO>, multiply_panel<R, THREE>,
                                      multiply_panel<R, TILE_VECTORS>};
    return kernels[vectors - 1];
}

// The kernel for a tile of this many rows and vectors.
TileKernel tile_kernel(Size rows, Size vectors) {
    static_assert(TILE_ROWS == 6 && TILE_VECTORS <= 4);
    constexpr TileKernel (*of_rows[])(Size) = {tile_kernel<1>, tile_kernel<2>, tile_kernel<3>,
                                               tile_kernel<4>, tile_kernel<5>, tile_kernel<6>};
    return of_rows[rows - 1](vectors);
}

// b (depth, columns), columns contiguous, times a factor -> panel (depth, TILE_COLUMNS), zeros after the last column.
void pack_transposed_panel(const MatrixView& b, Size depth, Size columns, float factor, float* panel) {
    for (Size j = 0; j < TILE_COLUMNS; j += W)
        for (Size k = 0; k < depth; k += W) {
            const int n = static_cast<int>(std::min<Size>(W, depth - k));
            Vec rows[W];
            for (int i = 0; i < W; ++i)
                rows[i] = j + i < columns ? load_n(b.data + (j + i) * b.column + k, n) * factor : Vec{};
            transpose(rows);
            for (int i = 0; i < n; ++i) store(panel + (k + i) * TILE_COLUMNS + j, rows[i]);
        }
}

// The same for either layout of b.
void pack_panel(const MatrixView& b, Size depth, Size columns, float factor, float* panel) {
    if (b.column != 1) return pack_transposed_panel(b, depth, columns, factor, panel);
    for (Size k = 0; k < depth; ++k) {
        float* row = panel + k * TILE_COLUMNS;
        for_each_vector(columns, [&](Size j, int n) { store(row + j, load_n(b.data + k * b.row + j, n) * factor); });
        std::fill(row + round_up(columns, W), row + TILE_COLUMNS, 0.0f);
    }
}

// Rows of an a whose columns are contiguous -> tiles (depth, TILE_ROWS), one after another.
void pack_tiles(const MatrixView& a, Size rows, Size depth, float* tiles) {
    for (Size r = 0; r < rows; r += TILE_ROWS, tiles += depth * TILE_ROWS)
        for (Size k = 0; k < depth; ++k)
            std::copy_n(a.data + r + k * a.column, std::min(TILE_ROWS, rows - r), tiles + k * TILE_ROWS);
}

// A block of b, packed, and the columns of c that it is multiplied into; a, addend and c begin where the block does.
struct MatmulBlock {
    MatrixView a;
    const float* panels;
    Size depth, columns;
    const float* addend;
    Size addend_row;
    float* c;
    Size c_row;

    void multiply_rows(Size row, Size rows, Size first_panel, Size last_panel) const {
        const float* tiles = a.data + row * a.row;
        Size tile_step = a.row, a_row = a.row, a_column = 1;
        if (a.column != 1) {
            thread_local std::vector<float> packed;
            const std::size_t size = round_up(rows, TILE_ROWS) * depth;
            if (packed.size() < size) packed.resize(size);
            pack_tiles({tiles, 1, a.column}, rows, depth, packed.data());
            tiles = packed.data(), tile_step = depth, a_row = 1, a_column = TILE_ROWS;
        }
        for (Size panel = first_panel; panel < last_panel; ++panel)
            for (Size r = 0; r < rows; r += TILE_ROWS)
                multiply_tile_at(tiles + r * tile_step, a_row, a_column, panel, row + r, std::min(TILE_ROWS, rows - r));
    }

    void multiply_tile_at(const float* tile, Size a_row, Size a_column, Size panel, Size row, Size rows) const {
        const Size column = panel * TILE_COLUMNS, width = std::min(TILE_COLUMNS, columns - column);
        const float *b = panels + column * depth, *begin = addend ? addend + row * addend_row + column : nullptr;
        float* out = c + row * c_row + column;
        const TileKernel kernel = tile_kernel(rows, (width + W - 1) / W);
        if (width % W == 0) return kernel(tile, a_row, a_column, b, depth, begin, addend_row, out, c_row);
        float sums[TILE_ROWS * TILE_COLUMNS] = {};  // whole vectors would write past the last column
        for (Size r = 0; begin && r < rows; ++r) std::copy_n(begin + r * addend_row, width, sums + r * TILE_COLUMNS);
        kernel(tile, a_row, a_column, b, depth, sums, TILE_COLUMNS, sums, TILE_COLUMNS);
        for (Size r = 0; r < rows; ++r) std::copy_n(sums + r * TILE_COLUMNS, width, out + r * c_row);
    }
};

// All rows of c times one block, in parallel: work items are groups of tiles of rows, and
// groups of panels where rows are few.
void multiply_block(const MatmulBlock& block, Size rows) {
    const Size panels = (block.columns + TILE_COLUMNS - 1) / TILE_COLUMNS, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const Size row_items = (tiles + BLOCK_TILES - 1) / BLOCK_TILES;
    const Size item_rows = (tiles + row_items - 1) / row_items * TILE_ROWS;
    const Size groups = std::clamp<Size>(ITEMS_PER_THREAD * num_threads() / row_items, 1, panels);
    parallel_for(row_items * groups, [&](Size item) {
        const Size row = item / groups * item_rows, group = item % groups;
        if (row < rows)
            block.multiply_rows(row, std::min(item_rows, rows - row), panels * group / groups, panels * (group + 1) / groups);
    });
}

void matmul(const MatrixView& a, const MatrixView& b, Size rows, Size depth, Size columns, float scale,
            const float* addend, Size addend_row, float* c, Size c_row) {
    thread_local std::vector<float> buffer;
    const std::size_t size = std::min(BLOCK_DEPTH, depth) * std::min(BLOCK_COLUMNS, round_up(columns, TILE_COLUMNS));
    if (buffer.size() < size) buffer.resize(size);
    float* panels = buffer.data();
    for (Size column = 0; column < columns; column += BLOCK_COLUMNS) {
        const Size width = std::min(BLOCK_COLUMNS, columns - column);
        const float* begin = addend ? addend + column : nullptr;
        Size begin_row = addend_row;
        for (Size k = 0; k < depth; k += BLOCK_DEPTH) {
            const Size block_depth = std::min(BLOCK_DEPTH, depth - k);
            parallel_for((width + TILE_COLUMNS - 1) / TILE_COLUMNS, [&](Size panel) {
                const Size j = panel * TILE_COLUMNS;
                const MatrixView part{b.data + k * b.row + (column + j) * b.column, b.row, b.column};
                pack_panel(part, block_depth, std::min(TILE_COLUMNS, width - j), scale, panels + j * block_depth);
            });
            multiply_block({{a.data + k * a.column, a.row, a.column}, panels, block_depth, width, begin, begin_row,
                            c + column, c_row}, rows);
            begin = c + column, begin_row = c_row;
        }
    }
}

}  // namespace
}  // namespace lmworks::ISA
