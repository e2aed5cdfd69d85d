"""Inference with SmolLM2-135M: the native engine beside llama.cpp, transformers and ctranslate2, in turn.

Reading a prompt of 512 and of 2,000 tokens; decoding at 16 to 144 tokens of context, at 512 and at 2,000; 16 sequences
at once; peak memory; from the shell to the first token; vectors of sentences by MiniLM (embedding.py). Every engine at
its best: llama.cpp and lmworks with the same files in each format, llama.cpp with and without flash attention. Peers
that are not installed are named and left out (benchmarks/install_peers.sh). A random model of the same size decodes in
ternary and in 4 bits. ``--large``: also a model of 1.1 billion random weights in 4 bits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import arms
import embedding
import inference_files
import inference_verdicts
import verdicts
from inference_verdicts import ADAPTED, DECODE, FIRST, OURS, PEAK, PREFILL, TOGETHER, Model

HERE = Path(__file__).parent
SCRIPT = HERE / "inference_arms.py"
ROUNDS, TIMEOUT, STARTS = 3, 900.0, 3
STARTED = "Q4_0"  # the format whose time from the shell is measured
PROMPT = "The capital of France is"
LLAMA_CPP_START = (
    "import sys, llama_cpp; model = llama_cpp.Llama(sys.argv[1], n_ctx=2048, flash_attn=True, verbose=False); "
    "print(model.create_completion(sys.argv[2], max_tokens=1, temperature=0)['choices'][0]['text'], flush=True)"
)
COLUMNS = {**PREFILL, **DECODE, TOGETHER: "16 at once", ADAPTED: "adapters", PEAK: "peak MB", FIRST: "first token, s"}
HEADS = ("read 512", "read 2,000", "16-144", "at 512", "at 2,000", "16 at once", "adapters", "peak MB", "start s")


@dataclass
class Arm:
    """One engine with one model.

    Attributes:
        name: the engine first.
        arguments: of inference_arms.py.
        start: the command whose first byte of output is its first token; empty: not measured.
    """

    name: str
    arguments: list[str]
    start: list[str] = field(default_factory=list)


@dataclass
class Results:
    """Figures by arm and round, the machine's rates of each round, and why arms failed."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rates: list[dict[str, float]] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


def arms_of(files: dict[str, Path], more: list[str]) -> list[Arm]:
    """The arms that read GGUF files: ours, and llama.cpp's where it is installed.

    Args:
        files: by format.
        more: arguments of each: what is measured.
    """
    chosen = []
    for name, path in files.items():
        start = [sys.executable, "-m", "lmworks.commands.main", "generate", str(path), PROMPT, "--max-tokens", "1"]
        chosen.append(Arm(f"{OURS} {name}", ["lmworks", str(path), *more], start if name == STARTED else []))
    if find_spec("llama_cpp"):
        for name, path in files.items():
            arguments, start = (
                ["llama.cpp", str(path), *more],
                [sys.executable, "-c", LLAMA_CPP_START, str(path), PROMPT],
            )
            chosen.append(Arm(f"llama.cpp {name}", arguments))
            flash = Arm(f"llama.cpp {name}, flash attention", [*arguments, "--flash-attention"])
            flash.start = start if name == STARTED else []
            chosen.append(flash)
    return chosen


def other_arms(faults: dict[str, str]) -> list[Arm]:
    """transformers in each precision worth running here, and ctranslate2 where it is installed and converts the model.

    Args:
        faults: receives why it does not.
    """
    chosen = [
        Arm(f"transformers {precision}", ["transformers", precision, "--together"])
        for precision in ("float32", "bfloat16")
        if arms.worth_running(precision)
    ]
    if find_spec("ctranslate2"):
        try:
            folder = inference_files.ctranslate2_folder()
            chosen.append(Arm("ctranslate2 int8", ["ctranslate2", str(folder), "--together"]))
        except (Exception, SystemExit) as error:  # its converters follow transformers' classes, not always in time
            faults["ctranslate2 int8"] = f"its converter failed: {error}"
    return chosen


def missing() -> list[str]:
    """A line for each peer that is not installed."""
    packages = {"llama_cpp": "llama.cpp", "ctranslate2": "ctranslate2"}
    return [
        f"{name} is left out, as it is not installed (sh benchmarks/install_peers.sh PYTHON)"
        for package, name in packages.items()
        if not find_spec(package)
    ]


def pack(chosen: list[Arm]) -> None:
    """Put the packed weights of our arms into the cache: what is measured is a model that was opened before."""
    for arm in chosen:
        if arm.name.startswith(OURS):
            arms.run_arm(SCRIPT, ["pack", arm.arguments[1]], timeout=TIMEOUT)


def take_turns(chosen: list[Arm], rounds: int, results: Results) -> None:
    """The machine's rates and every arm once a round; an arm that fails is left out from then on."""
    for number in range(rounds):
        label = f"round {number + 1}/{rounds}"
        results.rates.append(arms.run_arm(SCRIPT, ["machine"], timeout=TIMEOUT))
        shown = ", ".join(f"{name} {rate:,.4g}" for name, rate in results.rates[-1].items())
        print(f"{label}  {'GB/s by MB, GFLOP/s':<46} {shown}", flush=True)
        for arm in chosen:
            if arm.name in results.faults:
                continue
            try:
                figures = arms.run_arm(SCRIPT, arm.arguments, timeout=TIMEOUT)
                if arm.start:
                    figures[FIRST] = min(first_token(arm.start) for _ in range(STARTS))
            except arms.Failed as fault:
                results.faults[arm.name] = str(fault)
                results.rounds.pop(arm.name, None)
                print(f"{label}  {arm.name:<46} failed: {fault}", flush=True)
                continue
            results.rounds.setdefault(arm.name, []).append(figures)
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
            print(f"{label}  {arm.name:<46} {shown}", flush=True)


def first_token(command: list[str]) -> float:
    """Seconds from starting a command to the first byte that it prints; Python may keep its compiled modules.

    Raises:
        Failed: it ended with an error, or printed nothing.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - started
        _, errors = process.communicate()
    if process.returncode or not first:
        raise arms.Failed(arms.without_absolute_paths(f"{' '.join(command)} failed:\n{errors.decode()}")[-4000:])
    return seconds


def model_of(files: dict[str, Path]) -> Model:
    """Bytes and GFLOP of a step, from the files by arm; a head of its own is read instead of the embeddings."""
    from lmworks.families.gguf import read_config
    from lmworks.families.gguf_file import GGUFFile
    from lmworks.model.sizes import forward_flops

    sizes = {}
    for arm, path in files.items():
        tensors = GGUFFile(path).tensors
        sizes[arm] = float(sum(stored.size for stored in tensors.values()))
        if "output.weight" in tensors:
            sizes[arm] -= tensors["token_embd.weight"].size
    if not sizes:
        return Model()
    path = next(iter(files.values()))
    family, hf_config = read_config(path)
    config = family.read_config(hf_config, str(path))
    cache_bytes = 2 * 2.0 * config.num_hidden_layers * config.key_value_heads * config.head_size  # float16
    return Model(sizes, cache_bytes, float(forward_flops(config, 512, 1).total) / 512 / 1e9)


def paths_of(chosen: list[Arm]) -> dict[str, Path]:
    """The GGUF file of each arm that reads one."""
    return {arm.name: Path(arm.arguments[1]) for arm in chosen if arm.arguments[0] in ("lmworks", "llama.cpp")}


def likelihoods(chosen: list[Arm], results: Results) -> dict[str, dict[str, float]]:
    """Bits per byte of our fastest arms, each in a process of its own."""
    files, ours = paths_of(chosen), inference_verdicts.ours(results.rounds)
    fastest = {verdicts.best(results.rounds, ours, key) for key in ("decode_16", "prefill_512")} - {None}
    return {
        str(name): arms.run_arm(SCRIPT, ["likelihoods", str(files[str(name)])]) for name in sorted(map(str, fastest))
    }


def table(results: Results, model: Model) -> list[str]:
    """Medians by arm, tokens a second; below, the shares of the machine's rates."""
    lines = [f"{'tokens/s (median)':<46}" + "".join(f"{head:>11}" for head in HEADS)]
    for name, rounds in results.rounds.items():
        cells = [verdicts.median(results.rounds, name, key) if key in rounds[0] else None for key in COLUMNS]
        lines.append(f"{name:<46}" + "".join(f"{'-' if cell is None else f'{cell:,.4g}':>11}" for cell in cells))
    lines += ["", f"{'percent of the rate of reading; of products':<46}" + "".join(f"{head:>11}" for head in HEADS[:5])]
    for name, share in inference_verdicts.shares(results.rounds, model, results.rates).items():
        cells = [share.get(key) for key in (*PREFILL, *DECODE)]
        lines.append(f"{name:<46}" + "".join(f"{'-' if cell is None else f'{cell:.0f} %':>11}" for cell in cells))
    return lines + [f"{name}: {fault.splitlines()[0]}" for name, fault in results.faults.items()]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each arm (default {ROUNDS})")
    parser.add_argument("--large", action="store_true", help="also a model of 1.1 billion random weights in 4 bits")
    parser.add_argument("--only", help="arms whose names begin so; a trial, not kept")
    return parser.parse_args()


def random_models(title: str, files: dict[str, Path], args: argparse.Namespace) -> tuple[Results, Model]:
    """Measure the arms of random models, and print their table.

    Args:
        title: printed before it.
        files: by format.
        args: of the command line.
    """
    results, chosen = Results(), arms_of(files, ["--lengths", "16", "512"])
    chosen = [Arm(arm.name, arm.arguments) for arm in chosen if arm.name.startswith(args.only or "")]
    print(f"\n{title}", flush=True)
    pack(chosen)
    take_turns(chosen, args.rounds, results)
    model = model_of(paths_of(chosen))
    print("", *table(results, model), sep="\n")
    return results, model


def main() -> int:
    args = parse_arguments()
    print(*missing(), sep="\n", flush=True)
    arms.reference_folder()  # converted now, not while an arm is timed
    results = Results()
    chosen = arms_of(inference_files.files(), ["--together"]) + other_arms(results.faults)
    chosen = [arm for arm in chosen if arm.name.startswith(args.only or "")]
    pack(chosen)
    take_turns(chosen, args.rounds, results)
    model, bits = model_of(paths_of(chosen)), likelihoods(chosen, results)
    print("", *table(results, model), "", sep="\n")
    for name, values in bits.items():
        print(f"{name}: bits per byte " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))
    lines = inference_verdicts.smollm2(results.rounds, model, results.rates, bits)
    result: dict[str, Any] = {"smollm2": {**vars(results), "likelihoods": bits, "model": vars(model)}}
    if not args.only:
        print("\nvectors of sentences by MiniLM", flush=True)
        result["vectors"] = embedding.measured(args.rounds) if find_spec("sentence_transformers") else {}
        lines += embedding.verdicts_of(result["vectors"])
    same_size, size = random_models("135 million random weights", inference_files.ternary_files(), args)
    lines += inference_verdicts.ternary(same_size.rounds)
    result["ternary"] = {**vars(same_size), "model": vars(size)}
    if args.large:
        files = {STARTED: inference_files.large_file()}
        larger, size = random_models("1.1 billion random weights in 4 bits", files, args)
        lines += inference_verdicts.large(larger.rounds, size, larger.rates)
        result["large"] = {**vars(larger), "model": vars(size)}
    print("\nasked and reached", *[line.line() for line in lines], sep="\n")
    result["asked"] = [{**vars(line), "reached": line.reached} for line in lines]
    if args.only or args.rounds < ROUNDS:
        print(f"not written: --only, or fewer than {ROUNDS} rounds")
    else:
        arms.keep("inference", result)
    return int(any(name.startswith(OURS) for name in results.faults))


if __name__ == "__main__":
    sys.exit(main())
