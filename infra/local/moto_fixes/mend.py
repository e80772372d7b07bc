"""What a mend is: a named, documented and reversible change to moto, so that it answers as AWS does.

moto is the embedded cloud's AWS, and where it departs from AWS a test that passes proves nothing. Each mend says which
documented behaviour it restores, and where AWS documents it; `tests/adapters/local` holds a test of every one against
that document and shows that it fails while the mend is left out.
"""

from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Patch:
    """One attribute (or one entry of a mapping) of moto that is replaced while mends are applied.

    Attributes:
        owner: module, class or mutable mapping that holds the attribute.
        name: attribute name, or key of the mapping.
        wrap: is given what was there and returns what shall stand there instead; patches of one attribute nest.
    """

    owner: Any
    name: str
    wrap: Callable[[Any], Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Hold the replacement in place; put back exactly what was there afterwards."""
        if isinstance(self.owner, MutableMapping):
            original = self.owner[self.name]
            self.owner[self.name] = self.wrap(original)
            try:
                yield
            finally:
                self.owner[self.name] = original
            return
        original = vars(self.owner)[self.name]
        setattr(self.owner, self.name, self.wrap(original))
        try:
            yield
        finally:
            setattr(self.owner, self.name, original)


@dataclass(frozen=True, slots=True)
class Mend:
    """A departure of moto from AWS, put right.

    Attributes:
        name: what tests and messages call it.
        restores: the behaviour of AWS, in a sentence.
        documented: where AWS documents it.
        patches: the changes to moto.
    """

    name: str
    restores: str
    documented: str
    patches: tuple[Patch, ...]


@contextmanager
def applied(mends: Collection[Mend], without: Collection[str] = ()) -> Iterator[None]:
    """Apply mends for the length of a `with` block; moto's attributes are process-wide, so never twice at a time.

    Args:
        mends: what to apply, in this order.
        without: names to leave out, which is how a test shows that a mend is needed.

    Yields:
        Nothing.

    Raises:
        ValueError: if `without` names a mend that does not exist.
    """
    if unknown := set(without) - {mend.name for mend in mends}:
        message = f"no such mend: {', '.join(sorted(unknown))}"
        raise ValueError(message)
    with ExitStack() as stack:
        for mend in mends:
            if mend.name not in without:
                for patch in mend.patches:
                    stack.enter_context(patch.applied())
        yield
