"""What can go wrong with a recording, one class for each decision the caller can take."""


class RecordingError(Exception):
    """A recording cannot be made, or not be continued: which file, what is wrong, and what to do, in one line."""

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        super().__init__(file, problem, remedy)
        self.file = file
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}; {self.remedy}"


class RecordingOptionError(RecordingError):
    """There can be no such recording: the call was wrong."""


class RecordingExistsError(RecordingError):
    """There is such a file already: take another name, or overwrite it."""
