"""What the tests' own flags do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("minutes", "ended", "not_so"), [("-1", " skipped", " passed"), ("30", " passed", " skipped")]
)
def test_what_minutes_leave_no_time_for_is_skipped_and_said_by_file(minutes, ended, not_so):
    command = (sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "-p", "no:cacheprovider")
    command += (f"--minutes={minutes}", "tests/test_intervals.py")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and ended in run.stdout and not_so not in run.stdout, run.stdout + run.stderr
    assert ("no time left of --minutes: test_intervals.py" in run.stdout) == (minutes == "-1")
