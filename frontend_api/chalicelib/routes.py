"""Routes that are declared outside of `app.py`: collected here, served by the app that includes them."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.operation import Operation, View


class Routes:
    """A set of routes.

    Attributes:
        declared: Each operation with its view, in order of declaration.
    """

    def __init__(self) -> None:
        self.declared: list[tuple[Operation, View]] = []

    def operation(self, operation: Operation) -> Callable[[View], View]:
        """Declares a view under a route."""

        def declare(view: View) -> View:
            self.declared.append((operation, view))
            return view

        return declare
