/* kv-prune: drop channels of keys or values. */
#include "filter.h"

int
main(int argc, char **argv)
{
	return kv_filter_main(&kv_stage_prune, argc, argv);
}
