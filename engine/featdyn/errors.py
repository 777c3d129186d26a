"""What can go wrong in ways that a user can mend: each message is one line that says what to do."""


class FeatdynError(Exception):
    """An error that a user can mend; the command line prints its message without a traceback.

    Its message is one line, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class StoreError(FeatdynError):
    """A store that is missing, foreign, newer, damaged or locked, or a disk that is full."""


class RecipeError(FeatdynError):
    """A recipe that does not validate."""


class DataError(FeatdynError):
    """Data that is missing or unreadable."""


class NetworkError(FeatdynError):
    """An unknown network, layer or cut, or a module that cannot be cut."""


class TrainingError(FeatdynError):
    """Training that cannot go on, such as a loss that is not finite."""


class ComputeError(FeatdynError):
    """Work that does not fit into memory, or workers that cannot be had or were lost."""


def first_line(error: BaseException) -> str:
    """Return of an error of others, whose messages are as long as they please, its type and first line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
