"""What a person can mend.

Every error that bad input causes is an InputError: it says where, what, and how to mend it. The command
line prints it without a traceback and exits with code 2. Knows nothing of who raises it.
"""


class InputError(Exception):
    """Something the person gave cannot be used.

    Args:
        fault: what is wrong, as one sentence.
        place: where: a file, ``file:line``, a field, a command-line option. Empty when there is no place.
        mend: what to do about it, as one sentence. Empty only where nothing can be advised.
    """

    def __init__(self, fault: str, place: str = "", mend: str = "") -> None:
        super().__init__(fault, place, mend)
        self.fault, self.place, self.mend = fault, place, mend

    def __str__(self) -> str:
        text = f"{self.place}: {self.fault}" if self.place else self.fault
        return f"{text}\n  mend: {self.mend}" if self.mend else text
