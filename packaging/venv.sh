#!/bin/sh
# Builds gatewayd's virtual environment for a place other than the one it is built in.
#
#   packaging/venv.sh STAGE FINAL PYTHON [EXTRAS]
#
# Makes STAGE (which must not be there) a virtual environment of PYTHON that works once it stands at FINAL; EXTRAS is
# "[postgresql]" by default. No file in it names STAGE or the source tree. The source tree is only read.
set -eu
stage=$1 final=$2 python=$3 extras=${4-[postgresql]}
source=$(cd "$(dirname "$0")/.." && pwd)

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "gatewayd needs Python 3.11 or newer, and $python is not: say which with INSTALL_PYTHON=/usr/bin/python3.12" >&2
  exit 1
}
[ ! -e "$stage" ] || { echo "$stage is there already" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

# pip lives in an environment of its own: the one that is installed has none, and nothing updates it behind dpkg's back.
"$python" -m venv "$scratch/pip" || { echo "$python has no venv module here (Debian: apt install python3-venv)" >&2; exit 1; }
"$python" -m venv --without-pip "$stage"

# A copy, for setuptools writes into the tree it builds from, and would pack what an earlier build left there.
mkdir "$scratch/source"
(cd "$source" && tar -c --exclude=__pycache__ gatewayd pyproject.toml README.md LICENSE) | tar -x -C "$scratch/source"
"$scratch/pip/bin/python" -m pip --python "$stage/bin/python" install \
  --quiet --disable-pip-version-check --no-compile --no-warn-script-location "$scratch/source$extras"

# Paths of this machine: the programs' first lines, where the source was, the command that made the environment.
rm -f "$stage"/bin/activate* "$stage"/bin/Activate*
find "$stage" -name direct_url.json -delete
find "$stage" -name RECORD -exec sed -i '/direct_url\.json,/d' {} +
grep -rlIF "$stage" "$stage/bin" | while read -r file; do sed -i "s#$stage#$final#g" "$file"; done
sed -i -e '/^command = /d' "$stage/pyvenv.cfg"
find "$stage" -name __pycache__ -type d -prune -exec rm -rf {} +
[ -z "${SOURCE_DATE_EPOCH-}" ] || find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# With the paths they will have in tracebacks; root's first call would write them otherwise, where nobody removes them.
"$stage/bin/python" -m compileall -q -s "$stage" -p "$final" --invalidation-mode timestamp "$stage/lib" >/dev/null || {
  echo "some modules could not be compiled" >&2
  exit 1
}

if grep -rlF -e "$stage" -e "$scratch" -e "$source/" "$stage" >&2; then
  echo "the files above still name folders of this build" >&2
  exit 1
fi
