"""lmworks gradients: how far back through a text, and how deep through layers, a gradient reaches."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.commands import show

if TYPE_CHECKING:
    import torch

    from lmworks.model.transformer import Transformer

IDS_HERE = 300  # of a preset whose vocabulary follows from a text
DEFAULTS = ["rnn-small", "gru-small", "lstm-small", "llama-1m"]
ACTIVATIONS = ["sigmoid", "tanh", "relu", "gelu"]
ABOUT = """The vanishing gradient, measured. By distance: the norm of d loss_T / d embedding_t, for the loss of the
token after T, at T - t = 0, 1, 2 ... tokens back. By depth: the norm of d loss / d h_l in a plain network at
initialization, for each activation. Norms are divided by the one that is nearest to the loss."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, a text, how far and how deep, the page."""
    parser.description = ABOUT
    parser.add_argument(
        "model",
        nargs="*",
        help=f"presets, drawn anew, or models: a folder, a run, an alias (default: {' '.join(DEFAULTS)})",
    )
    parser.add_argument("--text", metavar="F", help="what opened models read (default: the named data python-help)")
    parser.add_argument("--length", type=int, default=100, metavar="N", help="tokens back (default 100)")
    parser.add_argument(
        "--rows", type=int, default=16, metavar="N", help="texts, of which means are taken (default 16)"
    )
    parser.add_argument("--depth", type=int, default=20, metavar="N", help="layers of the plain network (default 20)")
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS, metavar="A", help=" ".join(ACTIVATIONS))
    parser.add_argument(
        "--initialization",
        default="xavier",
        choices=("uniform", "xavier", "he"),
        help="of the plain network (default: xavier)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of new weights and random tokens (default 0)")
    parser.add_argument("--out", metavar="F.html", default="gradients.html", help="the page (default gradients.html)")
    parser.add_argument("--json", action="store_true", help="print the norms as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print both tables and write the page."""
    from lmworks.base.files import atomic_write
    from lmworks.evaluate.gradients import norms_by_depth

    _check(args)
    by_distance = {name: _by_distance(name, args) for name in dict.fromkeys(args.model or DEFAULTS)}
    by_depth = {
        name: norms_by_depth(name, args.depth, initialization=args.initialization, seed=args.seed)[::-1]
        for name in dict.fromkeys(args.activations)
    }
    if args.json:
        print(json.dumps({"by_distance": by_distance, "by_depth": by_depth}, indent=1))
    else:
        title = "Norm of d loss_T / d embedding_t, relative to the token from which the next one is predicted"
        _table(title, "tokens back", by_distance, 0)
        print()
        title = f"Norm of d loss / d h_l in a plain network, relative to its last layer ({args.initialization})"
        _table(title, "layers below the last", by_depth, 0)
    atomic_write(args.out, _page(args, by_distance, by_depth).encode())
    print(f"written: {args.out}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (("length", 2), ("rows", 1), ("depth", 2)):
        if getattr(args, name) < least:
            raise InputError(f"is {getattr(args, name)}, less than {least}", f"--{name}", f"--{name} {least} or more")
    if not args.out.endswith((".html", ".htm")):
        raise InputError(f"{args.out} is no .html file", "--out", "name it so: browsers open it")


def _by_distance(name: str, args: argparse.Namespace) -> list[float]:
    import torch

    from lmworks.evaluate.gradients import norms_by_distance
    from lmworks.run import recipe as recipes

    if recipes.is_preset(name):
        network, generator = _new_network(name, args.seed), torch.Generator().manual_seed(args.seed)
        ids = torch.randint(network.config.vocab_size, (args.rows, args.length + 1), generator=generator)
    else:
        network, ids = _opened(name, args)
    return norms_by_distance(network, ids)


def _new_network(name: str, seed: int) -> Transformer:
    """A preset's network with random weights."""
    import torch

    from lmworks.model import initialization
    from lmworks.model.transformer import Transformer
    from lmworks.run import recipe as recipes
    from lmworks.run.new_model import ModelSettings

    recipe = recipes.from_preset(name, {"data": "-"})
    assert isinstance(recipe.model, ModelSettings)
    assert recipe.tokenizer is not None
    network = Transformer(recipe.model.config(recipe.tokenizer.vocab_size or IDS_HERE))
    initialization.draw(network, torch.Generator().manual_seed(seed))
    return network.eval()


def _opened(name: str, args: argparse.Namespace) -> tuple[Transformer, torch.Tensor]:
    """A model, and rows of a text by its tokenizer, at equal distances."""
    import torch

    from lmworks.run.checkpoint_model import load
    from lmworks.text import corpus
    from lmworks.text.train_tokenizer import texts_of

    model = load(name)
    text = "\n".join(texts_of(row.values for row in corpus.read(args.text or "python-help").rows))
    ids = torch.tensor(model.tokenizer.encode(text[: 40 * args.rows * (args.length + 1)]))
    width = args.length + 1
    if len(ids) < width:
        hint = f"--length {max(2, len(ids) - 1)}, or a longer text"
        raise InputError(f"the text has {len(ids)} tokens for {name}", "--text", hint)
    starts = torch.linspace(0, len(ids) - width, args.rows).long()
    return model.network, torch.stack([ids[start : start + width] for start in starts.tolist()])


def _table(title: str, first: str, curves: dict[str, list[float]], begin: int) -> None:
    """Norms at 0, 1, 2, 4, 8 ..., and the factor of one step."""
    from lmworks.evaluate.gradients import factor_of_a_step

    longest = max(map(len, curves.values()))
    places = [0, *(1 << power for power in range(longest.bit_length()) if 1 << power < longest)]
    places += [longest - 1] if longest - 1 not in places else []
    rows = [
        (
            str(place + begin),
            *(f"{norms[place] / norms[0]:.2g}" if place < len(norms) else "" for norms in curves.values()),
        )
        for place in places
    ]
    rows.append(("factor of one step", *(f"{factor_of_a_step(norms):.3f}" for norms in curves.values())))
    show.table((first, *curves), rows, title)


def _page(args: argparse.Namespace, by_distance: dict[str, list[float]], by_depth: dict[str, list[float]]) -> str:
    from lmworks.reports.gradient_page import Drawing, render

    relative = [
        {name: [norm / norms[0] for norm in norms] for name, norms in part.items()} for part in (by_distance, by_depth)
    ]
    about = (
        "The norm of the gradient of a token's loss with respect to the embedding of a token so many places before it, "
        "relative to the nearest one; the scale is logarithmic and ends at 1e-12. In a recurrent network it falls "
        "exponentially (Bengio, Simard and Frasconi 1994)."
    )
    deep = (
        f"The norm of the gradient of the loss with respect to a layer's output in a plain network of {args.depth} "
        f"layers at initialization ({args.initialization}), relative to the last layer (Glorot and Bengio 2010)."
    )
    return render(
        [
            Drawing("By distance", about, "tokens back", relative[0]),
            Drawing("By depth", deep, "layers below the last", relative[1]),
        ],
        "How far a gradient reaches",
    )
