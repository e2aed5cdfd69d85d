"""lmworks doctor: which computer is this, how fast is it, what is installed and what is cached."""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from dataclasses import asdict
from importlib import metadata
from typing import Any

from lmworks.base import machine
from lmworks.base.files import cache_folder, folder_size, free_room, human
from lmworks.base.machine import QUIET
from lmworks.base.sources import is_offline
from lmworks.commands import show
from lmworks.commands.models import kept, names, shown
from lmworks.kernels import library

EXTRAS = {
    "hub": "models and data sets of the Hugging Face hub",
    "tensorboard": "training curves as TensorBoard events",
}
"""What a person gains by each extra; their packages stand in the metadata."""

TRIALS = 8  # of a block's pass, of which the fastest counts: other programs can only slow it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json, --refresh."""
    parser.description = "Tell which computer this is, how fast it computes, what is installed and what is cached."
    parser.add_argument("--json", action="store_true", help="as JSON, for bug reports; no names of yours are in it")
    parser.add_argument("--refresh", action="store_true", help="measure again, best while nothing else runs")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print all of it."""
    if sys.stderr.isatty():
        print("looking, and measuring where this machine was not measured before ...", file=sys.stderr)
    told = examine(args.refresh)
    if args.json:
        print(json.dumps(told, indent=2))
    else:
        _print(told)
    return 0


def examine(refresh: bool = False) -> dict[str, Any]:
    """Everything that doctor tells, sizes in bytes."""
    total, free = machine.memory()
    processor, rates = machine.processor(), machine.rates(refresh)
    precision, reason = machine.choose_precision("auto")
    cache = cache_folder()
    return {
        "lmworks": metadata.version("lmworks"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": asdict(processor),
        "threads": rates.threads,
        "rates": asdict(rates),
        "precision": {"auto": precision, "reason": reason},
        "gpus": _gpus(rates.torch),
        "kernels": _kernels(),
        "memory": {"total": total, "free": free},
        "disk": {"cache": shown(cache), "used": folder_size(cache) if cache.is_dir() else 0, "free": free_room(cache)},
        "offline": is_offline(),
        "packages": {name: _version(name) for name in _requirements(None)},
        "extras": {name: _extra(name) for name in EXTRAS},
        "cached": [one.told() for one in kept()],
        "aliases": [{"name": one["name"], "cached": one["cached"]} for one in names()],
    }


def _kernels() -> dict[str, Any]:
    """The native kernels: what they are, and what it costs where they are not."""
    if library.library() is not None:
        return {"built": True, "told": library.describe(), "cost": ""}
    cost = (
        "attention, norms, activations and the cross-entropy run in PyTorch, slower, and keep more memory: a block of "
        f"SmolLM2's shape trains at {_share_without_kernels():.0%} of this machine's float32 matrix rate, and the rest "
        "of its time is what the kernels are for (make bench-train measures both)"
    )
    return {"built": False, "told": library.describe(), "cost": cost}


def _share_without_kernels() -> float:
    """Share of the measured matrix rate that one block reaches forward and back, in a row of eight documents."""
    import time

    import torch

    from lmworks.model import initialization, sizes
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer

    config = ModelConfig(
        vocab_size=64,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=1,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=64,
    )
    network = Transformer(config).train()
    initialization.draw(network, torch.Generator().manual_seed(0))
    segments = torch.arange(1, 9).repeat_interleave(64)[None]
    ids, positions = torch.arange(64).repeat(8)[None], torch.arange(64).repeat(8)[None]
    took = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        network.hidden_states(ids, segments=segments, positions=positions).sum().backward()
        took.append(time.perf_counter() - started)
    work = sizes.forward_flops(config, 512, 0, [64] * 8).times(3).total  # forward, and twice that backward
    return float(work) / min(took) / (machine.rates().float32 * 1e9)


def _print(told: dict[str, Any]) -> None:
    processor, rates = told["processor"], told["rates"]
    instructions = ", ".join(processor["instructions"]) or "none known"
    rows = [
        ("lmworks", f"{told['lmworks']}, Python {told['python']}, {told['system']}"),
        ("processor", f"{processor['name']}, {processor['kind']}"),
        ("instructions", instructions),
        (
            "threads",
            f"{told['threads']} used; {processor['cores']} cores, {processor['logical']} hardware threads for it",
        ),
        ("memory", f"{human(told['memory']['free'])} free of {human(told['memory']['total'])}"),
        ("disk", f"{human(told['disk']['free'])} free; {told['disk']['cache']} holds {human(told['disk']['used'])}"),
        ("GPU", ", ".join(told["gpus"]) or "none that this PyTorch can use"),
        ("kernels", told["kernels"]["told"]),
        ("network", "nothing may be fetched (offline)" if told["offline"] else "asked only for what you name"),
    ]
    show.table(("", ""), rows)
    print()
    products = [(name, f"{rates[name]:,.4g}", "GFLOP/s") for name in ("float32", "bfloat16", "float16")]
    speeds = [*((f"matrix products, {name}", value, unit) for name, value, unit in products)]
    speeds.append(("reading memory", f"{rates['memory']:,.4g}", "GB/s"))
    show.table(("measured", "", ""), speeds)
    if rates["share"] < QUIET:
        told_share = f"{rates['share']:.0%} of the processor's time"
        print(
            f"other programs ran meanwhile: the measurement got {told_share}; when they rest: lmworks doctor --refresh"
        )
    if told["kernels"]["cost"]:
        print(f"without native kernels: {told['kernels']['cost']}")
    print(f"auto precision is {told['precision']['reason']}\n")
    show.table(("package", "version"), [(name, version or "missing") for name, version in told["packages"].items()])
    print()
    extras = [(name, _state(name, one), one["adds"]) for name, one in told["extras"].items()]
    show.table(("extra", "state", "what it adds"), extras)
    print()
    cached = [(one["source"], one["what"], human(one["size"])) for one in told["cached"]]
    if cached:
        show.table(("cached", "what", "size"), cached)
    else:
        print("nothing is cached; lmworks models tells what can be fetched")


def _state(name: str, extra: dict[str, Any]) -> str:
    if not extra["missing"]:
        return "installed"
    return f"missing {', '.join(extra['missing'])}: pip install 'lmworks[{name}]'"


def _extra(name: str) -> dict[str, Any]:
    return {"adds": EXTRAS[name], "missing": [one for one in _requirements(name) if _version(one) is None]}


def _requirements(extra: str | None) -> list[str]:
    """The names of the distributions that lmworks needs, or that an extra of it needs."""
    found = []
    for line in metadata.requires("lmworks") or ():
        name = re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0]
        of = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if (of[1] if of else None) == extra and name != "lmworks":
            found.append(name)
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus(torch_version: str) -> list[str]:
    """Names and sizes of the GPUs that PyTorch sees; a build for the CPU is not even imported for it."""
    if "+cpu" in torch_version:
        return []
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{one.name} ({human(one.total_memory)})" for one in found]
