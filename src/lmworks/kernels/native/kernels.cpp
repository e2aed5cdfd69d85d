// All kernels for one instruction set. Compiled once for each: -DISA=avx2 names the namespace and the table.
#include "rows.inl"
#include "attention.inl"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME_(x) #x
#define NAME(x) NAME_(x)

namespace lmworks {

const Table& JOIN(table_, ISA)() {
    using namespace ISA;
    static const Table table{NAME(ISA),     W,        layer_norm, layer_norm_back, rms_norm,      rms_norm_back,
                             activate,      activate_back, add_dropped, drop,      rotate,        cross_entropy,
                             attend,        attend_back};
    return table;
}

}  // namespace lmworks
