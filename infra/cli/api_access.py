"""Where the API is and who asks: options that the commands share, and what goes wrong with them in words."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import pathlib

import requests


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--api", default=os.environ.get("DUALTONE_API"), metavar="URL", help="default: $DUALTONE_API")
    parser.add_argument("--token", default=os.environ.get("DUALTONE_TOKEN"), help="default: $DUALTONE_TOKEN")
    parser.add_argument("--ca", metavar="FILE", help="certificate to trust, for an agent's LAN endpoint")
    parser.add_argument("--json", action="store_true", help="write JSON")


def fault(arguments: argparse.Namespace) -> str:
    """What is wrong with them, and what to write; empty if nothing is."""
    if not arguments.api or not arguments.token:
        return "say --api and --token, or set DUALTONE_API and DUALTONE_TOKEN"
    if not arguments.api.startswith(("https://", "http://")):
        return f"{arguments.api}: write the API's address with https:// before it"
    if arguments.ca and not pathlib.Path(arguments.ca).is_file():
        return f"--ca {arguments.ca}: no such file"
    return ""


def unreachable(error: requests.RequestException) -> str:
    """Why the API could not be asked."""
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate is not trusted: for an agent's LAN endpoint, say --ca with its lan.crt"
    return f"the API does not answer: {type(error).__name__}"


def moment(text: str) -> str:
    """A time on the command line; raises ArgumentTypeError."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        example = "2026-11-24T10:15:02Z"
        raise argparse.ArgumentTypeError(f"{text}: write an RFC 3339 time with a zone, such as {example}") from error
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text}: say the zone too, for example {text}Z")
    return found.isoformat()
