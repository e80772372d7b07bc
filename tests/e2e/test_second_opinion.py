"""The template is true: deployed unchanged to a second emulator, it records, pauses, seals and plays a call.

ministack shares no code with moto nor with infra/local: its CloudFormation makes the resources, its API Gateway checks
the tokens, its S3 tells its SQS, and its Lambda runs the functions as processes, from zips built as `sam build` would.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from infra.local import listening, payment, proofs
from infra.local.agent import Agent, AgentPlan
from infra.local.client import ApiClient, ApiProblem
from infra.local.cloud import CREDENTIALS
from infra.local.payment import Answer, PaymentSystem
from infra.local.template import TEMPLATE
from infra.second_opinion.cloud import SecondCloud
from infra.second_opinion.deployment import STACK, DeploymentFailed, packaged
from tests.e2e.conftest import BIN, VECTORS

TENANT, OTHER = "acme", "globex"
SPEECH = {side: VECTORS / "speech" / f"{side}.wav" for side in ("alice", "bob")}
PAYING_S = 2.5
# How precisely is measured elsewhere, on the product alone; here the machine emulates a cloud besides.
SAME_VOICE = 0.7
TOLERANCE_MS = 1000
INHERITED = re.compile(r"(?!AWS_|DUALTONE_|POWERTOOLS_)")


@dataclass(frozen=True)
class Recorded:
    """One call that was recorded there, with a payment in it.

    Attributes:
        ucid: What the payment system knows it by.
        recording: What the API says of it.
        played: What it plays, int16[n, 2] at 8 kHz.
        pause: How the report that card entry begins was answered.
        resume: How the report that it ended was answered.
        spool: The agent's spool.
    """

    ucid: str
    recording: dict[str, Any]
    played: listening.Samples
    pause: Answer
    resume: Answer
    spool: Path


@pytest.fixture(scope="module")
def cloud() -> Iterator[SecondCloud]:
    """A ministack with the template deployed to it and two tenants onboarded."""
    with SecondCloud() as running:
        yield running


@pytest.fixture(scope="module")
def agent(cloud: SecondCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, AgentPlan]]:
    """An agent that enrolled there through the API, hold-back one second."""
    directory = tmp_path_factory.mktemp("agent")
    inherited = {name: value for name, value in os.environ.items() if INHERITED.match(name)}
    plan = AgentPlan(
        directory=directory,
        log=directory / "agent.log",
        api=cloud.deployment.api_url,
        environment={**inherited, **CREDENTIALS, "AWS_ENDPOINT_URL": cloud.emulator.url},
        sip_port=0,
        sip_tcp_port=0,
        media_ports="20000-29999",
        hold_back_s=1.0,
    )
    with Agent(plan, cloud.tenants[TENANT].tokens["administrator"]) as running:
        yield running, plan


@pytest.fixture(scope="module")
def payments(cloud: SecondCloud) -> PaymentSystem:
    """A payment system with an endpoint of its own there."""
    administrator = ApiClient(cloud.deployment.api_url, cloud.tenants[TENANT].tokens["administrator"])
    endpoint = administrator.post("/v1/payment-endpoints", {"name": "second opinion"})
    return PaymentSystem(endpoint["url"], endpoint["secret"])


@pytest.fixture(scope="module")
def recorded(cloud: SecondCloud, agent: tuple[Agent, AgentPlan], payments: PaymentSystem) -> Recorded:
    """A call of two people with a payment in its midst, from the SBC's INVITE to the officer's ear."""
    running, plan = agent
    officer, ucid = officer_of(cloud, TENANT), f"00FA08{secrets.token_hex(8).upper()}"
    command = [str(BIN / "dualtone-agent"), "call", "--target", running.ready["sip_udp"], "--json", "--ucid", ucid]
    command += ["--caller-wav", str(SPEECH["alice"]), "--callee-wav", str(SPEECH["bob"])]
    calling = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_live(officer)
        pause = payments.report(payment.STARTED, {"ucid": ucid}, effective_at=proofs.rfc3339(time.time()))
        time.sleep(PAYING_S)  # that is how long the customer's card is spoken of
        resume = payments.report(payment.ENDED, {"ucid": ucid})
        said, complaint = calling.communicate(timeout=60)
        assert calling.returncode == 0, complaint
        recording = wait_recorded(officer, json.loads(said)["sip_call_id"])
    except BaseException:
        print(plan.log.read_text("utf-8", "replace")[-10_000:])
        print(cloud.emulator.log.read_text("utf-8", "replace")[-20_000:])  # what the functions said is in there
        raise
    finally:
        calling.kill()
        calling.communicate()
    played = listening.decode_opus(officer.audio(recording["recording_id"]))
    return Recorded(ucid, recording, played, pause, resume, plan.spool_dir)


def officer_of(cloud: SecondCloud, tenant: str) -> ApiClient:
    """The API, with an officer's token."""
    return ApiClient(cloud.deployment.api_url, cloud.tenants[tenant].tokens["officer"])


def wait_live(officer: ApiClient, within_s: float = 15) -> None:
    """Polls the live calls until there is one."""
    until = time.monotonic() + within_s
    while not officer.get("/v1/calls")["calls"]:
        assert time.monotonic() < until, f"no live call was seen within {within_s} s"
        time.sleep(0.1)


def wait_recorded(officer: ApiClient, sip_call_id: str, within_s: float = 60) -> dict[str, Any]:
    """Polls the call's state until it is recorded; returns the recording."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            found = officer.get("/v1/calls", {"sip_call_id": sip_call_id})
        except ApiProblem as problem:
            if problem.status != 404:
                raise
        else:
            if found["state"] == "recorded":
                return officer.get(f"/v1/recordings/{found['recording_id']}")
        time.sleep(0.1)
    raise AssertionError(f"no recording of the call within {within_s} s")


def test_the_template_is_deployed_as_it_is(cloud: SecondCloud) -> None:
    """What CloudFormation was given differs from the file in the places of the zips and in nothing else."""
    cloudformation = cloud.emulator.client("cloudformation")
    given = cloudformation.get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    place = re.compile(r"^(      (?:CodeUri|ContentUri): )\S+", re.MULTILINE)
    ours = TEMPLATE.read_text("utf-8")
    assert place.sub(r"\1", given) == place.sub(r"\1", ours)
    assert len(place.findall(given)) == len(re.findall(r"Type: AWS::Serverless::(?:Function|LayerVersion)", ours))


def test_every_resource_of_the_template_is_there(cloud: SecondCloud) -> None:
    """None was skipped; a resource whose condition is false is not asked for."""
    cloudformation = cloud.emulator.client("cloudformation")
    resources = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
    assert {resource["ResourceStatus"] for resource in resources} == {"CREATE_COMPLETE"}
    made = {resource["LogicalResourceId"] for resource in resources}
    wanted = cloud.deployment.template["Resources"]
    assert {name for name, resource in wanted.items() if "Condition" not in resource} <= made


def test_a_package_without_a_place_in_the_template_is_an_error() -> None:
    """Nothing is deployed in silence without its code."""
    text = "Resources:\n  One:\n    Properties:\n      CodeUri: here # why\n  Two:\n    Type: X\n"
    assert packaged(text, {"One": "s3://b/One.zip"}) == text.replace("here", "s3://b/One.zip")
    with pytest.raises(DeploymentFailed, match="Two"):
        packaged(text, {"One": "s3://b/One.zip", "Two": "s3://b/Two.zip"})


def test_every_function_starts_from_its_zip(cloud: SecondCloud) -> None:
    """Layer and package together hold all that is imported; a message that names nothing fails none of them at that."""
    message = {"messageId": "1", "receiptHandle": "1", "eventSource": "aws:sqs", "body": "{}", "attributes": {}}
    resources = cloud.deployment.template["Resources"]
    for name in [name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Function"]:
        answer = cloud.emulator.client("lambda").invoke(
            FunctionName=cloud.deployment.ref(name), Payload=json.dumps({"Records": [message]})
        )
        said = json.loads(answer["Payload"].read())
        # What a handler raises is its own business here; "Worker init failed" is what a missing package looks like.
        assert "FunctionError" not in answer or not said["errorMessage"].startswith("Worker"), (name, said)


def test_the_reconciler_runs(cloud: SecondCloud) -> None:
    """Invoked as its schedule does: it finds settings and tables, and nothing to do."""
    name = cloud.deployment.ref("ReconcileRecordingsFunction")
    answer = cloud.emulator.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" not in answer
    assert set(json.loads(answer["Payload"].read()).values()) == {0}


@pytest.mark.parametrize("token", [None, "x.y.z"])
def test_the_authorizer_refuses_strangers_in_our_words(cloud: SecondCloud, token: str | None) -> None:
    """401 with a challenge and a problem detail, before any function of ours runs."""
    answer = ApiClient(cloud.deployment.api_url, token).request("GET", "/v1/recordings")
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:dualtone:problem:unauthenticated"


def test_the_authorizer_takes_access_tokens_only(cloud: SecondCloud) -> None:
    """An ID token proves who somebody is and opens nothing."""
    cognito, pool = cloud.emulator.client("cognito-idp"), cloud.deployment.ref("UserPool")
    person = {"USERNAME": f"{TENANT}-officer", "PASSWORD": "aA1!correct-horse-battery"}
    cognito.admin_set_user_password(
        UserPoolId=pool, Username=person["USERNAME"], Password=person["PASSWORD"], Permanent=True
    )
    tokens = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=cloud.tenants[TENANT].client_id,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters=person,
    )["AuthenticationResult"]
    assert ApiClient(cloud.deployment.api_url, tokens["AccessToken"]).status("/v1/recordings") == 200
    assert ApiClient(cloud.deployment.api_url, tokens["IdToken"]).status("/v1/recordings") == 401


def test_routes_that_are_open_and_routes_that_are_not_there(cloud: SecondCloud) -> None:
    """Security NONE is none; an unknown route is a 404 as the definition says, not API Gateway's 403."""
    stranger = ApiClient(cloud.deployment.api_url)
    assert stranger.get("/v1/health")["status"] == "ok"
    answer = stranger.request("GET", "/v1/nothing")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_call_is_recorded_and_plays(recorded: Recorded) -> None:
    """Who speaks where they spoke, in what the API plays."""
    recording = recorded.recording
    assert recording["state"] == "recorded"
    assert abs(recording["duration_ms"] - 12_000) <= TOLERANCE_MS
    assert [channel["role"] for channel in recording["channels"]] == ["caller", "callee"]
    for channel, path in enumerate(SPEECH.values()):
        likeness = proofs.likeness(listening.read_wav(path), recorded.played[:, channel], recording["gaps"])
        assert likeness >= SAME_VOICE


def test_a_payment_leaves_silence_of_its_length(recorded: Recorded) -> None:
    """Webhook to API to command queue to agent and back by the events queue: acknowledged, and silent from then on."""
    assert (recorded.pause.status, recorded.pause.body["outcome"]) == (200, "acknowledged")
    assert (recorded.resume.status, recorded.resume.body["outcome"]) == (200, "acknowledged")
    gaps = recorded.recording["gaps"]
    assert {gap["cause"] for gap in gaps} == {proofs.PAYMENT}
    assert {gap["channel"] for gap in gaps} == {0, 1}
    found = proofs.paused(recorded.recording, recorded.played, recorded.pause, recorded.resume)
    assert -TOLERANCE_MS <= found["gap_start_error_ms"] <= 0
    assert 0 <= found["gap_end_error_ms"] <= TOLERANCE_MS
    assert found["gap_peak"] <= proofs.MAX_GAP_PEAK


def test_a_report_that_comes_too_late_is_cut_from_the_vault(
    cloud: SecondCloud, payments: PaymentSystem, recorded: Recorded
) -> None:
    """Another second of the call, reported when the recording is made: punctured, and the rest plays on."""
    began_s = proofs.moment(recorded.recording["started_at"]) + 1
    answer = payments.report(
        payment.STARTED,
        {"ucid": recorded.ucid},
        effective_at=proofs.rfc3339(began_s),
        until=proofs.rfc3339(began_s + 1),
    )
    assert (answer.status, answer.body["outcome"]) == (200, "too_late"), answer.body
    officer, recording_id = officer_of(cloud, TENANT), recorded.recording["recording_id"]
    played = listening.decode_opus(officer.audio(recording_id))
    found = proofs.cut_late(officer.get(f"/v1/recordings/{recording_id}"), played, (began_s, began_s + 1))
    assert found["late_gap_told"]
    assert found["late_gap_peak"] <= proofs.MAX_GAP_PEAK


def test_a_report_that_others_signed_is_refused(payments: PaymentSystem) -> None:
    """The route needs no token, and so everything hangs on the signature."""
    body = b'{"type":"card_entry.started","data":{"call":{"ucid":"00FA080018803B69810C6D"}}}'
    assert payments.send(body, signature="v1,AAAA").status == 401


def test_a_recording_is_locked_and_signed(cloud: SecondCloud, recorded: Recorded) -> None:
    """S3 keeps the version in compliance mode; KMS's signature over the manifest verifies without us."""
    s3, bucket = cloud.emulator.client("s3"), cloud.deployment.ref("VaultBucket")
    [version] = s3.list_object_versions(Bucket=bucket)["Versions"]
    named = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
    assert s3.get_object_retention(**named)["Retention"]["Mode"] == "COMPLIANCE"
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(**named)

    evidence = officer_of(cloud, TENANT).get(f"/v1/recordings/{recorded.recording['recording_id']}/evidence")
    key = load_pem_public_key(evidence["public_key"].encode("ascii"))
    assert isinstance(key, EllipticCurvePublicKey)
    key.verify(base64.b64decode(evidence["signature"]), base64.b64decode(evidence["message"]), ECDSA(hashes.SHA256()))


def test_a_recording_is_its_tenants_alone(cloud: SecondCloud, recorded: Recorded) -> None:
    """Another tenant's officer finds nothing; an administrator does not listen."""
    path = f"/v1/recordings/{recorded.recording['recording_id']}/audio"
    assert officer_of(cloud, OTHER).status(path) == 404
    administrator = ApiClient(cloud.deployment.api_url, cloud.tenants[TENANT].tokens["administrator"])
    assert administrator.status(path) == 403


def test_the_receipt_frees_the_spool_and_the_ingest_bucket_is_empty(cloud: SecondCloud, recorded: Recorded) -> None:
    """Finaliser to command queue to agent: nothing of the call is left on the way."""
    s3, bucket = cloud.emulator.client("s3"), cloud.deployment.ref("IngestBucket")
    until = time.monotonic() + 30
    while (left := spooled(recorded.spool) or uploaded(s3, bucket)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def spooled(spool: Path) -> list[str]:
    """Files of calls in the agent's spool; its own begin with a dot."""
    return [str(path) for path in spool.glob("[!.]*/**/*") if path.is_file()]


def uploaded(s3: Any, bucket: str) -> list[str]:
    """Objects in the ingest bucket."""
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
