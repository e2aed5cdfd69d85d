// The Python module: arrays come as DLPack and are checked here, so that no kernel reads what is not there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "table.hpp"
#include "team.hpp"

namespace nb = nanobind;
using namespace lmworks;

namespace {

using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Read = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Strided = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
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

using MaybeFloats = std::optional<Floats>;
using MaybeRead = std::optional<Read>;

void layer_norm(Read x, Read weight, MaybeRead bias, Floats y, Floats mean, Floats scale, float eps) {
    const std::size_t size = weight.size(), rows = mean.size();
    same(x.size(), rows * size, "x"), same(y.size(), rows * size, "y"), same(scale.size(), rows, "scale");
    const float* shift = data_or_null(bias, size, "bias");
    nb::gil_scoped_release free;
    kernels().layer_norm(x.data(), weight.data(), shift, y.data(), mean.data(), scale.data(), rows, size, eps);
}

void layer_norm_back(Read x, Read weight, Read mean, Read scale, Read dy, Floats dx, MaybeFloats dweight,
                     MaybeFloats dbias) {
    const std::size_t size = weight.size(), rows = mean.size();
    same(x.size(), rows * size, "x"), same(dy.size(), rows * size, "dy"), same(dx.size(), rows * size, "dx");
    same(scale.size(), rows, "scale");
    float *dw = data_or_null(dweight, size, "dweight"), *db = data_or_null(dbias, size, "dbias");
    nb::gil_scoped_release free;
    kernels().layer_norm_back(x.data(), weight.data(), mean.data(), scale.data(), dy.data(), dx.data(), dw, db, rows,
                              size);
}

void rms_norm(Read x, Read weight, Floats y, Floats scale, float eps) {
    const std::size_t size = weight.size(), rows = scale.size();
    same(x.size(), rows * size, "x"), same(y.size(), rows * size, "y");
    nb::gil_scoped_release free;
    kernels().rms_norm(x.data(), weight.data(), y.data(), scale.data(), rows, size, eps);
}

void rms_norm_back(Read x, Read weight, Read scale, Read dy, Floats dx, MaybeFloats dweight) {
    const std::size_t size = weight.size(), rows = scale.size();
    same(x.size(), rows * size, "x"), same(dy.size(), rows * size, "dy"), same(dx.size(), rows * size, "dx");
    float* dw = data_or_null(dweight, size, "dweight");
    nb::gil_scoped_release free;
    kernels().rms_norm_back(x.data(), weight.data(), scale.data(), dy.data(), dx.data(), dw, rows, size);
}

void activate(int kind, Read x, MaybeRead up, Floats y) {
    same(x.size(), y.size(), "y");
    const float* other = data_or_null(up, x.size(), "up");
    nb::gil_scoped_release free;
    kernels().activate(kind, x.data(), other, y.data(), x.size());
}

void activate_back(int kind, Read x, MaybeRead up, Read dy, Floats dx, MaybeFloats dup) {
    same(x.size(), dy.size(), "dy"), same(x.size(), dx.size(), "dx");
    const float* other = data_or_null(up, x.size(), "up");
    float* slope = data_or_null(dup, x.size(), "dup");
    if ((other == nullptr) != (slope == nullptr)) throw std::invalid_argument("up and dup come together");
    nb::gil_scoped_release free;
    kernels().activate_back(kind, x.data(), other, dy.data(), dx.data(), slope, x.size());
}

void check_rate(float rate) {
    if (!(rate >= 0.0f && rate < 1.0f)) throw std::invalid_argument("a rate of dropout lies in [0, 1)");
}

void add_dropped(Read x, Read part, Floats y, float rate, std::uint64_t seed) {
    same(x.size(), part.size(), "part"), same(x.size(), y.size(), "y"), check_rate(rate);
    nb::gil_scoped_release free;
    kernels().add_dropped(x.data(), part.data(), y.data(), x.size(), rate, seed);
}

void drop(Read x, Floats y, float rate, std::uint64_t seed) {
    same(x.size(), y.size(), "y"), check_rate(rate);
    nb::gil_scoped_release free;
    kernels().drop(x.data(), y.data(), x.size(), rate, seed);
}

void rotate(Strided x, Read cos, Read sin, Floats y, std::size_t size, float sign) {
    const std::size_t tokens = x.shape(0), wide = x.shape(1), half = tokens ? cos.size() / tokens : 0;
    same(y.size(), tokens * wide, "y"), same(cos.size(), tokens * half, "cos"), same(sin.size(), cos.size(), "sin");
    if (x.stride(1) != 1 || size == 0 || wide % size || 2 * half > size) throw std::invalid_argument("x: not whole heads");
    nb::gil_scoped_release free;
    kernels().rotate(x.data(), x.stride(0), cos.data(), sin.data(), y.data(), tokens, wide / size, size, 2 * half, sign);
}

void cross_entropy(Floats logits, Numbers targets, Read weights, Floats losses, bool slopes) {
    const std::size_t rows = targets.size(), words = rows ? logits.size() / rows : 0;
    same(logits.size(), rows * words, "logits"), same(weights.size(), rows, "weights"), same(losses.size(), rows, "losses");
    for (std::size_t row = 0; row < rows; ++row)
        if (targets.data()[row] < 0 || targets.data()[row] >= static_cast<std::int64_t>(words))
            throw std::invalid_argument("a target lies outside the vocabulary");
    nb::gil_scoped_release free;
    kernels().cross_entropy(logits.data(), targets.data(), weights.data(), losses.data(), rows, words, slopes);
}

Heads heads_of(const Strided& q, const Strided& k, const Strided& v, const Numbers& offsets, const Numbers& key_offsets,
               std::size_t size, float scale, bool causal) {
    if (size == 0 || q.shape(1) % size || k.shape(1) % size || k.shape(1) == 0 || (q.shape(1) / size) % (k.shape(1) / size))
        throw std::invalid_argument("heads do not divide");
    same(k.shape(0), v.shape(0), "v"), same(k.shape(1), v.shape(1), "v"), same(offsets.size(), key_offsets.size(), "offsets");
    if (q.stride(1) != 1 || k.stride(1) != 1 || v.stride(1) != 1) throw std::invalid_argument("rows are not contiguous");
    const auto check = [](const Numbers& borders, std::size_t tokens, bool) {
        if (borders.size() < 1 || borders.data()[0] != 0 || borders.data()[borders.size() - 1] != static_cast<std::int64_t>(tokens))
            throw std::invalid_argument("documents do not cover the row");
        for (std::size_t i = 1; i < borders.size(); ++i)
            if (borders.data()[i] <= borders.data()[i - 1]) throw std::invalid_argument("a document is empty");
    };
    check(offsets, q.shape(0), causal), check(key_offsets, k.shape(0), causal);
    return {q.data(), k.data(), v.data(), q.stride(0), k.stride(0), v.stride(0), offsets.data(), key_offsets.data(),
            static_cast<Size>(offsets.size()) - 1, static_cast<Size>(q.shape(1) / size),
            static_cast<Size>(k.shape(1) / size), static_cast<Size>(size), scale, causal};
}

void attend(Strided q, Strided k, Strided v, Numbers offsets, Numbers key_offsets, Floats out, Floats log_sum,
            std::size_t size, float scale, bool causal, float rate, std::uint64_t seed) {
    const Heads heads = heads_of(q, k, v, offsets, key_offsets, size, scale, causal);
    same(out.size(), q.shape(0) * q.shape(1), "out"), same(log_sum.size(), q.shape(0) * heads.heads, "log_sum");
    check_rate(rate);
    nb::gil_scoped_release free;
    kernels().attend(heads, out.data(), log_sum.data(), rate, seed);
}

void attend_back(Strided q, Strided k, Strided v, Numbers offsets, Numbers key_offsets, Read out, Read log_sum, Read dout,
                 Floats dq, Floats dk, Floats dv, std::size_t size, float scale, bool causal, float rate,
                 std::uint64_t seed) {
    const Heads heads = heads_of(q, k, v, offsets, key_offsets, size, scale, causal);
    const std::size_t wide = q.shape(0) * q.shape(1), narrow = k.shape(0) * k.shape(1);
    same(out.size(), wide, "out"), same(dout.size(), wide, "dout"), same(dq.size(), wide, "dq");
    same(dk.size(), narrow, "dk"), same(dv.size(), narrow, "dv"), same(log_sum.size(), q.shape(0) * heads.heads, "log_sum");
    check_rate(rate);
    nb::gil_scoped_release free;
    kernels().attend_back(heads, out.data(), log_sum.data(), dout.data(), dq.data(), dk.data(), dv.data(), rate, seed);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native CPU kernels of lmworks.";
    m.def("instruction_sets", &instruction_sets);
    m.def("use", &use);
    m.def("in_use", [] { return std::string(kernels().name); });
    m.def("threads", &threads);
    m.def("use_threads", &use_threads);
    m.def("team", [] { return std::string(team_kind()); });
    m.def("layer_norm", &layer_norm, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("layer_norm_back", &layer_norm_back, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg().none(), nb::arg().none());
    m.def("rms_norm", &rms_norm);
    m.def("rms_norm_back", &rms_norm_back, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("activate", &activate, nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
    m.def("activate_back", &activate_back, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("add_dropped", &add_dropped);
    m.def("drop", &drop);
    m.def("rotate", &rotate);
    m.def("cross_entropy", &cross_entropy);
    m.def("attend", &attend);
    m.def("attend_back", &attend_back);
}
