// A whole transformer block, forward and backward, in float32, for small networks: their time is spent in starting threads
// and calling kernels, not in arithmetic. Documents are independent in a block until the gradients of its weights are
// summed. So a work item takes a few documents through the whole block, with products of this file's panels, and threads
// meet twice in the forward pass and four times in the backward pass. model/block.py has the definition. The documents of a
// work item and the order of all sums are fixed, so the bits do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "attention_backward.inl"
#include "matmul.inl"
#include "rowwise.inl"

namespace lmworks::ISA {
namespace {

constexpr Size GROUP_TOKENS = 64;   // of a work item, at least
constexpr Size GRADIENT_ROWS = 48;  // rows of a weight's gradient of a work item, whole tiles

// A matrix (depth, columns) packed for products from its left.
struct PackedMatrix {
    MatrixView view;
    Size depth, columns;
    float* panels;

    Size size() const { return depth * round_up(columns, TILE_COLUMNS); }
    Size panel_count() const { return (columns + TILE_COLUMNS - 1) / TILE_COLUMNS; }
    void pack(Size panel) const {
        const Size j = panel * TILE_COLUMNS;
        pack_panel({view.data + j * view.column, view.row, view.column}, depth, std::min(TILE_COLUMNS, columns - j), 1.0f,
                   panels + j * depth);
    }
    // c (rows, columns) = addend + a times this matrix, on this thread
    void multiply(const MatrixView& a, Size rows, const float* addend, Size addend_row, float* c) const {
        const MatmulBlock block{a, panels, depth, columns, addend, addend_row, c, columns};
        for (Size row = 0; row < rows; row += BLOCK_TILES * TILE_ROWS)
            block.multiply_rows(row, std::min(BLOCK_TILES * TILE_ROWS, rows - row), 0, panel_count());
    }
    void multiply(const float* a, Size rows, const float* addend, Size addend_row, float* c) const {
        multiply({a, depth, 1}, rows, addend, addend_row, c);
    }
};

// Packs matrices into ``memory``, all panels in parallel.
void pack_all(std::vector<PackedMatrix*> matrices, std::vector<float>& memory) {
    Size size = 0;
    for (const PackedMatrix* matrix : matrices) size += matrix->size();
    if (static_cast<Size>(memory.size()) < size) memory.resize(size);
    float* next = memory.data();
    std::vector<std::pair<const PackedMatrix*, Size>> panels;
    for (PackedMatrix* matrix : matrices) {
        matrix->panels = next, next += matrix->size();
        for (Size panel = 0; panel < matrix->panel_count(); ++panel) panels.emplace_back(matrix, panel);
    }
    parallel_for(panels.size(), [&](Size i) { panels[i].first->pack(panels[i].second); });
}

// Consecutive documents, and their tokens.
struct Group {
    Size first_token, tokens;
    std::vector<AttentionItem> items;
};

std::vector<Group> make_groups(const AttentionInputs<float>& in) {
    std::vector<Group> groups;
    for (Size sequence = 0; sequence < in.sequences; ++sequence) {
        if (groups.empty() || groups.back().tokens >= GROUP_TOKENS) groups.push_back({in.cu_seqlens_q[sequence], 0, {}});
        groups.back().tokens += in.cu_seqlens_q[sequence + 1] - in.cu_seqlens_q[sequence];
    }
    for (const AttentionItem& item : make_items(in)) {
        const auto after = std::upper_bound(groups.begin(), groups.end(), item.first_query,
                                            [](Size token, const Group& group) { return token < group.first_token; });
        (after - 1)->items.push_back(item);
    }
    return groups;
}

// The steps of a block for the tokens of one work item.
struct BlockPart {
    const BlockCall& b;
    Size first, tokens;

    float* rows(float* x, Size size) const { return x + first * size; }
    const float* rows(const float* x, Size size) const { return x + first * size; }

    void norm(const BlockNorm& norm, const float* x, float* y) const {
        if (b.layer_norm)
            layer_norm(x, norm.weight, norm.bias, y, norm.mean + first, norm.scale + first, tokens, b.hidden, b.eps);
        else rms_norm(x, norm.weight, y, norm.scale + first, tokens, b.hidden, b.eps);
    }
    void norm_backward(const BlockNorm& norm, const float* x, const float* dy, float* dx, float* dweight, float* dbias) const {
        if (b.layer_norm)
            layer_norm_backward(x, norm.weight, norm.mean + first, norm.scale + first, dy, dx, dweight, dbias, tokens, b.hidden);
        else rms_norm_backward(x, norm.weight, norm.scale + first, dy, dx, dweight, tokens, b.hidden);
    }
    // y = residual + dropout(x), or dropout(x) without a residual, of this part's rows of an array (all tokens, size)
    void drop(const float* residual, const float* x, float* y, Size size, float rate, std::uint64_t seed) const {
        const DropoutFactors factors(rate, seed);
        const Size begin = first * size;
        for_each_vector(tokens * size, [&](Size i, int n) {
            Vec v = load_n(x + i, n);
            if (rate > 0) v *= factors.at(begin + i);
            store_n(y + i, residual ? load_n(residual + i, n) + v : v, n);
        });
    }
    void rotate_rows(float* x, Size heads, float sign) const {
        if (b.rotary_size)
            rotate(x, heads * b.head_size, b.cos + first * b.rotary_size / 2, b.sin + first * b.rotary_size / 2, x, tokens,
                   heads, b.head_size, b.rotary_size, sign);
    }
    // act(up) or act(gate) * up, and dropout
    void activation_rows(const float* up, const float* gate, float* y) const {
        if (gate) activate(b.activation, gate, up, y, tokens * b.inner);
        else activate<float>(b.activation, up, nullptr, y, tokens * b.inner);
        if (b.mlp_rate > 0) drop(nullptr, y, y, b.inner, b.mlp_rate, b.mlp_seed);
    }
};

inline AttentionInputs<float> attention_of(const BlockCall& b) {
    const Size size = b.heads * b.head_size, kv_size = b.kv_heads * b.head_size;
    return {b.q,        b.k,         b.v,     size,       kv_size,     kv_size, b.cu_seqlens, b.cu_seqlens,
            b.sequences, b.heads, b.kv_heads, b.head_size, b.scale, b.causal};
}

// W^T of y = x W^T + b, and W of dx = dy W.
inline PackedMatrix forward_matrix(const BlockLinear& l) { return {{l.weight, 1, l.inputs}, l.inputs, l.outputs, nullptr}; }
inline PackedMatrix backward_matrix(const BlockLinear& l) { return {{l.weight, l.inputs, 1}, l.outputs, l.inputs, nullptr}; }

std::vector<Size> existing_linears(const BlockCall& b) {
    std::vector<Size> indices;
    for (Size i = 0; i < BLOCK_LINEARS; ++i)
        if (b.linears[i].weight) indices.push_back(i);
    return indices;
}

void block_forward(const BlockCall& b) {
    thread_local std::vector<float> memory;
    PackedMatrix matrices[BLOCK_LINEARS];
    std::vector<PackedMatrix*> packed;
    for (Size i : existing_linears(b)) matrices[i] = forward_matrix(b.linears[i]), packed.push_back(&matrices[i]);
    pack_all(packed, memory);
    const AttentionInputs<float> attention = attention_of(b);
    const std::vector<Group> groups = make_groups(attention);
    const DropoutFactors factors(b.attention_rate, b.attention_seed);
    const Size kv_size = b.kv_heads * b.head_size, size = b.heads * b.head_size;
    parallel_for(groups.size(), [&](Size i) {
        const Group& group = groups[i];
        const BlockPart part{b, group.first_token, group.tokens};
        const Size n = group.tokens;
        thread_local std::vector<float> normed, inner, output, x1_rows;
        normed.resize(n * b.hidden), inner.resize(n * b.inner), output.resize(n * b.hidden), x1_rows.resize(n * b.hidden);
        const auto multiply = [&](BlockLinearIndex linear, const float* x, float* y) {
            matrices[linear].multiply(x, n, b.linears[linear].bias, 0, y);
        };
        const float *x = part.rows(b.x, b.hidden), *input = x;
        if (b.pre_norm) part.norm(b.norm1, x, normed.data()), input = normed.data();
        float *q = part.rows(b.q, size), *k = part.rows(b.k, kv_size), *mixed = part.rows(b.mixed, size);
        multiply(Q_PROJ, input, q), multiply(K_PROJ, input, k), multiply(V_PROJ, input, part.rows(b.v, kv_size));
        part.rotate_rows(q, b.heads, 1.0f), part.rotate_rows(k, b.kv_heads, 1.0f);
        for (const AttentionItem& item : group.items)
            attention_item<float>(attention, item, b.mixed, b.logsumexp, b.attention_rate, factors);
        multiply(O_PROJ, mixed, output.data());
        float *sum1 = part.rows(b.sum1, b.hidden), *x1 = sum1;
        part.drop(x, output.data(), sum1, b.hidden, b.hidden_rate, b.seed1);
        if (b.pre_norm) part.norm(b.norm2, sum1, normed.data()), input = normed.data();
        else x1 = x1_rows.data(), part.norm(b.norm1, sum1, x1), input = x1;
        float *up = part.rows(b.up, b.inner), *gate = b.gate ? part.rows(b.gate, b.inner) : nullptr;
        multiply(UP_PROJ, input, up);
        if (gate) multiply(GATE_PROJ, input, gate);
        part.activation_rows(up, gate, inner.data());
        multiply(DOWN_PROJ, inner.data(), output.data());
        float* y = part.rows(b.y, b.hidden);
        if (b.pre_norm) return part.drop(x1, output.data(), y, b.hidden, b.hidden_rate, b.seed2);
        float* sum2 = part.rows(b.sum2, b.hidden);
        part.drop(x1, output.data(), sum2, b.hidden, b.hidden_rate, b.seed2);
        part.norm(b.norm2, sum2, y);
    });
}

// The arrays of a backward pass, (tokens, size) each: inputs of the linears, and gradients of their outputs.
struct BlockGradients {
    float *normed1, *normed2, *inner, *dpart1, *dpart2, *dmixed, *dq, *dk, *dv, *dup, *dgate;

    static BlockGradients of(const BlockCall& b, std::vector<float>& memory) {
        const Size size = b.heads * b.head_size, kv_size = b.kv_heads * b.head_size;
        const Size sizes[] = {b.hidden, b.hidden, b.inner, b.hidden, b.hidden, size, size, kv_size, kv_size, b.inner,
                              b.gate ? b.inner : 0};
        Size total = 0;
        for (Size each : sizes) total += each * b.tokens;
        if (static_cast<Size>(memory.size()) < total) memory.resize(total);
        float *arrays[std::size(sizes)], *next = memory.data();
        for (std::size_t i = 0; i < std::size(sizes); ++i) arrays[i] = next, next += sizes[i] * b.tokens;
        return {arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5], arrays[6], arrays[7], arrays[8],
                arrays[9], arrays[10]};
    }
};

// The gradient of x for the documents of one work item; dnorms (4, hidden) are its parts of the norms' gradients.
void group_backward(const BlockCall& b, const Group& group, const PackedMatrix (&matrices)[BLOCK_LINEARS],
                    const BlockGradients& g, const AttentionInputs<float>& attention, const DropoutFactors& factors,
                    float* dnorms) {
    const BlockPart part{b, group.first_token, group.tokens};
    const Size n = group.tokens, kv_size = b.kv_heads * b.head_size, size = b.heads * b.head_size;
    thread_local std::vector<float> dnormed_rows, dsum2_rows, x1_rows, dinner_rows;
    dnormed_rows.resize(n * b.hidden), dsum2_rows.resize(n * b.hidden), x1_rows.resize(n * b.hidden);
    dinner_rows.resize(n * b.inner);
    float *dnormed = dnormed_rows.data(), *dinner = dinner_rows.data();
    float *dweight1 = dnorms, *dbias1 = dnorms + b.hidden, *dweight2 = dnorms + 2 * b.hidden, *dbias2 = dnorms + 3 * b.hidden;
    const float *x = part.rows(b.x, b.hidden), *sum1 = part.rows(b.sum1, b.hidden), *x1 = sum1;
    const float* dsum2 = part.rows(b.dy, b.hidden);
    float *normed1 = part.rows(g.normed1, b.hidden), *normed2 = part.rows(g.normed2, b.hidden);
    if (!b.pre_norm) {
        part.norm_backward(b.norm2, part.rows(b.sum2, b.hidden), dsum2, dsum2_rows.data(), dweight2, dbias2);
        dsum2 = dsum2_rows.data();
        part.norm(b.norm1, sum1, x1_rows.data()), x1 = x1_rows.data();
        std::copy_n(x1, n * b.hidden, normed2), std::copy_n(x, n * b.hidden, normed1);
    } else {
        part.norm(b.norm1, x, normed1), part.norm(b.norm2, x1, normed2);
    }
    const float *up = part.rows(b.up, b.inner), *gate = b.gate ? part.rows(b.gate, b.inner) : nullptr;
    part.activation_rows(up, gate, part.rows(g.inner, b.inner));
    float *dpart2 = part.rows(g.dpart2, b.hidden), *dup = part.rows(g.dup, b.inner), *dgate = part.rows(g.dgate, b.inner);
    part.drop(nullptr, dsum2, dpart2, b.hidden, b.hidden_rate, b.seed2);
    matrices[DOWN_PROJ].multiply(dpart2, n, nullptr, 0, dinner);
    if (b.mlp_rate > 0) part.drop(nullptr, dinner, dinner, b.inner, b.mlp_rate, b.mlp_seed);
    if (gate) activate_backward(b.activation, gate, up, dinner, dgate, dup, n * b.inner);
    else activate_backward<float>(b.activation, up, nullptr, dinner, dup, nullptr, n * b.inner);
    matrices[UP_PROJ].multiply(dup, n, nullptr, 0, dnormed);
    if (gate) matrices[GATE_PROJ].multiply(dgate, n, dnormed, b.hidden, dnormed);
    float* dx1 = part.rows(b.dx, b.hidden);  // becomes the gradient of x
    const auto add = [&](const float* from, float* to) {
        for_each_vector(n * b.hidden, [&](Size i, int count) { store_n(to + i, load_n(to + i, count) + load_n(from + i, count), count); });
    };
    if (b.pre_norm) {
        part.norm_backward(b.norm2, x1, dnormed, dx1, dweight2, dbias2), add(dsum2, dx1);
    } else {
        add(dsum2, dnormed), part.norm_backward(b.norm1, sum1, dnormed, dx1, dweight1, dbias1);
    }
    float* dpart1 = part.rows(g.dpart1, b.hidden);
    part.drop(nullptr, dx1, dpart1, b.hidden, b.hidden_rate, b.seed1);
    matrices[O_PROJ].multiply(dpart1, n, nullptr, 0, part.rows(g.dmixed, size));
    const AttentionGradients<float> gradients{b.mixed, b.logsumexp, g.dmixed, g.dq, g.dk, g.dv};
    for (const AttentionItem& item : group.items) short_attention_backward(attention, item, gradients, b.attention_rate, factors);
    float *dq = part.rows(g.dq, size), *dk = part.rows(g.dk, kv_size), *dv = part.rows(g.dv, kv_size);
    part.rotate_rows(dq, b.heads, -1.0f), part.rotate_rows(dk, b.kv_heads, -1.0f);
    matrices[Q_PROJ].multiply(dq, n, nullptr, 0, dnormed);
    matrices[K_PROJ].multiply(dk, n, dnormed, b.hidden, dnormed);
    matrices[V_PROJ].multiply(dv, n, dnormed, b.hidden, dnormed);
    if (b.pre_norm) part.norm_backward(b.norm1, x, dnormed, x1_rows.data(), dweight1, dbias1), add(x1_rows.data(), dx1);
    else add(dnormed, dx1);
}

// Rows first to last of the gradient of a linear's weight, dy^T x, and of its bias.
void linear_gradient(const BlockLinear& l, const float* dy, Size tokens, const PackedMatrix& x, Size first, Size last) {
    float* dweight = l.dweight + first * l.inputs;
    x.multiply({dy + first, 1, l.outputs}, last - first, l.accumulate_weight ? dweight : nullptr, l.inputs, dweight);
    if (!l.dbias) return;
    if (!l.accumulate_bias) std::fill(l.dbias + first, l.dbias + last, 0.0f);
    for (Size t = 0; t < tokens; ++t)
        for_each_vector(last - first, [&](Size i, int n) {
            float* sum = l.dbias + first + i;
            store_n(sum, load_n(sum, n) + load_n(dy + t * l.outputs + first + i, n), n);
        });
}

void block_backward(const BlockCall& b) {
    thread_local std::vector<float> packed_weights, packed_inputs, memory;
    PackedMatrix matrices[BLOCK_LINEARS];
    std::vector<PackedMatrix*> packed;
    const std::vector<Size> indices = existing_linears(b);
    for (Size i : indices) matrices[i] = backward_matrix(b.linears[i]), packed.push_back(&matrices[i]);
    pack_all(packed, packed_weights);
    const BlockGradients g = BlockGradients::of(b, memory);
    const AttentionInputs<float> attention = attention_of(b);
    const std::vector<Group> groups = make_groups(attention);
    const DropoutFactors factors(b.attention_rate, b.attention_seed);
    const Size norm_size = 4 * b.hidden;
    std::vector<float> dnorms(groups.size() * norm_size);
    parallel_for(groups.size(), [&](Size i) {
        group_backward(b, groups[i], matrices, g, attention, factors, dnorms.data() + i * norm_size);
    });
    float* const norm_gradients[] = {b.norm1.dweight, b.norm1.dbias, b.norm2.dweight, b.norm2.dbias};
    for (Size place = 0; place < 4; ++place)
        for (std::size_t group = 0; norm_gradients[place] && group < groups.size(); ++group)
            for (Size i = 0; i < b.hidden; ++i)
                norm_gradients[place][i] += dnorms[group * norm_size + place * b.hidden + i];
    const auto input = [&](const float* x, Size size) { return PackedMatrix{{x, size, 1}, b.tokens, size, nullptr}; };
    PackedMatrix normed1 = input(g.normed1, b.hidden), normed2 = input(g.normed2, b.hidden);
    PackedMatrix inner = input(g.inner, b.inner), mixed = input(b.mixed, b.heads * b.head_size);
    pack_all({&normed1, &normed2, &inner, &mixed}, packed_inputs);
    const PackedMatrix* const inputs[] = {&normed1, &normed1, &normed1, &mixed, &normed2, &normed2, &inner};
    const float* const outputs[] = {g.dq, g.dk, g.dv, g.dpart1, g.dgate, g.dup, g.dpart2};
    std::vector<std::pair<Size, Size>> items;  // linear, first row
    for (Size i : indices)
        for (Size row = 0; row < b.linears[i].outputs; row += GRADIENT_ROWS) items.emplace_back(i, row);
    parallel_for(items.size(), [&](Size item) {
        const auto [i, first] = items[item];
        const BlockLinear& linear = b.linears[i];
        linear_gradient(linear, outputs[i], b.tokens, *inputs[i], first, std::min(linear.outputs, first + GRADIENT_ROWS));
    });
}

}  // namespace
}  // namespace lmworks::ISA
