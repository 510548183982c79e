"""The demonstration's stage with forked processes (tests.program). test_demo plays it with a real guard."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import IO, cast

from smtpguard.demo.stage import Stage
from tests import program
from tests.program import Program


class Forked(Stage):
    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return program.run(["-c", str(self.config), *words], timeout=120)

    def _serve(self, log: IO[bytes], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        served = Program(["-c", str(self.config), "serve"], stdout=log, stderr=log, env=env, listening=self._listening)
        return cast("subprocess.Popen[bytes]", served)
