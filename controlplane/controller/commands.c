/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The controller's API: each command is checked against the state, becomes one signed entry, and is answered with the
 * gateways' receipts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/log.h"
#include "config/segments.h"
#include "controlplane/controller/controller.h"

#define LOG_LIMIT_DEFAULT 50
#define LOG_LIMIT_MAX 10000
#define DURATION_MAX_S (100ull * 366 * 86400)

/* What a command needs on its way to a decision. */
struct command {
	struct controller *c;
	json_t *req;
	struct decision d;
	const char *code; /* of the error */
	json_t *extra; /* further members of the error */
};

/* ---- members of a request ---- */

static int bad(struct command *cmd, const char *code, struct err *err, const char *text,
	       const char *detail)
{
	cmd->code = code;
	return err_set(err, -EINVAL, "%s%s%s", text, detail[0] != '\0' ? ": " : "", detail);
}

/* @return NULL: absent, or (cmd->code set) not a string of 1 to max - 1 bytes */
static const char *get_text(struct command *cmd, const char *key, size_t max, bool required,
			    struct err *err)
{
	json_t *v = json_object_get(cmd->req, key);
	const char *text = json_string_value(v);

	if (v == NULL && !required)
		return NULL;
	if (text == NULL || text[0] == '\0' || json_string_length(v) >= max ||
	    strlen(text) != json_string_length(v)) {
		bad(cmd, "invalid", err, v == NULL ? "missing" : "empty, too long or not a text",
		    key);
		return NULL;
	}
	return text;
}

static int take_text(struct command *cmd, const char *key, char *out, size_t bytes, uint32_t bit,
		     bool required, struct err *err)
{
	const char *text = get_text(cmd, key, bytes, required, err);

	if (text == NULL)
		return cmd->code != NULL ? -EINVAL : 0;
	memcpy(out, text, strlen(text) + 1);
	cmd->d.has |= bit;
	return 0;
}

/* "sha256:<hex>" or the hex alone. */
static int take_hash(struct command *cmd, const char *key, uint8_t out[32], uint32_t bit,
		     bool required, struct err *err)
{
	const char *text = get_text(cmd, key, 128, required, err);

	if (text == NULL)
		return cmd->code != NULL ? -EINVAL : 0;
	if (strncmp(text, "sha256:", 7) == 0)
		text += 7;
	if (hex_parse(out, 32, text) < 0)
		return bad(cmd, "invalid", err, "not sha256:<64 hex digits>", key);
	cmd->d.has |= bit;
	return 0;
}

/* A duration from now, in seconds, as a moment. */
static int take_duration(struct command *cmd, const char *key, uint64_t *out_ms, uint32_t bit,
			 bool required, struct err *err)
{
	json_t *v = json_object_get(cmd->req, key);

	if (v == NULL)
		return required ? bad(cmd, "invalid", err, "missing", key) : 0;
	if (!json_is_integer(v) || json_integer_value(v) < 1 ||
	    json_integer_value(v) > (json_int_t)DURATION_MAX_S)
		return bad(cmd, "invalid", err, "not a number of seconds", key);
	*out_ms = cmd->c->now_wall_ms + (uint64_t)json_integer_value(v) * 1000;
	cmd->d.has |= bit;
	return 0;
}

/* @return 1: there, 0: absent and not required */
static int take_device(struct command *cmd, bool required, struct err *err)
{
	const char *kind;
	int ret = take_text(cmd, "device", cmd->d.identity, sizeof(cmd->d.identity),
			    DECISION_HAS_IDENTITY, required, err);

	if (ret < 0 || (cmd->d.has & DECISION_HAS_IDENTITY) == 0)
		return ret;
	kind = get_text(cmd, "kind", 16, true, err);
	if (kind == NULL)
		return -EINVAL;
	if (!identity_kind_parse(kind, &cmd->d.identity_kind))
		return bad(cmd, "invalid", err, "kind is not uri, dns or cn", kind);
	cmd->d.has |= DECISION_HAS_KIND;
	return 1;
}

static const struct state_device *device_of(const struct command *cmd)
{
	return state_find_device(cmd->c->state, cmd->d.identity_kind, cmd->d.identity);
}

static int need_enrolled(struct command *cmd, struct err *err)
{
	const struct state_device *dev = device_of(cmd);

	if (dev == NULL || dev->enrol == NULL)
		return bad(cmd, "not_found", err, "device is not enrolled", cmd->d.identity);
	return 0;
}

static int take_enrolled(struct command *cmd, struct err *err)
{
	int ret = take_device(cmd, true, err);

	return ret < 0 ? ret : need_enrolled(cmd, err);
}

static int take_reason(struct command *cmd, struct err *err)
{
	return take_text(cmd, "reason", cmd->d.reason, sizeof(cmd->d.reason), DECISION_HAS_REASON,
			 false, err);
}

/* ---- commands that become decisions ---- */

static int make_enrol(struct command *cmd, struct err *err)
{
	int ret = take_device(cmd, true, err);

	return ret < 0 ? ret
		       : take_hash(cmd, "cert_sha256", cmd->d.cert_sha256, DECISION_HAS_CERT, false,
				   err);
}

static int make_unenrol(struct command *cmd, struct err *err)
{
	return take_enrolled(cmd, err);
}

static int take_serial(struct command *cmd, struct err *err)
{
	const char *text = get_text(cmd, "serial", 2 * sizeof(cmd->d.serial) + 1, false, err);
	size_t n = text == NULL ? 0 : strlen(text);

	if (text == NULL)
		return cmd->code != NULL ? -EINVAL : 0;
	if (n % 2 != 0 || hex_parse(cmd->d.serial, n / 2, text) < 0)
		return bad(cmd, "invalid", err, "not 1 to 20 bytes of hex digits", "serial");
	cmd->d.serial_bytes = (uint8_t)(n / 2);
	cmd->d.has |= DECISION_HAS_SERIAL;
	return 0;
}

static int make_revoke(struct command *cmd, struct err *err)
{
	const struct journal_head *head = journal_head(cmd->c->journal);
	int ret = take_device(cmd, false, err);

	if (ret >= 0)
		ret = take_hash(cmd, "cert_sha256", cmd->d.cert_sha256, DECISION_HAS_CERT, false,
				err);
	if (ret == 0)
		ret = take_hash(cmd, "issuer_sha256", cmd->d.issuer_sha256, DECISION_HAS_ISSUER,
				false, err);
	if (ret == 0)
		ret = take_serial(cmd, err);
	if (ret == 0)
		ret = take_reason(cmd, err);
	if (ret < 0)
		return ret;
	if ((cmd->d.has & (DECISION_HAS_CERT | DECISION_HAS_ISSUER | DECISION_HAS_SERIAL)) != 0)
		return 0;
	if ((cmd->d.has & DECISION_HAS_IDENTITY) == 0)
		return bad(cmd, "invalid", err,
			   "name a device, a certificate, or an issuer and serial", "");
	/* Also one that is no longer enrolled: its certificates may still be about. */
	if (device_of(cmd) == NULL)
		return bad(cmd, "not_found", err, "device was never enrolled", cmd->d.identity);
	/* As the entry's own time, see journal_append(). */
	cmd->d.not_before_ms =
		cmd->c->now_wall_ms > head->issued_ms ? cmd->c->now_wall_ms : head->issued_ms;
	cmd->d.has |= DECISION_HAS_NOT_BEFORE;
	return 0;
}

static int make_quarantine(struct command *cmd, struct err *err)
{
	int ret = take_enrolled(cmd, err);

	return ret < 0 ? ret : take_reason(cmd, err);
}

static int make_restore(struct command *cmd, struct err *err)
{
	const struct state_device *dev;
	int ret = take_device(cmd, true, err);

	if (ret < 0)
		return ret;
	dev = device_of(cmd);
	if (dev == NULL || dev->quarantine == NULL)
		return bad(cmd, dev == NULL ? "not_found" : "conflict", err,
			   "device is not in quarantine", cmd->d.identity);
	return 0;
}

static int make_software_certify(struct command *cmd, struct err *err)
{
	const struct state_software *w;
	int ret = take_hash(cmd, "digest", cmd->d.digest, DECISION_HAS_DIGEST, true, err);

	if (ret == 0)
		ret = take_text(cmd, "name", cmd->d.name, sizeof(cmd->d.name), DECISION_HAS_NAME,
				true, err);
	if (ret == 0)
		ret = take_text(cmd, "version", cmd->d.version, sizeof(cmd->d.version),
				DECISION_HAS_VERSION, true, err);
	if (ret == 0)
		ret = take_duration(cmd, "for_s", &cmd->d.not_after_ms, DECISION_HAS_NOT_AFTER,
				    false, err);
	if (ret < 0)
		return ret;
	w = state_find_software(cmd->c->state, cmd->d.digest);
	if (w != NULL && w->revoke != NULL)
		return bad(cmd, "conflict", err,
			   "this software was revoked, and a revocation is final", "");
	return 0;
}

static int make_software_revoke(struct command *cmd, struct err *err)
{
	int ret = take_hash(cmd, "digest", cmd->d.digest, DECISION_HAS_DIGEST, true, err);

	if (ret == 0)
		ret = take_reason(cmd, err);
	if (ret == 0 && state_find_software(cmd->c->state, cmd->d.digest) == NULL)
		return bad(cmd, "not_found", err, "no software with this digest was ever certified",
			   "");
	return ret;
}

static int make_attest(struct command *cmd, struct err *err)
{
	const char *tier;
	enum attest_tier t;
	int ret = take_enrolled(cmd, err);

	if (ret == 0)
		ret = take_hash(cmd, "digest", cmd->d.digest, DECISION_HAS_DIGEST, true, err);
	if (ret == 0)
		ret = take_duration(cmd, "for_s", &cmd->d.expires_ms, DECISION_HAS_EXPIRES, true,
				    err);
	if (ret < 0)
		return ret;
	tier = get_text(cmd, "tier", 32, true, err);
	if (tier == NULL)
		return -EINVAL;
	if (!attest_tier_parse(tier, &t) || t == ATTEST_NONE)
		return bad(cmd, "invalid", err, "tier is not affirming, warning or contraindicated",
			   tier);
	cmd->d.tier = (uint8_t)t;
	cmd->d.issued_ms = cmd->c->now_wall_ms;
	cmd->d.has |= DECISION_HAS_TIER | DECISION_HAS_ISSUED;
	return 0;
}

static int make_policy_apply(struct command *cmd, struct err *err)
{
	struct config_errors *errs;
	const char *text;
	int ret = take_text(cmd, "file", cmd->d.file, sizeof(cmd->d.file), DECISION_HAS_FILE, true,
			    err);

	if (ret < 0)
		return ret;
	text = get_text(cmd, "text", DECISION_POLICY_BYTES + 1, true, err);
	if (text == NULL)
		return -EINVAL;
	errs = calloc(1, sizeof(*errs));
	if (errs == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	ret = segments_check(NULL, text, cmd->d.file, errs);
	if (ret == -EINVAL) {
		json_t *lines = json_array();

		for (uint32_t i = 0; i < errs->n; i++)
			json_array_append_new(lines, json_string(errs->line[i]));
		cmd->extra = json_pack("{s:o}", "errors", lines);
		bad(cmd, "invalid", err, "the policy has errors", errs->n > 0 ? errs->line[0] : "");
	} else if (ret < 0) {
		err_set(err, ret, "policy: %s", strerror(-ret));
	} else {
		cmd->d.text = strdup(text);
		cmd->d.text_bytes = (uint32_t)strlen(text);
		cose_sha256(cmd->d.policy_sha256, text, cmd->d.text_bytes);
		cmd->d.has |= DECISION_HAS_TEXT | DECISION_HAS_SHA256;
		if (cmd->d.text == NULL)
			ret = err_set(err, -ENOMEM, "out of memory");
	}
	free(errs);
	return ret;
}

static void decide_and_wait(struct controller *c, struct api_call *call, struct decision_entry *e)
{
	char text[DECISION_SUMMARY_BYTES], clean[DECISION_SUMMARY_BYTES];
	struct err err = {0};
	int ret = journal_append(c->journal, e, c->now_wall_ms, &err);

	if (ret == -EPROTO || ret == -E2BIG) {
		api_fail(call, "invalid", "%s", err.msg);
		return;
	}
	if (ret < 0) {
		log_error("%s", err.msg);
		api_fail(call, "unavailable", "nothing was decided: %s", err.msg);
		return;
	}
	log_info("revision %llu: %s", (unsigned long long)e->revision,
		 log_clean(clean, sizeof(clean), decision_entry_summary(text, e)));
	if (state_fold(c->state, e) < 0) {
		/* The log has it, the state has not: go on from the log. */
		log_error("out of memory while folding the log");
		abort();
	}
	feed_push(c->feed);
	pending_add(&c->pending, call, c->feed, e->revision, e->hash,
		    c->now_boot_ms + CONTROLLER_RECEIPT_MS);
}

static void run_change(struct controller *c, struct api_call *call, struct command *cmd)
{
	struct decision_entry e = {.n_ops = 1, .ops = &cmd->d};

	decide_and_wait(c, call, &e);
}

/* ---- commands that only look ---- */

static void add_receipt(void *arg, const struct receipt *r)
{
	json_array_append_new(arg, receipt_json(r));
}

static json_t *log_entry(struct controller *c, uint64_t revision)
{
	struct decision_entry *e = NULL;
	char text[DECISION_SUMMARY_BYTES], hex[HEX_SHA256_BYTES];
	json_t *receipts = json_array(), *obj = NULL;
	uint8_t *cose = NULL;
	size_t bytes;

	if (journal_read(c->journal, revision, &cose, &bytes) == 0 &&
	    decision_entry_open(&e, cose, bytes, cose_signer_public(c->signer), NULL) == 0) {
		journal_receipts(c->journal, revision, add_receipt, receipts);
		obj = json_pack("{s:I, s:I, s:s, s:s, s:O}", "revision", (json_int_t)revision,
				"issued", (json_int_t)e->issued_ms, "summary",
				decision_entry_summary(text, e), "hash", hex_text(hex, e->hash, 32),
				"receipts", receipts);
	}
	json_decref(receipts);
	decision_entry_free(e);
	free(cose);
	return obj;
}

static int get_number(struct command *cmd, const char *key, uint64_t *out, uint64_t max,
		      struct err *err)
{
	json_t *v = json_object_get(cmd->req, key);

	if (v == NULL)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return bad(cmd, "invalid", err, "not a number in range", key);
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

static int show_log(struct command *cmd, json_t **out, struct err *err)
{
	uint64_t head = journal_head(cmd->c->journal)->revision, limit = LOG_LIMIT_DEFAULT,
		 after = UINT64_MAX;
	json_t *entries;
	int ret = get_number(cmd, "limit", &limit, LOG_LIMIT_MAX, err);

	if (ret == 0)
		ret = get_number(cmd, "after", &after, INT64_MAX, err);
	if (ret < 0)
		return ret;
	if (after == UINT64_MAX) /* the newest */
		after = head > limit ? head - limit : 0;
	entries = json_array();
	for (uint64_t rev = after + 1; rev <= head && rev - after <= limit; rev++) {
		json_t *obj = log_entry(cmd->c, rev);

		if (obj == NULL) {
			json_decref(entries);
			return err_set(err, -EIO, "cannot read revision %llu",
				       (unsigned long long)rev);
		}
		json_array_append_new(entries, obj);
	}
	*out = json_pack("{s:o}", "entries", entries);
	return 0;
}

static void add_gateway(void *arg, const char *gateway, uint64_t sent)
{
	json_array_append_new(
		arg, json_pack("{s:s, s:I}", "gateway", gateway, "sent", (json_int_t)sent));
}

static int show_state(struct command *cmd, json_t **out, struct err *err)
{
	const struct journal_head *head = journal_head(cmd->c->journal);
	json_t *obj = state_json(cmd->c->state), *gateways = json_array();
	char hex[HEX_SHA256_BYTES];

	if (obj == NULL || gateways == NULL) {
		json_decref(obj);
		json_decref(gateways);
		return err_set(err, -ENOMEM, "out of memory");
	}
	feed_gateways(cmd->c->feed, add_gateway, gateways);
	json_object_set_new(obj, "gateways", gateways);
	json_object_set_new(obj, "revision", json_integer((json_int_t)head->revision));
	json_object_set_new(obj, "hash", json_string(hex_text(hex, head->hash, 32)));
	json_object_set_new(
		obj, "key",
		json_string(hex_text(hex, cose_signer_public(cmd->c->signer)->key, 32)));
	*out = obj;
	return 0;
}

/* ---- the table ---- */

static const struct {
	const char *name;
	int (*make)(struct command *cmd, struct err *err); /* fills cmd->d */
	uint8_t op; /* enum decision_op */
	int (*show)(struct command *cmd, json_t **out, struct err *err);
	const char *members; /* beside cmd, each between blanks */
} commands[] = {
	{"enrol", make_enrol, DECISION_ENROL, NULL, " device kind cert_sha256 "},
	{"unenrol", make_unenrol, DECISION_UNENROL, NULL, " device kind "},
	{"revoke", make_revoke, DECISION_REVOKE_CERT, NULL,
	 " device kind cert_sha256 issuer_sha256 serial reason "},
	{"quarantine", make_quarantine, DECISION_QUARANTINE, NULL, " device kind reason "},
	{"restore", make_restore, DECISION_RESTORE, NULL, " device kind "},
	{"software_certify", make_software_certify, DECISION_SOFTWARE_CERTIFY, NULL,
	 " digest name version for_s "},
	{"software_revoke", make_software_revoke, DECISION_SOFTWARE_REVOKE, NULL,
	 " digest reason "},
	{"attest", make_attest, DECISION_ATTEST, NULL, " device kind digest tier for_s "},
	{"policy_apply", make_policy_apply, DECISION_POLICY, NULL, " file text "},
	{"log", NULL, 0, show_log, " after limit "},
	{"state", NULL, 0, show_state, " "},
};

static int check_members(struct command *cmd, const char *members, struct err *err)
{
	char word[64];
	const char *key;
	json_t *value;

	json_object_foreach(cmd->req, key, value) {
		if (strcmp(key, "cmd") == 0)
			continue;
		snprintf(word, sizeof(word), " %s ", key);
		if (strchr(key, ' ') != NULL || strlen(key) > sizeof(word) - 3 ||
		    strstr(members, word) == NULL)
			return bad(cmd, "invalid", err, "unknown member", key);
	}
	return 0;
}

/* The table's index of a command. @return -ENOENT */
static int command_find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return (int)i;
	}
	return -ENOENT;
}

/* ---- several decisions as one entry: all of them or none ---- */

/* One of a batch. Policies are too long to come in numbers. @return 0, or -errno with text in err */
static int batch_make(struct command *cmd, struct err *err)
{
	const char *name = json_string_value(json_object_get(cmd->req, "cmd"));
	int i = name != NULL ? command_find(name) : -ENOENT;

	if (i < 0 || commands[i].make == NULL || commands[i].op == DECISION_POLICY)
		return bad(cmd, "invalid", err, "not a decision that a batch can hold",
			   name != NULL ? name : "(no cmd)");
	cmd->d.op = commands[i].op;
	if (check_members(cmd, commands[i].members, err) < 0)
		return -EINVAL;
	return commands[i].make(cmd, err);
}

/* Each is checked against the state before the batch, as if it came alone. */
static void batch_handle(struct controller *c, struct api_call *call, json_t *request)
{
	json_t *list = json_object_get(request, "decisions");
	struct decision_entry e = {.n_ops = json_array_size(list)};
	struct command cmd = {0};
	struct err err = {0};
	uint32_t i = 0;
	int ret = 0;

	if (e.n_ops == 0 || e.n_ops > DECISION_OPS_MAX || json_object_size(request) != 2) {
		api_fail(call, "invalid",
			 "a batch is {\"cmd\": \"batch\", \"decisions\": [...]} "
			 "with 1 to %u decisions and nothing else",
			 DECISION_OPS_MAX);
		return;
	}
	e.ops = calloc(e.n_ops, sizeof(*e.ops));
	if (e.ops == NULL) {
		api_fail(call, "internal", "out of memory");
		return;
	}
	for (; ret == 0 && i < e.n_ops; i++) {
		cmd = (struct command){.c = c, .req = json_array_get(list, i)};
		ret = batch_make(&cmd, &err);
		e.ops[i] = cmd.d;
	}
	if (ret < 0)
		api_fail(call, cmd.code != NULL ? cmd.code : "internal", "decision %u: %s", i,
			 err.msg);
	else
		decide_and_wait(c, call, &e);
	free(e.ops); /* none has a text to own */
}

void command_handle(void *arg, struct api_call *call, const char *name, json_t *request)
{
	struct command cmd = {.c = arg, .req = request};
	struct err err = {0};
	json_t *out = NULL;
	int ret, i = command_find(name);

	if (strcmp(name, "batch") == 0) {
		batch_handle(arg, call, request);
		return;
	}
	if (i < 0) {
		api_fail(call, "invalid", "unknown command: %s", name);
		return;
	}
	cmd.d.op = commands[i].op;
	ret = check_members(&cmd, commands[i].members, &err);
	if (ret == 0)
		ret = commands[i].make != NULL ? commands[i].make(&cmd, &err)
					       : commands[i].show(&cmd, &out, &err);
	if (ret < 0)
		api_fail_with(call, cmd.code != NULL ? cmd.code : "internal", cmd.extra, "%s",
			      err.msg);
	else if (commands[i].make != NULL)
		run_change(arg, call, &cmd);
	else
		api_reply(call, out);
	decision_clear(&cmd.d);
}
