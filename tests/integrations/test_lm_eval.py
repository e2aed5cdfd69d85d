"""lm-evaluation-harness's model ``lmworks``: the scores and answers of its own model ``hf``, of the same requests."""

from __future__ import annotations

import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import save_encoder
from tiny_tokenizers import LLAMA2, MISTRAL, SENTENCES, byte_level

import lmworks
from lmworks.base.errors import InputError
from lmworks.families.folder import save_folder
from lmworks.families.registry import FAMILIES
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer
from lmworks.text.multiple_choice import documentation_questions

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'lmworks[lm-eval]')")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lmworks.integrations.lm_eval import LmworksLM, main

CONTEXT = 64
PAIRS = [
    ("The sky is", " blue"),
    ("The sky is", " blue, and the sea"),
    ("The sky is", " nobody"),
    ("The sky is ", "blue"),  # the space belongs to the continuation
    ("", "Who are you?"),
    ("The sky is blue, and the sea is too. " * 6, " I am nobody"),  # loses its beginning
    ("The sky is blue, and the sea is too. Who", " are"),
    ("The sky is blue, and the sea is too. Who", " am"),
    ("<s>Who are", " you"),
]
TASK = """
task: tiny
dataset_path: json
dataset_kwargs:
  data_files: {test: QUESTIONS}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{query}}\\nAnswer:"
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def save_decoder(folder: Path, adds_bos: bool, template: str = MISTRAL) -> Path:
    """A tiny decoder with random weights of some size, so that each token is of another likelihood."""
    tokenizer = byte_level(template, adds_bos=adds_bos)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    network = Transformer(
        ModelConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=CONTEXT, num_key_value_heads=2, **sizes)
    )
    generator = torch.Generator().manual_seed(5)
    draw(network, generator)
    for weight in network.parameters():
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.2 if weight.ndim > 1 else 0.0))
    generation = {"eos_token_id": tokenizer.eos_id}  # else transformers would go on after the end of a text
    return save_folder(folder, network, network.config, FAMILIES["llama"], tokenizer, generation=generation)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("lm_eval") / "tiny", request.param)


@pytest.fixture(scope="module")
def hf(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=3)


def requests_of(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, own, index) for index, own in enumerate(arguments)]


def agree(ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]]) -> None:
    """log p to 1e-3, and the same continuations are greedy."""
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("adds_bos", [None, True, False])
def test_likelihoods_are_those_of_hf(folder: Path, backend: str, adds_bos: bool | None) -> None:
    hf = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=3, add_bos_token=adds_bos)
    ours = LmworksLM(str(folder), backend=backend, dtype="float32", add_bos_token=adds_bos)
    assert ours.model.signature.startswith(f"backend:{backend}|weights:float32")
    texts = [text for pair in PAIRS for text in pair]
    assert [ours.tok_encode(text) for text in texts] == [hf.tok_encode(text) for text in texts]
    contexts = [context for context, _ in PAIRS if context == context.strip() and context]
    asked = requests_of("generate_until", [(context, {"max_gen_toks": 1}) for context in contexts])
    written = zip(contexts, hf.generate_until(asked, disable_tqdm=True), strict=True)
    pairs = [*PAIRS, *[pair for pair in written if pair[1]]]
    requests = requests_of("loglikelihood", pairs)
    result = ours.loglikelihood(requests, disable_tqdm=True)
    agree(result, hf.loglikelihood(requests, disable_tqdm=True))
    assert {greedy for _, greedy in result} == {True, False}


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_whole_texts_are_as_likely_as_to_hf(folder: Path, hf: HFLM, backend: str) -> None:
    ours = LmworksLM(str(folder), backend=backend, dtype="float32")
    texts = [(text,) for text in (*SENTENCES, "é", " ".join(SENTENCES * 8))]  # the last in windows
    requests = requests_of("loglikelihood_rolling", texts)
    assert len(ours.tok_encode(texts[-1][0])) > 2 * CONTEXT
    wanted = hf.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_answers_are_those_of_hf(folder: Path, hf: HFLM, backend: str, batch_size: int | str) -> None:
    ours = LmworksLM(str(folder), backend=backend, dtype="float32", batch_size=batch_size)
    greedy = {"until": ["you"], "max_gen_toks": 12, "do_sample": False}
    prompts = ["The sky is", "Who are", "I am nobody; who", "the sea " * 30]  # the last loses its beginning
    first = ours.generate_until(requests_of("generate_until", [("The sky is", {"max_gen_toks": 12})]), True)[0]
    stops = {"until": [first[3:5]], "max_gen_toks": 12}
    requests = requests_of("generate_until", [*[(text, greedy) for text in prompts], ("The sky is", stops)])
    texts = ours.generate_until(requests, disable_tqdm=True)
    assert texts == hf.generate_until(requests, disable_tqdm=True)
    assert texts[-1] == first[: first.index(first[3:5])]


def test_answers_that_are_drawn_differ_from_repeat_to_repeat(folder: Path) -> None:
    ours, given = LmworksLM(str(folder)), {"do_sample": True, "temperature": 1.0, "max_gen_toks": 16}
    requests = requests_of("generate_until", [("The sky is", given)] * 3)
    texts = ours.generate_until(requests, disable_tqdm=True)
    assert len(set(texts)) == 3
    assert ours.generate_until(requests, disable_tqdm=True) == texts


def test_conversations_are_those_of_hf(folder: Path, hf: HFLM) -> None:
    ours, messages = LmworksLM(str(folder)), [{"role": "user", "content": "Who are you?"}]
    assert ours.apply_chat_template(messages) == hf.apply_chat_template(messages)
    opened = [*messages, {"role": "assistant", "content": "I am "}]
    assert ours.apply_chat_template(opened, False) == hf.apply_chat_template(opened, add_generation_prompt=False)
    assert ours.chat_template(True) == hf.chat_template(True) == MISTRAL
    assert ours.tokenizer_name == hf.tokenizer_name


def test_a_refused_system_message_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = LmworksLM(str(save_decoder(tmp_path / "tiny", False, LLAMA2)))
    question = {"role": "user", "content": "Who are you?"}
    text = ours.apply_chat_template([{"role": "system", "content": "Be brief."}, question])
    assert text == ours.apply_chat_template([question])
    assert "system message" in caplog.text
    with pytest.raises(InputError, match="take turns"):
        ours.apply_chat_template([question, question])


def save_task(folder: Path) -> Path:
    """A task of multiple-choice questions for the harness, from a file beside it."""
    rows = [
        {"query": question.prompt[-60:], "choices": [choice.strip()[:40] for choice in question.choices], "gold": 0}
        for question in documentation_questions(6)
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(TASK.replace("QUESTIONS", str(questions)))
    return folder


def test_the_harness_gives_the_same_results(folder: Path, hf: HFLM, tmp_path: Path) -> None:
    ours = LmworksLM(str(folder), dtype="float32", max_length=CONTEXT)
    options = {
        "tasks": ["tiny"],
        "task_manager": TaskManager(include_path=str(save_task(tmp_path)), include_defaults=False),
    }
    options |= {"bootstrap_iters": 0, "apply_chat_template": True}
    result, wanted = (simple_evaluate(model=model, **options) for model in (ours, hf))
    for one, other in zip(result["samples"]["tiny"], wanted["samples"]["tiny"], strict=True):
        assert one["arguments"] == other["arguments"]
        agree([own[0] for own in one["resps"]], [own[0] for own in other["resps"]])
    assert result["results"]["tiny"]["acc,none"] == wanted["results"]["tiny"]["acc,none"]


@pytest.mark.slow
def test_the_command_of_the_harness_knows_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    words = ["--tasks", "tiny", "--include_path", str(save_task(tmp_path)), "--output_path", str(tmp_path / "out.json")]
    monkeypatch.setattr("sys.argv", ["lm_eval", "--model", "lmworks", "--model_args", f"pretrained={folder}", *words])
    assert main() == 0
    assert "acc_norm" in capsys.readouterr().out
    (written,) = tmp_path.glob("**/out_*.json")
    assert json.loads(written.read_text())["config"]["lmworks_signature"].startswith("backend:")
    monkeypatch.setattr("sys.argv", ["lm_eval", "--model", "lmworks", "--model_args", f"pretraind={folder}", *words])
    assert main() == 2
    assert "did you mean pretrained" in capsys.readouterr().err
    args = f"pretrained={folder},dtyp=float32"
    monkeypatch.setattr("sys.argv", ["lm_eval", "--model", "lmworks", "--model_args", args, *words])
    assert main() == 2
    assert "dtyp" in (said := capsys.readouterr().err)
    assert "dtype" in said


def test_answers_go_to_the_cache_of_the_harness(folder: Path, tmp_path: Path) -> None:
    options = {
        "tasks": ["tiny"],
        "task_manager": TaskManager(include_path=str(save_task(tmp_path)), include_defaults=False),
    }
    options |= {"bootstrap_iters": 0, "use_cache": str(tmp_path / "answers")}
    first = simple_evaluate(model=LmworksLM(str(folder)), **options)
    ours = LmworksLM(str(folder))
    ours.model.choice_scores = None  # nothing is computed again
    assert simple_evaluate(model=ours, **options)["results"] == first["results"]


def test_what_cannot_be_evaluated_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no likelihood"):
        LmworksLM(str(save_encoder(tmp_path / "bert")))
    with pytest.raises(InputError, match="batch size"):
        LmworksLM(str(folder), batch_size="many")
    ours = LmworksLM(str(folder))
    with pytest.raises(InputError, match="without tokens"):
        ours.loglikelihood(requests_of("loglikelihood", [("The sky", "")]), disable_tqdm=True)
    with pytest.raises(InputError, match="the most are 64"):
        ours.loglikelihood(requests_of("loglikelihood", [("The sky", " x" * CONTEXT)]), disable_tqdm=True)
    with pytest.raises(InputError, match="no room"):
        ours.generate_until(requests_of("generate_until", [("The sky", {"max_gen_toks": CONTEXT})]), True)
    with pytest.raises(InputError, match="top_pp"):
        ours.generate_until(requests_of("generate_until", [("The sky", {"max_gen_toks": 2, "top_pp": 0.5})]), True)


def test_an_open_model_an_adapter_and_a_precision(folder: Path, tmp_path: Path) -> None:
    model = lmworks.load(folder)
    requests = requests_of("loglikelihood", PAIRS)
    agree(LmworksLM(model).loglikelihood(requests, True), LmworksLM(str(folder)).loglikelihood(requests, True))
    rows = [{"text": text} for text in SENTENCES * 4]
    run = lmworks.tune(str(folder), rows, out=str(tmp_path / "run"), train={"steps": 3, "learning_rate": 0.05})
    adapted = LmworksLM(str(folder), adapter=str(run.folder)).loglikelihood(requests, True)
    wanted = LmworksLM(run.model).loglikelihood(requests, True)
    assert [value for value, _ in adapted] == pytest.approx([value for value, _ in wanted], abs=1e-2)
    before = LmworksLM(model).loglikelihood(requests, True)
    assert max(abs(one - other) for (one, _), (other, _) in zip(adapted, before, strict=True)) > 0.05
    half = LmworksLM(str(folder), dtype="bfloat16")
    assert "bfloat16" in half.model.signature


def test_the_entry_point_names_the_model() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = project["project"]["entry-points"]["lm_eval.models"]["lmworks"].partition(":")
    assert issubclass(getattr(import_module(module), name), LM)


@pytest.mark.slow
def test_the_real_model_scores_as_by_hf(smollm2: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    folder = lmworks.load(smollm2).save(tmp_path / "smollm2")
    hf = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8)
    pairs = [
        (f"Question: {question.prompt}\nAnswer:", choice)
        for question in documentation_questions(12)
        for choice in (*question.choices, " Yes")
    ]
    requests = requests_of("loglikelihood", pairs)
    texts = requests_of("loglikelihood_rolling", [(" ".join(text for text, _ in pairs[:8]),)])
    wanted, rolling = hf.loglikelihood(requests, True), hf.loglikelihood_rolling(texts, True)
    for source in (folder, smollm2):  # the GGUF, in float32, has the same weights
        for backend in ("native", "torch"):
            ours = LmworksLM(str(source), backend=backend, dtype="float32")
            agree(ours.loglikelihood(requests, True), wanted)
            assert ours.loglikelihood_rolling(texts, True) == pytest.approx(rolling, abs=1e-3)
