"""What every Lambda of the template has in common, and how each is driven."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.contract.policies import resources

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = [
    "ApiFunction",
    "CutPausedSpansFunction",
    "FinalizeRecordingFunction",
    "IngestAgentEventsFunction",
    "ReconcileRecordingsFunction",
    "SweepCallsFunction",
]
ENVIRONMENT = {
    "AGENT_EVENTS_QUEUE_URL",
    "AGENT_ROLE_ARN",
    "AUDIT_TABLE",
    "CERTIFICATE_KEY",
    "CUSTODIAN_A_KEY",
    "CUSTODIAN_B_KEY",
    "CUT_QUEUE_URL",
    "DIRECTORY_TABLE",
    "FINALIZE_QUEUE_URL",
    "HMAC_KEY",
    "INDEX_TABLE",
    "INGEST_BUCKET",
    "INGEST_KEY",
    "INTERRUPTED_AFTER_S",
    "KEYS_TABLE",
    "METADATA_KEY",
    "PUBLIC_URL",
    "SIGNING_KEY",
    "STAGE",
    "SWEEP_AFTER_H",
    "USER_POOL_ID",
    "VAULT_ACCESS_ROLE_ARN",
    "VAULT_BUCKET",
}


def test_the_functions_are_these(translated: Json) -> None:
    """A new function is added to the tables below on purpose."""
    assert sorted(resources(translated, "AWS::Lambda::Function")) == FUNCTIONS


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        pytest.param("Runtime", "python3.13", id="the runtime that the wheels are resolved for"),
        pytest.param("Architectures", ["arm64"], id="the architecture whose ffmpeg fits"),
        pytest.param("PackageType", None, id="a zip, not an image"),
        pytest.param("Layers", [{"Ref": "DualtoneLayer"}], id="the shared package from the layer"),
        pytest.param("TracingConfig", {"Mode": "Active"}, id="traced"),
    ],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has(translated: Json, template: Json, name: str, attribute: str, value: object) -> None:
    """Runtime, architecture, layer and tracing are the same for all."""
    found = resources(translated, "AWS::Lambda::Function")[name].get(attribute)
    if attribute == "Layers":
        assert found is not None
        (layer,) = found
        versions = [
            key for key in resources(translated, "AWS::Lambda::LayerVersion") if key.startswith("DualtoneLayer")
        ]
        assert layer["Ref"] in versions
        assert template["Resources"]["DualtoneLayer"]["Properties"]["ContentUri"] == "functions/layer"
    else:
        assert found == value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_role_and_a_log_group_of_its_own(translated: Json, name: str) -> None:
    """Least privilege starts with a role that nobody shares."""
    function = resources(translated, "AWS::Lambda::Function")[name]
    others = [other for key, other in resources(translated, "AWS::Lambda::Function").items() if key != name]
    assert function["Role"]["Fn::GetAtt"][0] in resources(translated, "AWS::IAM::Role")
    assert function["Role"] not in [other["Role"] for other in others]
    group = function["LoggingConfig"]["LogGroup"]["Ref"]
    assert resources(translated, "AWS::Logs::LogGroup")[group]["RetentionInDays"] == 30
    assert group not in [other["LoggingConfig"]["LogGroup"]["Ref"] for other in others]


def test_every_log_group_forgets_after_thirty_days(translated: Json) -> None:
    """Logs are a store too."""
    groups = resources(translated, "AWS::Logs::LogGroup")
    assert groups
    assert {name: group.get("RetentionInDays") for name, group in groups.items()} == dict.fromkeys(groups, 30)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_told_everything(translated: Json, name: str) -> None:
    """The environment is what the contract lists: no more, no less."""
    variables = resources(translated, "AWS::Lambda::Function")[name]["Environment"]["Variables"]
    ours = {key.removeprefix("DUALTONE_") for key in variables if key.startswith("DUALTONE_")}
    assert ours == ENVIRONMENT


def test_the_settings_read_what_the_template_sets(translated: Json) -> None:
    """adapters/settings.py and the template's environment name the same things."""
    settings = importlib.import_module("dualtone.adapters.settings").Settings
    prefix = settings.model_config["env_prefix"]
    variables = resources(translated, "AWS::Lambda::Function")["ApiFunction"]["Environment"]["Variables"]
    wanted = {f"{prefix}{name}".upper() for name, field in settings.model_fields.items() if field.is_required()}
    known = {f"{prefix}{name}".upper() for name in settings.model_fields}
    assert wanted <= variables.keys()
    assert {key for key in variables if key.startswith("DUALTONE_")} <= known


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_handler_is_where_the_template_says(template: Json, name: str) -> None:
    """CodeUri and Handler name a file and something callable in it."""
    properties = template["Resources"][name]["Properties"]
    module, attribute = properties["Handler"].split(".")
    source = ROOT / properties["CodeUri"] / f"{module}.py"
    assert source.is_file()
    text = source.read_text(encoding="utf-8")
    assert f"def {attribute}(" in text or f"{attribute} = " in text or f"{attribute}: " in text


@pytest.mark.parametrize(
    ("queue", "name", "batch"),
    [
        pytest.param("FinalizeQueue", "FinalizeRecordingFunction", 1, id="one manifest at a time"),
        pytest.param("CutQueue", "CutPausedSpansFunction", 1, id="one late pause at a time"),
        pytest.param("AgentEventsQueue", "IngestAgentEventsFunction", 10, id="reports as they come"),
    ],
)
def test_a_queue_feeds_a_function_that_says_which_messages_failed(
    translated: Json, queue: str, name: str, batch: int
) -> None:
    """Partial failures are reported, nothing gathers first, and a message is hidden for as long as it may take."""
    mappings = resources(translated, "AWS::Lambda::EventSourceMapping").values()
    (mapping,) = [one for one in mappings if one["EventSourceArn"] == {"Fn::GetAtt": [queue, "Arn"]}]
    assert mapping["FunctionName"] == {"Ref": name}
    assert mapping["BatchSize"] == batch
    assert "MaximumBatchingWindowInSeconds" not in mapping
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    # Lambda refuses a source whose visibility timeout is shorter than the function's timeout.
    hidden_s = resources(translated, "AWS::SQS::Queue")[queue]["VisibilityTimeout"]
    assert hidden_s >= resources(translated, "AWS::Lambda::Function")[name]["Timeout"]


@pytest.mark.parametrize(
    ("name", "letters"),
    [("ReconcileRecordingsFunction", "ReconcileDeadLetters"), ("SweepCallsFunction", "SweepDeadLetters")],
)
def test_what_tidies_up_runs_every_five_minutes_and_never_twice_at_once(
    translated: Json, name: str, letters: str
) -> None:
    """A run that fails ends in its dead letters."""
    target = {"Fn::GetAtt": [name, "Arn"]}
    (rule,) = [
        rule for rule in resources(translated, "AWS::Events::Rule").values() if rule["Targets"][0]["Arn"] == target
    ]
    function = resources(translated, "AWS::Lambda::Function")[name]
    assert rule["ScheduleExpression"] == "rate(5 minutes)"
    assert rule["State"] == "ENABLED"
    assert function["ReservedConcurrentExecutions"] == 1
    assert function["Timeout"] < 5 * 60
    assert function["DeadLetterConfig"]["TargetArn"] == {"Fn::GetAtt": [letters, "Arn"]}


def test_a_call_is_swept_long_before_its_upload_expires(template: Json) -> None:
    """Whatever the parameter says within its bounds, and whatever an agent says of the call."""
    parameter = template["Parameters"]["SweepAfterHours"]
    rules = template["Resources"]["IngestBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (days,) = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    settings = importlib.import_module("dualtone.adapters.settings").Settings
    assert parameter["Default"] == settings.model_fields["sweep_after_h"].default == 72
    assert parameter["MaxValue"] <= (days - 4) * 24
    watch = importlib.import_module("dualtone.domain.call_watch")
    assert watch.Rules(1, 1).expiring_after_ms <= (days - 2) * 24 * watch.HOUR_MS


def test_our_own_metrics_are_watched_under_the_names_that_are_written(translated: Json) -> None:
    """An alarm on a misspelt metric is silent for ever."""
    written = importlib.import_module("dualtone.adapters.observability")
    names = {
        written.RECORDING_DAMAGED,
        written.FINALIZE_FAILED,
        written.RECONCILE_FAILED,
        written.API_FAILED,
        written.METADATA_DAMAGED,
        written.CALL_INTERRUPTED,
        written.SWEEP_FAILED,
        written.CUT_FAILED,
        written.PAUSED_AUDIO_ARRIVED,
        written.AGENT_EVENTS_FAILED,
        written.AGENT_EVENT_REFUSED,
        written.PAUSE_LEASE_EXPIRED,
        written.PAYMENT_WITHOUT_PAUSE,
    }
    alarms = resources(translated, "AWS::CloudWatch::Alarm").values()
    ours = [alarm for alarm in alarms if alarm["Namespace"] == written.NAMESPACE]
    assert {alarm["MetricName"] for alarm in ours} == names
    assert all(alarm["Dimensions"] == [{"Name": "service", "Value": "dualtone"}] for alarm in ours)


def test_the_reconciler_leaves_running_finalisers_alone(translated: Json) -> None:
    """An attempt is reconciled only when no finaliser can still be working on it."""
    settings = importlib.import_module("dualtone.adapters.settings").Settings
    timeout_s = resources(translated, "AWS::Lambda::Function")["FinalizeRecordingFunction"]["Timeout"]
    assert settings.model_fields["reconcile_after_s"].default > timeout_s


def test_the_api_answers_within_what_api_gateway_waits(translated: Json) -> None:
    """API Gateway gives up after 29 seconds."""
    assert resources(translated, "AWS::Lambda::Function")["ApiFunction"]["Timeout"] <= 29


@pytest.mark.parametrize(
    ("namespace", "metric", "watched"),
    [
        pytest.param("AWS/SQS", "ApproximateNumberOfMessagesVisible", "FinalizeDeadLetters", id="a call given up"),
        pytest.param("AWS/SQS", "ApproximateNumberOfMessagesVisible", "ReconcileDeadLetters", id="a run given up"),
        pytest.param("AWS/SQS", "ApproximateNumberOfMessagesVisible", "CutDeadLetters", id="a cut given up"),
        pytest.param("AWS/SQS", "ApproximateNumberOfMessagesVisible", "SweepDeadLetters", id="a sweep given up"),
        pytest.param("AWS/SQS", "ApproximateAgeOfOldestMessage", "FinalizeQueue", id="calls waiting"),
        pytest.param("AWS/Lambda", "Errors", "SweepCallsFunction", id="sweeper fails"),
        pytest.param("Dualtone", "CallInterrupted", "dualtone", id="a call goes silent"),
        pytest.param("Dualtone", "SweepFailed", "dualtone", id="a call is not looked at"),
        pytest.param("AWS/SQS", "ApproximateAgeOfOldestMessage", "CutQueue", id="cuts waiting"),
        pytest.param("AWS/SQS", "ApproximateNumberOfMessagesVisible", "AgentEventsDeadLetters", id="a report given up"),
        pytest.param("AWS/SQS", "ApproximateAgeOfOldestMessage", "AgentEventsQueue", id="reports waiting"),
        pytest.param("AWS/Lambda", "Errors", "IngestAgentEventsFunction", id="taking reports fails"),
        pytest.param("Dualtone", "AgentEventsFailed", "dualtone", id="reports fail again and again"),
        pytest.param("Dualtone", "AgentEventRefused", "dualtone", id="a report is forged or damaged"),
        pytest.param("Dualtone", "PauseLeaseExpired", "dualtone", id="a pause runs out"),
        pytest.param("Dualtone", "PaymentWithoutPause", "dualtone", id="a card's number is typed without a pause"),
        pytest.param("AWS/Lambda", "Errors", "FinalizeRecordingFunction", id="finaliser fails"),
        pytest.param("AWS/Lambda", "Errors", "ReconcileRecordingsFunction", id="reconciler fails"),
        pytest.param("AWS/Lambda", "Errors", "CutPausedSpansFunction", id="the cut fails"),
        pytest.param("AWS/Lambda", "Errors", "ApiFunction", id="API fails"),
        pytest.param("AWS/ApiGateway", "5XXError", "dualtone-${Stage}", id="API answers with a server error"),
        pytest.param("Dualtone", "ApiFailed", "dualtone", id="a request fails"),
        pytest.param("Dualtone", "MetadataDamaged", "dualtone", id="metadata is damaged"),
        pytest.param("Dualtone", "RecordingDamaged", "dualtone", id="a recording is damaged"),
        pytest.param("Dualtone", "CutFailed", "dualtone", id="a cut fails"),
        pytest.param("Dualtone", "PausedAudioArrived", "dualtone", id="paused audio came up"),
        pytest.param("Dualtone", "FinalizeFailed", "dualtone", id="calls fail again and again"),
        pytest.param("Dualtone", "ReconcileFailed", "dualtone", id="an attempt stays unreconciled"),
    ],
)
def test_an_alarm_watches(translated: Json, namespace: str, metric: str, watched: str) -> None:
    """Whatever would otherwise fail in silence has an alarm, and the alarm goes to the topic."""
    alarms = [
        alarm
        for alarm in resources(translated, "AWS::CloudWatch::Alarm").values()
        if (alarm["Namespace"], alarm["MetricName"]) == (namespace, metric) and watched in str(alarm["Dimensions"])
    ]
    assert len(alarms) == 1
    assert alarms[0]["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]
