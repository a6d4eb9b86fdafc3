/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The controller without its main(): commands over its API, a gateway on its feed, its log and state on disk. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/log.h"
#include "controlplane/controller/controller.h"
#include "controlplane/stream.h"
#include "controlplane/transport.h"

#define T0 1750000000000ull
#define DIGEST "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define CAM "\"device\":\"spiffe://p/cam/1\",\"kind\":\"uri\""

struct gateway {
	struct transport *t;
	struct controller *c;
	const struct cose_verifier *key;
	uint64_t revision, heartbeats, snapshots, snapshot_ops, lease_ms;
	bool answer; /* each entry with a receipt */
	bool closed;
};

struct world {
	char dir[64];
	struct controller c;
	int client;
};

static int fold(void *arg, const struct decision_entry *e)
{
	return state_fold(arg, e);
}

static void on_receipt(void *arg, const struct receipt *r, uint64_t covers)
{
	pending_receipt(&((struct controller *)arg)->pending, r, covers);
}

static void on_gone(void *arg, const char *gateway)
{
	pending_gone(&((struct controller *)arg)->pending, gateway);
}

static int start(struct world *w, struct err *err)
{
	struct feed_config fc = {.heartbeat_ms = 1000,
				 .lease_ms = 3000,
				 .receipt = on_receipt,
				 .gone = on_gone,
				 .arg = &w->c};
	char api[96], dec[96];
	int pair[2], ret;

	snprintf(api, sizeof(api), "%s/api.sock", w->dir);
	snprintf(dec, sizeof(dec), "%s/dec.sock", w->dir);
	fc.path = dec;
	assert_int_equal(cose_signer_load(&w->c.signer, w->dir, err), 0);
	assert_int_equal(state_new(&w->c.state), 0);
	ret = journal_open(&w->c.journal, w->dir, w->c.signer, fold, w->c.state, err);
	if (ret < 0)
		return ret;
	fc.journal = w->c.journal;
	fc.state = w->c.state;
	fc.signer = w->c.signer;
	assert_int_equal(feed_new(&w->c.feed, &fc, err), 0);
	assert_int_equal(api_server_new(&w->c.api, api, command_handle, &w->c, err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(api_server_adopt(w->c.api, pair[0], w->c.now_boot_ms), 0);
	w->client = pair[1];
	return 0;
}

static void stop(struct world *w)
{
	uint64_t boot = w->c.now_boot_ms, wall = w->c.now_wall_ms;

	pending_free(&w->c.pending);
	api_server_free(w->c.api);
	feed_free(w->c.feed);
	journal_close(w->c.journal);
	state_free(w->c.state);
	cose_signer_free(w->c.signer);
	if (w->client >= 0)
		close(w->client);
	memset(&w->c, 0, sizeof(w->c));
	w->c.now_boot_ms = boot;
	w->c.now_wall_ms = wall;
	w->client = -1;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err = {0};

	log_init("test", LOG_LEVEL_ERROR);
	strcpy(w->dir, "/tmp/sallyport-controller-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(cose_key_create(w->dir, &err), 0);
	w->c.now_boot_ms = 1000000;
	w->c.now_wall_ms = T0;
	if (start(w, &err) < 0)
		fail_msg("%s", err.msg);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char cmd[128];

	stop(w);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
	assert_int_equal(system(cmd), 0);
	free(w);
	return 0;
}

static void turn(struct world *w)
{
	for (unsigned i = 0; i < 3; i++) {
		api_server_dispatch(w->c.api, w->c.now_boot_ms);
		feed_dispatch(w->c.feed, w->c.now_boot_ms, w->c.now_wall_ms);
	}
	feed_tick(w->c.feed, w->c.now_boot_ms, w->c.now_wall_ms);
	pending_tick(&w->c.pending, w->c.now_boot_ms);
}

static void tell(struct world *w, const char *request)
{
	assert_int_equal(send(w->client, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	assert_int_equal(send(w->client, "\n", 1, MSG_NOSIGNAL), 1);
	turn(w);
}

/* The answer that is there; NULL if there is none yet. */
static json_t *hear(struct world *w)
{
	static char text[1 << 20];
	ssize_t n = recv(w->client, text, sizeof(text), 0);

	return n <= 0 ? NULL : json_loadb(text, (size_t)n, 0, NULL);
}

static json_t *ask(struct world *w, const char *request)
{
	json_t *r;

	tell(w, request);
	r = hear(w);
	if (r == NULL)
		fail_msg("no answer to %s", request);
	return r;
}

static const char *str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s == NULL ? "" : s;
}

/* In order: later rows build on earlier ones. */
static const struct {
	const char *name, *request, *code; /* code "": accepted */
} rows[] = {
	{"unknown command", "{\"cmd\":\"dance\"}", "invalid"},
	{"enrol without a name", "{\"cmd\":\"enrol\"}", "invalid"},
	{"enrol without a kind", "{\"cmd\":\"enrol\",\"device\":\"a\"}", "invalid"},
	{"enrol with a strange kind", "{\"cmd\":\"enrol\",\"device\":\"a\",\"kind\":\"ip\"}",
	 "invalid"},
	{"enrol with a strange member", "{\"cmd\":\"enrol\"," CAM ",\"force\":true}", "invalid"},
	{"enrol with a number", "{\"cmd\":\"enrol\",\"device\":5,\"kind\":\"cn\"}", "invalid"},
	{"enrol with a line feed", "{\"cmd\":\"enrol\",\"device\":\"a\\nb\",\"kind\":\"cn\"}",
	 "invalid"},
	{"enrol with a NUL", "{\"cmd\":\"enrol\",\"device\":\"a\\u0000b\",\"kind\":\"cn\"}",
	 "invalid"},
	{"enrol with half a hash", "{\"cmd\":\"enrol\"," CAM ",\"cert_sha256\":\"ab\"}", "invalid"},
	{"quarantine before enrol", "{\"cmd\":\"quarantine\"," CAM "}", "not_found"},
	{"revoke before enrol", "{\"cmd\":\"revoke\"," CAM "}", "not_found"},
	{"attest before enrol",
	 "{\"cmd\":\"attest\"," CAM ",\"digest\":\"" DIGEST
	 "\",\"tier\":\"affirming\",\"for_s\":60}",
	 "not_found"},
	{"enrol", "{\"cmd\":\"enrol\"," CAM "}", ""},
	{"restore without quarantine", "{\"cmd\":\"restore\"," CAM "}", "conflict"},
	{"quarantine", "{\"cmd\":\"quarantine\"," CAM ",\"reason\":\"scans\"}", ""},
	{"restore", "{\"cmd\":\"restore\"," CAM "}", ""},
	{"attest with tier none",
	 "{\"cmd\":\"attest\"," CAM ",\"digest\":\"" DIGEST "\",\"tier\":\"none\",\"for_s\":60}",
	 "invalid"},
	{"attest for no time",
	 "{\"cmd\":\"attest\"," CAM ",\"digest\":\"" DIGEST
	 "\",\"tier\":\"affirming\",\"for_s\":0}",
	 "invalid"},
	{"attest for ever",
	 "{\"cmd\":\"attest\"," CAM ",\"digest\":\"" DIGEST
	 "\",\"tier\":\"affirming\",\"for_s\":9000000000000000000}",
	 "invalid"},
	{"attest",
	 "{\"cmd\":\"attest\"," CAM ",\"digest\":\"" DIGEST
	 "\",\"tier\":\"affirming\",\"for_s\":60}",
	 ""},
	{"revoke unknown software", "{\"cmd\":\"software_revoke\",\"digest\":\"" DIGEST "\"}",
	 "not_found"},
	{"certify without a version",
	 "{\"cmd\":\"software_certify\",\"digest\":\"" DIGEST "\",\"name\":\"fw\"}", "invalid"},
	{"certify",
	 "{\"cmd\":\"software_certify\",\"digest\":\"" DIGEST
	 "\",\"name\":\"fw\",\"version\":\"4\",\"for_s\":86400}",
	 ""},
	{"revoke software",
	 "{\"cmd\":\"software_revoke\",\"digest\":\"" DIGEST "\",\"reason\":\"CVE\"}", ""},
	{"certify what was revoked",
	 "{\"cmd\":\"software_certify\",\"digest\":\"" DIGEST
	 "\",\"name\":\"fw\",\"version\":\"4\"}",
	 "conflict"},
	{"revoke nothing", "{\"cmd\":\"revoke\",\"reason\":\"x\"}", "invalid"},
	{"revoke an issuer without serial", "{\"cmd\":\"revoke\",\"issuer_sha256\":\"" DIGEST "\"}",
	 "invalid"},
	{"revoke issuer and serial",
	 "{\"cmd\":\"revoke\",\"issuer_sha256\":\"" DIGEST "\",\"serial\":\"01af\"}", ""},
	{"revoke a certificate", "{\"cmd\":\"revoke\",\"cert_sha256\":\"" DIGEST "\"}", ""},
	{"revoke the device", "{\"cmd\":\"revoke\"," CAM ",\"reason\":\"stolen\"}", ""},
	{"unenrol", "{\"cmd\":\"unenrol\"," CAM "}", ""},
	{"unenrol twice", "{\"cmd\":\"unenrol\"," CAM "}", "not_found"},
	{"revoke one that was enrolled once", "{\"cmd\":\"revoke\"," CAM "}", ""},
	{"policy that does not parse",
	 "{\"cmd\":\"policy_apply\",\"file\":\"s.cfg\",\"text\":\"segments = (\"}", "invalid"},
	{"policy without text", "{\"cmd\":\"policy_apply\",\"file\":\"s.cfg\"}", "invalid"},
	{"policy",
	 "{\"cmd\":\"policy_apply\",\"file\":\"s.cfg\",\"text\":\"segments = "
	 "({name=\\\"a\\\";});\\n\"}",
	 ""},
	{"batch of nothing", "{\"cmd\":\"batch\",\"decisions\":[]}", "invalid"},
	{"batch that is no list", "{\"cmd\":\"batch\",\"decisions\":{}}", "invalid"},
	{"batch with a strange member",
	 "{\"cmd\":\"batch\",\"force\":true,\"decisions\":[{\"cmd\":\"enrol\"," CAM "}]}",
	 "invalid"},
	{"batch with something that is no decision",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"enrol\"," CAM "},{\"cmd\":\"log\"}]}",
	 "invalid"},
	{"batch with a number", "{\"cmd\":\"batch\",\"decisions\":[5]}", "invalid"},
	{"batch in a batch",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"batch\",\"decisions\":[]}]}", "invalid"},
	{"batch with a policy",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"policy_apply\",\"file\":\"s.cfg\","
	 "\"text\":\"segments = ({name=\\\"a\\\";});\\n\"}]}",
	 "invalid"},
	{"batch of which one cannot be: none is",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"enrol\"," CAM
	 "},{\"cmd\":\"quarantine\",\"device\":\"nobody\",\"kind\":\"cn\"}]}",
	 "not_found"},
	{"batch is checked against what was before it",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"enrol\",\"device\":\"b\",\"kind\":\"cn\"},"
	 "{\"cmd\":\"quarantine\",\"device\":\"b\",\"kind\":\"cn\"}]}",
	 "not_found"},
	{"batch",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"enrol\",\"device\":\"b\",\"kind\":\"cn\"},"
	 "{\"cmd\":\"revoke\"," CAM ",\"reason\":\"stolen\"}]}",
	 ""},
	{"what the batch enrolled", "{\"cmd\":\"quarantine\",\"device\":\"b\",\"kind\":\"cn\"}",
	 ""},
	{"batch that undoes it",
	 "{\"cmd\":\"batch\",\"decisions\":[{\"cmd\":\"restore\",\"device\":\"b\",\"kind\":\"cn\"},"
	 "{\"cmd\":\"unenrol\",\"device\":\"b\",\"kind\":\"cn\"}]}",
	 ""},
	{"log with a strange limit", "{\"cmd\":\"log\",\"limit\":-1}", "invalid"},
};

static void commands_are_checked_and_decided(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t before = journal_head(w->c.journal)->revision, after;
		json_t *r = ask(w, rows[i].request);

		after = journal_head(w->c.journal)->revision;
		if (strcmp(str(r, "code"), rows[i].code) != 0 ||
		    (rows[i].code[0] == '\0') != (after == before + 1))
			fail_msg("%s: code %s, error %s", rows[i].name, str(r, "code"),
				 str(r, "error"));
		if (rows[i].code[0] == '\0') {
			assert_int_equal(json_integer_value(json_object_get(r, "revision")), after);
			assert_int_equal(json_array_size(json_object_get(r, "receipts")), 0);
			assert_non_null(strstr(str(r, "warning"), "no gateway is connected"));
		}
		json_decref(r);
		w->c.now_wall_ms += 1000;
	}
}

/* What parses, and is still more than a gateway can hold, is refused before it is signed. */
static void a_policy_that_does_not_compile_is_not_decided(void **state)
{
	struct world *w = *state;
	char *text = malloc(65536);
	const char *line;
	json_t *r;
	size_t n;

	assert_non_null(text);
	n = (size_t)sprintf(text,
			    "{\"cmd\":\"policy_apply\",\"file\":\"s.cfg\",\"text\":\"segments = (");
	for (int i = 0; i < 600; i++)
		n += (size_t)sprintf(text + n, "{name=\\\"s%d\\\";}%s\\n", i, i < 599 ? "," : "");
	sprintf(text + n,
		");\\nrules = ({from=\\\"any\\\";to=\\\"any\\\";service=\\\"tcp/1\\\";});\"}");
	r = ask(w, text);
	line = json_string_value(json_array_get(json_object_get(r, "errors"), 0));
	assert_string_equal(str(r, "code"), "invalid");
	if (line == NULL || strncmp(line, "s.cfg:602: ", 11) != 0 ||
	    strstr(line, "entries") == NULL)
		fail_msg("%s", line == NULL ? "no line" : line);
	assert_int_equal(journal_head(w->c.journal)->revision, 0);
	json_decref(r);
	free(text);
}

static void run_all(struct world *w)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		json_decref(ask(w, rows[i].request));
}

static void state_and_log_are_the_same_after_a_restart(void **state)
{
	struct world *w = *state;
	struct err err = {0};
	json_t *before, *after, *log;

	run_all(w);
	before = ask(w, "{\"cmd\":\"state\"}");
	stop(w);
	if (start(w, &err) < 0)
		fail_msg("%s", err.msg);
	after = ask(w, "{\"cmd\":\"state\"}");
	assert_true(json_equal(before, after));
	log = ask(w, "{\"cmd\":\"log\",\"after\":2,\"limit\":2}");
	assert_int_equal(json_array_size(json_object_get(log, "entries")), 2);
	assert_string_equal(str(json_array_get(json_object_get(log, "entries"), 0), "summary"),
			    "restore spiffe://p/cam/1");
	json_decref(before);
	json_decref(after);
	json_decref(log);
}

static void a_log_that_somebody_edited_is_refused(void **state)
{
	static const struct {
		const char *name, *sql;
		int want;
	} edits[] = {
		{"last entry moved",
		 "UPDATE entries SET revision = 99 WHERE revision = (SELECT max(revision) FROM "
		 "entries)",
		 -EBADMSG},
		{"entry taken out", "DELETE FROM entries WHERE revision = 3", -EBADMSG},
		{"signature changed",
		 "UPDATE entries SET cose = substr(cose, 1, length(cose) - 1) || x'ff' WHERE "
		 "revision = 1",
		 -EBADMSG},
	};
	struct world *w = *state;

	run_all(w);
	for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
		char path[96], keep[256];
		struct err err = {0};
		sqlite3 *db;

		stop(w);
		snprintf(keep, sizeof(keep), "rm -rf %s.bak && cp -r %s %s.bak", w->dir, w->dir,
			 w->dir);
		assert_int_equal(system(keep), 0);
		snprintf(path, sizeof(path), "%s/decisions.db", w->dir);
		assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, edits[i].sql, NULL, NULL, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_changes(db), 1);
		sqlite3_close(db);
		if (start(w, &err) != edits[i].want)
			fail_msg("%s: %s", edits[i].name, err.msg);
		stop(w);
		snprintf(keep, sizeof(keep), "rm -rf %s && mv %s.bak %s", w->dir, w->dir, w->dir);
		assert_int_equal(system(keep), 0);
		if (start(w, &err) < 0)
			fail_msg("%s: %s", edits[i].name, err.msg);
	}
}

static void two_controllers_do_not_share_a_log(void **state)
{
	struct world *w = *state;
	struct journal *j = NULL;

	assert_int_equal(journal_open(&j, w->dir, w->c.signer, fold, w->c.state, NULL), -EBUSY);
	assert_null(j);
}

/* ---- with a gateway ---- */

static void gateway_send(struct gateway *g, const struct frame *f)
{
	uint8_t *data;
	size_t n;

	assert_int_equal(frame_encode(&data, &n, f), 0);
	assert_int_equal(transport_embedded.send(g->t, data, n), 0);
	free(data);
}

static void gateway_receipt(struct gateway *g, const char *name, uint64_t revision)
{
	struct frame f = {.type = FRAME_RECEIPT,
			  .receipt = {.revision = revision, .in_force_us = 412, .flows_closed = 2}};

	snprintf(f.receipt.gateway, sizeof(f.receipt.gateway), "%s", name);
	gateway_send(g, &f);
}

static int gateway_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct gateway *g = arg;
	struct decision_heartbeat h;
	struct decision_entry *e = NULL;
	struct frame f;

	assert_int_equal(frame_decode(&f, data, bytes, NULL), 0);
	if (f.type == FRAME_HEARTBEAT) {
		assert_int_equal(decision_heartbeat_open(&h, f.cose, f.cose_bytes, g->key, NULL),
				 0);
		g->heartbeats++;
		g->lease_ms = h.lease_ms;
		return 0;
	}
	if (f.type == FRAME_SNAPSHOT) {
		assert_int_equal(decision_snapshot_open(&e, f.cose, f.cose_bytes, g->key, NULL), 0);
		g->snapshots++;
		g->snapshot_ops = e->n_ops;
	} else {
		assert_int_equal(decision_entry_open(&e, f.cose, f.cose_bytes, g->key, NULL), 0);
		assert_int_equal(e->revision, g->revision + 1);
	}
	g->revision = e->revision;
	if (g->answer)
		gateway_receipt(g, "gw1", e->revision);
	decision_entry_free(e);
	return 0;
}

static void gateway_turn(struct world *w, struct gateway *g)
{
	for (unsigned i = 0; i < 4; i++) {
		turn(w);
		if (!g->closed && transport_embedded.pump(g->t, gateway_frame, g) < 0)
			g->closed = true;
	}
}

static struct gateway gateway_connect(struct world *w, const char *name)
{
	struct gateway g = {.c = &w->c, .key = cose_signer_public(w->c.signer), .answer = true};
	struct frame f = {.type = FRAME_SUBSCRIBE};
	char path[96];

	snprintf(path, sizeof(path), "%s/dec.sock", w->dir);
	snprintf(f.gateway, sizeof(f.gateway), "%s", name);
	assert_int_equal(transport_embedded.open(&g.t, path, NULL), 0);
	gateway_send(&g, &f);
	gateway_turn(w, &g);
	return g;
}

static void a_command_is_answered_with_the_receipts(void **state)
{
	struct world *w = *state;
	struct gateway g = gateway_connect(w, "gw1");
	json_t *r, *receipt;

	assert_true(g.heartbeats > 0);
	assert_int_equal(g.lease_ms, 3000);
	tell(w, "{\"cmd\":\"enrol\"," CAM "}");
	assert_null(hear(w)); /* not before the receipt */
	gateway_turn(w, &g);
	r = hear(w);
	assert_true(json_is_true(json_object_get(r, "ok")));
	receipt = json_array_get(json_object_get(r, "receipts"), 0);
	assert_string_equal(str(receipt, "gateway"), "gw1");
	assert_int_equal(json_integer_value(json_object_get(receipt, "in_force_us")), 412);
	assert_null(json_object_get(r, "warning"));
	json_decref(r);

	/* No answer: after five seconds the command says so, and the receipt that comes late is still kept. */
	g.answer = false;
	tell(w, "{\"cmd\":\"quarantine\"," CAM "}");
	gateway_turn(w, &g);
	w->c.now_boot_ms += CONTROLLER_RECEIPT_MS - 1;
	gateway_turn(w, &g);
	assert_null(hear(w));
	w->c.now_boot_ms++;
	gateway_turn(w, &g);
	r = hear(w);
	assert_string_equal(json_string_value(json_array_get(json_object_get(r, "missing"), 0)),
			    "gw1");
	assert_string_equal(str(r, "warning"), "gw1: no receipt in time");
	json_decref(r);
	gateway_receipt(&g, "gw1", 2);
	gateway_turn(w, &g);
	r = ask(w, "{\"cmd\":\"log\"}");
	receipt = json_array_get(json_object_get(r, "entries"), 1);
	assert_int_equal(json_array_size(json_object_get(receipt, "receipts")), 1);
	json_decref(r);

	/* It leaves while a command waits for it. */
	tell(w, "{\"cmd\":\"restore\"," CAM "}");
	transport_embedded.close(g.t);
	turn(w);
	r = hear(w);
	assert_non_null(strstr(str(r, "warning"), "its connection ended"));
	json_decref(r);
}

static void a_snapshot_rebuilds_the_state(void **state)
{
	struct world *w = *state;
	struct gateway g;
	struct frame want = {.type = FRAME_WANT_SNAPSHOT};
	struct decision *ops;
	struct decision_entry e = {0};
	struct state *again;
	json_t *a, *b;

	run_all(w);
	g = gateway_connect(w, "gw1");
	assert_int_equal(g.revision, journal_head(w->c.journal)->revision);
	gateway_send(&g, &want);
	gateway_turn(w, &g);
	assert_int_equal(g.snapshots, 1);
	assert_int_equal(g.revision, journal_head(w->c.journal)->revision);
	assert_int_equal(state_operations(w->c.state, &ops, &e.n_ops), 0);
	assert_int_equal(e.n_ops, g.snapshot_ops);
	/* software certified and revoked, three revocations, policy; the device is unenrolled and in no quarantine */
	assert_int_equal(e.n_ops, 6);
	e.ops = ops;
	assert_int_equal(state_new(&again), 0);
	assert_int_equal(state_fold(again, &e), 0);
	a = state_json(w->c.state);
	b = state_json(again);
	json_array_clear(json_object_get(
		a, "devices")); /* names without any standing are not worth a snapshot */
	assert_true(json_equal(a, b));
	json_decref(a);
	json_decref(b);
	state_free(again);
	free(ops);
	transport_embedded.close(g.t);
}

/* A controller whose log was set back: the gateway stays connected, hears of it, and its old receipts count for nothing. */
static void a_gateway_that_is_ahead_stays_connected(void **state)
{
	struct world *w = *state;
	struct gateway g = gateway_connect(w, "gw1");
	struct frame ahead = {.type = FRAME_SUBSCRIBE, .gateway = "gw1", .revision = 2};
	json_t *r;

	memset(ahead.hash, 0x5a, sizeof(ahead.hash));
	g.heartbeats = 0;
	gateway_send(&g, &ahead);
	gateway_receipt(&g, "gw1", 2);
	gateway_turn(w, &g);
	assert_false(g.closed);
	assert_true(g.heartbeats > 0);
	g.revision = 2;
	g.answer = false;
	for (unsigned i = 0; i < 2; i++) {
		tell(w,
		     i == 0 ? "{\"cmd\":\"enrol\"," CAM "}" : "{\"cmd\":\"quarantine\"," CAM "}");
		gateway_receipt(&g, "gw1", i + 1);
		gateway_turn(w, &g);
		assert_null(hear(w));
		w->c.now_boot_ms += CONTROLLER_RECEIPT_MS;
		gateway_turn(w, &g);
		r = hear(w);
		assert_string_equal(str(r, "warning"), "gw1: no receipt in time");
		json_decref(r);
	}
	assert_false(g.closed);
	transport_embedded.close(g.t);
}

static void a_bad_gateway_costs_itself_the_connection(void **state)
{
	static const struct {
		const char *name, *bytes;
		size_t n;
	} bad[] = {
		{"not a frame", "\x01\x02", 2},
		{"a controller's frame", "\x82\x10\x40", 3},
		{"subscription without a name", "\x84\x01\x60\x00\x40", 5},
	};
	struct world *w = *state;
	struct gateway g, other = gateway_connect(w, "gw2");

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		g = gateway_connect(w, "gw1");
		assert_false(g.closed);
		assert_int_equal(transport_embedded.send(g.t, bad[i].bytes, bad[i].n), 0);
		gateway_turn(w, &g);
		if (!g.closed)
			fail_msg("%s: still connected", bad[i].name);
		transport_embedded.close(g.t);
	}
	g = gateway_connect(w, "gw1");
	gateway_receipt(&g, "gw2", 1); /* in another's name, and of no revision */
	gateway_turn(w, &g);
	assert_true(g.closed);
	transport_embedded.close(g.t);
	gateway_turn(w, &other);
	assert_false(other.closed);
	transport_embedded.close(other.t);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_policy_that_does_not_compile_is_not_decided),
		T(commands_are_checked_and_decided),
		T(state_and_log_are_the_same_after_a_restart),
		T(a_log_that_somebody_edited_is_refused),
		T(two_controllers_do_not_share_a_log),
		T(a_command_is_answered_with_the_receipts),
		T(a_snapshot_rebuilds_the_state),
		T(a_gateway_that_is_ahead_stays_connected),
		T(a_bad_gateway_costs_itself_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
