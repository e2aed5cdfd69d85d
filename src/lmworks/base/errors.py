"""What a person can correct.

Every error that bad input causes is an InputError: it says where, what, and how to correct it. The command
line prints it without a traceback and exits with code 2. Knows nothing of who raises it.
"""


class InputError(Exception):
    """Something the person gave cannot be used.

    Args:
        fault: what is wrong, as one sentence.
        place: where: a file, ``file:line``, a field, a command-line option. Empty when there is no place.
        hint: what to do about it, as one sentence. Empty only where nothing can be advised.
    """

    def __init__(self, fault: str, place: str = "", hint: str = "") -> None:
        super().__init__(fault, place, hint)
        self.fault, self.place, self.hint = fault, place, hint

    def __str__(self) -> str:
        text = f"{self.place}: {self.fault}" if self.place else self.fault
        return f"{text}\n  hint: {self.hint}" if self.hint else text
