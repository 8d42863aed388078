/* kv-reposition: move entries in position space. */
#include "filter.h"

int
main(int argc, char **argv)
{
	return kv_filter_main(&kv_stage_reposition, argc, argv);
}
