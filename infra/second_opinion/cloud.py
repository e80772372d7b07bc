"""The second opinion, running: ministack with the template deployed to it and a tenant onboarded."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from infra.local.onboarding import PLANS, Tenant, TenantPlan, onboard
from infra.local.template import TEMPLATE
from infra.second_opinion.deployment import Deployment, deploy
from infra.second_opinion.emulator import VENV, Emulator
from infra.second_opinion.packages import build, packages


class SecondCloud:
    """ministack with the product in it, as a context manager. Enter it on the main thread.

    Args:
        tenants: Whom to onboard.

    Attributes:
        emulator: The process.
        deployment: What was deployed.
        tenants: Onboarded tenants by id.
    """

    emulator: Emulator
    deployment: Deployment

    def __init__(self, tenants: Sequence[TenantPlan] = PLANS) -> None:
        self._plans = tenants
        self._stack = ExitStack()
        self.tenants: dict[str, Tenant] = {}

    def __enter__(self) -> Self:
        """Build, start, deploy, onboard; what was started is stopped again if something fails."""
        with ExitStack() as stack:
            # Its functions unpack a quarter of a gigabyte each: nothing of it is kept.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dualtone-second-")))
            self.emulator = stack.enter_context(Emulator(directory))
            zips = {found.logical_id: build(found, VENV / "wheels", directory) for found in packages(TEMPLATE)}
            self.deployment = deploy(self.emulator, TEMPLATE, zips)
            self.tenants = {plan.tenant: onboard(self.deployment, plan) for plan in self._plans}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and remove what it wrote."""
        self._stack.close()
