"""Shares the result of a run: the model as a Hugging Face folder with its card, on the hub, in a folder, as a demo.

What would be refused is asked first; then the model is opened, written, and sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base import sources
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, atomic_write, expand_home
from lmworks.base.hub import HubName
from lmworks.base.hub_upload import check_repository, repository_of, upload
from lmworks.families.folder import OURS, check_place
from lmworks.language_model import few_shot
from lmworks.reports import card as report
from lmworks.reports import cost
from lmworks.run.checkpoint_model import load
from lmworks.run.load import classifier_folder
from lmworks.run.result import silent
from lmworks.sharing import model_card, space
from lmworks.sharing.model_card import Published
from lmworks.sharing.model_use import use_of

FURTHER = (model_card.FILE, few_shot.FILE, few_shot.EXAMPLES, few_shot.VECTORS)
"""Files that a shared folder may have besides those of a model."""


@dataclass
class Shared:
    """Where a model was shared.

    Attributes:
        folder: the Hugging Face folder; None where none was asked for.
        commit: the address of the hub's commit; None where nothing was sent.
        space: the folder of the demo; None where none was asked for.
        notes: what the person should know.
    """

    folder: Path | None = None
    commit: str | None = None
    space: Path | None = None
    notes: list[str] = field(default_factory=list)


def share(
    run: str | Path,
    target: str | None = None,
    *,
    folder: str | Path | None = None,
    space: str | Path | None = None,
    head: str | None = None,
    dtype: str = "float32",
    licence: str | None = None,
    language: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> Shared:
    """Share the model of a run, its adapter merged, with a model card.

    Args:
        run: the folder of a run; of an unfinished one its best checkpoint is taken, and the card says so.
        target: ``hub:owner/name``, to which it is uploaded.
        folder: where the same is written.
        space: where a demo is written, as a Hugging Face Space; it has the model in it, or takes it from ``target``.
        head: of a run of several tasks: the one whose model is meant.
        dtype: of the weights: float32, bfloat16 or float16.
        licence: as the hub names it; default: that of the base, where it is an alias.
        language: of the texts, as the hub names it.
        private: a new repository is seen by its owner alone.
        overwrite: replace what was shared there before.
        say: called with a line before each step that takes long.

    Raises:
        InputError: no place is named, the folder is no run, a place holds something else, or the hub refuses it.
    """
    if target is None and folder is None and space is None:
        raise InputError("no place is named", "lmworks share", "give hub:owner/name, --to FOLDER or --space FOLDER")
    if classifier_folder(run) is not None:
        fault = "is a classifier by counts of words, which no library of the hub opens"
        raise InputError(fault, str(run), f"copy {Path(run) / 'final'}: lmworks predict opens the copy")
    card = report.build(run)
    place, demo = (expand_home(path) if path else None for path in (folder, space))
    repo = None if target is None else repository_of(target)
    _check_places(place, demo, overwrite)
    if repo is not None:
        check_repository(repo, overwrite)
    say("opening the model")
    model = load(run, head=head)
    shared = Shared(place, space=demo, notes=list(model.notes))
    name = repo or (place or demo or Path(run)).resolve().name
    published = _published(card, name, licence, language)
    if published.licence is None:
        shared.notes.append("the card names no licence; --license says it (as the hub calls it, such as apache-2.0)")
    with _written(model, card, published, dtype, place) as written:
        if demo is not None:
            _write_space(demo, written, published, repo)
        if repo is not None:
            say(f"uploading to {repo}")
            shared.commit = upload(written, repo, f"Model of the run {card['run']['name']}", private, [*OURS, *FURTHER])
    return shared


def _check_places(folder: Path | None, demo: Path | None, overwrite: bool) -> None:
    """Refuse places that hold something else, before the model is opened."""
    if folder is not None:
        check_place(folder, overwrite, FURTHER)
    if demo is not None:
        space.check_place(demo, overwrite)
        if folder is not None and folder.resolve() == demo.resolve():
            raise InputError("is named for both the model and the demo", str(demo), "give each a folder of its own")


@contextmanager
def _written(model: Any, card: dict[str, Any], published: Published, dtype: str, folder: Path | None) -> Iterator[Path]:
    """The folder with model and card: the one that was asked for, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lmworks-share-") as temporary:
        place = folder or Path(temporary) / "model"
        with atomic_folder(place) as aside:
            model.save(aside, dtype=dtype, overwrite=True)
            use = use_of(aside)
            text = model_card.model_card(card, cost.cost(card["run"]["path"]), use, published)
            atomic_write(aside / model_card.FILE, text)
        yield place


def _write_space(place: Path, written: Path, published: Published, repo: str | None) -> None:
    """The demo of a written model: with the model in it, or from the hub."""
    space.write(place, use_of(written), published, repo, None if repo else written)


def _published(card: dict[str, Any], name: str, licence: str | None, language: str | None) -> Published:
    """What the card says of its base, as far as that is known."""
    if card["run"]["new"]:
        return Published(name, None, licence, language)
    source = str(card["run"]["model"])
    alias = None if Path(source).exists() else sources.aliases().get(source)  # a folder of such a name is meant
    hub = sources.hub_name(source)
    is_on_hub = alias is not None or source.startswith("hub:")
    base = HubName.of(hub).repo if is_on_hub and hub != source else None
    local = None if alias is None else sources.cached_alias(alias)
    licence = licence or (alias.licence.lower() if alias is not None else None)
    return Published(name, base, licence, language, "" if local is None else local.note)
