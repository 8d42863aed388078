/* The main of every filter. */
#include "filter.h"

#include "tool.h"
#include "util/version.h"

struct filter {
	const struct kv_stage *stage;
	struct kv_tool tool;
	void *cfg;
	struct kv_in *in;
	struct kv_out *out;
	struct kvs_writer *writer;
	struct kv_notes notes;		/* of the snapshot in hand */
};

static enum kv_status
parse(struct filter *f, int argc, char **argv, const char **path, struct kv_err *err)
{
	struct kv_args args;
	enum kv_status rc;
	const char *arg;
	int key;

	if ((rc = kv_args_begin(&args, f->tool.usage, argc, argv, err)) != KV_OK)
		return rc;
	while ((rc = kv_tool_next(&f->tool, &args, &key, &arg, err)) == KV_OK)
		if ((rc = f->stage->option(f->cfg, key, arg, err)) != KV_OK)
			break;
	if (f->tool.force && f->stage->force)
		f->stage->force(f->cfg);
	if (rc == KV_END && (rc = f->stage->ready(f->cfg, err)) == KV_OK)
		rc = kv_tool_operand(&args, path, err);
	kv_args_end(&args);
	return rc;
}

static enum kv_status
open_streams(struct filter *f, const char *path, struct kv_err *err)
{
	enum kv_output kind = f->stage->output ? f->stage->output(f->cfg) : KV_WRITES_SNAPSHOT;
	enum kv_status rc;

	if ((rc = kv_out_open(f->tool.output, kind == KV_WRITES_SNAPSHOT, f->tool.force, &f->out, err)) != KV_OK)
		return rc;
	if (kind == KV_PRINTS_ALONE)
		return KV_OK;
	if ((rc = kv_tool_input(&f->tool, path, &f->in, err)) != KV_OK)
		return rc;
	if (kind == KV_WRITES_SNAPSHOT)
		rc = kvs_writer_new(f->out, f->tool.packing, f->tool.pool, &f->writer, err);
	return rc;
}

static enum kv_status
record(void *arg, struct kv_cache *c, struct kv_err *err)
{
	struct filter *f = arg;
	struct kvs_run run = {
		.tool = f->stage->usage.tool, .version = KV_VERSION, .argc = f->tool.words.n, .argv = f->tool.words.word,
		.in_digest = c->digest, .kept = f->notes.kept, .of = f->notes.of,
		.detail = f->notes.detail.len ? (const char *)f->notes.detail.p : NULL,
	};

	return f->tool.no_prov ? KV_OK : kvs_prov_add_run(&c->prov, &run, err);
}

/* c = NULL: a stage that needs no input. */
static enum kv_status
work(void *arg, struct kv_cache *c, struct kv_err *err)
{
	struct filter *f = arg;
	enum kv_status rc;

	f->notes.kept = f->notes.of = 0;
	f->notes.detail.len = 0;
	if ((rc = f->stage->run(f->cfg, c, f->tool.pool, &f->notes, err)) != KV_OK)
		return rc;
	kv_buf_add(&f->notes.detail, "", f->notes.detail.len > 0);
	if (f->notes.report.failed || f->notes.remarks.failed || f->notes.text.failed || f->notes.detail.failed)
		return kv_fail_mem(err, "a report");
	kv_tool_say_lines(&f->tool, 0, &f->notes.remarks);
	kv_tool_say_lines(&f->tool, 1, &f->notes.report);
	return KV_OK;
}

static enum kv_status
run(void *arg, struct kv_cache *c, struct kv_err *err)
{
	struct filter *f = arg;
	enum kv_status rc;

	f->notes.text.len = 0;
	if ((rc = work(f, c, err)) != KV_OK)
		return rc;
	if (!f->writer)
		return kv_out_write(f->out, f->notes.text.p, f->notes.text.len, err);
	return (rc = record(f, c, err)) == KV_OK ? kv_cache_write(c, f->writer, err) : rc;
}

static enum kv_status
filter(struct filter *f, struct kv_err *err)
{
	if (!f->in)
		return run(f, NULL, err);
	if (f->stage->moves_only)
		return kv_tool_pass(&f->tool, f->in, &(struct kv_pass){ work, record, f }, f->writer, err);
	return kv_tool_map(&f->tool, f->in, run, f, err);
}

int
kv_filter_main(const struct kv_stage *stage, int argc, char **argv)
{
	struct kv_usage usage = stage->usage;
	struct filter f = { .stage = stage };
	const char *path = NULL;
	struct kv_err err;
	enum kv_status rc;
	int status, own = 0;

	while (usage.tables[own])
		own++;
	usage.tables[own] = kv_common_options;
	usage.titles[own] = "Common options";
	kv_tool_start(&f.tool, &usage);
	if ((rc = stage->start(&f.cfg, &err)) == KV_OK && (rc = parse(&f, argc, argv, &path, &err)) == KV_OK &&
	    (rc = open_streams(&f, path, &err)) == KV_OK)
		rc = filter(&f, &err);
	if (rc != KV_OK && f.writer)
		kvs_writer_tear(f.writer);
	kvs_writer_free(f.writer);
	status = kv_tool_close(&f.tool, f.out, rc, &err);
	kv_in_close(f.in);
	kv_notes_free(&f.notes);
	stage->free(f.cfg);
	kv_tool_end(&f.tool);
	return status;
}
