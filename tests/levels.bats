#!/usr/bin/env bats
# Instructions of a level of the processor stand where the level has been asked for, and nowhere else.

load lib/kv.bash

setup() {
	[ "$(uname -m)" = x86_64 ] || skip "levels are x86-64's"
	command -v objdump >/dev/null || skip "no objdump"
}

# wide REGISTERS OBJECT …: functions that use such registers; copies for a level, which the loader chooses (.arch_…), do not count.
wide() {
	local which=$1
	shift
	objdump -d --no-show-raw-insn "$@" | awk -v which="%($which)[0-9]" '
		/^[0-9a-f]+ <.*>:$/ { name = $2 }
		$0 ~ which && name !~ /\.(arch_x86_64|avx|arch_)/ { seen[name] } END { for (n in seen) print n }'
}

@test "wide registers are used by the files of a level and by copies made for one" {
	mapfile -t common < <(find "$KV_BUILD/obj/lib" "$KV_BUILD/obj/bin" -name '*.o' ! -name 'avx2_*' ! -name 'avx512_*' ! -name 'amx_*')
	[ "${#common[@]}" -gt 50 ]
	[ -z "$(wide 'ymm|zmm' "${common[@]}")" ] || { wide 'ymm|zmm' "${common[@]}"; false; }
	[ -n "$(wide ymm "$KV_BUILD"/obj/lib/kernel/avx2_*.o)" ]	# the search finds them where they are
}

@test "avx2 needs nothing of AVX-512" {
	[ -z "$(wide 'zmm|k' "$KV_BUILD"/obj/lib/kernel/avx2_*.o)" ]
	[ -n "$(wide zmm "$KV_BUILD"/obj/lib/kernel/avx512_*.o)" ]
}

@test "tiles are used by the level amx alone" {
	mapfile -t others < <(find "$KV_BUILD/obj/lib" "$KV_BUILD/obj/bin" -name '*.o' ! -name 'amx_*')
	[ -z "$(wide tmm "${others[@]}")" ] || { wide tmm "${others[@]}"; false; }
	[ -n "$(wide tmm "$KV_BUILD"/obj/lib/kernel/amx_*.o)" ]
}

@test "emulated kernels need nothing of AVX-512" {
	[ -d "$KV_BUILD/obj/emulated" ] || skip "no emulated kernels here"
	[ -z "$(wide 'zmm|tmm|k' "$KV_BUILD"/obj/emulated/*.o)" ]
}

@test "amx is not taken unasked" {
	run -0 kv-dump --version
	[[ $output != *"kernels    amx"* ]]
}

# A function that a header defines for everybody could be taken by the linker from the wrong object.
@test "files of a level define names of the level alone" {
	for object in "$KV_BUILD"/obj/lib/kernel/{avx,amx}*.o; do
		level=$(basename "$object" | sed 's/_.*//')
		others=$(nm --defined-only -g "$object" | awk '{ print $3 }' | grep -vE "^kv_(ops_)?$level(_|\$)" | grep -vE '^__odr_asan|^__tsan|^$' || true)
		[ -z "$others" ] || { echo "$object: $others"; false; }
	done
}
