"""What a benchmark tells its caller when it cannot measure."""


class BenchError(Exception):
    """Nothing was measured; the text is the one line to tell."""


class BenchOptionError(BenchError):
    """It was asked to measure what cannot be: the call was wrong."""
