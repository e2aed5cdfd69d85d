"""BERT (Devlin et al. 2019) and MiniLM: learned positions, types of tokens, LayerNorm after each part, three heads.

What its config and its names share with RoBERTa, DistilBERT and ALBERT is offered to them.
"""

from __future__ import annotations

from typing import Any

from lmworks.data.batch import NEXT_SENTENCE
from lmworks.families.family import NEEDED, Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import HeadLayout
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import HeadConfig, HeadKind, ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS

FIELDS: dict[str, tuple[str, Any]] = {
    name: (name, NEEDED) for name in ("vocab_size", "hidden_size", "intermediate_size")
}
FIELDS |= {name: (name, NEEDED) for name in ("num_hidden_layers", "num_attention_heads", "max_position_embeddings")}
FIELDS |= {"type_vocab_size": ("type_vocab_size", 2), "norm_eps": ("layer_norm_eps", 1e-12)}
FIELDS |= {"tie_word_embeddings": ("tie_word_embeddings", True), "initializer_range": ("initializer_range", 0.02)}
DROPOUTS = {"embedding_dropout": "hidden_dropout_prob", "hidden_dropout": "hidden_dropout_prob"}
DROPOUTS |= {"attention_dropout": "attention_probs_dropout_prob"}
ENCODER = {"architecture": "encoder", "positions": "learned", "embedding_norm": True, "norm": "layer"}
ENCODER |= {"norm_position": "post", "gated": False, "head_transform": True}
ENCODER |= dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias", "head_bias"), True)
LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "input_layernorm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "post_attention_layernorm",
}
HEAD = {"dense": "head_transform.dense", "LayerNorm": "head_transform.norm"}
NEXT_SENTENCE_HEAD = HeadConfig(name=NEXT_SENTENCE, kind="pooled", size=2)
OLDER = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))


def read_encoder(keys: Keys, activation: str = "gelu", dropout: float = 0.1) -> dict[str, Any]:
    """What the configs of BERT, RoBERTa and ALBERT say in the same words; ``activation`` and ``dropout`` by default."""
    keys.expect("position_embedding_type", "absolute")
    keys.expect("is_decoder", False)
    keys.ignore("classifier_dropout", "gradient_checkpointing")
    rates: Fields = {ours: (key, dropout) for ours, key in DROPOUTS.items()}
    return ENCODER | keys.fields({**FIELDS, **rates}) | {"activation": keys.activation("hidden_act", activation)}


def write_encoder(config: ModelConfig) -> dict[str, Any]:
    """The same keys of a config."""
    rates: Fields = {ours: (key, None) for ours, key in DROPOUTS.items()}
    return keys_of(config, {**FIELDS, **rates}) | {"hidden_act": theirs_of(config.activation)}


def modules(named: dict[str, str], theirs: str = "", ours: str = "") -> list[Row]:
    """Their modules' names -> ours, each behind what stands before it: rows of their weights and biases."""
    return [Rename(f"{theirs}{a}.{kind}", f"{ours}{b}.{kind}") for a, b in named.items() for kind in ("weight", "bias")]


def embeddings(config: ModelConfig, theirs: str) -> list[Row]:
    """Words, positions, types of tokens, and the norm of their sum."""
    tables = {"word": "tokens", "position": "positions"} | ({"token_type": "types"} if config.type_vocab_size else {})
    rows: list[Row] = [Rename(f"{theirs}{a}_embeddings.weight", f"embed_{b}.weight") for a, b in tables.items()]
    return rows + modules({"LayerNorm": "embed_norm"}, theirs)


def head(config: ModelConfig, theirs: str, named: dict[str, str]) -> list[Row]:
    """The masked-word head: its transform by ``named``, its bias, and its matrix where that is not the embedding."""
    if not config.language_head:
        return []
    if config.tie_word_embeddings:
        return [*modules(named, theirs), Rename(theirs + "bias", "head_bias")]
    own = {"weight": "lm_head.weight", "bias": "head_bias"}
    return modules(named, theirs) + [Rename(f"{theirs}decoder.{a}", b) for a, b in own.items()]


def head_duplicates(theirs: str) -> tuple[tuple[str, str], ...]:
    """What files hold twice where the head's matrix is the embedding."""
    return (rf"{theirs}decoder\.weight", "embed_tokens.weight"), (rf"{theirs}decoder\.bias", "head_bias")


def classifiers(config: ModelConfig, theirs: str) -> list[Row]:
    """The head for pairs of sentences by its published name; other heads have none."""
    return modules({theirs: f"heads.{NEXT_SENTENCE}"} if config.head(NEXT_SENTENCE) else {})


def body(config: ModelConfig, prefix: str) -> list[Row]:
    """Embeddings, layers and pooler."""
    rows = embeddings(config, f"{prefix}embeddings.")
    rows += modules(LAYER, f"{prefix}encoder.layer.{{i}}.", "layers.{i}.")
    rows += modules({"dense": "pooler"} if config.pooler else {}, f"{prefix}pooler.")
    return expand(rows, config.num_hidden_layers)


def encoder_heads(
    title: str, dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
) -> dict[str, HeadLayout]:
    """The classes with a head; ``title``: how their names begin, ``dropout``: keys of the rate."""
    kinds: dict[str, tuple[str, HeadKind]] = {SEQUENCE: ("Sequence", "pooled"), TOKENS: ("Token", "tokens")}
    heads = {
        name: HeadLayout(f"{title}For{word}Classification", kind, "classifier", dropout=dropout)
        for name, (word, kind) in kinds.items()
    }
    return heads | {SPANS: HeadLayout(f"{title}ForQuestionAnswering", "tokens", "qa_outputs")}


def _read(keys: Keys) -> dict[str, Any]:
    keys.ignore("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers")
    keys.ignore("pooler_size_per_head", "pooler_type")  # these five: of a head that BERT's code never had
    both = ("BertForPreTraining",)
    return read_encoder(keys) | {
        "language_head": keys.promised("cls.predictions.transform.dense.weight", "BertForMaskedLM", *both),
        "pooler": keys.held("bert.pooler.dense.weight", "BertModel", "BertForNextSentencePrediction", *both),
        "heads": (NEXT_SENTENCE_HEAD,)
        if keys.promised("cls.seq_relationship.weight", "BertForNextSentencePrediction", *both)
        else (),
    }


def _architecture(config: ModelConfig) -> str:
    if config.heads:
        return "BertForPreTraining" if config.language_head else "BertForNextSentencePrediction"
    return "BertForMaskedLM" if config.language_head else "BertModel"


def _rows(config: ModelConfig) -> list[Row]:
    rows = body(config, "bert.") + head(config, "cls.predictions.", {f"transform.{a}": b for a, b in HEAD.items()})
    return rows + classifiers(config, "cls.seq_relationship")


BERT = Family(
    "bert",
    _architecture,
    _read,
    write_encoder,
    _rows,
    "bert.",
    ignored=(r".*\.?position_ids", r"cls\.predictions\.bias"),  # the latter: unread where the head has its own matrix
    duplicates=head_duplicates(r"cls\.predictions\."),
    older=OLDER,
    heads=encoder_heads("Bert"),
)
