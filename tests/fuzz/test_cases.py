"""What the fuzzer found once is not found again."""

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CASES = sorted(Path(__file__).with_name("cases").glob("*/*"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_case(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


def test_there_are_cases() -> None:
    assert CASES
