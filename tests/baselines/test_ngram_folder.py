"""The files of an n-gram model: the same after saving and opening; damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lmworks.base.errors import InputError
from lmworks.baselines.ngram import NgramModel
from lmworks.baselines.ngram_folder import is_ngram

TEXT = np.random.default_rng(0).integers(0, 9, 400)


@pytest.fixture
def folder(tmp_path):
    NgramModel.train([TEXT], 3, 9, begin_id=0, end_id=1).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("order", [0, 1, 2, 4])
@pytest.mark.parametrize("smoothing", ["modified-kneser-ney", "kneser-ney"])
def test_opened_is_what_was_saved(tmp_path, order, smoothing):
    model = NgramModel.train([TEXT, TEXT[:0], TEXT[5:50]], order, 9, end_id=1, smoothing=smoothing)
    model.save(tmp_path)
    opened = NgramModel.open(tmp_path)
    np.testing.assert_array_equal(opened.log_probabilities(TEXT), model.log_probabilities(TEXT))
    assert (opened.order, opened.begin_id, opened.end_id, opened.smoothing) == (order, None, 1, smoothing)
    assert (opened.discounts, opened.parameters, opened.nbytes) == (model.discounts, model.parameters, model.nbytes)
    assert is_ngram(tmp_path)


def test_no_text_has_a_model_of_one_token(tmp_path):
    NgramModel.train([np.array([3])], 4, 9).save(tmp_path)
    assert NgramModel.open(tmp_path).next_distribution([3, 3]).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"order": None}, "order is missing"),
        ({"order": "3"}, 'order is "3"'),
        ({"order": 4}, "keys.4 is missing"),
        ({"order": 40}, "order is 40"),
        ({"vocab_size": 8}, "unigrams is float64 of shape"),
        ({"smoothing": "no"}, "smoothing is 'no'"),
        ({"eos_token_id": 9}, "eos_token_id is no id"),
    ],
)
def test_a_config_that_does_not_fit_is_named(folder, changes, fault):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=fault):
        NgramModel.open(folder)


def damage_keys(arrays):
    arrays["keys.2"][:2] = arrays["keys.2"][1::-1].copy()


def damage_contexts(arrays):
    arrays["keys.3"][-1] = 10**9


def damage_probabilities(arrays):
    arrays["probabilities.3"][0] = np.nan


def damage_backoffs(arrays):
    arrays["backoffs.2"] = arrays["backoffs.2"][:-1]


def damage_type(arrays):
    arrays["unigrams"] = arrays["unigrams"].astype(np.float32)


def damage_names(arrays):
    del arrays["backoffs.3"]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (damage_keys, "keys.2 are not sorted"),
        (damage_contexts, "keys.3 are not sorted, or name contexts"),
        (damage_probabilities, "probabilities.3 are not all between 0 and 1"),
        (damage_backoffs, "backoffs.2 is float64 of shape"),
        (damage_type, "unigrams is float32"),
        (damage_names, "backoffs.3 is missing"),
    ],
)
def test_damaged_arrays_are_named(folder, damage, fault):
    path = folder / "model.safetensors"
    arrays = load_file(path)
    damage(arrays)
    save_file(arrays, path)
    with pytest.raises(InputError, match=fault):
        NgramModel.open(folder)


def test_files_that_are_cut_or_missing_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        NgramModel.open(folder)
    weights.unlink()
    with pytest.raises(InputError, match="not a whole safetensors file"):
        NgramModel.open(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        NgramModel.open(folder)
    assert not is_ngram(folder)
