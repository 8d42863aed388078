/* Writes a synthetic model: mkmodel [--arch llama|qwen2|qwen3] [--type Q4_1|mixed] [--seed N] [--tokenizer bpe|spm] … -o FILE */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "synth.h"
#include "util/out.h"
#include "util/text.h"

static const char usage[] =
	"usage: mkmodel [options] -o FILE\n"
	"  --arch llama|qwen2|qwen3   --type F32|F16|…|Q6_K|mixed   --seed N   --tokenizer bpe|spm\n"
	"  --layers N --heads N --kv-heads N --head-dim N --embd N --ff N\n"
	"  --untied --bias --fused --window N --softcap X --final-softcap X\n"
	"  --rope plain|linear|llama3|yarn --theta X --without KEY-OR-TENSOR\n";

static const struct option options[] = {
	{ "arch", required_argument, NULL, 'a' }, { "type", required_argument, NULL, 't' }, { "seed", required_argument, NULL, 's' },
	{ "tokenizer", required_argument, NULL, 'k' }, { "layers", required_argument, NULL, 'l' }, { "heads", required_argument, NULL, 'h' },
	{ "kv-heads", required_argument, NULL, 'v' }, { "head-dim", required_argument, NULL, 'd' }, { "embd", required_argument, NULL, 'e' },
	{ "ff", required_argument, NULL, 'f' }, { "untied", no_argument, NULL, 'u' }, { "bias", no_argument, NULL, 'b' },
	{ "fused", no_argument, NULL, 'q' }, { "window", required_argument, NULL, 'w' }, { "softcap", required_argument, NULL, 'c' },
	{ "final-softcap", required_argument, NULL, 'C' }, { "rope", required_argument, NULL, 'r' },
	{ "theta", required_argument, NULL, 'T' }, { "without", required_argument, NULL, 'x' }, { 0 },
};

static void
die(const char *text)
{
	fprintf(stderr, "mkmodel: %s\n%s", text, usage);
	exit(2);
}

static uint32_t
whole(const char *name, const char *arg, int64_t min, int64_t max)
{
	struct kv_err err;
	int64_t v = 0;

	if (kv_parse_int(name, arg, min, max, &v, &err) != KV_OK)
		die(err.text);
	return (uint32_t)v;
}

static float
real(const char *name, const char *arg)
{
	struct kv_err err;
	double v = 0;

	if (kv_parse_real(name, arg, 0, 1e30, &v, &err) != KV_OK)
		die(err.text);
	return (float)v;
}

static uint32_t
type_of(const char *arg)
{
	if (!strcmp(arg, "mixed"))
		return SYNTH_MIXED;
	for (uint32_t t = 0; kv_wtype_info(t); t++)
		if (kv_wtype_info(t)->values && !strcmp(kv_wtype_info(t)->name, arg))
			return t;
	die("no such type of weights");
	return 0;
}

static enum synth_rope
rope_of(const char *arg)
{
	static const char *const names[] = { "plain", "linear", "llama3", "yarn" };

	for (int i = 0; i < 4; i++)
		if (!strcmp(arg, names[i]))
			return (enum synth_rope)i;
	die("no such scaling");
	return SYNTH_PLAIN;
}

static void
take(struct synth *s, int c, const char *arg)
{
	switch (c) {
	case 'l': s->layers = whole("--layers", arg, 1, 1024); break;
	case 'h': s->heads = whole("--heads", arg, 1, 1024); break;
	case 'v': s->heads_kv = whole("--kv-heads", arg, 1, 1024); break;
	case 'd': s->d_head = whole("--head-dim", arg, 2, 1024); break;
	case 'e': s->n_embd = whole("--embd", arg, 32, 1 << 16); break;
	case 'f': s->n_ff = whole("--ff", arg, 32, 1 << 16); break;
	case 'u': s->tied = false; break;
	case 'b': s->bias = true; break;
	case 'q': s->fused_qkv = true; break;
	case 'w': s->window = whole("--window", arg, 1, 1 << 30); break;
	case 'c': s->softcap = real("--softcap", arg); break;
	case 'C': s->final_softcap = real("--final-softcap", arg); break;
	case 'r': s->rope = rope_of(arg); break;
	case 'T': s->theta = real("--theta", arg); break;
	case 'x': s->without = arg; break;
	case 'k':
		if (strcmp(arg, "bpe") && strcmp(arg, "spm"))
			die("--tokenizer: bpe or spm");
		s->spm = arg[0] == 's';
		break;
	}
}

/* Architecture, type and seed first, since the other numbers have defaults that depend on them. */
int
main(int argc, char **argv)
{
	const char *arch = "llama", *file = NULL, *type = "Q8_0";
	struct kv_buf model = { 0 };
	struct kv_err err = { 0 };
	struct kv_out *out;
	struct synth s;
	uint32_t seed = 1;
	int c;

	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
		switch (c) {
		case 'a': arch = optarg; break;
		case 't': type = optarg; break;
		case 's': seed = whole("--seed", optarg, 0, UINT32_MAX); break;
		case 'o': file = optarg; break;
		case '?': die("what is that?"); break;
		}
	if (!file || optind < argc)
		die("where to? (-o FILE)");
	synth_defaults(&s, arch, type_of(type), seed);
	optind = 0;
	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
		take(&s, c, optarg);
	if (!synth_make(&s, &model))
		die("out of memory");
	if (kv_out_open(file, true, false, &out, &err) == KV_OK && kv_out_write(out, model.p, model.len, &err) == KV_OK)
		kv_out_commit(out, &err);
	if (err.code != KV_OK)
		fprintf(stderr, "mkmodel: %s\n", err.text);
	kv_buf_free(&model);
	return kv_exit_code(err.code);
}
