"""What a network is linearised in: the expression that `--linearize` takes, and what goes with it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from divacli.errors import ModelError

PROJECTION = 4096
"""Length of a compressed gradient, unless another one is asked for."""

HEAD, FULL, BLOCK, LAST = "head", "full", "block", "last"

_FORM = (
    "a sum of head, block:NAME[,NAME...] and full, each with a factor or without one: block:last, "
    "head+3*block:layer4, full"
)
_PART = re.compile(
    rf"\s*(?:(?P<factor>[0-9][0-9.eE-]*)\s*\*\s*)?(?P<kind>{HEAD}|{FULL}|{BLOCK}:(?P<names>[^+*,\s]+(?:,[^+*,\s]+)*))\s*"
)


@dataclass(frozen=True)
class Part:
    """One term of the sum.

    Attributes:
        kind: "head" (the features that go into the head), "block" or "full".
        factor: Norm of its rows, in units of the first part's.
        names: Modules or parameters of a block.
    """

    kind: str
    factor: float = 1.0
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it would be typed."""
        factor = "" if self.factor == 1 else f"{self.factor:g}*"
        return factor + self.kind + (f":{','.join(self.names)}" if self.names else "")


@dataclass(frozen=True)
class Linearize:
    """What a network is linearised in, and how the gradients are made short.

    Attributes:
        expression: A sum of parts (`parts`).
        projection: Length of the compressed gradient of each part, a power of two.
        seed: Of the signs that combine the outputs, and of the projection.
    """

    expression: str = HEAD
    projection: int = PROJECTION
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether features are what goes into the head, and no gradient is taken."""
        return [part.kind for part in self.parts] == [HEAD]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The terms of the expression.

        Raises:
            ModelError: It is no such sum, or the projection is no power of two, or of no use.
        """
        parts = tuple(self._part(term) for term in self.expression.split("+"))
        if [part.kind for part in parts].count(HEAD) > 1 or (len(parts) > 1 and _has(parts, FULL)):
            raise ModelError(
                f"--linearize {self.expression}: full holds head, and head occurs once",
                expected=_FORM,
                hint="leave one of the two out",
            )
        if self.projection < 1 or self.projection & (self.projection - 1):
            near = 2 ** max(0, round(math.log2(max(1, self.projection))))
            raise ModelError(
                f"--projection {self.projection}",
                expected="a power of two, such as 4096",
                hint=f"the nearest one is {near}",
            )
        if [part.kind for part in parts] == [HEAD] and self.projection != PROJECTION:
            raise ModelError(
                f"--projection {self.projection} with --linearize head, where no gradient is taken",
                expected="--linearize with a block, or full",
                hint="add --linearize block:last, or leave the option out",
            )
        return parts

    def _part(self, term: str) -> Part:
        found = _PART.fullmatch(term)
        try:
            factor = float(found["factor"] or 1) if found else 0.0
        except ValueError:
            factor = 0.0
        if found is None or not 0 < factor < math.inf:
            raise ModelError(f"--linearize {self.expression}: {term.strip()!r}", expected=_FORM)
        names = tuple(found["names"].split(",")) if found["names"] else ()
        return Part(BLOCK if names else found["kind"], factor, names)


def _has(parts: tuple[Part, ...], kind: str) -> bool:
    return any(part.kind == kind for part in parts)


UNCHANGED = Linearize()
"""Features as they go into the head: no gradient is taken."""
