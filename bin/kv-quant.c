/* kv-quant: store keys and values in fewer bits. */
#include "filter.h"

int
main(int argc, char **argv)
{
	return kv_filter_main(&kv_stage_quant, argc, argv);
}
