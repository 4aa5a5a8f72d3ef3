import pytest

from market_depth.store.recording_job import progress_bar


def test_where_there_is_no_terminal_notes_alone_are_shown_each_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar(10, 5, lambda: 1.0) as display:
        display.tell(7)
        display.note("[red] " + 30 * "a long line ")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"market-depth: [red] {30 * 'a long line '}\n")
