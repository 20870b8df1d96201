"""The bars of `show`: DeepSeek-V3 in 30 ms, every published configuration in 3 s, one process of at most 100 MB."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sizeup.operations.show import ShowRequest, show

EVERYTHING = """
import re, sys, time
from pathlib import Path
from sizeup.operations.show import ShowRequest, show

files = sorted(Path(sys.argv[1]).glob("*.json"))
show(ShowRequest(model=str(files[0]), offline=True))
started = time.process_time()
for file in files:
    show(ShowRequest(model=str(file), offline=True))
seconds = time.process_time() - started
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())  # a child's rusage starts at its parent's
print(len(files), seconds, 1024 * int(peak[1]))
"""


def test_deepseek_v3_takes_at_most_30_ms():
    """With everything loaded, all formats and mixes counted; the least processor time of nine runs."""
    request = ShowRequest(model="deepseek-ai/DeepSeek-V3", offline=True)
    show(request)
    times = []
    for _ in range(9):
        started = time.process_time()
        found = show(request)
        times.append(time.process_time() - started)

    assert found.parameters.total == 671_026_404_352
    assert len(found.bytes) == 18
    assert min(times) <= 0.030


def test_every_published_configuration_in_one_process(truth_dir):
    """All of them in 3 s of processor time, the better of three runs on a busy machine, and in 100 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", EVERYTHING, str(truth_dir / "configs")], capture_output=True, text=True, check=True
        )
        runs.append([float(word) for word in done.stdout.split()])
        if runs[-1][1] <= 3:
            break

    assert runs[0][0] >= 300
    assert min(run[1] for run in runs) <= 3
    assert runs[0][2] <= 100 * 2**20
