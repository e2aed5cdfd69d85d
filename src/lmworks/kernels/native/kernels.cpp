// All kernels for one instruction set. Compiled once for each: -DISA=avx2 names the namespace and the table.
#include "rows.inl"
#include "attention.inl"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME_(x) #x
#define NAME(x) NAME_(x)

namespace lmworks {
namespace ISA {
namespace {

template <class T>
Kernels<T> kernels_of() {
    return {layer_norm<T>,  layer_norm_back<T>, rms_norm<T>, rms_norm_back<T>, activate<T>, activate_back<T>,
            add_dropped<T>, drop<T>,            rotate<T>,   attend<T>,        attend_back<T>};
}

}  // namespace
}  // namespace ISA

const Table& JOIN(table_, ISA)() {
    using namespace ISA;
    static const Table table{NAME(ISA), W, kernels_of<float>(), kernels_of<Bf16>(), cross_entropy};
    return table;
}

}  // namespace lmworks
