# kvtools: `make` builds, `make test` and `make demo` first install what is missing. README.md says the rest.

B ?= build
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g

KV_CPPFLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L -D_FILE_OFFSET_BITS=64 -Ilib
KV_CFLAGS = -ffp-contract=off -fno-math-errno -pthread $(WARN)
# gcc 12 has dropped calls in numeric code as "pure"; these passes stay off where the numbers are made.
KERNEL_CFLAGS = -O3 $(if $(findstring clang,$(shell $(CC) --version)),,-fno-ipa-cp -fno-ipa-pure-const -fno-ipa-modref)
AVX2_CFLAGS = $(if $(filter x86_64-%,$(shell $(CC) -dumpmachine)),-mavx2 -mfma -mf16c -mbmi2)
AVX512_CFLAGS = $(if $(AVX2_CFLAGS),$(AVX2_CFLAGS) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi)
AMX_CFLAGS = $(if $(AVX2_CFLAGS),$(AVX512_CFLAGS) -mavx512bf16 -mamx-tile -mamx-bf16)
LIBS = -lpcre2-8 -ljansson -lxxhash -lz -lm
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wundef \
	-Wcast-qual -Wnull-dereference

TOOLS = $(patsubst bin/kv-%.c,kv-%,$(wildcard bin/kv-*.c))
O = $(B)/obj
LIB_O = $(patsubst %.c,$(O)/%.o,$(wildcard lib/*/*.c))
BIN_O = $(patsubst %.c,$(O)/%.o,$(filter-out bin/kv-%,$(wildcard bin/*.c)))
TEST_O = $(patsubst %.c,$(O)/%.o,$(wildcard tests/lib/*.c))
UNITS = $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*.c))
FUZZ = $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
EMULATED = $(addprefix $(B)/tests/unit/,test_levels_emulated test_ops_emulated test_forward_emulated test_attend_segments_emulated \
	test_continuation_emulated)
TEST_TOOLS = $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(wildcard tests/tools/*.c))

all: $(TOOLS:%=$(B)/bin/%) $(B)/lib/libkvs.a
units: $(UNITS) $(EMULATED) $(TEST_TOOLS) $(B)/tests/inject.so $(FUZZ:%=$(B)/tests/fuzz/corpus_%)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(KV_CPPFLAGS) $(CPPFLAGS) -MMD -MP $(KV_CFLAGS) $(CFLAGS) $(EXTRA) -c -o $@ $<

$(O)/lib/kernel/%.o: EXTRA = $(KERNEL_CFLAGS)
# Each level of the processor has files and flags of its own; what they make runs only where the processor has the level.
$(O)/lib/kernel/avx2_%.o: EXTRA = $(KERNEL_CFLAGS) $(AVX2_CFLAGS)
$(O)/lib/kernel/avx512_%.o: EXTRA = $(KERNEL_CFLAGS) $(AVX512_CFLAGS)
$(O)/lib/kernel/amx_%.o: EXTRA = $(KERNEL_CFLAGS) $(AMX_CFLAGS)
$(O)/tests/%.o: KV_CPPFLAGS += -Itests/lib

$(B)/lib/libkv.a: $(LIB_O)
	@mkdir -p $(@D) && rm -f $@
	$(AR) rcs $@ $^

# What other programs link with: lib/kvs/kvs.h and the rooms that it stands on.
$(B)/lib/libkvs.a: $(filter $(O)/lib/util/% $(O)/lib/kvs/% $(O)/lib/cache/%,$(LIB_O))
	@mkdir -p $(@D) && rm -f $@
	$(AR) rcs $@ $^

$(B)/tests/libtest.a: $(TEST_O)
	@mkdir -p $(@D) && rm -f $@
	$(AR) rcs $@ $^

$(B)/bin/kv-%: $(O)/bin/kv-%.o $(BIN_O) $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(UNITS) $(TEST_TOOLS): $(B)/tests/%: $(O)/tests/%.o $(B)/tests/libtest.a $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# Kernels of the levels avx512 and amx a second time, their instructions emulated by SIMDe and by tests/lib/tiles.c: X_emulated is test X with them.
EMULATED_O = $(patsubst lib/kernel/%.c,$(O)/emulated/%.o,$(wildcard lib/kernel/avx512_*.c lib/kernel/amx_*.c)) $(O)/tests/emulated/cpu_emulated.o
EMULATED_CFLAGS = -Wno-psabi $(if $(AVX2_CFLAGS),$(AVX2_CFLAGS) $(patsubst %,-D__%__,$(SIMDE)))
SIMDE = $(shell printf '\043if __has_include(<simde/x86/avx512.h>)\nAVX512F AVX512VNNI AVX512BF16\n\043endif\n' | $(CC) $(CPPFLAGS) -E -P -)

$(O)/emulated/%.o: lib/kernel/%.c
	@mkdir -p $(@D)
	$(CC) -Itests/emulated -Itests/lib $(KV_CPPFLAGS) $(CPPFLAGS) -MMD -MP $(KV_CFLAGS) $(CFLAGS) $(EMULATED_CFLAGS) -c -o $@ $<

$(O)/tests/emulated/%.o: EXTRA = $(EMULATED_CFLAGS)

$(B)/tests/%_emulated: $(O)/tests/%.o $(EMULATED_O) $(B)/tests/libtest.a $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# Preloaded into the tools by tests/inject.bats.
$(B)/tests/inject.so: tests/inject/inject.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CPPFLAGS) $(WARN) -O1 -g -fPIC -shared -o $@ $<

# Fuzz targets; as tests they run over files. lib/kvs is built for them a second time, taking any hash for the right one.
FUZZ_O = $(patsubst lib/kvs/%.c,$(O)/fuzz/%.o,$(wildcard lib/kvs/*.c))
FUZZ_SECONDS ?= 60

$(O)/fuzz/%.o: lib/kvs/%.c
	@mkdir -p $(@D)
	$(CC) $(KV_CPPFLAGS) $(CPPFLAGS) -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -MMD -MP $(KV_CFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/tests/fuzz/corpus_%: $(O)/tests/fuzz/fuzz_%.o $(O)/tests/fuzz/run_corpus.o $(FUZZ_O) $(B)/tests/libtest.a $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/tests/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(FUZZ_O) $(B)/tests/libtest.a $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LIBS)

fuzzers: $(FUZZ:%=$(B)/tests/fuzz/fuzz_%) $(B)/tests/tools/mkmodel

fuzz:
	$(MAKE) CC=clang B=build-fuzz CPPFLAGS=-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' fuzzers
	tests/fuzz/run.sh build-fuzz $(FUZZ_SECONDS)

# Speed, level by level, on the model in KV_MODEL (without one: of the kernels alone). Also kept in build/bench/, by processor and commit.
BENCH_O = $(patsubst %.c,$(O)/%.o,$(wildcard tests/bench/*.c))

$(B)/tests/bench/bench: $(BENCH_O) $(B)/lib/libkv.a
	@mkdir -p $(@D)
	$(CC) $(KV_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lopenblas

bench: $(B)/tests/bench/bench
	tests/bench/run.sh $< $(B)/bench

# The same tokens through llama.cpp, in turn; it is installed into an environment of its own.
bench-peer: all
	[ -x $(B)/peer/venv/bin/python ] || python3 -m venv $(B)/peer/venv
	$(B)/peer/venv/bin/pip install -q llama-cpp-python==0.3.16
	KV_MODEL=$${KV_MODEL:-$$(examples/setup.sh model)} && $(B)/peer/venv/bin/python tests/peers/bench_llama.py $$KV_MODEL $(B)/bin

# A whole run on a fresh machine: packages, build, model, tests.
test:
	examples/setup.sh packages test
	KV_TEST_MODEL=$$(examples/setup.sh model) && export KV_TEST_MODEL && $(MAKE) --no-print-directory check

# The same with what is there; without KV_TEST_MODEL the tests on the real model are skipped.
check: all units
	tests/run.sh $(B)

demo:
	@examples/setup.sh packages build
	@$(MAKE) --no-print-directory -s all
	@KV_MODEL=$${KV_MODEL:-$$(examples/setup.sh model)} && export KV_MODEL && KV_BIN=$(B)/bin examples/demo.sh

asan:
	$(MAKE) B=build-asan CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all' check

# Emulated kernels have no threads of their own, and take very long.
tsan:
	KV_TEST_THREADS=4 BATS_TEST_TIMEOUT=3600 $(MAKE) B=build-tsan EMULATED= CFLAGS='-O1 -g -fsanitize=thread' check

# Rooms may include what is below them, never above or across; every header compiles alone; the manual is clean.
lint:
	tests/lint.sh

# Kept sets of kv-evict against those of kvpress, on the real model: some minutes, and some gigabytes of Python the first time.
parity: all
	[ -x $(B)/parity/venv/bin/python ] || python3 -m venv $(B)/parity/venv
	$(B)/parity/venv/bin/pip install -q torch kvpress==0.5.5 gguf
	KV_MODEL=$${KV_MODEL:-$$(examples/setup.sh model)} && $(B)/parity/venv/bin/python tests/peers/kvpress_parity.py $$KV_MODEL $(B)/bin

install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include lib/pkgconfig) $(addprefix $(DESTDIR)$(PREFIX)/share/man/man,1 5 7)
	install -m 755 $(TOOLS:%=$(B)/bin/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 lib/kvs/kvs.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(B)/lib/libkvs.a $(DESTDIR)$(PREFIX)/lib
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: kvs' 'Description: Reads snapshots of KV caches' \
		"Version: $$(sed -n 's/.*KV_VERSION "\(.*\)"/\1/p' lib/util/version.h)" 'Cflags: -I$${prefix}/include' \
		'Libs: -L$${prefix}/lib -lkvs -ljansson -lxxhash -lz -lm -pthread' >$(DESTDIR)$(PREFIX)/lib/pkgconfig/kvs.pc
	for m in man/*.[1-9]; do install -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}; done

uninstall:
	rm -f $(TOOLS:%=$(DESTDIR)$(PREFIX)/bin/%) $(addprefix $(DESTDIR)$(PREFIX)/,include/kvs.h lib/libkvs.a lib/pkgconfig/kvs.pc)
	for m in man/*.[1-9]; do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m#man/}; done

clean:
	rm -rf build build-*

.PHONY: all units bench bench-peer test check demo asan tsan fuzz fuzzers lint parity install uninstall clean
.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
