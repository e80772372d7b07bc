"""The command `dualtone`: one subcommand per module, loaded when it is called for."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Subcommand(Protocol):
    """What a module must offer to be a subcommand."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; return the exit status."""


class Entry(NamedTuple):
    """A subcommand's line in the help, and the module that is it."""

    summary: str
    module: str


SUBCOMMANDS: dict[str, Entry] = {
    "local": Entry("run cloud, API and an enrolled agent on this machine", "infra.local.local"),
    "demo": Entry("record one real call and prove what became of it", "infra.local.demo"),
    "call": Entry("pause, resume and watch calls", "infra.cli.call"),
    "policy": Entry("show, change and try the recording policy", "infra.cli.policy"),
    "agent": Entry("list agents, and revoke one", "infra.cli.agent"),
    "desk": Entry("pause, keep and watch your own calls, on site", "infra.cli.desk"),
    "ops": Entry("explain what the functions gave up, and send it again", "infra.cli.ops"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="dualtone", description="Dualtone, the call recorder: run it here and try it."
    )
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    modules: dict[str, Subcommand] = {}
    for name, entry in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=entry.summary, description=entry.summary)
        if given[:1] == [name]:  # others need not be imported to be listed
            modules[name] = importlib.import_module(entry.module)
            modules[name].add_arguments(subparser)
    parsed = parser.parse_args(given)
    return modules[parsed.subcommand].run(parsed)


if __name__ == "__main__":
    raise SystemExit(main())
