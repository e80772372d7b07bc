"""Explain a message that was given up: what it is about, and what stands in its way now. It looks, it does not guess.

A dead letter says that something failed some time ago, and not whether it would fail again. Each thing that the work
needs is looked at as it is at this moment: the agent in the directory, the files in the ingest bucket and the signature
of the manifest among them, what became of the call in the index, and the state of every key. Nothing is changed, and
nothing is told but opaque ids, counts and states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from dualtone.domain import agent_assertion, agent_events, call_files
from dualtone.domain.call_files import MANIFEST_NAME, IngestKey, Manifest
from dualtone.domain.call_watch import StoredFile
from dualtone.domain.commit_attempt import Generation
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput, NotFound
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.signing import Envelope, VerifyingKeys
from dualtone.domain.tenancy import Agent, AgentState, TenantProfile

ENABLED: Final = "Enabled"


class Verdict(StrEnum):
    """What a redrive would come to."""

    DONE = "done"
    """What it asks for has been done; a redrive changes nothing."""
    CLEAR = "clear"
    """Nothing stands in its way any more."""
    BLOCKED = "blocked"
    """It would fail again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was seen.

    Attributes:
        kind: In a word, for programs.
        text: In words, for people.
        blocks: Whether the work fails for it.
    """

    kind: str
    text: str
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a message is about and how it stands.

    Attributes:
        about: In words.
        verdict: What a redrive would come to.
        findings: What was seen, the gravest first.
        tenant: Whose; None if it belongs to nobody.
        agent: Of which agent.
        call: Of which call.
        recorded: The latest generation of the call, if it has one.
    """

    about: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    tenant: str | None = None
    agent: str | None = None
    call: str | None = None
    recorded: int | None = None


class Directory(Protocol):
    """The directory of tenants and agents."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent of a tenant; raises NotFound."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads what is configured for a tenant; raises NotFound."""


class Generations(Protocol):
    """The index, for what became of a call."""

    def latest_generation(self, tenant: TenantId, call: CallId) -> Generation | None:
        """Reads who claimed the latest generation of a call; None if nobody did."""


class Uploads(Protocol):
    """The ingest bucket, for looking."""

    def get(self, key: str) -> bytes:
        """Reads an object; raises NotFound or MalformedInput."""

    def list(self, prefix: str) -> list[StoredFile]:
        """Lists what lies below a prefix."""


class KeyStates(Protocol):
    """KMS, for looking."""

    def state(self, key_arn: str) -> str:
        """The state of a key: ``Enabled``, ``Disabled``, ``PendingDeletion`` and so on, or ``missing``."""


def unreadable(error: Exception) -> Explanation:
    """A message of no known form: nothing will ever be made of it."""
    reason = str(error) if isinstance(error, DualtoneError) else type(error).__name__
    finding = Finding("unreadable", f"it cannot be read, and never will be: {reason}")
    return Explanation("a message of no known form", Verdict.BLOCKED, (finding,))


def scheduled(what: str) -> Explanation:
    """A scheduled run that failed: the schedule has run again since, and will again."""
    finding = Finding("scheduled", "the schedule runs again every five minutes: nothing has to be sent", blocks=False)
    return Explanation(f"a scheduled run of {what}", Verdict.DONE, (finding,))


class ExplainDeadLetter:
    """Explains messages of the functions' queues."""

    def __init__(
        self,
        *,
        directory: Directory,
        generations: Generations,
        uploads: Uploads,
        key_states: KeyStates,
        keys: Mapping[str, str],
    ) -> None:
        """Takes where to look; ``keys`` are the deployment's keys by what they are for (``ingest`` among them)."""
        self._directory = directory
        self._generations = generations
        self._uploads = uploads
        self._key_states = key_states
        self._keys = keys

    def upload(self, key: str, *, silent: bool) -> Explanation:
        """Explains a message to the finaliser.

        Args:
            key: The object that arrived, or of a silent call where its manifest would lie.
            silent: Whether the sweeper sent it.
        """
        try:
            place = IngestKey.parse(key)
        except MalformedInput as error:
            return unreadable(error)
        latest = self._generations.latest_generation(place.tenant, place.call)
        agent_key, findings = self._agent(place.tenant, place.agent)
        if place.name == MANIFEST_NAME:
            about = "a call that went silent" if silent else "the manifest of a call"
            seen = list(self._files(place, latest, agent_key, silent=silent))
            if any(finding.kind == "recorded" for finding in seen):
                return self._told(about, place, latest, [one for one in seen if not one.blocks], Verdict.DONE)
            findings += [*seen, *self._disabled(place.tenant)]
        else:
            about = "the beginning of a call"
        return self._told(about, place, latest, findings)

    def cut(self, tenant: TenantId, call: CallId) -> Explanation:
        """Explains a message to what cuts paused spans."""
        findings = list(self._disabled(tenant))
        latest = self._generations.latest_generation(tenant, call)
        verdict = Verdict.BLOCKED if any(finding.blocks for finding in findings) else Verdict.CLEAR
        about = "a pause that came too late, whose span may still be kept"
        return Explanation(about, verdict, tuple(findings), tenant, None, call, latest.number if latest else None)

    def report(self, envelope: Envelope) -> Explanation:
        """Explains a report of an agent; raises MalformedInput if it is none."""
        report = agent_events.read(envelope)
        tenant, agent = TenantId(report.tenant), AgentId(report.agent)
        agent_key, findings = self._agent(tenant, agent)
        if agent_key is not None:
            try:
                agent_events.verified(envelope, agent_key)
            except IntegrityError:
                findings.append(Finding("forged", "its signature is not the agent's"))
        verdict = Verdict.BLOCKED if any(finding.blocks for finding in findings) else Verdict.CLEAR
        about = f"a report of an agent with {len(report.events)} events"
        return Explanation(about, verdict, tuple(findings), tenant, agent)

    def _told(
        self,
        about: str,
        place: IngestKey,
        latest: Generation | None,
        findings: list[Finding],
        verdict: Verdict | None = None,
    ) -> Explanation:
        grave = sorted(findings, key=lambda finding: not finding.blocks)
        judged = Verdict.BLOCKED if any(finding.blocks for finding in grave) else Verdict.CLEAR
        recorded = latest.number if latest else None
        return Explanation(about, verdict or judged, tuple(grave), place.tenant, place.agent, place.call, recorded)

    def _agent(self, tenant: TenantId, agent: AgentId) -> tuple[VerifyingKeys | None, list[Finding]]:
        """The agent's key, SubjectPublicKeyInfo, and what is wrong with the agent."""
        try:
            known = self._directory.agent(tenant, agent)
        except NotFound:
            return None, [Finding("agent-unknown", "the directory knows no such agent of this tenant")]
        key = None
        if known.public_key_pem is not None:
            key = agent_assertion.verifying_keys(replace(known, state=AgentState.ACTIVE))
        if known.state is AgentState.REVOKED:
            return key, [Finding("agent-revoked", "the agent was revoked: nothing that it signed is taken any more")]
        if known.state is not AgentState.ACTIVE:
            return key, [Finding("agent-pending", "the agent has not enrolled")]
        return key, []

    def _files(
        self, place: IngestKey, latest: Generation | None, agent_key: VerifyingKeys | None, *, silent: bool
    ) -> Iterator[Finding]:
        prefix = call_files.ingest_prefix(place.tenant, place.agent, place.call)
        names = {file.name for file in self._uploads.list(prefix)}
        if MANIFEST_NAME in names:
            yield from self._manifest(prefix, names, latest, agent_key)
        elif latest is not None and not silent:
            yield _recorded(latest)
        elif not silent:
            yield Finding("manifest-missing", "its manifest does not lie in the ingest bucket (any more)")
        elif not any(name.endswith(".dtp") for name in names):
            yield _recorded(latest) if latest else Finding("nothing-there", "no part of the call is there (any more)")

    def _manifest(
        self, prefix: str, names: set[str], latest: Generation | None, agent_key: VerifyingKeys | None
    ) -> Iterator[Finding]:
        data = self._uploads.get(prefix + MANIFEST_NAME)
        if latest is not None and latest.manifest_sha256 == hashlib.sha256(data).hexdigest():
            yield _recorded(latest)
        elif latest is not None and not latest.interrupted:
            yield Finding("two-manifests", f"generation {latest.number} was made from another manifest of this call")
        if agent_key is None:
            return
        try:
            manifest = call_files.verified_manifest(data, agent_key)
        except IntegrityError:
            yield Finding("forged", "its manifest is not signed by the agent's key")
        except MalformedInput as error:
            yield Finding("manifest-malformed", f"its manifest cannot be read: {error}")
        else:
            yield from _lacking(manifest, names, latest)

    def _disabled(self, tenant: TenantId) -> Iterator[Finding]:
        keys = dict(self._keys)
        try:
            own = self._directory.profile(tenant).ingest_key_arn
        except NotFound:
            yield Finding("tenant-unknown", "the directory knows no such tenant")
            own = None
        if own is not None:
            keys["tenant's ingest"] = own
        for name, arn in keys.items():
            state = self._key_states.state(arn)
            if state != ENABLED:
                yield Finding("key", f"the {name} key is not usable: {state}")


def _recorded(latest: Generation) -> Finding:
    return Finding("recorded", f"it is recorded: {latest.recording}, generation {latest.number}", blocks=False)


def _lacking(manifest: Manifest, names: set[str], latest: Generation | None) -> Iterator[Finding]:
    openings = [entry.epoch for entry in manifest.epochs if call_files.opening_name(entry.epoch) not in names]
    parts = [one for one in manifest.parts if call_files.part_name(one.epoch, one.index) not in names]
    if openings:
        text = f"opening records are missing, and with them the keys of what they opened: {len(openings)}"
        yield Finding("opening-missing", text, blocks=False)
    if parts:
        text = f"parts are missing: {len(parts)} of {len(manifest.parts)}; the recording will say so"
        yield Finding("parts-missing", text, blocks=False)
    if latest is not None and latest.parts & {entry.digest for entry in parts}:
        yield Finding("holds-less", f"generation {latest.number} holds parts that are missing now: it stays the latest")
