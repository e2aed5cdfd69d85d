"""When the gradient of embeddings is a sparse tensor of the rows that a step reads. Imports no torch."""

MIN_SIZE, MIN_RATIO = 1 << 20, 4
"""The least numbers in a table, and the least rows for each row that is read: a sparse gradient takes a few calls more
than a dense one, which pays where a large vocabulary would be filled with zeros and read again."""


def is_sparse(rows: int, width: int, read: int) -> bool:
    """Whether the gradient of embeddings (rows, width) is sparse in a pass that reads ``read`` tokens."""
    return rows * width >= MIN_SIZE and rows >= MIN_RATIO * read
