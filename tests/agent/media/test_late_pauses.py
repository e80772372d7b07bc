"""A pause for a call outside the rings, where the spool refuses to note its cut at first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualtone.domain.ids import CallId
from sbc_agent.media import cuts
from sbc_agent.media.call import Call
from sbc_agent.media.call_state import CallState
from sbc_agent.media.late_pauses import LatePauses
from sbc_agent.media.messages import Alarm, Pause, PauseApplied

CALL = CallId("01KB0000000000000000000000")
COMMAND = "01KB0000000000000000000001"


def test_a_cut_that_could_not_be_noted_is_carried_out_when_the_pause_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / CALL
    directory.mkdir()

    def reopen(call: CallId) -> Any:
        try:
            state = CallState.read(directory)
        except FileNotFoundError:
            state = CallState.unknown(1)
        return SimpleNamespace(call=Call.of_state(call, state))

    recovery: Any = SimpleNamespace(
        spool_dir=tmp_path, is_spooled=lambda _: True, is_finished=lambda _: False, reopen=reopen
    )
    disk: Any = SimpleNamespace(submit=lambda *_: None)
    pauses = LatePauses(recovery, disk)
    pause = Pause(
        call=CALL,
        at_us=10,
        from_us=5,
        cause="payment",
        origin="cloud",
        number=7,
        command=COMMAND,
        by="endpoint:x",
        effective_at_us=5,
        lease_us=0,
    )

    def refuse(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(cuts, "note", refuse)
        (refused,) = pauses.handle(pause, 20)
        assert pauses.due(25) == [pause]
        assert pauses.handle(pause, 25) == []
        assert pauses.due(26) == []
    assert pauses.due(1_000_025) == [pause]
    (answer,) = pauses.handle(pause, 30)
    assert pauses.due(3_000_000) == []

    assert isinstance(refused, Alarm)
    assert isinstance(answer, PauseApplied)
    assert answer.outcome == "too_late"
    assert [cut.command for cut in cuts.noted(directory)] == [COMMAND]
    (again,) = pauses.handle(pause, 40)
    assert isinstance(again, PauseApplied)
    assert (again.outcome, again.from_us, again.causes) == ("too_late", 5, ("payment",))
    assert [cut.command for cut in cuts.noted(directory)] == [COMMAND]
    (other,) = pauses.handle(pause.model_copy(update={"command": CALL}), 50)
    assert isinstance(other, PauseApplied)
    assert other.outcome == "superseded"
