// All kernels for one instruction set. Compiled once for each: -DISA=avx2 names the namespace and the table.
#include "rowwise.inl"
#include "attention_backward.inl"
#include "eight_bit.inl"
#include "adamw.inl"
#include "matmul.inl"
#include "block.inl"
#include "reading.inl"
#include "quantized.inl"
#include "engine.inl"
#include "engine_encoder.inl"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME_(x) #x
#define NAME(x) NAME_(x)

namespace lmworks {
namespace ISA {
namespace {

template <class T>
Kernels<T> kernels_of() {
    return {layer_norm<T>,  layer_norm_backward<T>, rms_norm<T>, rms_norm_backward<T>, activate<T>, activate_backward<T>,
            dropout_add<T>, dropout<T>,             rotate<T>,   varlen_attention<T>,  varlen_attention_backward<T>,
            dequantize<T>,  dequantize_blockwise<T>, cross_entropy<T>};
}

}  // namespace
}  // namespace ISA

const KernelTable& JOIN(table_, ISA)() {
    using namespace ISA;
    static const KernelTable table{NAME(ISA), kernels_of<float>(), kernels_of<Bf16>(), matmul, adamw_8bit,
                                   adamw, sum_of_squares, block_forward, block_backward, adamw_rows, read_memory,
                                   decoder_step, encode_texts};
    return table;
}

}  // namespace lmworks
