"""Tokenizers, models and tasks for tests: as BERT's, RoBERTa's and T5's are, but tiny."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Core

from lmworks.data.batch import NEXT_SENTENCE
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.tasks import registry
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

TEXTS = [
    "The sky is blue, and the sea is too. Who are you? I am nobody; who are you?\nThe seas were unbelievably blue!",
    "A cat climbed the tree. It was trying to catch a bird. The bird flew away.\n\nThe tree is old, isn't it?",
    "Nobody knows the weather of tomorrow. Tomorrow knows nobody. The weather is nice today. Skies are skies.",
]


def bert_like() -> Tokenizer:
    """WordPiece with [CLS] and [SEP] around texts."""
    core = Core(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    return _opened(core, {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4})


def roberta_like() -> Tokenizer:
    """Byte-level BPE with <s> and </s> around texts, two of them between; BART's too."""
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    ids = {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 4}
    return _opened(core, ids)


def t5_like(sentinels: int = 100) -> Tokenizer:
    """Unigram with spaces as ▁, sentinels and a closing </s>."""
    core = Core(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    core.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=70, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    core.add_special_tokens([AddedToken(f"<extra_id_{number}>", special=True) for number in range(sentinels)])
    core.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return _opened(core, {"pad": 0, "eos": 1, "unk": 2})


def characters() -> Tokenizer:
    """A token a character, spaces among them."""
    signs = sorted({sign for text in TEXTS for sign in text})
    vocabulary = {token: index for index, token in enumerate(["[UNK]", "[MASK]", *signs])}
    core = Core(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.add_special_tokens(["[UNK]", "[MASK]"])
    return _opened(core, {"unk": 0, "mask": 1})


def _opened(core: Core, ids: dict[str, int]) -> Tokenizer:
    roles = {f"{role}_id": index for role, index in ids.items() if role not in ("cls", "sep")}
    return Tokenizer(core, **roles, config={f"{role}_token": core.id_to_token(index) for role, index in ids.items()})


def model(architecture: str = "encoder", **settings) -> ModelConfig:
    """The config of a tiny model that has every part that a task asks for."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes |= {"vocab_size": 1000, "max_position_embeddings": 64, "type_vocab_size": 2, "pooler": True}
    heads = (HeadConfig(name=NEXT_SENTENCE, kind="pooled", size=2),)
    decoder = 1 if architecture == "encoder-decoder" else None
    return ModelConfig(
        architecture=architecture, **{**sizes, "heads": heads, "num_decoder_layers": decoder, **settings}
    )


def make_task(name: str, tokenizer: Tokenizer, config, **settings) -> Task:
    """A task by its name."""
    chosen = TaskSettings(name=name, **settings)
    registry.check_settings(chosen)
    return registry.task_class(name)(chosen, tokenizer, config)
