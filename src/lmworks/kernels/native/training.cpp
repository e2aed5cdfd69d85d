// The functions of the Python module that compute much of a training step in one call.
#include <vector>

#include "bindings.hpp"

using namespace lmworks;

namespace {

using Outputs = std::vector<Output<float>>;
using Inputs = std::vector<Input<float>>;

void adamw(Outputs weights, Inputs gradients, Outputs first, Outputs second, double rate, double beta1, double beta2,
           double weight_decay, double eps, double correction1, double correction2, double gradient_scale) {
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
    const AdamWStep step = adamw_step(rate, beta1, beta2, weight_decay, eps, correction1, correction2, gradient_scale);
    nb::gil_scoped_release release;
    kernels().adamw(updates.data(), static_cast<Size>(tensors), step);
}

double sum_of_squares(Inputs tensors) {
    std::vector<const float*> data;
    std::vector<Size> sizes;
    for (const Input<float>& tensor : tensors) data.push_back(tensor.data()), sizes.push_back(tensor.size());
    nb::gil_scoped_release release;
    return kernels().sum_of_squares(data.data(), sizes.data(), static_cast<Size>(tensors.size()));
}

}  // namespace

void lmworks::bind_training(nb::module_& m) {
    m.def("adamw", &adamw);
    m.def("sum_of_squares", &sum_of_squares);
}
