// The Python module. Arrays come as DLPack; their sizes are checked here, so that no kernel reads or writes outside them.
#include <bit>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings.hpp"
#include "parallel.hpp"

using namespace lmworks;

namespace {

bool has_avx512() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

bool has_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
    return false;
#endif
}

// The tables of the instruction sets that this processor has, the fastest first.
std::vector<const KernelTable*> available_tables() {
    std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(LMWORKS_AVX512_BF16)
    if (has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
        tables.push_back(&table_avx512_bf16());
#endif
    if (has_avx512()) tables.push_back(&table_avx512());
    if (has_avx2()) tables.push_back(&table_avx2());
#endif
    tables.push_back(&table_portable());
    return tables;
}

const KernelTable* selected_table = nullptr;

}  // namespace

const KernelTable& lmworks::kernels() {
    if (selected_table == nullptr) selected_table = available_tables().front();
    return *selected_table;
}

namespace {

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const KernelTable* table : available_tables()) names.emplace_back(table->name);
    return names;
}

void set_instruction_set(const std::string& name) {
    for (const KernelTable* table : available_tables())
        if (name == table->name) {
            selected_table = table;
            return;
        }
    throw std::invalid_argument("this processor or this build has no kernels for " + name);
}

template <class Array>
auto data_or_null(const std::optional<Array>& array, std::size_t size, const char* name) {
    if (array) check_size(array->size(), size, name);
    return array ? array->data() : nullptr;
}

template <class T>
using OptionalOutput = std::optional<Output<T>>;
template <class T>
using OptionalInput = std::optional<Input<T>>;

// A norm's weight or bias, float32 or bfloat16, as float32; data() is null if there is none.
class NormWeights {
public:
    using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

    explicit NormWeights(const std::optional<Array>& array) {
        if (!array) return;
        size_ = array->size();
        if (array->dtype() == nb::dtype<float>()) {
            data_ = static_cast<const float*>(array->data());
        } else if (array->dtype() == nb::dtype<Bf16>()) {
            const auto* bf16 = static_cast<const Bf16*>(array->data());
            for (std::size_t i = 0; i < size_; ++i)
                converted_.push_back(std::bit_cast<float>(std::uint32_t{bf16[i].bits} << 16));
            data_ = converted_.data();
        } else {
            throw std::invalid_argument("weights must be float32 or bfloat16");
        }
    }
    const float* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    const float* data_ = nullptr;
    std::size_t size_ = 0;
    std::vector<float> converted_;
};

using Array = NormWeights::Array;

template <class T>
void layer_norm(Input<T> x, Array weight, std::optional<Array> bias, Output<T> y, Output<float> mean, Output<float> scale,
                double eps) {
    const NormWeights weights(weight), biases(bias);
    const std::size_t size = weights.size(), rows = mean.size();
    check_size(x.size(), rows * size, "x"), check_size(y.size(), rows * size, "y"), check_size(scale.size(), rows, "scale");
    if (bias) check_size(biases.size(), size, "bias");
    const ReleasedInterpreter release;
    kernels().of<T>().layer_norm(x.data(), weights.data(), biases.data(), y.data(), mean.data(), scale.data(), rows, size,
                                 eps);
}

template <class T>
void layer_norm_backward(Input<T> x, Array weight, Input<float> mean, Input<float> scale, Input<T> dy, Output<T> dx,
                     OptionalOutput<float> dweight, OptionalOutput<float> dbias) {
    const NormWeights weights(weight);
    const std::size_t size = weights.size(), rows = mean.size();
    check_size(x.size(), rows * size, "x"), check_size(dy.size(), rows * size, "dy"), check_size(dx.size(), rows * size, "dx");
    check_size(scale.size(), rows, "scale");
    float *dw = data_or_null(dweight, size, "dweight"), *db = data_or_null(dbias, size, "dbias");
    const ReleasedInterpreter release;
    kernels().of<T>().layer_norm_backward(x.data(), weights.data(), mean.data(), scale.data(), dy.data(), dx.data(), dw, db,
                                      rows, size);
}

template <class T>
void rms_norm(Input<T> x, Array weight, Output<T> y, Output<float> scale, double eps) {
    const NormWeights weights(weight);
    const std::size_t size = weights.size(), rows = scale.size();
    check_size(x.size(), rows * size, "x"), check_size(y.size(), rows * size, "y");
    const ReleasedInterpreter release;
    kernels().of<T>().rms_norm(x.data(), weights.data(), y.data(), scale.data(), rows, size, eps);
}

template <class T>
void rms_norm_backward(Input<T> x, Array weight, Input<float> scale, Input<T> dy, Output<T> dx, OptionalOutput<float> dweight) {
    const NormWeights weights(weight);
    const std::size_t size = weights.size(), rows = scale.size();
    check_size(x.size(), rows * size, "x"), check_size(dy.size(), rows * size, "dy"), check_size(dx.size(), rows * size, "dx");
    float* dw = data_or_null(dweight, size, "dweight");
    const ReleasedInterpreter release;
    kernels().of<T>().rms_norm_backward(x.data(), weights.data(), scale.data(), dy.data(), dx.data(), dw, rows, size);
}

void check_activation(int kind) {
    if (kind < 0 || kind >= ACTIVATIONS) throw std::invalid_argument("there is no such activation");
}

template <class T>
void activate(int kind, Input<T> x, OptionalInput<T> up, Output<T> y) {
    check_activation(kind), check_size(y.size(), x.size(), "y");
    const T* up_data = data_or_null(up, x.size(), "up");
    const ReleasedInterpreter release;
    kernels().of<T>().activate(kind, x.data(), up_data, y.data(), x.size());
}

template <class T>
void activate_backward(int kind, Input<T> x, OptionalInput<T> up, Input<T> dy, Output<T> dx, OptionalOutput<T> dup) {
    check_activation(kind), check_size(dy.size(), x.size(), "dy"), check_size(dx.size(), x.size(), "dx");
    const T* up_data = data_or_null(up, x.size(), "up");
    T* dup_data = data_or_null(dup, x.size(), "dup");
    if ((up_data == nullptr) != (dup_data == nullptr)) throw std::invalid_argument("give both up and dup, or neither");
    const ReleasedInterpreter release;
    kernels().of<T>().activate_backward(kind, x.data(), up_data, dy.data(), dx.data(), dup_data, x.size());
}

void check_rate(double rate) {
    if (!(rate >= 0.0 && rate < 1.0)) throw std::invalid_argument("the rate of dropout must be at least 0 and below 1");
}

template <class T>
void dropout_add(Input<T> residual, Input<T> x, Output<T> y, double rate, std::uint64_t seed) {
    check_size(residual.size(), x.size(), "residual"), check_size(y.size(), x.size(), "y"), check_rate(rate);
    const ReleasedInterpreter release;
    kernels().of<T>().dropout_add(residual.data(), x.data(), y.data(), x.size(), rate, seed);
}

template <class T>
void dropout(Input<T> x, Output<T> y, double rate, std::uint64_t seed) {
    check_size(y.size(), x.size(), "y"), check_rate(rate);
    const ReleasedInterpreter release;
    kernels().of<T>().dropout(x.data(), y.data(), x.size(), rate, seed);
}

template <class T>
void rotate(StridedInput<T> x, Input<float> cos, Input<float> sin, Output<T> y, std::size_t head_size, double sign) {
    const std::size_t tokens = x.shape(0), width = x.shape(1), half = tokens ? cos.size() / tokens : 0;
    check_size(y.size(), tokens * width, "y"), check_size(cos.size(), tokens * half, "cos"), check_size(sin.size(), cos.size(), "sin");
    if (x.stride(1) != 1 || head_size == 0 || width % head_size || 2 * half > head_size)
        throw std::invalid_argument("x: rows must be contiguous and consist of whole heads, no shorter than cos and sin");
    const ReleasedInterpreter release;
    kernels().of<T>().rotate(x.data(), x.stride(0), cos.data(), sin.data(), y.data(), tokens, width / head_size, head_size,
                             2 * half, sign);
}

template <class T>
void dequantize(Output<T> y, Input<std::uint8_t> blocks, int format) {
    if (format < 0 || format >= QUANT_FORMATS) throw std::invalid_argument("the format is unknown");
    const std::size_t count = blocks.size() / QUANT_BYTES[format];
    check_size(blocks.size(), count * QUANT_BYTES[format], "blocks"), check_size(y.size(), count * QUANT_BLOCK, "y");
    const ReleasedInterpreter release;
    kernels().of<T>().dequantize(format, blocks.data(), y.data(), count);
}

template <class T>
void dequantize_blockwise(Output<T> y, Input<std::uint8_t> codes, Input<float> scales, std::optional<Input<float>> levels) {
    if (y.ndim() != 2) throw std::invalid_argument("y is no matrix");
    const std::size_t rows = y.shape(0), columns = y.shape(1), blocks = (columns + BLOCKWISE_BLOCK - 1) / BLOCKWISE_BLOCK;
    check_size(codes.size(), rows * (levels ? (columns + 1) / 2 : columns), "codes"), check_size(scales.size(), rows * blocks, "scales");
    if (levels) check_size(levels->size(), 16, "levels");
    const ReleasedInterpreter release;
    kernels().of<T>().dequantize_blockwise(codes.data(), scales.data(), levels ? levels->data() : nullptr, y.data(), rows, columns);
}

template <class T>
void cross_entropy(Output<T> logits, Int64s targets, Input<float> weights, Output<float> losses, bool write_gradient) {
    const std::size_t rows = targets.size(), vocab_size = rows ? logits.size() / rows : 0;
    check_size(logits.size(), rows * vocab_size, "logits"), check_size(weights.size(), rows, "weights"), check_size(losses.size(), rows, "losses");
    for (std::size_t row = 0; row < rows; ++row)
        if (targets.data()[row] < 0 || targets.data()[row] >= static_cast<std::int64_t>(vocab_size))
            throw std::invalid_argument("a target is outside the vocabulary");
    const ReleasedInterpreter release;
    kernels().of<T>().cross_entropy(logits.data(), targets.data(), weights.data(), losses.data(), rows, vocab_size, write_gradient);
}

// A matrix of which rows or columns are contiguous.
MatrixView matrix_view(const StridedInput<float>& x, const char* name) {
    const Size row = x.shape(0) > 1 ? x.stride(0) : x.shape(1), column = x.shape(1) > 1 ? x.stride(1) : 1;
    if (column == 1) return {x.data(), row, 1};
    if (row == 1 || x.shape(0) == 1) return {x.data(), 1, column};
    throw std::invalid_argument(std::string(name) + ": neither its rows nor its columns are contiguous");
}

// ``addend`` is (rows, columns), or (1, columns) for all rows.
void matmul(StridedInput<float> a, StridedInput<float> b, StridedOutput c, std::optional<StridedInput<float>> addend,
            double scale) {
    const std::size_t rows = a.shape(0), depth = a.shape(1), columns = b.shape(1);
    check_size(b.shape(0), depth, "b"), check_size(c.shape(0), rows, "c"), check_size(c.shape(1), columns, "c");
    if (depth == 0) throw std::invalid_argument("the matrices are empty");
    const MatrixView a_view = matrix_view(a, "a"), b_view = matrix_view(b, "b");
    if (columns > 1 && c.stride(1) != 1) throw std::invalid_argument("c: its rows are not contiguous");
    Size addend_row = 0;
    if (addend) {
        check_size(addend->shape(1), columns, "addend");
        if (columns > 1 && addend->stride(1) != 1) throw std::invalid_argument("addend: its rows are not contiguous");
        if (addend->shape(0) != 1) check_size(addend->shape(0), rows, "addend"), addend_row = addend->stride(0);
    }
    const ReleasedInterpreter release;
    kernels().matmul(a_view, b_view, rows, depth, columns, static_cast<float>(scale), addend ? addend->data() : nullptr,
                     addend_row, c.data(), rows > 1 ? c.stride(0) : columns);
}

double read_memory(Input<float> x) {
    const ReleasedInterpreter release;
    return kernels().read_memory(x.data(), x.size());
}

// Codes and scales of an 8-bit moment.
using MomentArrays = std::tuple<Output<std::uint8_t>, Output<float>>;

EightBitMoment eight_bit_moment(const MomentArrays& arrays, std::size_t count) {
    const auto& [codes, scales] = arrays;
    check_size(codes.size(), count, "codes"), check_size(scales.size(), (count + MOMENT_BLOCK - 1) / MOMENT_BLOCK, "scales");
    return {codes.data(), scales.data()};
}

void adamw_8bit(Output<float> weights, Input<float> gradient, const MomentArrays& first, const MomentArrays& second,
                const StepScalars& scalars) {
    const std::size_t count = weights.size();
    check_size(gradient.size(), count, "gradient");
    const EightBitMoment m = eight_bit_moment(first, count), v = eight_bit_moment(second, count);
    const AdamWStep step = adamw_step(scalars);
    const ReleasedInterpreter release;
    kernels().adamw_8bit(weights.data(), gradient.data(), m, v, count, step);
}

void adamw_rows(Output<float> weights, Input<float> gradients, const Int64s& rows, Output<float> first,
                Output<float> second, Output<std::uint8_t> has_moments, const StepScalars& scalars) {
    const std::size_t count = rows.size(), total = has_moments.size();
    if (!total || weights.size() % total) throw std::invalid_argument("weights: not as many rows as has_moments");
    const std::size_t columns = weights.size() / total;
    check_size(gradients.size(), count * columns, "gradients");
    check_size(first.size(), weights.size(), "first"), check_size(second.size(), weights.size(), "second");
    for (std::size_t i = 0; i < count; ++i)
        if (rows.data()[i] < 0 || rows.data()[i] >= std::int64_t(total) || (i && rows.data()[i] <= rows.data()[i - 1]))
            throw std::invalid_argument("rows: not ascending, or not of this table");
    const AdamWStep step = adamw_step(scalars);
    const ReleasedInterpreter release;
    kernels().adamw_rows({weights.data(), first.data(), second.data(), has_moments.data(), Size(total)}, gradients.data(),
                         rows.data(), count, columns, step);
}

void check_cu_seqlens(const Int64s& cu_seqlens, std::size_t tokens, const char* name) {
    const std::int64_t* lengths = cu_seqlens.data();
    const std::size_t size = cu_seqlens.size();
    if (size < 1 || lengths[0] != 0 || lengths[size - 1] != static_cast<std::int64_t>(tokens))
        throw std::invalid_argument(std::string(name) + ": must begin with 0 and end with the number of tokens");
    for (std::size_t i = 1; i < size; ++i)
        if (lengths[i] <= lengths[i - 1]) throw std::invalid_argument(std::string(name) + ": a sequence is empty");
}

template <class T>
AttentionInputs<T> attention_inputs(const StridedInput<T>& q, const StridedInput<T>& k, const StridedInput<T>& v,
                                    const Int64s& cu_seqlens_q, const Int64s& cu_seqlens_k, std::size_t head_size,
                                    double scale, bool causal) {
    if (head_size == 0 || q.shape(1) % head_size || k.shape(1) % head_size || k.shape(1) == 0 ||
        (q.shape(1) / head_size) % (k.shape(1) / head_size))
        throw std::invalid_argument("the number of heads must be a multiple of the number of key-value heads");
    check_size(v.shape(0), k.shape(0), "v"), check_size(v.shape(1), k.shape(1), "v");
    check_size(cu_seqlens_k.size(), cu_seqlens_q.size(), "cu_seqlens_k");
    if (q.stride(1) != 1 || k.stride(1) != 1 || v.stride(1) != 1)
        throw std::invalid_argument("each row of q, k and v must be contiguous");
    check_cu_seqlens(cu_seqlens_q, q.shape(0), "cu_seqlens"), check_cu_seqlens(cu_seqlens_k, k.shape(0), "cu_seqlens_k");
    return {q.data(), k.data(), v.data(), q.stride(0), k.stride(0), v.stride(0), cu_seqlens_q.data(), cu_seqlens_k.data(),
            static_cast<Size>(cu_seqlens_q.size()) - 1, static_cast<Size>(q.shape(1) / head_size),
            static_cast<Size>(k.shape(1) / head_size), static_cast<Size>(head_size), static_cast<float>(scale), causal};
}

template <class T>
void varlen_attention(StridedInput<T> q, StridedInput<T> k, StridedInput<T> v, Int64s cu_seqlens_q, Int64s cu_seqlens_k,
                      Output<T> out, Output<float> logsumexp, std::size_t head_size, double scale, bool causal,
                      double rate, std::uint64_t seed) {
    const auto inputs = attention_inputs<T>(q, k, v, cu_seqlens_q, cu_seqlens_k, head_size, scale, causal);
    check_size(out.size(), q.shape(0) * q.shape(1), "out");
    check_size(logsumexp.size(), q.shape(0) * inputs.heads, "logsumexp"), check_rate(rate);
    const ReleasedInterpreter release;
    kernels().of<T>().varlen_attention(inputs, out.data(), logsumexp.data(), rate, seed);
}

template <class T>
void varlen_attention_backward(StridedInput<T> q, StridedInput<T> k, StridedInput<T> v, Int64s cu_seqlens_q,
                               Int64s cu_seqlens_k, Input<T> out, Input<float> logsumexp, Input<T> dout, Output<T> dq,
                               Output<T> dk, Output<T> dv, std::size_t head_size, double scale, bool causal,
                               double rate, std::uint64_t seed) {
    const auto inputs = attention_inputs<T>(q, k, v, cu_seqlens_q, cu_seqlens_k, head_size, scale, causal);
    const std::size_t q_size = q.shape(0) * q.shape(1), k_size = k.shape(0) * k.shape(1);
    check_size(out.size(), q_size, "out"), check_size(dout.size(), q_size, "dout"), check_size(dq.size(), q_size, "dq");
    check_size(dk.size(), k_size, "dk"), check_size(dv.size(), k_size, "dv");
    check_size(logsumexp.size(), q.shape(0) * inputs.heads, "logsumexp"), check_rate(rate);
    const ReleasedInterpreter release;
    kernels().of<T>().varlen_attention_backward(inputs, out.data(), logsumexp.data(), dout.data(), dq.data(), dk.data(),
                                                dv.data(), rate, seed);
}

// Overloads of one name for float32 and bfloat16; the dtype of the first array selects one. Numbers come as double:
// while nanobind selects an overload, it does not accept a Python float for a C++ float that cannot hold it exactly.
template <class T>
void bind(nb::module_& m) {
    const auto a = nb::arg();
    const auto optional = nb::arg().none();
    m.def("layer_norm", &layer_norm<T>, a, a, optional, a, a, a, a);
    m.def("layer_norm_backward", &layer_norm_backward<T>, a, a, a, a, a, a, optional, optional);
    m.def("rms_norm", &rms_norm<T>);
    m.def("rms_norm_backward", &rms_norm_backward<T>, a, a, a, a, a, optional);
    m.def("activate", &activate<T>, a, a, optional, a);
    m.def("activate_backward", &activate_backward<T>, a, a, optional, a, a, optional);
    m.def("dropout_add", &dropout_add<T>);
    m.def("dropout", &dropout<T>);
    m.def("rotate", &rotate<T>);
    m.def("dequantize", &dequantize<T>);
    m.def("dequantize_blockwise", &dequantize_blockwise<T>, a, a, a, optional);
    m.def("cross_entropy", &cross_entropy<T>);
    m.def("varlen_attention", &varlen_attention<T>);
    m.def("varlen_attention_backward", &varlen_attention_backward<T>);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native CPU kernels of lmworks.";
    m.attr("API_VERSION") = 15;  // kernels/native_module.py loads no other; raise both when a function's name or arguments change
    watch_interpreter();
    m.def("instruction_sets", &instruction_sets);
    m.def("set_instruction_set", &set_instruction_set);
    m.def("instruction_set", [] { return std::string(kernels().name); });
    m.def("num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads);
    m.def("thread_pool", [] { return std::string(thread_pool()); });
    m.def("read_memory", &read_memory);
    m.def("adamw_8bit", &adamw_8bit);
    m.def("adamw_rows", &adamw_rows);
    m.def("matmul", &matmul, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
    bind<float>(m), bind<Bf16>(m);
    bind_training(m);
    bind_engine(m);
}
