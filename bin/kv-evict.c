/* kv-evict: drop entries of a KV cache by a policy. */
#include "filter.h"

int
main(int argc, char **argv)
{
	return kv_filter_main(&kv_stage_evict, argc, argv);
}
