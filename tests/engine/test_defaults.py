"""What is done where nothing is said is written down, for people, and changes only together with that page."""

from tests.engine.defaults import PAGE, page


def test_the_page_of_defaults_is_the_declarations() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "python -m tests.engine.defaults"
