"""LoRA by hand: from a file of questions and answers to a changed model, in plain PyTorch.

    python examples/lora_by_hand.py smollm2-135m-instruct faq.jsonl

Arrows lead to the files of src/lmworks that do it for every model, in less time and memory. The losses are, to 1e-5,
lmworks tune ... --data.held_out 0 --train.epochs 1 --train.precision float32 --train.schedule constant --train.warmup 0
"""

import json
import sys

import torch
from torch import nn

import lmworks
from lmworks.base.seeds import derived_seed
from lmworks.data.sampler import BatchSampler
from lmworks.text import chat

RANK, ALPHA, TARGETS = 16, 32, ("q_proj", "k_proj", "v_proj", "o_proj")
LEARNING_RATE, EPOCHS, BATCH_SIZE, SEED = 2e-4, 1, 8, 0


class LoRALinear(nn.Module):
    """y = W x + b + alpha / r * B A x, where only A and B are trained (Hu et al. 2021, eq. 3). -> adapt/low_rank.py"""

    def __init__(self, base, generator):
        super().__init__()
        self.base, bound = base, base.in_features**-0.5
        self.A = nn.Parameter(torch.empty(RANK, base.in_features).uniform_(-bound, bound, generator=generator))
        self.B = nn.Parameter(torch.zeros(base.out_features, RANK))  # zeros: at first the model is what it was

    def forward(self, x):
        return self.base(x) + ALPHA / RANK * (x @ self.A.T) @ self.B.T


def add_lora(network):
    """Freeze all weights and put a LoRALinear around each linear that is a target. -> adapt/lora.py"""
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        if name.endswith(TARGETS):
            parent, _, attribute = name.rpartition(".")
            generator = torch.Generator().manual_seed(derived_seed(SEED, name))
            setattr(network.get_submodule(parent), attribute, LoRALinear(module, generator))


def read_example(line, tokenizer):
    """A row as token ids, and which of them are learned: the answer's. -> text/formats.py, text/chat.py"""
    row = json.loads(line)
    dialog = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    return [torch.tensor(values) for values in chat.encode(tokenizer, dialog)]  # by the model's own chat template


def train(source, file):
    """Yield the loss of each step: mean nats per learned token."""
    model = lmworks.load(source)  # weights, config and tokenizer -> language_model/opening.py, families/folder.py
    network = model.network.train()  # embeddings, blocks, norm, head -> model/transformer.py
    add_lora(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.0)  # -> train/optimizers.py
    with open(file, encoding="utf-8") as lines:
        examples = [read_example(line, model.tokenizer) for line in lines]
    for indices in BatchSampler(len(examples), BATCH_SIZE, SEED, EPOCHS):  # the loop -> train/loop.py
        batch = [examples[index] for index in indices]  # packed into rows without padding -> data/packing.py
        count, total = sum(int(learned[1:].sum()) for _, learned in batch), 0.0
        for ids, learned in batch:  # each token predicts the next one -> train/step.py, train/losses.py
            logits, targets = network(ids[None, :-1]).logits[0, learned[1:]], ids[1:][learned[1:]]
            loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / count
            loss.backward()  # with fused blocks and gradients added in place -> model/fused.py, model/accumulation.py
            total += loss.item()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield total


if __name__ == "__main__":
    for step, loss in enumerate(train(*sys.argv[1:]), 1):
        print(f"step {step}  loss {loss:.5f}")
