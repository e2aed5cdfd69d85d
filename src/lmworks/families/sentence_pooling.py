"""How a sentence encoder makes one vector of a text, as sentence-transformers writes it: modules.json and its folders.

Read are poolings of token states, normalization, lower case and a prompt before each text; modules that compute
anything else (a dense layer on top) are named in a note, and the vectors are then not the encoder's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.json_file import check_kinds, read_json, read_object, wrong_kind

MODULES, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
FILES = (MODULES, SETTINGS, PROMPTS, "1_Pooling", "2_Normalize")
# Keys of older versions, in the order in which several vectors are joined.
OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = tuple(OLDER.values())


@dataclass(frozen=True)
class SentencePooling:
    """From the last hidden states of a text to one vector.

    Attributes:
        modes: of MODES; the vectors of several are joined.
        normalize: to length 1 afterwards.
        lower_case: texts are lowered first.
        prompt: stands before each text.
        max_tokens: longer texts were cut when the encoder was trained; None: nothing is known of it.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = True
    lower_case: bool = False
    prompt: str = ""
    max_tokens: int | None = None

    def describe(self) -> str:
        """In a few words: "mean, normalized"."""
        return " + ".join(self.modes) + (", normalized" if self.normalize else "")


def read_pooling(folder: Path) -> tuple[SentencePooling | None, list[str]]:
    """The pooling of a model folder, None where it is no sentence encoder; and notes on what is not computed here.

    Raises:
        InputError: a file is damaged, or says what is not known.
    """
    if not (folder / MODULES).is_file():
        return None, []
    kinds = _modules(folder / MODULES)
    pooled = [path for kind, path in kinds if kind == "Pooling"]
    others = [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    notes = [f"its module {kind} is not computed here: vectors are not those of the encoder" for kind in others]
    if len(pooled) != 1:
        return None, notes
    place = folder / pooled[0] / "config.json"
    config = read_object(place)
    modes = _modes(config, place)
    if config.get("include_prompt") is False:
        notes.append(f"{place}: include_prompt is false, but prompts are pooled with their text here")
    settings, prompts = read_object(folder / SETTINGS, {}), read_object(folder / PROMPTS, {})
    check_kinds(settings, {"do_lower_case": (bool,), "max_seq_length": (int,)}, str(folder / SETTINGS))
    check_kinds(prompts, {"prompts": (dict,), "default_prompt_name": (str,)}, str(folder / PROMPTS))
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    if not isinstance(prompt, str):
        raise wrong_kind("prompts", prompts["prompts"], str(folder / PROMPTS), dict)
    normalize = any(kind == "Normalize" for kind, _ in kinds)
    lower_case, most = bool(settings.get("do_lower_case")), settings.get("max_seq_length")
    return SentencePooling(modes, normalize, lower_case, prompt, most), notes


def write_pooling(folder: Path, pooling: SentencePooling, width: int) -> None:
    """Write the files that only sentence-transformers needs; ``width``: size of the model's hidden states."""
    names = ["Transformer", "Pooling", *(["Normalize"] if pooling.normalize else [])]
    paths = ["", *(f"{index}_{name}" for index, name in enumerate(names[1:], 1))]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    older = {key: mode in pooling.modes for key, mode in OLDER.items()}
    settings = {"max_seq_length": pooling.max_tokens, "do_lower_case": pooling.lower_case}
    for path in paths[1:]:
        (folder / path).mkdir()
    _write(folder / MODULES, modules)
    _write(folder / paths[1] / "config.json", {"word_embedding_dimension": width, **older})
    _write(folder / SETTINGS, {name: value for name, value in settings.items() if value is not None})
    if pooling.prompt:
        _write(folder / PROMPTS, {"prompts": {"default": pooling.prompt}, "default_prompt_name": "default"})


def _modules(place: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    modules = read_json(place)
    if not isinstance(modules, list):
        raise wrong_kind("the file", modules, str(place), list)
    for module in modules:
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise wrong_kind("a module", module, str(place), dict)
    return [(module["type"].rpartition(".")[2], module["path"]) for module in modules]


def _modes(config: dict[str, Any], place: Path) -> tuple[str, ...]:
    """The poolings that a config names, in the older form or the newer one."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named
    if modes is None:
        check_kinds(config, dict.fromkeys(OLDER, (bool,)), str(place))
        modes = [mode for key, mode in OLDER.items() if config.get(key)]
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        raise wrong_kind("pooling_mode", modes, str(place), str, list)
    return tuple(modes)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
