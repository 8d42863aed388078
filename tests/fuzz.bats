#!/usr/bin/env bats
# What fuzzers have found, and what they start from, as tests. `make fuzz` looks for more.

load lib/kv.bash

corpus() {
	"$KV_BUILD/tests/fuzz/corpus_$1" "$BATS_TEST_DIRNAME/fuzz/corpus/$1"/* "${@:2}"
}

@test "frames" { corpus frame "$BATS_TEST_DIRNAME"/files/*.kvs; }
@test "geometry" { corpus geom; }
@test "whole snapshots" { corpus reader "$BATS_TEST_DIRNAME"/files/*.kvs; }
@test "there and back" { corpus roundtrip "$BATS_TEST_DIRNAME"/files/*.kvs; }
@test "read from the end" { corpus index "$BATS_TEST_DIRNAME"/files/*.kvs; }
@test "JSON" { corpus json; }
@test "the text of --each" { corpus each; }

@test "models" {
	tiny_model
	mkmodel --seed 5 --layers 1 -o "$BATS_TEST_TMPDIR/other.gguf"
	for n in 10 100 1000 10000; do head -c $n "$TINY" >"$BATS_TEST_TMPDIR/cut$n"; done
	corpus gguf "$TINY" "$BATS_TEST_TMPDIR"/*
}
