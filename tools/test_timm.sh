#!/usr/bin/env bash
# The networks beside timm's, the operators beside torchvision's, and detectors and segmentors with
# networks of timm, in an environment of their own: the registry's ordinary torch, with the CUDA
# packages, timm and the onedl stack. PYTHON builds it.
#
# Without space or without an index there is nothing to run on: that is said, and is no failure.
# Everything else is: a package that cannot be installed, a test that fails, and one that skips.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-timm
pins=constraints/timm.txt
need_gb=13  # 6.4 GB installed, and as much for the archives that pip unpacks

if ! test -e "$venv/.installed" || test "$pins" -nt "$venv/.installed" || test setup.py -nt "$venv/.installed"; then
  free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1024 / 1024))
  if test "$free_gb" -lt "$need_gb"; then
    echo "test-timm did not run: torch with CUDA, torchvision and timm take $need_gb GB of disk, and $free_gb GB are free in $PWD"
    exit 0
  fi
  test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
  pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
  probe=$(mktemp -d)
  trap 'rm -rf "$probe"' EXIT
  # Any release will do: a pin that does not exist is an error of ours, and fails below.
  if ! pip download --quiet --retries 1 --no-deps --dest "$probe" timm >"$probe/said" 2>&1; then
    echo "test-timm did not run: the package index cannot be reached, or has no timm: $(tail -n 1 "$probe/said")"
    exit 0
  fi
  pip install --constraint "$pins" --editable '.[onedl,timm]' pytest pytest-xdist
  touch "$venv/.installed"
fi

# A test that skips fails (tests/helpers/optional.py), and pytest fails where it finds none.
export MMRESNEST_REQUIRE_TIMM=1 OMP_NUM_THREADS=1
"$venv/bin/python" -m pytest -n auto --maxprocesses 8 --durations 5 \
  tests/models/test_timm.py tests/models/test_beside_timm.py tests/config/test_networks_of_timm.py \
  tests/compat/test_beside_torchvision.py "$@"
