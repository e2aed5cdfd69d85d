// The functions of the Python module that compute much of a training step in one call.
#include <optional>
#include <tuple>
#include <vector>

#include "bindings.hpp"

using namespace lmworks;

namespace {

using Outputs = std::vector<Output<float>>;
using Inputs = std::vector<Input<float>>;

void adamw(Outputs weights, Inputs gradients, Outputs first, Outputs second, const StepScalars& scalars) {
    const std::size_t tensors = weights.size();
    check_size(gradients.size(), tensors, "gradients"), check_size(first.size(), tensors, "first moments");
    check_size(second.size(), tensors, "second moments");
    std::vector<AdamWTensor> updates;
    for (std::size_t i = 0; i < tensors; ++i) {
        const std::size_t count = weights[i].size();
        check_size(gradients[i].size(), count, "gradient"), check_size(first[i].size(), count, "first moment");
        check_size(second[i].size(), count, "second moment");
        updates.push_back({weights[i].data(), gradients[i].data(), first[i].data(), second[i].data(), static_cast<Size>(count)});
    }
    const AdamWStep step = adamw_step(scalars);
    const ReleasedInterpreter release;
    kernels().adamw(updates.data(), static_cast<Size>(tensors), step);
}

double sum_of_squares(Inputs tensors) {
    std::vector<const float*> data;
    std::vector<Size> sizes;
    for (const Input<float>& tensor : tensors) data.push_back(tensor.data()), sizes.push_back(tensor.size());
    const ReleasedInterpreter release;
    return kernels().sum_of_squares(data.data(), sizes.data(), static_cast<Size>(tensors.size()));
}

using OptionalArrays = std::vector<std::optional<Output<float>>>;

// The element at an index, or null; its size is checked.
float* data_at(const OptionalArrays& arrays, std::size_t index, Size size, const char* name) {
    if (index >= arrays.size() || !arrays[index]) return nullptr;
    check_size(arrays[index]->size(), size, name);
    return arrays[index]->data();
}

float* required(float* data, const char* name) {
    if (data == nullptr) throw std::invalid_argument(std::string(name) + " is missing");
    return data;
}

// pre_norm, layer_norm, causal, activation, head_size; eps, scale; rates of dropout in attention, of the hidden states and
// in the feed-forward; seeds of the dropouts in attention, of the first residual, in the feed-forward, of the second residual
using BlockNumbers = std::tuple<bool, bool, bool, int, Size, double, double, double, double, double, std::uint64_t,
                                std::uint64_t, std::uint64_t, std::uint64_t>;

// ``linears``: weight and bias of each, as in BlockLinearIndex. ``rotation``: cosines and sines, or empty. ``arrays``: x, y,
// q, k, v, mixed, logsumexp, sum1, mean1, scale1, gate, up, sum2, mean2, scale2.
BlockCall block_call(const BlockNumbers& numbers, const Int64s& cu_seqlens, const OptionalArrays& rotation,
                     const OptionalArrays& norms, const OptionalArrays& linears, const OptionalArrays& arrays) {
    BlockCall b{};
    double eps, scale, attention_rate, hidden_rate, mlp_rate;
    std::tie(b.pre_norm, b.layer_norm, b.causal, b.activation, b.head_size, eps, scale, attention_rate, hidden_rate, mlp_rate,
             b.attention_seed, b.seed1, b.mlp_seed, b.seed2) = numbers;
    if (b.activation < 0 || b.activation >= ACTIVATIONS) throw std::invalid_argument("there is no such activation");
    for (double rate : {attention_rate, hidden_rate, mlp_rate})
        if (!(rate >= 0 && rate < 1)) throw std::invalid_argument("the rate must be at least 0 and below 1");
    b.eps = eps, b.scale = scale, b.attention_rate = attention_rate, b.hidden_rate = hidden_rate, b.mlp_rate = mlp_rate;
    if (norms.empty() || !norms[0] || cu_seqlens.size() < 2) throw std::invalid_argument("the block is empty");
    check_size(linears.size(), 2 * BLOCK_LINEARS, "linears"), check_size(arrays.size(), 15, "arrays");
    check_size(norms.size(), 4, "norms");
    const auto rows_of = [&](BlockLinearIndex i) {
        const auto& weight = linears[2 * i];
        return weight && weight->ndim() == 2 ? static_cast<Size>(weight->shape(0)) : 0;
    };
    b.cu_seqlens = cu_seqlens.data(), b.sequences = static_cast<Size>(cu_seqlens.size()) - 1;
    b.tokens = b.cu_seqlens[b.sequences], b.hidden = static_cast<Size>(norms[0]->size()), b.inner = rows_of(UP_PROJ);
    for (Size i = 0; i < b.sequences; ++i)
        if (b.cu_seqlens[0] != 0 || b.cu_seqlens[i + 1] <= b.cu_seqlens[i]) throw std::invalid_argument("a sequence is empty");
    const Size q_size = rows_of(Q_PROJ), kv_size = rows_of(K_PROJ), rows = b.tokens;
    if (b.head_size < 1 || kv_size < 1 || q_size % b.head_size || kv_size % b.head_size || q_size % kv_size)
        throw std::invalid_argument("the number of heads must be a multiple of the number of key-value heads");
    b.heads = q_size / b.head_size, b.kv_heads = kv_size / b.head_size;
    if (rotation.size() == 2 && rotation[0]) {
        b.rotary_size = 2 * static_cast<Size>(rotation[0]->size()) / rows;
        if (b.rotary_size > b.head_size) throw std::invalid_argument("cos and sin are longer than a head");
        b.cos = required(data_at(rotation, 0, rows * b.rotary_size / 2, "cos"), "cos");
        b.sin = required(data_at(rotation, 1, rows * b.rotary_size / 2, "sin"), "sin");
    }
    const Size inputs[] = {b.hidden, b.hidden, b.hidden, q_size, b.hidden, b.hidden, b.inner};
    const Size outputs[] = {q_size, kv_size, kv_size, b.hidden, b.inner, b.inner, b.hidden};
    for (Size i = 0; i < BLOCK_LINEARS; ++i) {
        float* weight = data_at(linears, 2 * i, inputs[i] * outputs[i], "weight");
        if (i != GATE_PROJ) required(weight, "weight");
        b.linears[i] = {weight, data_at(linears, 2 * i + 1, outputs[i], "bias"), inputs[i], outputs[i], nullptr, nullptr,
                        false, false};
    }
    const auto array = [&](std::size_t i, Size size, const char* name) { return data_at(arrays, i, rows * size, name); };
    b.x = required(array(0, b.hidden, "x"), "x"), b.y = array(1, b.hidden, "y");
    b.q = required(array(2, q_size, "q"), "q"), b.k = required(array(3, kv_size, "k"), "k");
    b.v = required(array(4, kv_size, "v"), "v"), b.mixed = required(array(5, q_size, "mixed"), "mixed");
    b.logsumexp = required(array(6, b.heads, "logsumexp"), "logsumexp");
    b.sum1 = required(array(7, b.hidden, "sum1"), "sum1"), b.up = required(array(11, b.inner, "up"), "up");
    if (b.linears[GATE_PROJ].weight) b.gate = required(array(10, b.inner, "gate"), "gate");
    if (!b.pre_norm) b.sum2 = required(array(12, b.hidden, "sum2"), "sum2");
    b.norm1 = {data_at(norms, 0, b.hidden, "norm"), data_at(norms, 1, b.hidden, "norm"), array(8, 1, "mean"),
               required(array(9, 1, "scale"), "scale"), nullptr, nullptr};
    b.norm2 = {required(data_at(norms, 2, b.hidden, "norm"), "norm"), data_at(norms, 3, b.hidden, "norm"), array(13, 1, "mean"),
               required(array(14, 1, "scale"), "scale"), nullptr, nullptr};
    if (b.layer_norm) required(b.norm1.mean, "mean"), required(b.norm2.mean, "mean");
    return b;
}

void block_forward(const BlockNumbers& numbers, Int64s cu_seqlens, OptionalArrays rotation, OptionalArrays norms,
                   OptionalArrays linears, OptionalArrays arrays) {
    const BlockCall b = block_call(numbers, cu_seqlens, rotation, norms, linears, arrays);
    required(b.y, "y");
    const ReleasedInterpreter release;
    kernels().block_forward(b);
}

// Gradients of the norms are added to; those of the linears only where ``accumulate`` says so.
void block_backward(const BlockNumbers& numbers, Int64s cu_seqlens, OptionalArrays rotation, OptionalArrays norms,
                    OptionalArrays linears, OptionalArrays arrays, Output<float> dy, Output<float> dx, OptionalArrays dnorms,
                    OptionalArrays dlinears, std::vector<bool> accumulate) {
    BlockCall b = block_call(numbers, cu_seqlens, rotation, norms, linears, arrays);
    check_size(dy.size(), b.tokens * b.hidden, "dy"), check_size(dx.size(), b.tokens * b.hidden, "dx");
    check_size(accumulate.size(), 2 * BLOCK_LINEARS, "accumulate");
    b.dy = dy.data(), b.dx = dx.data();
    b.norm1.dweight = data_at(dnorms, 0, b.hidden, "dnorm"), b.norm1.dbias = data_at(dnorms, 1, b.hidden, "dnorm");
    b.norm2.dweight = data_at(dnorms, 2, b.hidden, "dnorm"), b.norm2.dbias = data_at(dnorms, 3, b.hidden, "dnorm");
    for (Size i = 0; i < BLOCK_LINEARS; ++i) {
        BlockLinear& l = b.linears[i];
        l.dweight = data_at(dlinears, 2 * i, l.inputs * l.outputs, "dweight");
        l.dbias = data_at(dlinears, 2 * i + 1, l.outputs, "dbias");
        if (l.weight) required(l.dweight, "dweight");
        l.accumulate_weight = accumulate[2 * i], l.accumulate_bias = accumulate[2 * i + 1];
    }
    const ReleasedInterpreter release;
    kernels().block_backward(b);
}

}  // namespace

void lmworks::bind_training(nb::module_& m) {
    m.def("adamw", &adamw);
    m.def("sum_of_squares", &sum_of_squares);
    m.def("block_forward", &block_forward);
    m.def("block_backward", &block_backward);
}
