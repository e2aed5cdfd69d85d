// What all files of the Python module share: arrays as DLPack, checks of their sizes, the selected kernels.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>

#include "interpreter.hpp"
#include "kernel_table.hpp"

template <>
struct nanobind::detail::dtype_traits<lmworks::Bf16> {
    static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};

namespace lmworks {

template <class T>
using Output = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T>
using Input = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using StridedInput = nb::ndarray<const T, nb::ndim<2>, nb::device::cpu>;
using StridedOutput = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using Int64s = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Those of the selected instruction set.
const KernelTable& kernels();

// Adds the functions of training.cpp, and the class of engine.cpp, to the module.
void bind_training(nb::module_& m);
void bind_engine(nb::module_& m);

inline void check_size(std::size_t size, std::size_t expected, const char* name) {
    if (size != expected)
        throw std::invalid_argument(std::string(name) + ": sizes do not agree: " + std::to_string(size) + " elements, not " +
                                    std::to_string(expected));
}

// Of kernels/adamw.AdamWScalars, in its order.
using StepScalars = std::tuple<double, double, double, double, double, double, double, double>;

inline AdamWStep adamw_step(const StepScalars& scalars) {
    const auto [learning_rate, beta1, beta2, weight_decay, eps, correction1, correction2, gradient_scale] = scalars;
    const auto f32 = [](double x) { return static_cast<float>(x); };
    return {f32(learning_rate), f32(1 - beta1), f32(beta2), f32(1 - beta2), f32(weight_decay), f32(eps), f32(correction1),
            f32(correction2), f32(gradient_scale)};
}

}  // namespace lmworks
