#!/bin/bash
# Runs the benchmark and keeps what it says under the names of processor and commit.
#   tests/bench/run.sh BENCH FOLDER
set -euo pipefail

bench=$1 folder=$2
processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr -cs 'A-Za-z0-9\n' '-')
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- lib 2>/dev/null || commit=$commit-changed
mkdir -p "$folder"
"$bench" "$commit" ${KV_MODEL:+"$KV_MODEL"} | tee "$folder/${processor:-unknown}-$commit.txt"
