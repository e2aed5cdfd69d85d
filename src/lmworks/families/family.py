"""The interface of a published family, and reading its config.json so that no key is silently ignored.

Depends on no particular family. Keys that do not change logits, such as token ids and data types, are listed here as
ignored. Any other key that is not read is an error that names it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

from lmworks.base.errors import InputError
from lmworks.base.json_file import is_kind, wrong_kind
from lmworks.base.settings import build
from lmworks.families.head_layouts import HeadLayout, HeadLayouts, named_head, read_head, write_head
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.model.head_requests import HeadRequest
from lmworks.model.sizes import stacks

if TYPE_CHECKING:
    from lmworks.families.mapping import Row

# Keys that any config.json may carry and that do not change what the network computes.
# fmt: off
IGNORED = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_experts_implementation",
    "_name_or_path", "architectures", "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id", "experts_implementation",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
    "is_decoder", "label2id", "length_penalty", "max_length", "min_length", "model_type", "name_or_path",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "problem_type", "remove_invalid_values",
    "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_last_hidden_states",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config",
    "transformers_version", "typical_p", "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16",
    "use_cache",
}
# fmt: on
# Keys that would change what the network computes, but not at these values.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "auto_map": (None, {}),
    "is_encoder_decoder": (False, None),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "quantization_config": (None, {}),
}
PUBLISHED = "compare with the config.json that the model was published with"
UNSAID = {"initialization"}  # fields of a ModelConfig that no config.json has: initialization matters only once
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
NEEDED = object()  # in Fields: a number of at least one, which the config must have
Fields = dict[str, tuple[str, Any]]  # our field -> their key, and its value where the key is absent
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Family:
    """A published family: a config translation and a table of names.

    Attributes:
        name: its ``model_type``.
        architecture: the class that ``transformers`` opens its models with, or which one by their config.
        read: their config, key by key -> fields of a ModelConfig.
        write: a ModelConfig -> their config's keys (without model_type and architectures).
        rows: a ModelConfig -> every tensor of the model, as rows, by the names of the model with its heads.
        prefix: what stands before every name but the heads'; files of models without heads lack it.
        ignored: regular expressions of tensors in their files that we compute ourselves.
        duplicates: regular expressions of tensors that files may hold a second time, each with our name of what it
            must equal. Tensors that the table names are never duplicates.
        older: regular expressions in names that older files have, or those of classes with a head, each with what
            stands there now.
        heads: by the names of our heads, the classes that have them.
    """

    name: str
    architecture: str | Callable[[ModelConfig], str]
    read: Callable[[Keys], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    rows: Callable[[ModelConfig], list[Row]]
    prefix: str
    ignored: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ((r"lm_head\.weight", "embed_tokens.weight"),)
    older: tuple[tuple[str, str], ...] = ()
    heads: HeadLayouts = field(default_factory=dict)

    def table(self, config: ModelConfig) -> list[Row]:
        """Every tensor of the model as rows, by the names that its file has."""
        rows = self.rows(config)
        for head in config.heads:
            if head.name in self.heads:
                rows = [*rows, *self.heads[head.name].rows(head.name)]
        if self.is_bare(config):
            rows = [replace(row, theirs=row.theirs.removeprefix(self.prefix)) for row in rows]
        return rows

    def is_bare(self, config: ModelConfig) -> bool:
        """Whether the model has no head, so that no name in its file has the prefix."""
        return not (config.language_head or config.heads)

    def written_name(self, name: str, config: ModelConfig) -> str:
        """The name of a tensor of the table in the file of the class that the config asks for."""
        layout = self.layout(config)
        if layout is None or layout.prefix is None or not name.startswith(self.prefix):
            return name
        own = {row.theirs for head in config.heads for row in layout.rows(head.name)}
        return name if name in own else layout.prefix + name.removeprefix(self.prefix)

    def current_name(self, name: str) -> str:
        """A tensor's name of today, in the family's table, for the name in a file."""
        for old, new in self.older:
            name = re.sub(old, new, name)
        return name

    def layout(self, config: ModelConfig) -> HeadLayout | None:
        """The class with the head that a config has; None where it has no such head."""
        return next((self.heads[head.name] for head in config.heads if head.name in self.heads), None)

    def with_head(self, config: ModelConfig, request: HeadRequest) -> ModelConfig:
        """The config of this family's class with a head, on the same backbone.

        Args:
            config: of the backbone with whatever heads.
            request: the head.

        Raises:
            InputError: this family has no such class, or the class has a decoder and the backbone none.
        """
        if request.name not in self.heads:
            known = ", ".join(layout.architecture for layout in self.heads.values()) or "none"
            fault = f"a {self.name} model has no class for {request.name.replace('_', ' ')}"
            raise InputError(fault, "model", f"take another model; classes with a head that it has: {known}")
        layout = self.heads[request.name]
        has_decoder = config.architecture == "encoder-decoder"
        if not has_decoder and not layout.encoder_alone and any(other.encoder_alone for other in self.heads.values()):
            fault = f"a {layout.architecture} has a decoder, and this model is an encoder alone"
            raise InputError(fault, "model", "take the model that it was made from, with its decoder")
        if layout.encoder_alone and has_decoder:
            config = config.model_copy(update={"architecture": "encoder", "num_decoder_layers": None})
        dropout = config.hidden_dropout if layout.dropout and not layout.default_dropout else None
        name, size, problem, labels = request
        return self._headed(config, layout.head(name, size, problem, labels, dropout))

    def _headed(self, config: ModelConfig, head: HeadConfig) -> ModelConfig:
        pooler = config.pooler or head.kind == "pooled"
        return _plain(config.model_copy(update={"language_head": False, "heads": (head,), "pooler": pooler}))

    def read_config(
        self, hf_config: Mapping[str, Any], place: str = "config.json", tensors: Collection[str] = ()
    ) -> ModelConfig:
        """Their config.json as a dict -> ModelConfig.

        Args:
            hf_config: the dict.
            place: the file, for errors.
            tensors: names in the model's file, with the prefix. They show which heads the model has; without them,
                ``architectures`` determines the heads.

        Raises:
            InputError: a key is missing, unknown, or has a value that we cannot compute with.
        """
        keys = Keys(hf_config, self.name, place, tensors)
        name = named_head(self.heads, hf_config.get("architectures"))
        if name is not None:
            keys.ignore(*self.heads[name].dropout)
        fields = self.read(keys)
        keys.finish()
        if name is not None:  # before the fields are checked, since heads of another class may not fit together
            fields |= {"language_head": False, "heads": ()}
        try:
            config = _plain(build(ModelConfig, fields, place))
            if name is not None:
                config = self._headed(config, read_head(name, self.heads[name], hf_config, place))
        except InputError as error:  # about our fields; the person knows theirs
            raise InputError(keys.in_their_words(error.fault), place, PUBLISHED) from error
        blocks = sum(config.num_layer_groups or stack.layers for stack in stacks(config))
        if tensors and blocks > len(tensors):
            fault = f"it describes a model of {blocks} layers, whose file holds no more than {len(tensors)} tensors"
            raise InputError(fault, place, PUBLISHED)
        return config

    def write_config(self, config: ModelConfig, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """ModelConfig -> a config.json that ``transformers`` 4 and 5 open.

        Args:
            config: what the model is.
            given: keys from the model's files or its tokenizer (ids of special tokens); they take precedence.

        Raises:
            InputError: this family cannot say what the config says; the fields are named.
        """
        config = _plain(config)
        layout = self.layout(config)
        if layout is not None:
            architecture, head_keys = layout.architecture, write_head(config.heads[0], layout)
        else:
            head_keys = {}
            architecture = self.architecture if isinstance(self.architecture, str) else self.architecture(config)
        keys = {"model_type": self.name, "architectures": [architecture], **self.write(config), **(given or {})}
        keys |= head_keys
        tensors = {row.theirs for row in self.rows(config)}
        read_back, expected = self.read_config(keys, tensors=tensors).model_dump(), config.model_dump()
        if lost := sorted(name for name in expected if read_back[name] != expected[name] and name not in UNSAID):
            values = ", ".join(f"{name} = {expected[name]!r}" for name in lost)
            raise InputError(f"a {self.name} config cannot say {values}", hint="save it as another family")
        return keys


def _plain(config: ModelConfig) -> ModelConfig:
    """Two configs that compute the same compare equal: defaults that follow from other fields are written out."""
    kinds, groups = config.layer_kinds, config.num_layer_groups
    window = config.sliding_window
    if window is not None and kinds is not None and "sliding_attention" not in kinds:
        window = None
    if window is None or (kinds is not None and "full_attention" not in kinds):
        kinds = None
    plain: dict[str, Any] = {
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_size,
        "sliding_window": window,
        "layer_kinds": kinds,
        "num_layer_groups": None if groups == config.num_hidden_layers else groups,
    }
    if not config.language_head:
        plain |= {"tie_word_embeddings": True, "head_transform": False, "head_bias": False}
    return config.model_copy(update=plain)


class Keys:
    """A config.json from which every key is taken, or knowingly left.

    Args:
        values: the config.
        family: the model_type, for errors.
        place: the file, for errors.
        tensors: names in the model's file, with the family's prefix; empty: nothing is known of it.
    """

    def __init__(
        self, values: Mapping[str, Any], family: str, place: str = "config.json", tensors: Collection[str] = ()
    ) -> None:
        self._values, self._family, self.place, self._tensors = values, family, place, tensors
        self._known = set(IGNORED)
        self._theirs: dict[str, str] = {}  # our field -> their key

    def take(self, name: str, default: Any = None, *kinds: type) -> Any:
        """The value of a key, or the family's default where the key is absent.

        It must be null or of one of ``kinds``; without ``kinds``, of the default's type if that is a plain type.
        """
        self._known.add(name)
        value = self._values.get(name, default)
        if not kinds and type(default) in (bool, int, float, str):
            kinds = (type(default),)
        if kinds and value is not None and not is_kind(value, *kinds):
            raise wrong_kind(name, value, self.place, *kinds)
        return value

    def need(self, name: str) -> Any:
        """The value of a key that must be there."""
        if self.take(name) is None:
            raise InputError(f"{name} is missing", self.place, "is this the config.json of the model, and is it whole?")
        return self._values[name]

    def sizes(self, **theirs: str) -> dict[str, Any]:
        """The sizes that every config must have, by our names; ``theirs``: their names where these differ."""
        return {name: self.count(theirs.get(name, name), name) for name in SIZES}

    def fields(self, alike: Fields) -> dict[str, Any]:
        """The fields that differ from theirs by name alone; :func:`keys_of` is the inverse."""
        self._theirs |= {ours: key for ours, (key, _) in alike.items()}
        values = {
            ours: self.count(key, ours) if absent is NEEDED else self.take(key, None, *_kinds_of(ours))
            for ours, (key, absent) in alike.items()
        }
        return {ours: alike[ours][1] if value is None else value for ours, value in values.items()}

    def in_their_words(self, fault: str) -> str:
        """An error message about our fields, with their keys instead."""
        for ours, theirs in self._theirs.items():
            fault = re.sub(rf"(?m)^(\s*){ours}:", rf"\g<1>{theirs}:", fault)
        return fault

    def count(self, name: str, field: str = "") -> int:
        """A required number: at least one, at most the maximum of our field of that name."""
        value = self.need(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} is {value!r}, not a number of at least one", self.place, "repair the config")
        if field in ModelConfig.model_fields and value > (most := _most(field)):
            raise InputError(f"{name} is {value}, more than a model can have ({most})", self.place, PUBLISHED)
        return value

    def promised(self, tensor: str, *architectures: str) -> bool:
        """Whether the model has a head: its file holds this tensor, or it says to be one of these architectures."""
        named = self.take("architectures", None, list) or ()
        return tensor in self._tensors or any(name in architectures for name in named)

    def held(self, tensor: str, *architectures: str) -> bool:
        """Whether the model has a part that its architecture leaves open: as its file has it, where that is known."""
        return tensor in self._tensors if self._tensors else self.promised(tensor, *architectures)

    def activation(self, name: str, default: str) -> str:
        """An activation by their word -> our word."""
        word = self.take(name, default, str)
        if word not in ACTIVATIONS:
            raise InputError(f"{name}: {word!r} is not an activation we have", self.place, _one_of(ACTIVATIONS))
        return ACTIVATIONS[word]

    def expect(self, name: str, *harmless: Any) -> None:
        """Refuse the key unless it is absent or has one of these values."""
        self._known.add(name)
        value = self._values.get(name, harmless[0])
        if value not in harmless:
            raise InputError(
                f"{name}: {value!r} changes what the model computes, and lmworks does not compute that",
                self.place,
                f"only {harmless[0]!r} is understood for a {self._family}",
            )

    def ignore(self, *names: str) -> None:
        """Knowingly leave these keys: they do not change what the network computes."""
        self._known.update(names)

    def finish(self) -> None:
        """Refuse whatever nobody has taken."""
        for name, values in HARMLESS.items():
            if name not in self._known:  # a family that takes such a key computes it
                self.expect(name, *values)
        for name in self._values:
            if name not in self._known:
                close = difflib.get_close_matches(name, sorted(self._known), 1)
                raise InputError(
                    f"unknown key {name!r} in the config of a {self._family}",
                    self.place,
                    (f"did you mean {close[0]!r}? " if close else "")
                    + "a key that nobody reads may change what the model computes; remove it if you know it does not",
                )


def _most(field: str) -> float:
    """The largest value that a field of a ModelConfig may have."""
    bounds = (getattr(entry, "le", None) for entry in ModelConfig.model_fields[field].metadata)
    return next((bound for bound in bounds if bound is not None), math.inf)


def _kinds_of(field: str) -> tuple[type, ...]:
    """The plain types that a field of a ModelConfig may have."""
    annotation = ModelConfig.model_fields[field].annotation
    return tuple(kind for kind in (annotation, *get_args(annotation)) if kind in (bool, int, float, str))


def keys_of(config: ModelConfig, alike: Fields) -> dict[str, Any]:
    """Their keys that differ from our fields by name alone."""
    return {key: getattr(config, ours) for ours, (key, _) in alike.items()}


def theirs_of(activation: str, words: Sequence[str] = ()) -> str:
    """Our word for an activation -> theirs: the one among ``words`` that means it, else the first known one."""
    for word in (*words, *ACTIVATIONS):
        if ACTIVATIONS[word] == activation:
            return word
    raise KeyError(activation)


def _one_of(names: Mapping[str, Any]) -> str:
    return "known: " + ", ".join(names)
