"""Every way of training follows the plain loop: one document after another, whole logits, torch's own pieces."""

import sys

import pytest
import torch
from torch.nn import functional

from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base.journal import RunFolder
from lmworks.data.sampler import BatchSampler
from lmworks.kernels import dispatch
from lmworks.model import fused
from lmworks.train import optimizers
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings

HOW = {"batch_size": 4, "epochs": 3, "learning_rate": 1e-2, "weight_decay": 0.1, "threads": 1, "precision": "float32"}
PATHS = {
    "as it comes": {},
    "small rows": {"row_tokens": 16},
    "one row": {"row_tokens": 4096},
    "padded": {"packing": False},
    "recomputed": {"recompute": 1},
    "all recomputed": {"recompute": 100, "row_tokens": 16},
}


def without_kernels(monkeypatch) -> None:
    """PyTorch computes everything, as where the kernels were not built."""
    supports = dispatch.supports  # the loop replaces the one in dispatch as well
    for name, module in list(sys.modules.items()):
        if name.startswith("lmworks.") and getattr(module, "supports", None) is supports:
            monkeypatch.setattr(module, "supports", lambda *_: False)
    monkeypatch.setattr(fused, "can_run", lambda *_: False)


def adapted(network, lora: bool):
    if lora:
        LoRA(LoRASettings(rank=4, target_modules=["all-linear"])).apply(network)
    return network


def plain_loop(network, examples, settings: TrainSettings) -> list[float]:
    """Losses of the textbook's loop."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    groups = optimizers.groups(network, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    stream, losses = BatchSampler(len(examples), settings.batch_size, settings.seed, settings.epochs), []
    network.train()
    for step, chosen in enumerate(stream, 1):
        for group in optimizer.param_groups:
            group["lr"] = optimizers.learning_rate(step, len(stream), settings.learning_rate, settings)
        total, targets = 0.0, 0
        for index in chosen:
            ids = torch.as_tensor(examples[index].ids, dtype=torch.int64)
            counts = torch.as_tensor(examples[index].loss)[1:]
            logits = network(ids[None]).logits[0, :-1]
            total = total + functional.cross_entropy(logits[counts], ids[1:][counts], reduction="sum")
            targets += int(counts.sum())
        optimizer.zero_grad()
        (total / targets).backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        losses.append(float(total.detach()) / targets)
    return losses


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "pytorch"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_losses_are_those_of_the_plain_loop(lora, path, kernels, make_network, make_examples, tmp_path, monkeypatch):
    examples = make_examples()
    with monkeypatch.context() as plain:
        without_kernels(plain)
        expected = plain_loop(adapted(make_network(), lora), examples, TrainSettings(**HOW))
    if not kernels:
        without_kernels(monkeypatch)
    run = RunFolder.create(tmp_path / "run", "")
    train(adapted(make_network(), lora), examples, TrainSettings(**HOW, **PATHS[path]), run, Hooks(quiet=True))
    result = [event["loss"] for event in run.events("step")]
    assert expected[-1] < expected[0] - 0.1
    torch.testing.assert_close(torch.tensor(result), torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "pytorch"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_bfloat16_follows_within_a_hundredth(lora, kernels, make_network, make_examples, tmp_path, monkeypatch):
    if not kernels:
        without_kernels(monkeypatch)
    result = {}
    for precision in ("float32", "bfloat16"):
        how = TrainSettings(**(HOW | {"precision": precision, "epochs": 6, "learning_rate": 2e-3}))
        run = RunFolder.create(tmp_path / precision, "")
        network = adapted(make_network(hidden_size=64, intermediate_size=96), lora)
        train(network, make_examples(), how, run, Hooks(quiet=True))
        result[precision] = torch.tensor([event["loss"] for event in run.events("step")])
    assert result["float32"][-3:].mean() < result["float32"][:3].mean() - 0.1
    torch.testing.assert_close(result["bfloat16"].mean(), result["float32"].mean(), rtol=1e-2, atol=0)
    torch.testing.assert_close(result["bfloat16"], result["float32"], rtol=3e-2, atol=0)  # a single step strays more
    assert not torch.equal(result["bfloat16"], result["float32"])
