"""A map of texts as one HTML file: a point for each, its text shown on hover; no network, light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import shorten
from lmworks.embeddings.clusters import principal_components
from lmworks.reports.markup import PALETTE, document, palette_variables, text

MOST_POINTS = 5000  # more would make a page that browsers show slowly
SHOWN = 240  # characters of a text
SIZE, MARGIN = 1000, 24  # of the drawing, in its own units


@dataclass(frozen=True)
class MapPoints:
    """The points of a map.

    Attributes:
        coordinates: (n, 2).
        texts, places, groups: of each point; points of one group have one colour.
        method: how the coordinates were made, in a sentence.
    """

    coordinates: np.ndarray
    texts: Sequence[str]
    places: Sequence[str]
    groups: Sequence[str]
    method: str


def project(matrix: np.ndarray, method: str = "pca", seed: int = 0) -> tuple[np.ndarray, str]:
    """(n, E) vectors -> (n, 2) coordinates, and a sentence on how.

    Args:
        matrix: vectors of length 1.
        method: ``pca``, or ``umap`` (McInnes et al. 2018; the extra ``umap``), which keeps neighbours together while
            distances between groups mean little.
        seed: of UMAP.

    Raises:
        InputError: fewer than three vectors, or umap-learn is not installed.
    """
    if len(matrix) < 3:
        raise InputError(f"{len(matrix)} texts make no map", "the texts", "give at least three")
    if method == "pca":
        coordinates, shares = principal_components(matrix, 2)
        if coordinates.shape[1] < 2:
            coordinates = np.pad(coordinates, ((0, 0), (0, 1)))
        across, up = (*shares, 0.0)[:2]
        return coordinates, f"PCA: {across:.1%} of the variance across, {up:.1%} upwards"
    try:
        import umap
    except ImportError as error:
        raise InputError("UMAP is not installed", "--method umap", "pip install 'lmworks[umap]'") from error
    neighbours = min(15, len(matrix) - 1)
    coordinates = umap.UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=seed).fit_transform(
        matrix
    )
    return np.asarray(coordinates), f"UMAP with {neighbours} neighbours, cosine; distances between groups mean little"


def render_map(points: MapPoints, title: str, about: str, seed: int = 0) -> str:
    """The whole page. Of more than MOST_POINTS points a random sample is drawn, which the page says.

    Args:
        points: to be drawn.
        title: of the page.
        about: a sentence: of which texts, by which model.
        seed: of the sample.
    """
    count = len(points.texts)
    sample = np.arange(count)
    if count > MOST_POINTS:
        sample = np.sort(np.random.default_rng(seed).choice(count, MOST_POINTS, replace=False))
    drawn = f"{len(sample):,} of {count:,} texts, drawn at random" if len(sample) < count else f"{count:,} texts"
    files = resources.files("lmworks.embeddings")
    style, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("map.css", "map.js"))
    header = (
        f'<header><p class="eyebrow">Map of texts</p><h1>{text(title)}</h1>'
        f'<p class="summary">{text(about)}</p><p class="soft">{text(drawn)}. {text(points.method)}.</p></header>\n'
    )
    return document(title, f"{header}<section>{_figure(points, sample)}</section>", style + _colours(), script)


def _figure(points: MapPoints, sample: np.ndarray) -> str:
    """The drawing and its legend."""
    counts = Counter(points.groups)
    order = {group: place for place, (group, _) in enumerate(counts.most_common())}
    places = _scaled(points.coordinates)
    circles = []
    for row in sample.tolist():
        group = points.groups[row]
        tooltip = text(f"{group} · {points.places[row]}\n{shorten(points.texts[row], SHOWN)}")
        x, y = places[row]
        circles.append(
            f'<circle class="{_class(order[group])}" data-group="{order[group]}" cx="{x:.1f}" cy="{y:.1f}" r="5" '
            f'data-say="{tooltip}"/>'
        )
    legend = "".join(
        f'<li><button type="button" data-group="{place}"><span class="dot {_class(place)}"></span>{text(group)} '
        f'<span class="soft">({counts[group]:,})</span></button></li>'
        for group, place in order.items()
    )
    return (
        f'<figure class="map"><svg viewBox="0 0 {SIZE} {SIZE * 2 // 3}" role="img" '
        f'aria-label="{len(circles):,} texts as points in a plane">{"".join(circles)}</svg></figure>'
        f'<ul class="legend groups">{legend}</ul>'
    )


def _scaled(coordinates: np.ndarray) -> np.ndarray:
    """(n, 2) coordinates within the drawing; the second axis upwards."""
    low, high = coordinates.min(0), coordinates.max(0)
    unit = (coordinates - low) / np.maximum(high - low, 1e-12)
    height = SIZE * 2 // 3
    x = MARGIN + unit[:, 0] * (SIZE - 2 * MARGIN)
    y = height - MARGIN - unit[:, 1] * (height - 2 * MARGIN)
    return np.stack([x, y], axis=1)


def _class(place: int) -> str:
    """The class of the style sheet of a group; groups beyond the palette are grey."""
    return f"g{place}" if place < len(PALETTE) else "grey"


def _colours() -> str:
    """The colours of groups."""
    rules = "".join(
        f".g{place} {{ fill: var(--g{place}); background: var(--g{place}); }}\n" for place in range(len(PALETTE))
    )
    return f"{palette_variables('g')}{rules}"
