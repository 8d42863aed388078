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
LIBS = -lopenblas -lpcre2-8 -ljansson -lxxhash -lz -lm
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wundef \
	-Wcast-qual -Wnull-dereference

TOOLS = $(patsubst bin/kv-%.c,kv-%,$(wildcard bin/kv-*.c))
O = $(B)/obj
LIB_O = $(patsubst %.c,$(O)/%.o,$(wildcard lib/*/*.c))
BIN_O = $(patsubst %.c,$(O)/%.o,$(filter-out bin/kv-%,$(wildcard bin/*.c)))
TEST_O = $(patsubst %.c,$(O)/%.o,$(wildcard tests/lib/*.c))
UNITS = $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*.c))
TEST_TOOLS = $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(wildcard tests/tools/*.c))

all: $(TOOLS:%=$(B)/bin/%)
units: $(UNITS) $(TEST_TOOLS)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(KV_CPPFLAGS) $(CPPFLAGS) -MMD -MP $(KV_CFLAGS) $(CFLAGS) $(EXTRA) -c -o $@ $<

$(O)/lib/kernel/%.o: EXTRA = $(KERNEL_CFLAGS)
# Each level of the processor has files and flags of its own; what they make runs only where the processor has the level.
$(O)/lib/kernel/avx2_%.o: EXTRA = $(KERNEL_CFLAGS) $(AVX2_CFLAGS)
$(O)/lib/kernel/avx512_%.o: EXTRA = $(KERNEL_CFLAGS) $(AVX512_CFLAGS)
$(O)/tests/%.o: KV_CPPFLAGS += -Itests/lib

$(B)/lib/libkv.a: $(LIB_O)
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

tsan:
	KV_THREADS=4 $(MAKE) B=build-tsan CFLAGS='-O1 -g -fsanitize=thread' check

# Rooms may include what is below them, never above or across; every header compiles alone; the manual is clean.
lint:
	tests/lint.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(addprefix $(DESTDIR)$(PREFIX)/share/man/man,1 5 7)
	install -m 755 $(TOOLS:%=$(B)/bin/%) $(DESTDIR)$(PREFIX)/bin
	for m in man/*.[1-9]; do install -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}; done

uninstall:
	rm -f $(TOOLS:%=$(DESTDIR)$(PREFIX)/bin/%)
	for m in man/*.[1-9]; do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m#man/}; done

clean:
	rm -rf build build-*

.PHONY: all units test check demo asan tsan lint install uninstall clean
.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
