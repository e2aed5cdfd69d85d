"""The map of texts: one file that needs nothing else, and runs nothing that came from data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import MARKS, browser_fixture  # noqa: F401
from tiny_kinds import save_encoder

from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.embeddings import map_page
from lmworks.embeddings.map_page import MapPoints, project, render_map

POISON = "<script>alert(1)</script>\"'&"


def points(count: int = 12, groups: int = 3) -> MapPoints:
    coordinates = np.random.default_rng(0).normal(size=(count, 2))
    texts = [f"text {number} {POISON}" for number in range(count)]
    places = [f"rows:{number}" for number in range(count)]
    return MapPoints(coordinates, texts, places, [f"group {number % groups}" for number in range(count)], "PCA")


def test_the_page_is_one_file_and_what_came_from_outside_is_text():
    html = render_map(points(), POISON, POISON)
    assert html.count("<script>") == html.count("<style>") == 1
    assert html.count("<circle") == 12
    assert "&lt;script&gt;" in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_many_points_are_sampled_and_many_groups_grey(monkeypatch):
    monkeypatch.setattr(map_page, "MOST_POINTS", 10)
    html = render_map(points(40, 12), "t", "a")
    assert html.count("<circle") == 10
    assert "10 of 40 texts, drawn at random" in html
    assert 'class="dot grey"' in html


def test_points_stand_as_their_coordinates_do():
    corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    html = render_map(MapPoints(corners, ["a", "b", "c"], ["1", "2", "3"], ["g"] * 3, "PCA"), "t", "a")
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', html)]
    assert places[0][0] == places[2][0] < places[1][0]
    assert places[0][1] == places[1][1] > places[2][1]  # SVG counts downwards


def test_texts_that_make_no_map_are_refused():
    with pytest.raises(InputError, match="2 texts make no map"):
        project(np.eye(2))
    assert project(np.ones((3, 4)))[0].shape == (3, 2)
    assert project(np.array([[1.0], [2.0], [4.0]]))[0].shape == (3, 2)


def test_umap_keeps_groups_apart():
    pytest.importorskip("umap", reason="umap-learn is not installed")
    rows = np.repeat(np.eye(6)[:2], 15, axis=0) + np.random.default_rng(0).normal(scale=0.02, size=(30, 6))
    coordinates, method = project(rows, "umap")
    assert method.startswith("UMAP with 15 neighbours")
    within = np.linalg.norm(coordinates[:15] - coordinates[:15].mean(0), axis=1).max()
    assert np.linalg.norm(coordinates[:15].mean(0) - coordinates[15:].mean(0)) > within


def test_the_command_colours_by_label_or_cluster(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    model, out = str(save_encoder(tmp_path / "tiny")), tmp_path / "map.html"
    data = tmp_path / "rows.csv"
    data.write_text("text,label\ni love tea,drink\nfresh salad,food\nmy cat,animal\nmy tea,drink\n")
    words = ["map", str(data), "--model", model, "--clusters", "2", "--out", str(out)]
    assert main(words) == 0
    assert "animal" in out.read_text()
    assert main([*words, "--colour", "cluster"]) == 0
    assert "animal" not in out.read_text()
    data.write_text("text\ni love tea\nfresh salad\nmy cat\n")
    assert main([*words, "--colour", "label"]) == 2
    assert "no labels" in capsys.readouterr().err


class TestInABrowser:
    pytestmark = MARKS

    def test_a_point_shows_its_text_and_a_group_is_picked_out(self, browser: Any, tmp_path: Path) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        path = tmp_path / "map.html"
        path.write_text(render_map(points(), "rows.csv", "Vectors of a model"), encoding="utf-8")
        browser.set_window_size(1180, 1400)
        browser.get(path.resolve().as_uri())
        point = browser.find_elements(By.CSS_SELECTOR, ".map circle")[4]
        ActionChains(browser).move_to_element(point).perform()
        output = browser.find_element(By.ID, "say")
        assert output.is_displayed()
        assert output.text == point.get_attribute("data-say")
        browser.find_elements(By.CSS_SELECTOR, ".groups button")[0].click()
        assert len(browser.find_elements(By.CSS_SELECTOR, ".map circle.dim")) == 8
        browser.find_elements(By.CSS_SELECTOR, ".groups button")[0].click()
        assert not browser.find_elements(By.CSS_SELECTOR, ".map circle.dim")
        assert browser.get_log("browser") == []

    def test_it_fits_a_phone(self, browser: Any, tmp_path: Path) -> None:
        path = tmp_path / "map.html"
        path.write_text(render_map(points(), "rows.csv", "Vectors of a model"), encoding="utf-8")
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(path.resolve().as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
