"""Where the documents of a batch lie: the runs of equal segments in each row, without padding.

Layers that read tokens in their order (recurrent cells, convolutions) must not carry anything from one document to the
next, so they take the documents out of the rows and put the results back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Documents:
    """The documents of a batch (B, T).

    Attributes:
        starts: (N,) int64 place of each document's first token in the B * T tokens of the batch.
        lengths: (N,) int64 tokens of each document.
        width: T.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    width: int

    @classmethod
    def of(cls, batch: int, width: int, segments: torch.Tensor | None) -> Documents:
        """The documents of (B, T) ``segments``, in which 0 is padding; None: each row is one document."""
        if segments is None:
            return cls(torch.arange(batch) * width, torch.full((batch,), width), width)
        numbers = segments.cpu()
        begins = torch.ones_like(numbers, dtype=torch.bool)
        begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
        starts = begins.flatten().nonzero().squeeze(1)
        lengths = torch.diff(starts, append=torch.tensor([batch * width]))
        real = numbers.flatten()[starts] != 0
        return cls(starts[real], lengths[real], width)

    @property
    def rows(self) -> torch.Tensor:
        """(N,) int64 row of each document."""
        return self.starts // self.width

    def longest_first(self) -> Documents:
        """The same documents in the order of their lengths, which packed sequences need."""
        order = torch.argsort(self.lengths, descending=True, stable=True)
        return Documents(self.starts[order], self.lengths[order], self.width)

    def steps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens step by step: the first ones of all documents, then the second ones of those that have two ...

        Returns:
            (tokens,) int64 places in the batch, and (longest,) int64 documents that have a token at each step; what
            ``torch.nn.utils.rnn.PackedSequence`` calls batch_sizes. Only for documents that are sorted.
        """
        step = torch.arange(int(self.lengths.max()))[:, None]
        present = step < self.lengths
        return (self.starts + step)[present], present.sum(1)
