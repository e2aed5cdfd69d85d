// The Python class of the native engine: a decoder, its weights, and sequences that grow by steps; or an encoder, and texts
// that pass through it.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "bindings.hpp"
#include "engine_adapters.hpp"
#include "engine_encoder.hpp"
#include "parallel.hpp"

namespace lmworks {
namespace {

using Floats = Input<float>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
// layer, name of the matrix, a (rank, columns), b (rows, rank)
using Updates = std::vector<std::tuple<std::int64_t, std::string, FloatMatrix, FloatMatrix>>;

std::vector<float> to_vector(const Floats& array) { return {array.data(), array.data() + array.size()}; }

std::vector<float> to_vector(const std::optional<Floats>& array) { return array ? to_vector(*array) : std::vector<float>{}; }

// config: as generate/native_weights.py makes it. layer: -1 for what belongs to none. Throws std::invalid_argument: ValueError.
class Engine {
public:
    explicit Engine(const nb::dict& config) {
        const auto number = [&](const char* name) { return nb::cast<double>(config[name]); };
        const auto size = [&](const char* name) { return static_cast<Size>(number(name)); };
        Decoder& d = decoder_;
        d.vocab_size = size("vocab_size");
        d.hidden = size("hidden_size");
        d.inner = size("intermediate_size");
        d.heads = size("heads");
        d.kv_heads = size("kv_heads");
        d.head_size = size("head_size");
        d.rotary_size = size("rotary_size");
        d.positions = size("positions");
        for (const Size value : {d.vocab_size, d.hidden, d.inner, d.heads, d.kv_heads, d.head_size, d.positions})
            if (value < 1) throw std::invalid_argument("a size of the model is not positive");
        if (d.heads % d.kv_heads) throw std::invalid_argument("key-value heads do not divide the heads");
        if (d.rotary_size < 0 || d.rotary_size % 2 || d.rotary_size > d.head_size)
            throw std::invalid_argument("rotary_size is no even part of a head");
        d.cache_kind = nb::cast<bool>(config["float_cache"]) ? F32_CACHE : F16_CACHE;
        d.layer_norm = nb::cast<bool>(config["layer_norm"]);
        d.activation = static_cast<int>(number("activation"));
        d.eps = static_cast<float>(number("eps"));
        d.attention_scale = static_cast<float>(number("attention_scale"));
        d.embedding_scale = static_cast<float>(number("embedding_scale"));
        d.head_scale = static_cast<float>(number("head_scale"));
        d.attention_softcap = static_cast<float>(number("attention_softcap"));
        d.logit_softcap = static_cast<float>(number("logit_softcap"));
        const auto windows = nb::cast<std::vector<std::int64_t>>(config["windows"]);
        const auto local = nb::cast<std::vector<bool>>(config["local"]);
        check_size(local.size(), windows.size(), "local");
        d.layers.resize(windows.size());
        for (std::size_t i = 0; i < windows.size(); ++i) {
            d.layers[i].window = static_cast<Size>(windows[i]);
            d.layers[i].is_local = local[i];
        }
        if (config.contains("encoder")) {
            const auto parts = nb::cast<nb::dict>(config["encoder"]);
            d.encoder = encoder_parts(nb::cast<bool>(parts["post_norm"]), nb::cast<Size>(parts["depth"]),
                                      nb::cast<Size>(parts["embedding_size"]), static_cast<Size>(d.layers.size()));
        }
    }

    // Packs a matrix. kind: a WeightKind; data: what pack() reads; bias (rows).
    void set_matrix(int layer, const std::string& name, int kind, const Bytes& data, const std::optional<Floats>& bias) {
        const auto [rows, columns] = shape_of(name);
        if (kind < 0 || kind >= WEIGHT_KINDS) throw std::invalid_argument("there is no such kind of weights");
        check_size(data.size(), static_cast<std::size_t>(unpacked_bytes(kind, rows, columns)), name.c_str());
        is_finished_ = false;
        if (bias) check_size(bias->size(), static_cast<std::size_t>(rows), "bias");
        WeightMatrix& target = matrix(layer, name);
        target = pack(kind, data.data(), rows, columns, memory_);
        target.bias = to_vector(bias);
    }

    // The bytes of a packed matrix, without its bias, as set_packed() takes them.
    nb::bytes packed(int layer, const std::string& name) {
        const WeightMatrix& source = matrix(layer, name);
        if (!source.exists()) throw std::invalid_argument("the engine has no " + name);
        return nb::bytes(source.data, static_cast<std::size_t>(source.bytes()));
    }

    void set_packed(int layer, const std::string& name, int kind, const Bytes& data, const std::optional<Floats>& bias) {
        const auto [rows, columns] = shape_of(name);
        WeightMatrix copy = matrix_of(kind, rows, columns);
        check_size(data.size(), static_cast<std::size_t>(copy.bytes()), name.c_str());
        if (bias) check_size(bias->size(), static_cast<std::size_t>(rows), "bias");
        is_finished_ = false;
        std::uint8_t* bytes = memory_.take(copy.bytes());
        std::copy_n(data.data(), data.size(), bytes);
        copy.data = bytes;
        copy.bias = to_vector(bias);
        matrix(layer, name) = std::move(copy);
    }

    void set_norm(int layer, const std::string& name, const Floats& weight, const std::optional<Floats>& bias) {
        const bool is_of_heads = name == "q_norm" || name == "k_norm";
        const Size width = name == "embed_norm" ? decoder_.width() : decoder_.hidden;
        const auto size = static_cast<std::size_t>(is_of_heads ? decoder_.head_size : width);
        check_size(weight.size(), size, name.c_str());
        if (bias) check_size(bias->size(), size, "bias");
        norm(layer, name) = {to_vector(weight), to_vector(bias)};
    }

    // cos and sin (positions, rotary_size / 2); local: of layers with a sliding window, where these have their own.
    void set_rotary(bool local, const Floats& cos, const Floats& sin) {
        const auto size = static_cast<std::size_t>(decoder_.positions * decoder_.rotary_size / 2);
        check_size(cos.size(), size, "cos");
        check_size(sin.size(), size, "sin");
        (local ? decoder_.local_rotary : decoder_.rotary) = {to_vector(cos), to_vector(sin)};
    }

    void set_vector(const std::string& name, const Floats& values) {
        Decoder& d = decoder_;
        const std::map<std::string, std::pair<Size, std::vector<float>*>> vectors{
            {"embed_positions", {d.positions * d.width(), &d.embed_positions}},
            {"head_bias", {d.vocab_size, &d.head_bias}},
            {"embed_tokens", {d.vocab_size * d.width(), &d.encoder.embed_tokens}},
        };
        const auto vector = vectors.find(name);
        if (vector == vectors.end()) throw std::invalid_argument("the engine has no " + name);
        const auto& [size, target] = vector->second;
        check_size(values.size(), static_cast<std::size_t>(size), name.c_str());
        *target = to_vector(values);
    }

    // Checks that nothing is missing, and makes the buffers: step(), or encode(), may be called from then on.
    void finish() {
        Decoder& d = decoder_;
        bool needs_local = false;
        for (const EngineLayer& layer : d.layers) {
            for (const WeightMatrix* needed : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.up_proj, &layer.down_proj})
                if (!needed->exists()) throw std::invalid_argument("a layer lacks a matrix");
            if (!layer.input.exists() || !layer.post_attention.exists()) throw std::invalid_argument("a layer lacks a norm");
            needs_local = needs_local || layer.is_local;
        }
        if (d.encoder.exists) check_encoder(d);
        else if (!d.embed_tokens.exists() || !d.norm.exists()) throw std::invalid_argument("embeddings or the last norm are missing");
        if (d.rotary_size > 0 && (d.rotary.cos.empty() || (needs_local && d.local_rotary.cos.empty())))
            throw std::invalid_argument("the table of positions is missing");
        is_finished_ = true;
        encoder_buffers_.clear();  // their sizes depend on the kind of the matrices, which may be another now
        if (d.encoder.exists) return;
        buffers_ = std::make_unique<StepBuffers>(d, num_threads());
        buffer_threads_ = num_threads();
    }

    // Packs an adapter; add_sequence() takes its name from then on.
    void add_adapter(const std::string& name, const Updates& updates) {
        if (!buffers_) throw std::invalid_argument("the engine lacks weights: finish() comes first");
        std::vector<GivenUpdate> factors;
        for (const auto& [layer, linear, a, b] : updates)
            factors.push_back({layer, linear, a.data(), b.data(), static_cast<Size>(a.shape(0)), static_cast<Size>(a.shape(1)),
                               static_cast<Size>(b.shape(0)), static_cast<Size>(b.shape(1))});
        std::shared_ptr<const Adapter> adapter = make_adapter(decoder_, factors);
        const Locked locked(mutex_);
        if (!adapters_.emplace(name, std::move(adapter)).second) throw std::invalid_argument("there is an adapter " + name + " already");
    }

    // Forgets an adapter; sequences that have it keep it.
    void remove_adapter(const std::string& name) {
        const Locked locked(mutex_);
        if (adapters_.erase(name) == 0) throw std::invalid_argument("there is no adapter " + name);
    }

    // The number of a new sequence without tokens; capacity may grow. cache: a CacheKind; without it that of the model.
    std::int64_t add_sequence(Size capacity, std::optional<int> cache, const std::optional<std::string>& adapter) {
        const Locked locked(mutex_);
        auto sequence = std::make_unique<Sequence>();
        sequence->kind = cache.value_or(decoder_.cache_kind);
        if (sequence->kind < 0 || sequence->kind >= CACHE_KINDS) throw std::invalid_argument("there is no such kind of cache");
        if (adapter) {
            const auto entry = adapters_.find(*adapter);
            if (entry == adapters_.end()) throw std::invalid_argument("there is no adapter " + *adapter);
            sequence->adapter = entry->second;
        }
        sequence->grow(decoder_, std::max<Size>(capacity, 1));
        sequences_[++last_number_] = std::move(sequence);
        return last_number_;
    }

    // The number of a new sequence that begins with the first ``length`` tokens of another, with its adapter.
    std::int64_t copy_sequence(std::int64_t number, Size length, Size capacity) {
        const Locked locked(mutex_);
        const Sequence& source = sequence(number);
        if (length < 0 || length > source.length) throw std::invalid_argument("the sequence has fewer tokens");
        auto copy = std::make_unique<Sequence>();
        copy->adapter = source.adapter;
        copy->kind = source.kind;
        copy->grow(decoder_, std::max({capacity, length, Size{1}}));
        copy->copy_tokens(decoder_, source, length);
        copy->length = length;
        sequences_[++last_number_] = std::move(copy);
        return last_number_;
    }

    // Forgets all tokens of a sequence but the first ``length``.
    void truncate_sequence(std::int64_t number, Size length) {
        const Locked locked(mutex_);
        Sequence& shortened = sequence(number);
        if (length < 0 || length > shortened.length) throw std::invalid_argument("the sequence has fewer tokens");
        shortened.length = length;
    }

    void remove_sequence(std::int64_t number) {
        if (interpreter_threads.ending.load() != 0) return;  // a daemon thread may hold the lock for good
        const Locked locked(mutex_);
        sequences_.erase(number);
    }

    Size length(std::int64_t number) const {
        const Locked locked(mutex_);
        return sequence(number).length;
    }

    // Appends tokens[i] to the sequence numbers[i], in order. logits (n, vocab_size) receives those that follow each of the n
    // tokens whose wanted[i] is not 0. What is thrown, also by the handler of a signal, leaves all sequences as they were.
    void step(const Int64s& numbers, const Int64s& tokens, const Int64s& wanted, Output<float> logits) {
        Locked locked(mutex_);
        if (!buffers_) throw std::invalid_argument("the engine lacks weights, or holds an encoder: finish() comes first");
        const std::size_t count = tokens.size();
        check_size(numbers.size(), count, "sequences");
        check_size(wanted.size(), count, "wanted");
        const auto results = static_cast<std::size_t>(std::count_if(wanted.data(), wanted.data() + count, [](auto flag) { return flag != 0; }));
        check_size(logits.size(), results * static_cast<std::size_t>(decoder_.vocab_size), "logits");
        std::vector<StepToken> all = make_step_tokens(numbers, tokens, wanted, logits.data());
        const auto compute = kernels().decoder_step;
        if (buffer_threads_ < num_threads()) {
            buffers_ = std::make_unique<StepBuffers>(decoder_, num_threads());
            buffer_threads_ = num_threads();
        }
        const std::vector<std::size_t> ends = part_ends(all);
        const Size rank = gather_by_adapter(all, ends);
        if (rank > buffers_->rank) buffers_->set_rank(rank);
        std::size_t begin = 0;
        for (const std::size_t end : ends) {
            if (begin > 0) locked.check_signals();
            run_team([&](Team& team, int thread) {
                compute(decoder_, all.data() + begin, static_cast<Size>(end - begin), *buffers_, team, thread);
            });
            begin = end;
        }
        for (const StepToken& token : all) token.sequence->length = token.position + 1;
    }

    // Text i has the tokens offsets[i] ... offsets[i + 1] - 1; writes their last hidden states (tokens, hidden_size).
    void encode(const Int64s& tokens, const Int64s& offsets, Output<float> hidden) {
        const Locked locked(mutex_);
        if (!is_finished_ || !decoder_.encoder.exists)
            throw std::invalid_argument("the engine lacks weights, or holds a decoder: finish() comes first");
        check_size(hidden.size(), tokens.size() * static_cast<std::size_t>(decoder_.hidden), "hidden");
        lmworks::encode(kernels().encode_texts, decoder_, tokens.data(), static_cast<Size>(tokens.size()), offsets.data(),
                        static_cast<Size>(offsets.size()) - 1, hidden.data(), encoder_buffers_);
    }

    // Bytes of weights and of the sequences.
    std::pair<std::size_t, std::size_t> sizes() const {
        const Locked locked(mutex_);
        std::size_t cached = 0;
        for (const auto& entry : sequences_) cached += 2 * static_cast<std::size_t>(entry.second->keys.count());
        return {static_cast<std::size_t>(memory_.bytes()), cached};
    }

private:
    WeightMemory memory_;
    Decoder decoder_;
    std::unique_ptr<StepBuffers> buffers_;
    int buffer_threads_ = 0;
    std::vector<EncoderBuffers> encoder_buffers_;  // by thread
    bool is_finished_ = false;
    std::unordered_map<std::int64_t, std::unique_ptr<Sequence>> sequences_;
    std::int64_t last_number_ = 0;
    std::map<std::string, std::shared_ptr<const Adapter>> adapters_;
    mutable ForkedMutex mutex_;  // one step at a time

    EngineLayer& layer_of(int layer) {
        if (layer < 0 || static_cast<std::size_t>(layer) >= decoder_.layers.size())
            throw std::invalid_argument("there is no layer " + std::to_string(layer));
        return decoder_.layers[static_cast<std::size_t>(layer)];
    }

    std::pair<Size, Size> shape_of(const std::string& name) const {
        const Decoder& d = decoder_;
        const std::map<std::string, std::pair<Size, Size>> shapes{
            {"embed_tokens", {d.vocab_size, d.hidden}}, {"lm_head", {d.vocab_size, d.hidden}},
            {"q_proj", {d.q_size(), d.hidden}},         {"k_proj", {d.kv_size(), d.hidden}},
            {"v_proj", {d.kv_size(), d.hidden}},        {"o_proj", {d.hidden, d.q_size()}},
            {"gate_proj", {d.inner, d.hidden}},         {"up_proj", {d.inner, d.hidden}},
            {"down_proj", {d.hidden, d.inner}},         {"embed_project", {d.hidden, d.width()}},
        };
        const auto shape = shapes.find(name);
        if (shape == shapes.end()) throw std::invalid_argument("the engine has no matrix " + name);
        return shape->second;
    }

    WeightMatrix& matrix(int layer, const std::string& name) {
        static const std::map<std::string, WeightMatrix EngineLayer::*> members{
            {"q_proj", &EngineLayer::q_proj},       {"k_proj", &EngineLayer::k_proj},   {"v_proj", &EngineLayer::v_proj},
            {"o_proj", &EngineLayer::o_proj},       {"gate_proj", &EngineLayer::gate_proj},
            {"up_proj", &EngineLayer::up_proj},     {"down_proj", &EngineLayer::down_proj},
        };
        if (name == "embed_tokens") return decoder_.embed_tokens;
        if (name == "embed_project") return decoder_.encoder.embed_project;
        return name == "lm_head" ? decoder_.lm_head : layer_of(layer).*members.at(name);  // shape_of() knows no other name
    }

    EngineNorm& norm(int layer, const std::string& name) {
        static const std::map<std::string, EngineNorm EngineLayer::*> members{
            {"input_layernorm", &EngineLayer::input},
            {"attention_output_layernorm", &EngineLayer::attention_output},
            {"post_attention_layernorm", &EngineLayer::post_attention},
            {"mlp_output_layernorm", &EngineLayer::mlp_output},
            {"q_norm", &EngineLayer::q},
            {"k_norm", &EngineLayer::k},
        };
        if (name == "norm") return decoder_.norm;
        if (name == "embed_norm") return decoder_.embed_norm;
        const auto member = members.find(name);
        if (member == members.end()) throw std::invalid_argument("the engine has no norm " + name);
        return layer_of(layer).*member->second;
    }

    Sequence& sequence(std::int64_t number) const {
        const auto entry = sequences_.find(number);
        if (entry == sequences_.end()) throw std::invalid_argument("there is no sequence " + std::to_string(number));
        return *entry->second;
    }

    // The tokens of a step with their positions; their sequences have room for them then.
    std::vector<StepToken> make_step_tokens(const Int64s& numbers, const Int64s& tokens, const Int64s& wanted, float* logits) {
        std::map<Sequence*, Size> lengths;
        std::vector<StepToken> all;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const std::int64_t id = tokens.data()[i];
            if (id < 0 || id >= decoder_.vocab_size) throw std::invalid_argument("there is no token " + std::to_string(id));
            Sequence* target = &sequence(numbers.data()[i]);
            Size& length = lengths.try_emplace(target, target->length).first->second;
            if (length >= decoder_.positions) throw std::invalid_argument("a sequence is longer than the model's context");
            all.push_back({id, target, length++, nullptr});
            if (wanted.data()[i] != 0) {
                all.back().logits = logits;
                logits += decoder_.vocab_size;
            }
        }
        for (const auto& [target, length] : lengths)
            if (length > target->capacity) target->grow(decoder_, std::max(length, std::min(2 * target->capacity, decoder_.positions)));
        return all;
    }

    // Where the parts of a step end that are computed at a time: several tokens of one sequence, or single tokens of several,
    // so that each sequence gets the bits that it would get alone.
    static std::vector<std::size_t> part_ends(const std::vector<StepToken>& all) {
        std::vector<std::size_t> ends;
        const auto continues = [&](std::size_t i) { return i < all.size() && all[i].sequence == all[i - 1].sequence; };
        for (std::size_t begin = 0, end = 0; begin < all.size(); begin = end) {
            ++end;
            if (continues(end)) {
                while (continues(end) && end - begin < STEP_TOKENS) ++end;
            } else {
                while (end < all.size() && !continues(end) && !continues(end + 1) && end - begin < STEP_TOKENS) ++end;
            }
            ends.push_back(end);
        }
        return ends;
    }
};

}  // namespace

void bind_engine(nb::module_& m) {
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<const nb::dict&>(), nb::arg("config"))
        .def("set_matrix", &Engine::set_matrix, nb::arg("layer"), nb::arg("name"), nb::arg("kind"), nb::arg("data"),
             nb::arg("bias").none() = nb::none())
        .def("packed", &Engine::packed, nb::arg("layer"), nb::arg("name"))
        .def("set_packed", &Engine::set_packed, nb::arg("layer"), nb::arg("name"), nb::arg("kind"), nb::arg("data"),
             nb::arg("bias").none() = nb::none())
        .def("set_norm", &Engine::set_norm, nb::arg("layer"), nb::arg("name"), nb::arg("weight"), nb::arg("bias").none() = nb::none())
        .def("set_rotary", &Engine::set_rotary, nb::arg("local"), nb::arg("cos"), nb::arg("sin"))
        .def("set_vector", &Engine::set_vector, nb::arg("name"), nb::arg("values"))
        .def("finish", &Engine::finish)
        .def("add_adapter", &Engine::add_adapter, nb::arg("name"), nb::arg("updates"))
        .def("remove_adapter", &Engine::remove_adapter, nb::arg("name"))
        .def("add_sequence", &Engine::add_sequence, nb::arg("capacity"), nb::arg("cache").none() = nb::none(),
             nb::arg("adapter").none() = nb::none())
        .def("copy_sequence", &Engine::copy_sequence, nb::arg("sequence"), nb::arg("length"), nb::arg("capacity"))
        .def("truncate_sequence", &Engine::truncate_sequence, nb::arg("sequence"), nb::arg("length"))
        .def("remove_sequence", &Engine::remove_sequence, nb::arg("sequence"))
        .def("length", &Engine::length, nb::arg("sequence"))
        .def("step", &Engine::step, nb::arg("sequences"), nb::arg("tokens"), nb::arg("wanted"), nb::arg("logits"))
        .def("encode", &Engine::encode, nb::arg("tokens"), nb::arg("offsets"), nb::arg("hidden"))
        .def("sizes", &Engine::sizes);
}

}  // namespace lmworks
