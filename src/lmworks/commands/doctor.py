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

from lmworks.base import machine, process_memory
from lmworks.base.contention import UNDISTURBED_SHARE
from lmworks.base.files import cache_folder, folder_size, free_disk_space, human
from lmworks.base.probes import PROBED_PRECISIONS
from lmworks.base.processor import processor
from lmworks.base.sources import is_offline
from lmworks.commands import show
from lmworks.commands.models import alias_entries, cache_entries, without_home
from lmworks.kernels import native_module, product_rates
from lmworks.kernels.reading import reading_rates

EXTRAS = {
    "hub": "the Hugging Face hub: models (huggingface_hub) and data sets (datasets)",
    "serve": "lmworks serve: models behind OpenAI's API",
    "tensorboard": "training curves as TensorBoard events",
}
"""What a person gains by each extra; their packages stand in the metadata."""

REFRESH_HELP = (
    "measure again, and forget the rates of all other matrix products, which runs then measure again; best while "
    "nothing else runs"
)
TRIALS = 8  # of a block's pass, of which the fastest counts: other programs can only slow it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json, --refresh."""
    parser.description = "Tell which computer this is, how fast it computes, what is installed and what is cached."
    parser.add_argument("--json", action="store_true", help="as JSON, for bug reports; no names of yours are in it")
    parser.add_argument("--refresh", action="store_true", help=REFRESH_HELP)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print all of it."""
    if sys.stderr.isatty():
        print("looking, and measuring where this machine was not measured before ...", file=sys.stderr)
    info = examine(args.refresh)
    if args.json:
        print(json.dumps(info, indent=2))
    else:
        _print(info)
    return 0


def examine(refresh: bool = False) -> dict[str, Any]:
    """Everything that doctor prints; sizes in bytes."""
    total, free = process_memory.memory()
    chip, rates = processor(), machine.rates(refresh)
    products = _products(refresh)
    precision, reason = machine.choose_precision("auto", machine_rates=product_rates.fastest_rates())
    reading = reading_rates(refresh)
    cache = cache_folder()
    used = folder_size(cache) if cache.is_dir() else 0
    return {
        "lmworks": metadata.version("lmworks"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": asdict(chip),
        "threads": rates.threads,
        "rates": asdict(rates),
        "products": products,
        "reading": {"rates": {f"{size} MB": rate for size, rate in reading.gigabytes.items()}, "share": reading.share},
        "precision": {"auto": precision, "reason": reason},
        "gpus": _gpus(rates.torch),
        "kernels": _kernels(),
        "memory": {"total": total, "free": free},
        "disk": {
            "cache": without_home(cache),
            "used": used,
            "free": free_disk_space(cache),
        },
        "offline": is_offline(),
        "packages": {name: _version(name) for name in _requirements(None)},
        "extras": {name: _extra(name) for name in EXTRAS},
        "cached": [entry.as_json() for entry in cache_entries()],
        "aliases": [{"name": entry["name"], "cached": entry["cached"]} for entry in alias_entries()],
    }


def _products(refresh: bool) -> dict[str, Any]:
    """By precision, the fastest provider of matrix products, its GFLOP/s, and the share of the processor that the
    measurement got; and why providers are left out."""
    precisions = product_rates.precisions()
    shapes = [shape for precision in precisions for shape in product_rates.limit_shapes(precision)]
    if refresh:
        product_rates.forget()
    measured = product_rates.product_rates(shapes, refresh)
    fastest = {}
    for precision in precisions:
        rate, provider = product_rates.best_rate(precision)
        share = min(measured.shares.get(shape, 1.0) for shape in product_rates.limit_shapes(precision))
        fastest[precision] = {"provider": provider, "gflops": rate, "share": share}
    return {"fastest": fastest, "faults": measured.faults}


def _kernels() -> dict[str, Any]:
    """The native kernels: what they are, and what it costs where they are not."""
    if native_module.native_module() is not None:
        return {"built": True, "description": native_module.describe(), "cost": ""}
    cost = (
        "attention, norms, activations and the cross-entropy run in PyTorch, slower, and keep more memory: a block of "
        f"SmolLM2's shape trains at {_share_without_kernels():.0%} of this machine's float32 matrix rate, and the rest "
        "of its time is what the kernels are for (make bench-train measures both)"
    )
    return {"built": False, "description": native_module.describe(), "cost": cost}


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


def _print(info: dict[str, Any]) -> None:
    chip = info["processor"]
    instructions = ", ".join(chip["instructions"]) or "none known"
    rows = [
        ("lmworks", f"{info['lmworks']}, Python {info['python']}, {info['system']}"),
        ("processor", f"{chip['name']}, {chip['kind']}"),
        ("instructions", instructions),
        (
            "threads",
            f"{info['threads']} used; {chip['cores']} cores, {chip['logical']} hardware threads for it",
        ),
        ("memory", f"{human(info['memory']['free'])} free of {human(info['memory']['total'])}"),
        ("disk", f"{human(info['disk']['free'])} free; {info['disk']['cache']} holds {human(info['disk']['used'])}"),
        ("GPU", ", ".join(info["gpus"]) or "none that this PyTorch can use"),
        ("kernels", info["kernels"]["description"]),
        ("network", "nothing may be fetched (offline)" if info["offline"] else "asked only for what you name"),
    ]
    show.table(("", ""), rows)
    print()
    _print_rates(info)
    for provider, fault in info["products"]["faults"].items():
        show.line(f"matrix products by {provider} are left out: {fault}")
    if info["kernels"]["cost"]:
        show.line(f"without native kernels: {info['kernels']['cost']}")
    show.line(f"auto precision is {info['precision']['reason']}")
    print()
    show.table(("package", "version"), [(name, version or "missing") for name, version in info["packages"].items()])
    print()
    extras = [(name, _state(name, entry), entry["adds"]) for name, entry in info["extras"].items()]
    show.table(("extra", "state", "what it adds"), extras)
    print()
    cached = [(entry["source"], entry["kind"], human(entry["size"])) for entry in info["cached"]]
    if cached:
        show.table(("cached", "kind", "size"), cached)
    else:
        print("nothing is cached; lmworks models tells what can be fetched")


def _print_rates(info: dict[str, Any]) -> None:
    """The measured rates, and for each whether other programs disturbed its measurement."""
    rates, reading = info["rates"], info["reading"]
    speeds = [(f"matrix products, {name}", rates[name], "GFLOP/s", rates["share"]) for name in PROBED_PRECISIONS]
    for precision, best in info["products"]["fastest"].items():
        title = f"{precision} by the fastest provider, {best['provider']}"
        speeds.append((title, best["gflops"], "GFLOP/s", best["share"]))
    speeds.append(("reading memory", rates["memory"], "GB/s", rates["share"]))
    speeds += [
        (f"reading {size} again and again", rate, "GB/s", reading["share"]) for size, rate in reading["rates"].items()
    ]
    disturbed = "while other programs ran: with {:.0%} of the processor"
    show.table(
        ("measured", "", "", ""),
        [
            (title, f"{rate:,.4g}", unit, disturbed.format(share) if share < UNDISTURBED_SHARE else "")
            for title, rate, unit, share in speeds
        ],
    )
    if any(share < UNDISTURBED_SHARE for *_, share in speeds):
        show.line("what was measured while other programs ran may be too low; when they rest: lmworks doctor --refresh")


def _state(name: str, extra: dict[str, Any]) -> str:
    if not extra["missing"]:
        return "installed"
    return f"missing {', '.join(extra['missing'])}: pip install 'lmworks[{name}]'"


def _extra(name: str) -> dict[str, Any]:
    return {"adds": EXTRAS[name], "missing": [package for package in _requirements(name) if _version(package) is None]}


def _requirements(extra: str | None) -> list[str]:
    """The names of the distributions that lmworks needs, or that an extra of it needs."""
    names = []
    for line in metadata.requires("lmworks") or ():
        name = re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0]
        of = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if (of[1] if of else None) == extra and name != "lmworks":
            names.append(name)
    return names


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

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{gpu.name} ({human(gpu.total_memory)})" for gpu in gpus]
