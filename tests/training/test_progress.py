import io

import pytest

from robot_rl.training.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_rewritten_in_place():
    stream = Terminal()
    progress = Progress(stream)
    progress.update("a long line")
    progress.update("short")
    progress.note("kept")
    assert stream.getvalue() == "\ra long line\rshort      \r     \rkept\n"


def test_a_log_file_gets_whole_lines_and_not_too_many():
    stream = io.StringIO()
    progress = Progress(stream)
    for i in range(50):
        progress.update(f"line {i}")
    progress.note("kept")
    assert stream.getvalue() == "line 0\nkept\n"


def test_a_terminal_that_is_lost_costs_only_the_lines():
    class Lost(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    progress = Progress(Lost())
    progress.update("a line")
    progress.note("kept")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (65.2, "1:05"), (4000, "1:06:40")])
def test_duration(seconds, text):
    assert duration(seconds) == text
