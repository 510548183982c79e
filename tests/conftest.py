"""What holds for every test.

Hypothesis measures no time, since how long an example takes says how busy the machine is. Tests that start whole process trees or
other people's servers are marked by their folder: ``peers``, ``faults``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Folders whose tests start smtpguard as a user does, or servers beside it.
_WHOLE = {"peers": "peers", "faults": "faults", "catalogue": "faults", "demo": "peers"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in _WHOLE:
            item.add_marker(_WHOLE[folder])
