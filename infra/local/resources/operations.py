"""Log groups and alarms."""

from infra.local.intrinsics import Created
from infra.local.resources.resource import Account, Maker, Resource


def log_group(account: Account, resource: Resource) -> Created:
    """Make a log group with its retention. Handlers run in this process write to its log file instead."""
    resource.account_for(("LogGroupName", "RetentionInDays", "Tags"))
    logs = account.client("logs")
    name = resource.properties.get("LogGroupName") or account.name(resource.logical_id)
    logs.create_log_group(logGroupName=name, tags=resource.tags())
    if days := resource.properties.get("RetentionInDays"):
        logs.put_retention_policy(logGroupName=name, retentionInDays=int(days))
    return Created(name, {"Arn": account.arn("logs", f"log-group:{name}:*")})


def alarm(account: Account, resource: Resource) -> Created:
    """Make an alarm. It exists and can be described; no metric reaches it, because moto emits none."""
    name = resource.properties.get("AlarmName") or account.name(resource.logical_id)
    wanted = {key: value for key, value in resource.properties.items() if key != "AlarmName"}
    account.client("cloudwatch").put_metric_alarm(AlarmName=name, **wanted)
    return Created(name, {"Arn": account.arn("cloudwatch", f"alarm:{name}")})


MAKERS: dict[str, Maker] = {"AWS::Logs::LogGroup": log_group, "AWS::CloudWatch::Alarm": alarm}
