// The Python module: arrays come as DLPack and are checked here, so that no kernel reads what is not there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <bit>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "table.hpp"
#include "team.hpp"

template <>
struct nanobind::detail::dtype_traits<lmworks::Bf16> {
    static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};

namespace nb = nanobind;
using namespace lmworks;

namespace {

template <class T>
using Write = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T>
using Read = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Strided = nb::ndarray<const T, nb::ndim<2>, nb::device::cpu>;
using Numbers = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

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
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

// The instruction sets that this processor has, the fastest first.
std::vector<const Table*> usable() {
    std::vector<const Table*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx512()) found.push_back(&table_avx512());
    if (has_avx2()) found.push_back(&table_avx2());
#endif
    found.push_back(&table_portable());
    return found;
}

const Table* chosen = nullptr;

const Table& kernels() {
    if (chosen == nullptr) chosen = usable().front();
    return *chosen;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Table* table : usable()) names.emplace_back(table->name);
    return names;
}

void use(const std::string& name) {
    for (const Table* table : usable())
        if (name == table->name) {
            chosen = table;
            return;
        }
    throw std::invalid_argument("this processor or this build has no kernels for " + name);
}

void same(std::size_t a, std::size_t b, const char* what) {
    if (a != b) throw std::invalid_argument(std::string(what) + ": sizes do not agree");
}

template <class Array>
auto data_or_null(const std::optional<Array>& array, std::size_t size, const char* what) {
    if (array) same(array->size(), size, what);
    return array ? array->data() : nullptr;
}

template <class T>
using MaybeWrite = std::optional<Write<T>>;
template <class T>
using MaybeRead = std::optional<Read<T>>;

// A norm's weight or bias, float32 or bfloat16, as float32; null where there is none.
class Weights {
public:
    using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

    explicit Weights(const std::optional<Array>& array) {
        if (!array) return;
        size_ = array->size();
        if (array->dtype() == nb::dtype<float>()) {
            data_ = static_cast<const float*>(array->data());
        } else if (array->dtype() == nb::dtype<Bf16>()) {
            const auto* brief = static_cast<const Bf16*>(array->data());
            for (std::size_t i = 0; i < size_; ++i) widened_.push_back(std::bit_cast<float>(std::uint32_t{brief[i].bits} << 16));
            data_ = widened_.data();
        } else {
            throw std::invalid_argument("weights are float32 or bfloat16");
        }
    }
    const float* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    const float* data_ = nullptr;
    std::size_t size_ = 0;
    std::vector<float> widened_;
};

using Array = Weights::Array;

template <class T>
void layer_norm(Read<T> x, Array weight, std::optional<Array> bias, Write<T> y, Write<float> mean, Write<float> scale,
                double eps) {
    const Weights factors(weight), shift(bias);
    const std::size_t size = factors.size(), rows = mean.size();
    same(x.size(), rows * size, "x"), same(y.size(), rows * size, "y"), same(scale.size(), rows, "scale");
    if (bias) same(shift.size(), size, "bias");
    nb::gil_scoped_release free;
    kernels().of<T>().layer_norm(x.data(), factors.data(), shift.data(), y.data(), mean.data(), scale.data(), rows, size,
                                 eps);
}

template <class T>
void layer_norm_back(Read<T> x, Array weight, Read<float> mean, Read<float> scale, Read<T> dy, Write<T> dx,
                     MaybeWrite<float> dweight, MaybeWrite<float> dbias) {
    const Weights factors(weight);
    const std::size_t size = factors.size(), rows = mean.size();
    same(x.size(), rows * size, "x"), same(dy.size(), rows * size, "dy"), same(dx.size(), rows * size, "dx");
    same(scale.size(), rows, "scale");
    float *dw = data_or_null(dweight, size, "dweight"), *db = data_or_null(dbias, size, "dbias");
    nb::gil_scoped_release free;
    kernels().of<T>().layer_norm_back(x.data(), factors.data(), mean.data(), scale.data(), dy.data(), dx.data(), dw, db,
                                      rows, size);
}

template <class T>
void rms_norm(Read<T> x, Array weight, Write<T> y, Write<float> scale, double eps) {
    const Weights factors(weight);
    const std::size_t size = factors.size(), rows = scale.size();
    same(x.size(), rows * size, "x"), same(y.size(), rows * size, "y");
    nb::gil_scoped_release free;
    kernels().of<T>().rms_norm(x.data(), factors.data(), y.data(), scale.data(), rows, size, eps);
}

template <class T>
void rms_norm_back(Read<T> x, Array weight, Read<float> scale, Read<T> dy, Write<T> dx, MaybeWrite<float> dweight) {
    const Weights factors(weight);
    const std::size_t size = factors.size(), rows = scale.size();
    same(x.size(), rows * size, "x"), same(dy.size(), rows * size, "dy"), same(dx.size(), rows * size, "dx");
    float* dw = data_or_null(dweight, size, "dweight");
    nb::gil_scoped_release free;
    kernels().of<T>().rms_norm_back(x.data(), factors.data(), scale.data(), dy.data(), dx.data(), dw, rows, size);
}

template <class T>
void activate(int kind, Read<T> x, MaybeRead<T> up, Write<T> y) {
    same(x.size(), y.size(), "y");
    const T* other = data_or_null(up, x.size(), "up");
    nb::gil_scoped_release free;
    kernels().of<T>().activate(kind, x.data(), other, y.data(), x.size());
}

template <class T>
void activate_back(int kind, Read<T> x, MaybeRead<T> up, Read<T> dy, Write<T> dx, MaybeWrite<T> dup) {
    same(x.size(), dy.size(), "dy"), same(x.size(), dx.size(), "dx");
    const T* other = data_or_null(up, x.size(), "up");
    T* slope = data_or_null(dup, x.size(), "dup");
    if ((other == nullptr) != (slope == nullptr)) throw std::invalid_argument("up and dup come together");
    nb::gil_scoped_release free;
    kernels().of<T>().activate_back(kind, x.data(), other, dy.data(), dx.data(), slope, x.size());
}

void check_rate(double rate) {
    if (!(rate >= 0.0 && rate < 1.0)) throw std::invalid_argument("a rate of dropout lies in [0, 1)");
}

template <class T>
void add_dropped(Read<T> x, Read<T> part, Write<T> y, double rate, std::uint64_t seed) {
    same(x.size(), part.size(), "part"), same(x.size(), y.size(), "y"), check_rate(rate);
    nb::gil_scoped_release free;
    kernels().of<T>().add_dropped(x.data(), part.data(), y.data(), x.size(), rate, seed);
}

template <class T>
void drop(Read<T> x, Write<T> y, double rate, std::uint64_t seed) {
    same(x.size(), y.size(), "y"), check_rate(rate);
    nb::gil_scoped_release free;
    kernels().of<T>().drop(x.data(), y.data(), x.size(), rate, seed);
}

template <class T>
void rotate(Strided<T> x, Read<float> cos, Read<float> sin, Write<T> y, std::size_t size, double sign) {
    const std::size_t tokens = x.shape(0), wide = x.shape(1), half = tokens ? cos.size() / tokens : 0;
    same(y.size(), tokens * wide, "y"), same(cos.size(), tokens * half, "cos"), same(sin.size(), cos.size(), "sin");
    if (x.stride(1) != 1 || size == 0 || wide % size || 2 * half > size) throw std::invalid_argument("x: not whole heads");
    nb::gil_scoped_release free;
    kernels().of<T>().rotate(x.data(), x.stride(0), cos.data(), sin.data(), y.data(), tokens, wide / size, size, 2 * half,
                             sign);
}

void cross_entropy(Write<float> logits, Numbers targets, Read<float> weights, Write<float> losses, bool slopes) {
    const std::size_t rows = targets.size(), words = rows ? logits.size() / rows : 0;
    same(logits.size(), rows * words, "logits"), same(weights.size(), rows, "weights"), same(losses.size(), rows, "losses");
    for (std::size_t row = 0; row < rows; ++row)
        if (targets.data()[row] < 0 || targets.data()[row] >= static_cast<std::int64_t>(words))
            throw std::invalid_argument("a target lies outside the vocabulary");
    nb::gil_scoped_release free;
    kernels().cross_entropy(logits.data(), targets.data(), weights.data(), losses.data(), rows, words, slopes);
}

template <class T>
Heads<T> heads_of(const Strided<T>& q, const Strided<T>& k, const Strided<T>& v, const Numbers& offsets,
                  const Numbers& key_offsets, std::size_t size, double scale, bool causal) {
    if (size == 0 || q.shape(1) % size || k.shape(1) % size || k.shape(1) == 0 || (q.shape(1) / size) % (k.shape(1) / size))
        throw std::invalid_argument("heads do not divide");
    same(k.shape(0), v.shape(0), "v"), same(k.shape(1), v.shape(1), "v"), same(offsets.size(), key_offsets.size(), "offsets");
    if (q.stride(1) != 1 || k.stride(1) != 1 || v.stride(1) != 1) throw std::invalid_argument("rows are not contiguous");
    const auto check = [](const Numbers& borders, std::size_t tokens) {
        if (borders.size() < 1 || borders.data()[0] != 0 || borders.data()[borders.size() - 1] != static_cast<std::int64_t>(tokens))
            throw std::invalid_argument("documents do not cover the row");
        for (std::size_t i = 1; i < borders.size(); ++i)
            if (borders.data()[i] <= borders.data()[i - 1]) throw std::invalid_argument("a document is empty");
    };
    check(offsets, q.shape(0)), check(key_offsets, k.shape(0));
    return {q.data(), k.data(), v.data(), q.stride(0), k.stride(0), v.stride(0), offsets.data(), key_offsets.data(),
            static_cast<Size>(offsets.size()) - 1, static_cast<Size>(q.shape(1) / size),
            static_cast<Size>(k.shape(1) / size), static_cast<Size>(size), static_cast<float>(scale), causal};
}

template <class T>
void attend(Strided<T> q, Strided<T> k, Strided<T> v, Numbers offsets, Numbers key_offsets, Write<T> out,
            Write<float> log_sum, std::size_t size, double scale, bool causal, double rate, std::uint64_t seed) {
    const Heads<T> heads = heads_of<T>(q, k, v, offsets, key_offsets, size, scale, causal);
    same(out.size(), q.shape(0) * q.shape(1), "out"), same(log_sum.size(), q.shape(0) * heads.heads, "log_sum");
    check_rate(rate);
    nb::gil_scoped_release free;
    kernels().of<T>().attend(heads, out.data(), log_sum.data(), rate, seed);
}

template <class T>
void attend_back(Strided<T> q, Strided<T> k, Strided<T> v, Numbers offsets, Numbers key_offsets, Read<T> out,
                 Read<float> log_sum, Read<T> dout, Write<T> dq, Write<T> dk, Write<T> dv, std::size_t size, double scale, bool causal, double rate,
                 std::uint64_t seed) {
    const Heads<T> heads = heads_of<T>(q, k, v, offsets, key_offsets, size, scale, causal);
    const std::size_t wide = q.shape(0) * q.shape(1), narrow = k.shape(0) * k.shape(1);
    same(out.size(), wide, "out"), same(dout.size(), wide, "dout"), same(dq.size(), wide, "dq");
    same(dk.size(), narrow, "dk"), same(dv.size(), narrow, "dv"), same(log_sum.size(), q.shape(0) * heads.heads, "log_sum");
    check_rate(rate);
    nb::gil_scoped_release free;
    kernels().of<T>().attend_back(heads, out.data(), log_sum.data(), dout.data(), dq.data(), dk.data(), dv.data(), rate, seed);
}

// Overloads of one name for float32 and bfloat16; the dtype of the first array selects one. Numbers come as double:
// while nanobind selects an overload, it does not accept a Python float for a C++ float that cannot hold it exactly.
template <class T>
void bind(nb::module_& m) {
    const auto a = nb::arg();
    const auto optional = nb::arg().none();
    m.def("layer_norm", &layer_norm<T>, a, a, optional, a, a, a, a);
    for (const char* name : {"layer_norm_backward", "layer_norm_back"})
        m.def(name, &layer_norm_back<T>, a, a, a, a, a, a, optional, optional);
    m.def("rms_norm", &rms_norm<T>);
    for (const char* name : {"rms_norm_backward", "rms_norm_back"}) m.def(name, &rms_norm_back<T>, a, a, a, a, a, optional);
    m.def("activate", &activate<T>, a, a, optional, a);
    for (const char* name : {"activate_backward", "activate_back"})
        m.def(name, &activate_back<T>, a, a, optional, a, a, optional);
    for (const char* name : {"dropout_add", "add_dropped"}) m.def(name, &add_dropped<T>);
    for (const char* name : {"dropout", "drop"}) m.def(name, &drop<T>);
    m.def("rotate", &rotate<T>);
    for (const char* name : {"varlen_attention", "attend"}) m.def(name, &attend<T>);
    for (const char* name : {"varlen_attention_backward", "attend_back"}) m.def(name, &attend_back<T>);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native CPU kernels of lmworks.";
    m.attr("API_VERSION") = 3;  // kernels/library.py loads no other; raise both when a function's name or arguments change
    m.attr("EDITION") = 2;
    m.def("instruction_sets", &instruction_sets);
    for (const char* name : {"set_instruction_set", "use"}) m.def(name, &use);
    for (const char* name : {"instruction_set", "in_use"}) m.def(name, [] { return std::string(kernels().name); });
    for (const char* name : {"num_threads", "threads"}) m.def(name, &threads);
    for (const char* name : {"set_num_threads", "use_threads"}) m.def(name, &use_threads);
    for (const char* name : {"thread_pool", "team"}) m.def(name, [] { return std::string(team_kind()); });
    m.def("cross_entropy", &cross_entropy);
    bind<float>(m), bind<Bf16>(m);
}
