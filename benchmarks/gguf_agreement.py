"""GGUF files that lmworks writes, opened by llama.cpp: the same prompts, tokens, chat template and greedy answers.

For each format the model is exported once, and read twice: by llama.cpp, through llama-cpp-python, and by lmworks. 50
prompts, made by a rule below, are answered greedily, 64 tokens each. Printed are the share of prompts with the same
answer, and whether tokens and template agree byte for byte; then bits per byte of a text by format, beside files that
llama.cpp's own quantizer makes of the same weights at the same bits, all by our reading. Fails below 95 %.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import arms
import gguf
import verdicts
from inference_arms import LlamaCpp, Stepwise

FORMATS = {"f16": "float16", "q8": "q8", "q4": "q4", "q4_1": "q4_1", "tq2": "tq2"}
"""What a format is called here -> what lmworks.export_gguf calls it."""
KINDS = {"f16": "F16", "q8": "Q8_0", "q4": "Q4_0", "q4_1": "Q4_1", "tq2": "TQ2_0"}
"""... -> llama.cpp's name."""
NEW_TOKENS, AGREED = 64, 95.0  # tokens of an answer; percent of answers that must be the same
TEXT_BYTES = 40_000
TIMEOUT = 3600.0
PIP = "sh benchmarks/install_peers.sh PYTHON, or: pip install llama-cpp-python==0.3.36"
SUBJECTS = ("the sea", "a small town", "bread", "winter", "a bicycle")
SUBJECTS += ("the moon", "a library", "music", "a river", "tea")
REQUESTS = (
    "Tell me one thing about {}.",
    "Write a short story about {} that begins in the morning.",
    "List three words that come to mind with {}, with a reason each:",
    "Explain {} to a child of 7 years. Use no more than 2 sentences!",
    "def describe():\n    # says what {} is\n    return",
)


def prompts() -> list[str]:
    """Every request about every subject: 50 texts."""
    return [request.format(subject) for request in REQUESTS for subject in SUBJECTS]


class Ours(Stepwise):
    """The file as lmworks reads it.

    Args:
        place: the file.
        backend: native: the engine, as `lmworks generate` opens it; torch: PyTorch, with weights widened to float32.
    """

    def __init__(self, place: str, backend: str) -> None:
        import lmworks
        from lmworks.base.processor import use_threads

        use_threads()
        model = lmworks.load(place, storage="stored" if backend == "native" else None)
        if backend == "native":
            model.prepare("float32")
        if model.engine_fault:
            raise SystemExit(f"the native engine does not compute this model: {model.engine_fault}: --backend torch")
        self.model, self.tokenizer, self.stepper = model, model.tokenizer, model.stepper()

    def clear(self, rows: int) -> None:
        """Nothing: each prefill begins anew."""

    def prefill(self, rows: list[list[int]]) -> list[int]:
        from lmworks.generate.stepper import RowStart

        self.stepper.prefill([RowStart(row) for row in rows], NEW_TOKENS)
        return self._best()

    def step(self, tokens: list[int]) -> list[int]:
        self.stepper.step(tokens)
        return self._best()

    def _best(self) -> list[int]:
        from lmworks.generate.sampling import as_array

        return as_array(self.stepper.logits).argmax(-1).tolist()


def texts_of(place: str) -> tuple[list[str], bool]:
    """The prompts as the model reads them: in its chat template; and whether it has none, so that BOS precedes them."""
    from lmworks.language_model.opening import load_tokenizer
    from lmworks.text import chat

    tokenizer = load_tokenizer(place)
    if tokenizer.chat_template is None:
        return prompts(), True
    return [chat.render(tokenizer, [{"role": "user", "content": text}], reply=True) for text in prompts()], False


def answer(engine: Stepwise, prompt: list[int], ends: Any) -> list[int]:
    """The greedy answer, with the token that ended it; ``ends(token)`` says whether it does."""
    engine.clear(1)
    (token,) = engine.prefill([prompt])
    ids = [token]
    while len(ids) < NEW_TOKENS and not ends(token):
        (token,) = engine.step([token])
        ids.append(token)
    return ids


def ours(place: str, backend: str) -> dict[str, Any]:
    """Tokens, answers and template by our reading; the template as the hexadecimal digits of its bytes."""
    engine = Ours(place, backend)
    tokenizer = engine.tokenizer
    texts, is_plain = texts_of(place)
    rows = [tokenizer.encode(text, special=is_plain) for text in texts]
    replies = [answer(engine, row, tokenizer.end_ids.__contains__) for row in rows]
    return {
        "prompts": rows,
        "answers": replies,
        "template": (tokenizer.chat_template or "").encode().hex(),
        "signature": engine.model.signature,
    }


def llama_cpp(place: str) -> dict[str, Any]:
    """The same by llama.cpp."""
    import llama_cpp as package

    engine = LlamaCpp(place, flash_attention=False)
    library = engine.library
    vocabulary = library.llama_model_get_vocab(engine.model)
    words = package.Llama(place, vocab_only=True, verbose=False)
    texts, is_plain = texts_of(place)
    rows = [words.tokenize(text.encode(), add_bos=is_plain, special=True) for text in texts]
    replies = [answer(engine, row, lambda token: library.llama_vocab_is_eog(vocabulary, token)) for row in rows]
    return {
        "prompts": rows,
        "answers": replies,
        "template": words.metadata.get("tokenizer.chat_template", "").encode().hex(),
    }


def score(place: str, data: str | None) -> dict[str, float]:
    """Bits per byte of a text by a file's weights in float32, through PyTorch; bytes of the file."""
    import lmworks
    from lmworks.evaluate.text_windows import bits_per_byte
    from lmworks.run.evaluation import general_pieces

    _, pieces = general_pieces(data, TEXT_BYTES)
    scores = lmworks.load(place).score(pieces)
    bits = bits_per_byte(sum(each.nats for each in scores), sum(each.bytes for each in scores))
    return {"bits_per_byte": bits, "bytes": float(Path(place).stat().st_size)}


def export(model: str, path: Path, to: str) -> str:
    """Write a model in a format; why it was not, or an empty text."""
    import lmworks
    from lmworks.base.errors import InputError

    try:
        lmworks.export_gguf(lmworks.load(model), path, to)
    except InputError as error:
        return error.fault
    return ""


def quantize_there(source: Path, target: Path, kind: str) -> str:
    """Let llama.cpp quantize a file, tables in Q8_0 as ours; why it did not, or an empty text."""
    import llama_cpp as package

    parameters = package.llama_model_quantize_default_params()
    parameters.ftype = getattr(package, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.token_embedding_type = parameters.output_tensor_type = int(gguf.GGMLQuantizationType.Q8_0)
    fault = package.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
    return f"llama_model_quantize gave {fault}" if fault else ""


def compare(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """How far two readings of a file agree."""
    same = [one == other for one, other in zip(here["answers"], there["answers"], strict=True)]
    lengths = [
        next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
        for one, other in zip(here["answers"], there["answers"], strict=True)
    ]
    return {
        "same_answers": 100.0 * sum(same) / len(same),
        "same_tokens": here["prompts"] == there["prompts"],
        "same_template": here["template"] == there["template"],
        "agreed_tokens": statistics.mean(lengths),
        "signature": here.get("signature", ""),
    }


def judge(results: dict[str, dict[str, Any]]) -> list[verdicts.Verdict]:
    """What was asked of each format that was written."""
    lines = []
    for name, result in results.items():
        share = result["same_answers"]
        lines.append(verdicts.Verdict(f"{name}: prompts with the same answer", share, AGREED, unit=" %"))
        for key, title in (("same_tokens", "tokens of all prompts"), ("same_template", "chat template")):
            lines.append(verdicts.Verdict(f"{name}: {title}, byte for byte", float(result[key]), 1.0, unit=""))
    return lines


def agreement_table(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line a format."""
    lines = [f"{'format':<8}{'same answers':>14}{'same tokens':>14}{'template':>12}{'tokens until they part':>26}"]
    for name, result in results.items():
        agreed = ["yes" if result[key] else "NO" for key in ("same_tokens", "same_template")]
        share = f"{result['same_answers']:.0f} %"
        lines.append(f"{name:<8}{share:>14}{agreed[0]:>14}{agreed[1]:>12}{result['agreed_tokens']:>26.1f}")
    return lines


def quality_table(quality: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Bits per byte and size by format, ours beside llama.cpp's quantizer."""
    lines = [f"{'bits per byte':<8}{'lmworks':>12}{'MB':>10}{'llama.cpp':>12}{'MB':>10}{'ours beside theirs':>22}"]
    for name, by in quality.items():
        cells = []
        for quantizer in ("lmworks", "llama.cpp"):
            own = by.get(quantizer)
            cells += ["-", "-"] if own is None else [f"{own['bits_per_byte']:.4f}", f"{own['bytes'] / 1e6:.1f}"]
        beside = "-"
        if len(by) == 2:
            change = by["lmworks"]["bits_per_byte"] / by["llama.cpp"]["bits_per_byte"] - 1
            beside = f"{100 * change:+.2f} %"
        lines.append(f"{name:<13}{cells[0]:>12}{cells[1]:>10}{cells[2]:>12}{cells[3]:>10}{beside:>22}")
    return lines


def measure_agreement(files: dict[str, Path], backend: str) -> dict[str, dict[str, Any]]:
    """Each file read by both, in processes of their own."""
    results = {}
    for name, path in files.items():
        readings = [
            arms.run_arm(__file__, ["--arm", arm, "--file", str(path), "--backend", backend], timeout=TIMEOUT)
            for arm in ("ours", "llama.cpp")
        ]
        results[name] = compare(*readings)
        print(f"{name}: {results[name]['same_answers']:.0f} % of answers are the same", flush=True)
    return results


def measure_quality(
    files: dict[str, Path], folder: Path, data: str | None, faults: dict[str, str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Bits per byte by format and quantizer; ``faults`` receives why a file is missing."""
    quality: dict[str, dict[str, dict[str, float]]] = {}
    for name, path in files.items():
        by = {"lmworks": path}
        if name != "f16" and "f16" in files:
            theirs = folder / f"llama-cpp-{name}.gguf"
            arguments = ["--arm", "quantize", "--file", str(files["f16"]), "--out", str(theirs), "--kind", KINDS[name]]
            if fault := arms.run_arm(__file__, arguments, timeout=TIMEOUT)["fault"]:
                faults[f"llama.cpp {name}"] = fault
            else:
                by["llama.cpp"] = theirs
        more = ["--data", data] if data else []
        quality[name] = {
            quantizer: arms.run_arm(__file__, ["--arm", "score", "--file", str(file), *more], timeout=TIMEOUT)
            for quantizer, file in by.items()
        }
        print(f"{name}: bits per byte measured", flush=True)
    return quality


def options() -> argparse.Namespace:
    asked = arms.parser(__doc__.splitlines()[0])
    asked.add_argument("--model", default=arms.MODEL, help=f"what is exported (default {arms.MODEL})")
    asked.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    asked.add_argument("--backend", choices=["native", "torch"], default="native", help="what computes our answers")
    asked.add_argument("--data", help="the text of the quality table (default: Python's documentation topics)")
    for hidden in ("--file", "--out", "--kind"):
        asked.add_argument(hidden, help=argparse.SUPPRESS)
    return asked.parse_args()


def run_one(given: argparse.Namespace) -> dict[str, Any]:
    """One arm, in its own process."""
    if given.arm == "quantize":
        return {"fault": quantize_there(Path(given.file), Path(given.out), given.kind)}
    if given.arm == "export":
        return {"fault": export(given.model, Path(given.out), given.kind)}
    if given.arm == "score":
        return score(given.file, given.data)
    return llama_cpp(given.file) if given.arm == "llama.cpp" else ours(given.file, given.backend)


def main() -> int:
    given = options()
    if given.arm:
        print(json.dumps(run_one(given)))
        return 0
    if not find_spec("llama_cpp"):
        print(f"llama-cpp-python is not installed, and there is nothing to compare with. {PIP}", file=sys.stderr)
        return 1
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder, files = Path(temporary), dict[str, Path]()
        for name in dict.fromkeys(("f16", *given.formats)):
            path = folder / f"{name}.gguf"
            arguments = ["--arm", "export", "--model", given.model, "--out", str(path), "--kind", FORMATS[name]]
            if fault := arms.run_arm(__file__, arguments, timeout=TIMEOUT)["fault"]:
                faults[f"lmworks {name}"] = fault
            else:
                files[name] = path
        chosen = {name: path for name, path in files.items() if name in given.formats}
        results = measure_agreement(chosen, given.backend)
        quality = measure_quality(files, folder, given.data, faults)
    lines = judge(results)
    print(*agreement_table(results), "", *quality_table(quality), "", *(line.line() for line in lines), sep="\n")
    print(*(f"{name} is left out: {fault}" for name, fault in faults.items()), sep="\n")
    arms.keep(
        "gguf-agreement",
        {"model": given.model, "prompts": len(prompts()), "tokens": NEW_TOKENS, "agreement": results}
        | {"quality": quality, "text": given.data or "Python's documentation topics", "left_out": faults},
    )
    return 0 if results and all(line.reached for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
