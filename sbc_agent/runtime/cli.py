"""The command ``dualtone-agent``.

What a user can get wrong is said in a line or two on standard error, never as a stack trace. Exit status: 0 done; 1
what was asked for did not succeed; 2 wrong usage or settings; 70 a defect of the program, told by class and place
alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from dualtone.domain.errors import DualtoneError, MalformedInput
from sbc_agent.media import child as media

if TYPE_CHECKING:
    from sbc_agent.runtime.config import Endpoint

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DEFECT: Final = 70
INTERRUPTED: Final = 130

DEFAULT_CONFIG: Final = Path("/etc/dualtone/agent.toml")
_SIP_PORT: Final = 5060
_MAX_PORT: Final = 65_535
_MAX_NAME: Final = 64

# Numbers that Ofcom keeps for drama: nobody answers them.
_CALLER: Final = "+442079460101"
_CALLEE: Final = "+442079460102"

_EXIT_STATUS: Final = (
    "exit status: 0 done; 1 what was asked for did not succeed; 2 wrong usage or settings; 70 a defect of the program"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
    except DualtoneError as error:
        from sbc_agent.runtime.config import ConfigError  # noqa: PLC0415 - see _run

        return _say(USAGE, *error.problems) if isinstance(error, ConfigError) else _say(FAILED, str(error))
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: no text of an error may reach the terminal
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        return _say(DEFECT, f"a defect: {type(error).__name__} at {places}; please report this line")


def _run(options: argparse.Namespace) -> int:
    """A restart is as quick as the slower of the two processes: the other one starts before this one loads anything."""
    with contextlib.ExitStack() as stack:
        child = None if options.check else stack.enter_context(media.start())
        gc.disable()  # while it loads there is no garbage, and much to look through
        from sbc_agent.runtime import config, process  # noqa: PLC0415

        gc.enable()
        return process.run(config.load(options.config), check_only=options.check, child=child)


def _enrol(options: argparse.Namespace) -> int:
    from sbc_agent.runtime.cloud_api import CloudApi  # noqa: PLC0415
    from sbc_agent.runtime.config import load  # noqa: PLC0415
    from sbc_agent.runtime.enrolment import EnrolmentCode, enrol  # noqa: PLC0415

    config = load(options.config)
    code = EnrolmentCode.parse(sys.stdin.readline() if options.code == "-" else options.code)
    identity = enrol(
        CloudApi(),
        base=options.api or config.uplink.api,
        code=code,
        name=options.name,
        state_dir=config.agent.state_dir,
        replace=options.replace,
    )
    _print(f"enrolled as {identity.agent} of tenant {identity.tenant}; start the agent with dualtone-agent run")
    return DONE


def _status(options: argparse.Namespace) -> int:
    from sbc_agent.runtime import config, status  # noqa: PLC0415

    report = status.ask(config.load(options.config).agent.state_dir)
    _print(json.dumps(report) if options.json else status.describe(report))
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    import io  # noqa: PLC0415

    from sbc_agent.runtime import config, diagnosis, doctor  # noqa: PLC0415
    from sbc_agent.runtime.logs import Log  # noqa: PLC0415

    found = doctor.examine(config.load(options.config), Log(stream=io.StringIO()))
    _print(json.dumps(diagnosis.to_json(found)) if options.json else diagnosis.shown(found))
    return FAILED if diagnosis.worst(found) == "fail" else DONE


def _desk(options: argparse.Namespace) -> int:
    from sbc_agent.runtime import config, desk_command  # noqa: PLC0415

    settings = config.load(options.config)
    match options.verb:
        case "add":
            lines = desk_command.add(settings, options.name, options.line)
        case "remove":
            lines = desk_command.remove(settings.agent.state_dir, options.name)
        case _:
            lines = desk_command.listed(settings.agent.state_dir)
    for line in lines:
        _print(line)
    return DONE


def _call(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from sbc_agent.runtime import load_call  # noqa: PLC0415

    plan = load_call.CallPlan(
        target=options.target,
        transport=options.transport,
        caller_wav=options.caller_wav,
        callee_wav=options.callee_wav,
        caller=options.caller,
        callee=options.callee,
        caller_name=options.caller_name,
        callee_name=options.callee_name,
        duration_s=options.duration,
        loop=options.loop,
        calls=options.calls,
        parallel=options.parallel,
        ucid=options.ucid,
        json=options.json,
        ca=options.ca,
        certificate=options.cert,
        key=options.key,
        insecure=options.insecure,
    )
    return DONE if asyncio.run(load_call.run(plan, _print)) else FAILED


def _load(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from sbc_agent.media.process_limits import raise_file_limit  # noqa: PLC0415
    from sbc_agent.runtime import load, load_call  # noqa: PLC0415

    raise_file_limit()
    trust = None
    if options.transport == "tls":
        trust = load_call.trusted(options.ca, options.cert, options.key, insecure=options.insecure)
    plan = load.LoadPlan(
        target=options.target,
        transport=options.transport,
        calls=options.calls,
        seconds=options.seconds,
        rate=options.rate,
        total=max(options.total or 0, options.calls),
        each=options.each,
        json=options.json,
        trust=trust,
    )
    return DONE if asyncio.run(load.run(plan, _print)) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dualtone-agent",
        description="The Dualtone agent: records the calls that an SBC sends by SIPREC, sealed before any disk.",
        epilog=_EXIT_STATUS,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the program's version number and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="run|enrol|status|doctor|desk|call|load")

    run = commands.add_parser(
        "run",
        help="record calls until told to stop",
        description="Records calls. When ready, prints one JSON line on standard output that says where; logs go to "
        "standard error as JSON lines. SIGTERM and SIGINT let calls be written and uploaded, then end it.",
        epilog=_EXIT_STATUS,
    )
    _add_config(run)
    run.add_argument("--check", action="store_true", help="only check settings and machine, then exit")
    run.set_defaults(act=_run)

    enrol = commands.add_parser(
        "enrol",
        help="make this machine an agent of a tenant",
        description="Makes a key on this machine and exchanges a one-time code for an identity. The code comes from "
        "POST /v1/agents; it also proves that the cloud that answers is the right one.",
        epilog=_EXIT_STATUS,
    )
    _add_config(enrol)
    enrol.add_argument(
        "--code", required=True, metavar="CODE", help='the one-time code, or "-" to read it from standard input'
    )
    enrol.add_argument("--api", type=_api, metavar="URL", help="base address of the API (default: uplink.api)")
    enrol.add_argument(
        "--name", type=_name, default=socket.gethostname()[:_MAX_NAME], help="what people call this agent"
    )
    enrol.add_argument("--replace", action="store_true", help="give up an earlier identity of this machine")
    enrol.set_defaults(act=_enrol)

    status = commands.add_parser(
        "status",
        help="what a running agent is doing",
        description="Asks a running agent for its calls, packets, spool, uplink and alarms.",
        epilog=_EXIT_STATUS,
    )
    _add_config(status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(act=_status)

    doctor = commands.add_parser(
        "doctor",
        help="look at everything that recordings depend on, and say what to change",
        description="Looks at ports, buffers, disk, clock, limits, certificates and the way to the cloud, one line "
        "each: ok, warn (worth a look) or fail (to be changed), with what to change in plain words. Runs beside the "
        "agent or before its first start, and leaves nothing behind.",
        epilog="exit status: 0 nothing has to be changed; 1 something has; 2 wrong usage or settings",
    )
    _add_config(doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(act=_doctor)

    _add_desk(
        commands.add_parser(
            "desk",
            help="who on site may pause the calls of which lines",
            description="Adds, lists and removes desks. A desk's token, and the addresses of its handset's keys, reach "
            "the live calls of its own lines by the LAN endpoint, and nothing else. A running agent knows at once.",
            epilog=_EXIT_STATUS,
        )
    )

    call = commands.add_parser(
        "call",
        help="place a SIPREC test call at a recorder",
        description="Plays an SBC: places a SIPREC call at a recorder and speaks a WAV file for each side, live. "
        "WAV files are 16-bit mono with 8000 or 16000 Hz.",
        epilog=f"With --calls above 1, --json prints an object for each call and one that sums up. {_EXIT_STATUS}",
    )
    _add_recorder(call)
    call.add_argument("--caller-wav", required=True, type=Path, metavar="WAV", help="what the caller says")
    call.add_argument("--callee-wav", required=True, type=Path, metavar="WAV", help="what the callee says")
    call.add_argument("--caller", default=_CALLER, metavar="NUMBER", help=f"number or URI (default: {_CALLER})")
    call.add_argument("--callee", default=_CALLEE, metavar="NUMBER", help=f"number or URI (default: {_CALLEE})")
    call.add_argument("--caller-name", default="Caller", metavar="NAME", help="display name")
    call.add_argument("--callee-name", default="Callee", metavar="NAME", help="display name")
    call.add_argument(
        "--duration", type=_seconds, metavar="S", help="length in seconds, cut to 20 ms (default: the longer WAV)"
    )
    call.add_argument("--loop", action="store_true", help="repeat a WAV that is shorter than the call")
    call.add_argument("--ucid", type=_hexadecimal, metavar="HEX", help="universal call id of the recorded call")
    call.add_argument("--calls", type=_count, default=1, metavar="N", help="how many calls (default: 1)")
    call.add_argument("--parallel", type=_count, default=1, metavar="M", help="how many at once (default: 1)")
    call.add_argument("--json", action="store_true", help="print results as JSON")
    call.set_defaults(act=_call)

    load = commands.add_parser(
        "load",
        help="place very many SIPREC calls at a recorder",
        description="Plays a busy SBC: places calls of two G.711 streams at a recorder, many at once, and says how "
        "each attempt was answered, how many packets were sent, and how late this program itself was.",
        epilog=f"It fails unless every call was taken and carried to its end. {_EXIT_STATUS}",
    )
    _add_recorder(load)
    load.add_argument("--calls", type=_count, default=100, metavar="N", help="how many calls at once (default: 100)")
    load.add_argument("--rate", type=_rate, default=50.0, metavar="R", help="calls begun in a second (default: 50)")
    load.add_argument("--seconds", type=_seconds, default=60.0, metavar="S", help="how long each lasts (default: 60)")
    load.add_argument("--total", type=_count, metavar="T", help="how many calls in all (default: as many as at once)")
    load.add_argument("--each", action="store_true", help="print an object for every call as it ends")
    load.add_argument("--json", action="store_true", help="print the sums as a JSON object")
    load.set_defaults(act=_load)
    return parser


def _add_recorder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", required=True, type=_target, metavar="HOST[:PORT]", help="the recorder (port: 5060)"
    )
    parser.add_argument("--transport", choices=("udp", "tcp", "tls"), default="udp", help="for SIP (default: udp)")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="with tls: who signed the recorder's certificate, in PEM"
    )
    parser.add_argument("--insecure", action="store_true", help="with tls: take any certificate")
    parser.add_argument(
        "--cert", type=Path, metavar="FILE", help="with tls: our own certificate, where one is asked for"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="with tls: its key, if it is not in the same file")


def _add_desk(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="add|list|remove", dest="verb")
    add = verbs.add_parser("add", help="add a desk; its token is shown once", epilog=_EXIT_STATUS)
    add.add_argument("name", metavar="NAME", help='what it is called, such as "Reception 2"')
    add.add_argument(
        "--line", required=True, action="append", metavar="EXTENSION", help="a line of it; may be repeated"
    )
    remove = verbs.add_parser("remove", help="refuse a desk's token from now on", epilog=_EXIT_STATUS)
    remove.add_argument("name", metavar="NAME", help="as it was added")
    listed = verbs.add_parser("list", help="show the desks and their lines", epilog=_EXIT_STATUS)
    for verb in (add, remove, listed):
        _add_config(verb)
        verb.set_defaults(act=_desk)


class _Version(argparse.Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sbc_agent.runtime.version import version  # noqa: PLC0415

        parser.exit(message=f"dualtone-agent {version()}\n")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"settings (default: {DEFAULT_CONFIG})"
    )


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say(status: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"dualtone-agent: {line}\n")
    return status


def _refuse(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)


def _target(text: str) -> Endpoint:
    from sbc_agent.runtime.config import Endpoint  # noqa: PLC0415

    host, separator, port = text.partition(":")
    if not host or (separator and not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT)):
        _refuse(f"{text!r}: write a host and a port such as 192.0.2.10:5060")
    return Endpoint(host, int(port) if port else _SIP_PORT)


def _api(text: str) -> str:
    from sbc_agent.runtime.config import api_address  # noqa: PLC0415

    try:
        return api_address(text)
    except MalformedInput as error:
        _refuse(str(error))


def _name(text: str) -> str:
    if not 0 < len(text) <= _MAX_NAME or not text.isprintable():
        _refuse(f"a name has 1 to {_MAX_NAME} printable characters")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.02 <= value <= 86_400:  # noqa: PLR2004 - a packet to a day
        _refuse(f"{text!r}: write a number of seconds from 0.02 to 86400")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 10_000:  # noqa: PLR2004 - a call in a minute and a half to more than anything carries
        _refuse(f"{text!r}: write a number of calls a second from 0.01 to 10000")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 100_000):  # noqa: PLR2004 - enough for any load test
        _refuse(f"{text!r}: write a whole number from 1 to 100000")
    return int(text)


def _hexadecimal(text: str) -> str:
    if not re.fullmatch("[0-9A-Fa-f]{16,64}", text):
        _refuse(f"{text!r}: write 16 to 64 hexadecimal digits")
    return text.upper()


if __name__ == "__main__":
    sys.exit(main())
