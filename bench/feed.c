/* SPDX-License-Identifier: GPL-3.0-or-later */
/* feed: loads a gateway for the rig by its own ways in, and no other: the controller's API enrols, revokes and applies
 * policies; a session of the agent's socket, as a TLS worker holds it, announces devices as admitted.
 *   feed CONTROLLER-SOCKET AGENT-SOCKET TRUST-TABLE GATEWAY-CFG
 *   feed policy [VARIANT]               the policy as text on standard output: 64 segments, 2,000 rules. Variants differ
 *                                       in one rule
 * Commands come on standard input, one a line; each is answered by one line, "ok ..." or "error ...":
 *   enrol FROM TO                       devices, in batches
 *   admit FROM TO v4|v6                 a session of each device; the gateway must have seen its frames (gen knock)
 *   churn PER-SECOND MS                 apply a policy, and another, and so on, at this pace or as fast as it goes
 *   revoke FROM TO PER-SECOND BATCH     devices for good, in batches, one batch after the receipt of the one before
 *   changed FROM TO                     when each device's trust record last changed: boot clock in us
 *   quit
 * What the agent asks of a TLS worker is answered while commands wait and in between. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/frames.h"
#include "bench/load.h"
#include "config/base/clock.h"
#include "config/base/msg.h"
#include "config/base/trust.h"
#include "config/listeners.h"

#define DEVICES_MAX 200000u
#define BATCH_MAX 64
#define AHEAD 64 /* admissions under way */
#define ANSWER_MS 30000
#define POLICY_BYTES (512u * 1024)
#define CERT_DAYS 30

struct session {
	uint32_t slot, generation; /* slot 0: none */
};

struct feed {
	int controller, agent;
	const char *controller_path;
	struct trust_table trust;
	struct gw_config *cfg; /* its first listener is of IPv4, the second one of IPv6 */
	struct session session[2][DEVICES_MAX]; /* by family and device */
	uint32_t *holder; /* device + 1 by slot */
	uint64_t journal; /* of the trust table, read up to here */
	uint32_t under_way, refused;
	char why[128]; /* of a refusal */
	char *line; /* answer of the controller */
	size_t line_room;
};

static struct feed f;

static void die(const char *what)
{
	fprintf(stderr, "feed: %s\n", what);
	exit(1);
}

static void name_of(uint32_t d, char *out, size_t bytes)
{
	snprintf(out, bytes, "spiffe://x/s%u/d%u", d % LOAD_SEGMENTS, d);
}

/* ---- the agent's socket ---- */

static int agent_receive(union msg_any *m, int timeout_ms)
{
	struct pollfd p = {.fd = f.agent, .events = POLLIN};
	ssize_t n;

	if (poll(&p, 1, timeout_ms) <= 0)
		return 0;
	n = msg_recv(f.agent, m, NULL);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		die("the agent hung up");
	return 1;
}

static void agent_send(const void *m)
{
	struct pollfd p = {.fd = f.agent, .events = POLLOUT};
	int ret;

	while ((ret = msg_send(f.agent, m, -1)) == -EAGAIN)
		poll(&p, 1, 100);
	if (ret < 0)
		die("the agent hung up");
}

/* Sessions of a device that are no longer current end. @return how many */
static uint32_t sessions_close(uint32_t d)
{
	uint32_t closed = 0;

	for (int v6 = 0; v6 < 2; v6++) {
		struct session *s = &f.session[v6][d];
		struct msg_session_closed m = {.session = 2ull * d + v6 + 1, .slot = s->slot};

		if (s->slot == 0 ||
		    trust_current(&f.trust.rec[s->slot], s->generation, clock_boot_ms()))
			continue;
		MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
		snprintf(m.reason, sizeof(m.reason), "trust record changed");
		agent_send(&m);
		s->slot = 0;
		closed++;
	}
	return closed;
}

/* What changed since the last look, as TLS workers find it. */
static uint32_t journal_follow(void)
{
	uint64_t head = atomic_load_explicit(&f.trust.hdr->journal_head, memory_order_acquire);
	uint32_t closed = 0;

	if (head - f.journal > TRUST_JOURNAL_ENTRIES / 2) { /* overrun: look at all */
		for (uint32_t d = 0; d < DEVICES_MAX; d++)
			closed += sessions_close(d);
	} else {
		for (; f.journal < head; f.journal++) {
			uint32_t slot = f.trust.journal[f.journal % TRUST_JOURNAL_ENTRIES];

			if (slot < f.trust.slots && f.holder[slot] != 0)
				closed += sessions_close(f.holder[slot] - 1);
		}
	}
	f.journal = head;
	return closed;
}

static void on_admitted(const struct msg_admitted *m)
{
	uint32_t d = (uint32_t)((m->session - 1) / 2);
	struct session *s;

	if (m->session == 0 || d >= DEVICES_MAX || m->slot >= f.trust.slots)
		die("an answer about no session of ours");
	f.under_way--;
	if (m->slot == 0) {
		f.refused++;
		snprintf(f.why, sizeof(f.why), "%.127s", m->reason);
		return;
	}
	s = &f.session[(m->session - 1) % 2][d];
	*s = (struct session){.slot = m->slot, .generation = m->generation};
	f.holder[m->slot] = d + 1;
}

/* @return false: nothing came */
static bool agent_turn(int timeout_ms)
{
	union msg_any m;
	struct msg_recheck r;

	if (agent_receive(&m, timeout_ms) == 0)
		return false;
	if (m.h.type == MSG_ADMITTED) {
		on_admitted((const struct msg_admitted *)&m);
	} else if (m.h.type == MSG_RECHECK) {
		r = *(const struct msg_recheck *)&m;
		r.closed = journal_follow();
		MSG_INIT(&r, MSG_RECHECKED, m.h.seq);
		agent_send(&r);
	}
	return true;
}

static void agent_join(const char *path)
{
	struct msg_hello h = {
		.version = MSG_VERSION, .role = MSG_ROLE_TLS, .pid = getpid(), .worker = 1};
	union msg_any m;

	f.agent = msg_connect(path);
	if (f.agent < 0)
		die("no agent");
	h.instance = (uint64_t)getpid();
	h.listeners = gw_listeners_hash(f.cfg);
	MSG_INIT(&h, MSG_HELLO, 0);
	agent_send(&h);
	if (agent_receive(&m, ANSWER_MS) == 0 || m.h.type != MSG_WELCOME)
		die("the agent does not welcome us");
}

static void admit_send(uint32_t d, bool v6)
{
	struct msg_admit m = {.session = 2ull * d + v6 + 1, .identity_kind = IDENTITY_URI};
	uint64_t now_s = clock_wall_ms() / 1000;
	uint8_t src[16];

	MSG_INIT(&m, MSG_ADMIT, d + 1);
	device_ip(d, !v6, src);
	m.flow = (struct flow_key){.src = v6 ? ip_addr_from_v6(src) : ip_addr_from_v4(src),
				   .dst = f.cfg->listeners[v6].addr,
				   .sport = FRAMES_SPORT,
				   .dport = f.cfg->listeners[v6].port,
				   .proto = IPPROTO_TCP};
	/* Issued and valid by the day, so that both families' sessions name one certificate. */
	m.not_before_s = now_s - now_s % 86400 - 86400;
	m.not_after_s = m.not_before_s + CERT_DAYS * 86400ull;
	memcpy(m.cert_sha256, &d, sizeof(d));
	m.cert_sha256[31] = 1;
	memcpy(m.serial, &d, sizeof(d));
	m.serial_bytes = sizeof(d);
	m.upstreams = gw_listener_upstreams_hash(&f.cfg->listeners[v6]);
	name_of(d, m.identity, sizeof(m.identity));
	agent_send(&m);
	f.under_way++;
}

static void do_admit(uint32_t from, uint32_t to, bool v6)
{
	uint64_t start_us = clock_boot_us();

	f.refused = 0;
	for (uint32_t d = from; d < to && f.refused == 0; d++) {
		admit_send(d, v6);
		while (f.under_way >= AHEAD) {
			if (!agent_turn(ANSWER_MS))
				die("the agent does not answer");
		}
	}
	while (f.under_way > 0) {
		if (!agent_turn(ANSWER_MS))
			die("the agent does not answer");
	}
	if (f.refused > 0)
		printf("error %u refused: %s\n", f.refused, f.why);
	else
		printf("ok seconds=%.2f\n", (double)(clock_boot_us() - start_us) / 1e6);
}

/* ---- the controller ---- */

static void controller_join(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(sa.sun_path))
		die("the controller's socket has too long a name");
	strcpy(sa.sun_path, path);
	f.controller = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f.controller < 0 || connect(f.controller, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die("no controller");
}

/* It hangs up on who asks nothing for a while. */
static void controller_again(void)
{
	struct pollfd p = {.fd = f.controller, .events = POLLIN};

	if (poll(&p, 1, 0) == 0)
		return;
	close(f.controller);
	controller_join(f.controller_path);
}

static void controller_write(const char *text, size_t bytes)
{
	controller_again();
	while (bytes > 0) {
		ssize_t n = send(f.controller, text, bytes, MSG_NOSIGNAL);

		if (n < 0)
			die("the controller hung up");
		text += n;
		bytes -= (size_t)n;
	}
}

/* One line; the agent is answered while it is awaited. */
static const char *controller_read(void)
{
	struct pollfd p[2] = {{.fd = f.controller, .events = POLLIN},
			      {.fd = f.agent, .events = POLLIN}};
	size_t have = 0;

	for (;;) {
		ssize_t n;

		if (poll(p, 2, ANSWER_MS) <= 0)
			die("the controller does not answer");
		if (p[1].revents != 0)
			agent_turn(0);
		if (p[0].revents == 0)
			continue;
		if (f.line_room - have < 4096) {
			f.line_room = f.line_room * 2 + 65536;
			f.line = realloc(f.line, f.line_room);
			if (f.line == NULL)
				die("no memory");
		}
		n = recv(f.controller, f.line + have, f.line_room - have - 1, 0);
		if (n <= 0)
			die("the controller hung up");
		have += (size_t)n;
		f.line[have] = '\0';
		if (f.line[have - 1] == '\n')
			return f.line;
	}
}

/* @return NULL, or the answer: it was refused, or is not in force */
static const char *controller_ask(const char *text, size_t bytes)
{
	const char *line;

	controller_write(text, bytes);
	line = controller_read();
	return strstr(line, "\"ok\":true") != NULL || strstr(line, "\"ok\": true") != NULL ? NULL
											   : line;
}

/* A batch of one command for devices. */
static const char *batch_ask(const char *cmd, uint32_t from, uint32_t to)
{
	char text[BATCH_MAX * 128 + 64], name[64];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"cmd\":\"batch\",\"decisions\":[");

	for (uint32_t d = from; d < to; d++) {
		name_of(d, name, sizeof(name));
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "%s{\"cmd\":\"%s\",\"device\":\"%s\",\"kind\":\"uri\"}",
				      d == from ? "" : ",", cmd, name);
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n, "]}\n");
	return controller_ask(text, n);
}

/* Until the moment comes. The agent is answered meanwhile. */
static void wait_until(uint64_t us)
{
	for (uint64_t now = clock_boot_us(); now < us; now = clock_boot_us())
		agent_turn((int)((us - now) / 1000));
}

static void do_batches(const char *cmd, uint32_t from, uint32_t to, double per_second,
		       uint32_t batch)
{
	uint64_t start_us = clock_boot_us(), end_us;
	const char *why = NULL;

	if (batch == 0 || batch > BATCH_MAX) {
		printf("error a batch holds 1 to %u\n", BATCH_MAX);
		return;
	}
	for (uint32_t d = from; d < to && why == NULL; d += batch) {
		if (per_second > 0)
			wait_until(start_us + (uint64_t)((d - from) * 1e6 / per_second));
		why = batch_ask(cmd, d, d + batch < to ? d + batch : to);
	}
	end_us = clock_boot_us();
	if (why != NULL)
		printf("error %.300s\n", why);
	else
		printf("ok per_second=%.1f\n", (to - from) * 1e6 / (double)(end_us - start_us + 1));
}

/* {"cmd":"policy_apply",...} with the text as a JSON string. */
static char *policy_request(unsigned variant, size_t *bytes)
{
	char *text = NULL, *out = malloc(2 * POLICY_BYTES);
	size_t text_bytes, n;
	FILE *to = open_memstream(&text, &text_bytes);

	if (out == NULL || to == NULL)
		die("no memory");
	policy_write(to, variant);
	fclose(to);
	if (text_bytes > POLICY_BYTES)
		die("the policy is too long");
	n = (size_t)sprintf(out, "{\"cmd\":\"policy_apply\",\"file\":\"bench-%u.cfg\",\"text\":\"",
			    variant);
	for (size_t i = 0; i < text_bytes; i++) {
		if (text[i] == '\n' || text[i] == '"')
			out[n++] = '\\';
		out[n++] = text[i] == '\n' ? 'n' : text[i];
	}
	n += (size_t)sprintf(out + n, "\"}\n");
	free(text);
	*bytes = n;
	return out;
}

static void do_churn(double per_second, uint64_t ms)
{
	uint64_t start_us = clock_boot_us(), us = 0;
	const char *why = NULL;
	size_t bytes[2];
	char *text[2];
	unsigned n = 0;

	for (unsigned i = 0; i < 2; i++)
		text[i] = policy_request(i + 1, &bytes[i]);
	for (; us < ms * 1000 && why == NULL; n++) {
		wait_until(start_us + (uint64_t)(n * 1e6 / per_second));
		why = controller_ask(text[n % 2], bytes[n % 2]);
		us = clock_boot_us() - start_us;
	}
	free(text[0]);
	free(text[1]);
	if (why != NULL)
		printf("error %.300s\n", why);
	else
		printf("ok per_second=%.2f\n", n * 1e6 / (double)us);
}

static void do_changed(uint32_t from, uint32_t to)
{
	static uint64_t at[DEVICES_MAX];

	memset(at, 0, sizeof(at));
	for (uint32_t slot = 1; slot < f.trust.slots; slot++) {
		struct trust_view v;

		if (f.holder[slot] != 0 && trust_read(&f.trust, slot, &v))
			at[f.holder[slot] - 1] = v.changed_us;
	}
	printf("ok");
	for (uint32_t d = from; d < to; d++)
		printf(" %" PRIu64, at[d]);
	putchar('\n');
}

/* @return false: end */
static bool command(char **word, unsigned n)
{
	uint32_t a = n > 1 ? strtoul(word[1], NULL, 10) : 0,
		 b = n > 2 ? strtoul(word[2], NULL, 10) : 0;
	bool range = n > 2 && a < b && b <= DEVICES_MAX;

	if (n == 1 && strcmp(word[0], "quit") == 0)
		return false;
	if (n == 3 && range && strcmp(word[0], "enrol") == 0)
		do_batches("enrol", a, b, 0, BATCH_MAX);
	else if (n == 4 && range && strcmp(word[0], "admit") == 0)
		do_admit(a, b, strcmp(word[3], "v6") == 0);
	else if (n == 3 && atof(word[1]) > 0 && strcmp(word[0], "churn") == 0)
		do_churn(atof(word[1]), b);
	else if (n == 5 && range && strcmp(word[0], "revoke") == 0)
		do_batches("revoke", a, b, atof(word[3]), strtoul(word[4], NULL, 10));
	else if (n == 3 && range && strcmp(word[0], "changed") == 0)
		do_changed(a, b);
	else
		puts("error no such command, wrong number of words, or out of range");
	return true;
}

static void commands(void)
{
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = f.agent, .events = POLLIN}};
	char line[256], *word[8], *save;

	setvbuf(stdin, NULL, _IONBF, 0); /* poll(2) must see what is there */
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ok ready");
	for (;;) {
		unsigned n = 0;

		poll(p, 2, -1);
		if (p[1].revents != 0)
			agent_turn(0);
		if (p[0].revents == 0)
			continue;
		if (fgets(line, sizeof(line), stdin) == NULL)
			return;
		for (char *w = strtok_r(line, " \n", &save); w != NULL && n < 8;
		     w = strtok_r(NULL, " \n", &save))
			word[n++] = w;
		if (n == 0)
			puts("error empty command");
		else if (!command(word, n))
			return;
	}
}

int main(int argc, char **argv)
{
	struct config_errors errs = {0};
	struct err err = {0};

	if (argc >= 2 && strcmp(argv[1], "policy") == 0) {
		policy_write(stdout, argc > 2 ? atoi(argv[2]) : 0);
		return 0;
	}
	if (argc != 5)
		die("usage: feed CONTROLLER AGENT TRUST-TABLE GATEWAY-CFG, or feed policy "
		    "[VARIANT]");
	if (gw_config_load(&f.cfg, argv[4], &errs) < 0 || f.cfg->n_listeners < 2)
		die("gateway.cfg is no good, or has not two listeners");
	if (trust_map(&f.trust, argv[3], &err) < 0)
		die(err.msg);
	f.holder = calloc(f.trust.slots, sizeof(*f.holder));
	if (f.holder == NULL)
		die("no memory");
	f.journal = atomic_load(&f.trust.hdr->journal_head);
	f.controller_path = argv[1];
	controller_join(argv[1]);
	agent_join(argv[2]);
	commands();
	return 0;
}
