"""The files of deploy/patroni, as the programs read them. tests/ha runs them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.etcd import FILES
from tests.support.haproxy import CONFIGURATION, haproxy_program


def test_haproxy_accepts_its_configuration() -> None:
    checked = subprocess.run(
        [haproxy_program(), "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_patroni_keeps_the_times_that_it_is_given() -> None:
    """Patroni lowers times that do not fit together, and only logs that."""
    times = yaml.safe_load((FILES / "patroni.yml").read_text())["bootstrap"]["dcs"]

    assert times["ttl"] >= 20
    assert times["loop_wait"] + 2 * times["retry_timeout"] <= times["ttl"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(FILES / "patroni.service", units)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    for command in ("opt/patroni/bin/patroni", "bin/kill"):
        (tmp_path / command).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / command).touch(mode=0o755)
    checked = subprocess.run(
        ["systemd-analyze", f"--root={tmp_path}", "--man=false", "verify", "patroni.service"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line for line in checked.stderr.splitlines() if "patroni.service" in line] == []
    assert checked.returncode == 0
