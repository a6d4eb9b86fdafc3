/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_load: the generator of the TLS benchmark: devices with a certificate each, one thread, one epoll set.
 *   tls_load CA-CERTIFICATE CA-KEY DEVICES
 *   tls_load CA-CERTIFICATE CA-KEY DEVICES EAL-OPTIONS... -- SERVER SINK SINK-PORT DEVICE-MAC UPLINK-MAC
 * The second form speaks frames to the gateway's two ports, and is the upstream too (tls_wire.h). Device d connects from its own address (tls_device.h). A session is open when the upstream's greeting has come through
 * it: handshake, admission and the upstream connection are behind it then.
 * Commands come on standard input, one a line; each is answered by one line, "ok ..." or "error ...". A TARGET is
 * ADDRESS:PORT+PORTS/GROUP with GROUP mlkem768, x25519 or p256; sessions take the ports by turns.
 *   cycle TARGET N CONCURRENT FROM      open and close N sessions, so many at a time, of the devices from FROM on
 *   open TARGET FROM TO CONCURRENT      sessions number FROM to TO, of the devices by turns. They stay
 *   messages FROM TO BYTES MS [RATE]    each sends a message and waits for its echo, again and again; RATE: a second, of all
 *   bulk FROM TO MS                     each sends records of 16 kB as fast as they are taken, until all have come through
 *   flood TARGET CONCURRENT             from now on, beside other commands: ClientHello, and RST when it is answered, from
 *                                       addresses that are no device's
 *   calm                                no more; how many were answered
 *   ended FROM TO                       when the session of each device was ended by the server, boot clock in us (0: it
 *                                       was not), with its alert: US/ALERT
 *   count                               sessions open now
 *   drop                                end all sessions with RST
 *   quit */
#include <inttypes.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/tls_client.h"

#define SESSIONS_MAX 262144u
#define WIRE_TURNS 64 /* between two looks at standard input */
#define WIRE_REST_NS 70000
#define PORTS_MAX 64
#define HISTOGRAM_US 1000000u
#define FLOOD_SOURCES 256u /* addresses of strangers, behind the last device's */
#define FLOOD_LOST_MAX 1000000u /* refused again and again: nobody is there */

enum mode { MODE_REST, MODE_CYCLE, MODE_OPEN, MODE_MESSAGES, MODE_BULK };

struct load {
	struct client client[SESSIONS_MAX];
	uint32_t devices;
	struct target target[PORTS_MAX];
	uint32_t n_targets;
	/* the command under way */
	enum mode mode;
	uint64_t end_us;
	uint32_t next, last; /* sessions to begin, or in use */
	uint32_t under_way, done, lost;
	uint32_t message;
	double rate; /* messages a second, 0: no limit */
	uint32_t queue[SESSIONS_MAX]; /* a ring of those that wait for their turn */
	uint32_t queue_at, queue_n;
	uint32_t histogram[HISTOGRAM_US + 1];
	uint64_t samples;
	char why[96]; /* of the first loss */
	struct flood { /* its clients are the last ones */
		struct target target;
		uint32_t clients, begun, done;
		uint32_t lost; /* one after the other */
		uint64_t start_us;
	} flood;
};

static struct load l;

static void sample(uint64_t us)
{
	l.histogram[us < HISTOGRAM_US ? us : HISTOGRAM_US]++;
	l.samples++;
}

static uint32_t percentile(double part)
{
	uint64_t want = (uint64_t)((double)l.samples * part), n = 0;

	for (uint32_t us = 0; us <= HISTOGRAM_US; us++) {
		n += l.histogram[us];
		if (n > want)
			return us;
	}
	return 0;
}

static void lost(const struct client *c)
{
	l.lost++;
	if (l.why[0] == '\0')
		snprintf(l.why, sizeof(l.why), "session %u, alert %u, errno %d (%s)",
			 (unsigned)(c - l.client), c->alert, errno, strerror(errno));
}

/* The next one of a cycle, or of those to open. */
static void begin(struct client *c)
{
	uint32_t n = l.next++;

	l.under_way++;
	client_open(c, &l.target[n % l.n_targets], n % l.devices);
}

static void flood_begin(struct client *c)
{
	uint32_t n = l.flood.begun++;

	client_connect(c, &l.flood.target, l.devices + n % FLOOD_SOURCES, CLIENT_FLOOD);
}

static bool floods(const struct client *c)
{
	return c >= l.client + SESSIONS_MAX - l.flood.clients;
}

static void flood_told(struct client *c, enum client_event event)
{
	l.flood.done += event != CLIENT_LOST;
	l.flood.lost = event == CLIENT_LOST ? l.flood.lost + 1 : 0;
	if (l.flood.lost < FLOOD_LOST_MAX)
		flood_begin(c);
}

static void echoed(struct client *c)
{
	uint64_t now = clock_boot_us();

	l.done++;
	sample(now - c->begun_us);
	if (now >= l.end_us) {
		l.under_way--;
	} else if (l.rate > 0) {
		l.under_way--;
		l.queue[(l.queue_at + l.queue_n++) % SESSIONS_MAX] = (uint32_t)(c - l.client);
	} else {
		client_message(c, l.message);
	}
}

static void client_told(struct client *c, enum client_event event)
{
	bool over = l.end_us != 0 && clock_boot_us() >= l.end_us;

	if (floods(c)) {
		flood_told(c, event);
		return;
	}
	if (l.mode == MODE_REST)
		return;
	if (event == CLIENT_LOST)
		lost(c);
	switch (l.mode) {
	case MODE_CYCLE:
		if (event == CLIENT_OPENED) {
			sample(clock_boot_us() - c->begun_us);
			client_close(c);
			return;
		}
		break;
	case MODE_MESSAGES:
		if (event == CLIENT_ECHOED) {
			echoed(c);
			return;
		}
		l.under_way--;
		return;
	case MODE_BULK:
		l.done += event == CLIENT_ECHOED;
		l.under_way--;
		return;
	default:
		break;
	}
	/* One is over: the next one. A session that was opened stays, so the next has a place of its own. */
	l.under_way--;
	l.done += event != CLIENT_LOST;
	if (l.next < l.last && !over && l.lost < 100)
		begin(l.mode == MODE_OPEN ? &l.client[l.next] : c);
}

/* @return true: a command waits */
static bool turn(int timeout_ms)
{
	if (!wire.up)
		return socket_turn(timeout_ms);
	for (int i = 0; i < WIRE_TURNS; i++)
		wire_turn();
	/* Without a command it leaves its core to others, but when a session ends is a result. */
	if (l.mode == MODE_REST && l.flood.clients == 0)
		nanosleep(&(struct timespec){.tv_nsec = WIRE_REST_NS}, NULL);
	return socket_turn(0);
}

static void run_begin(enum mode mode, uint64_t ms)
{
	l.mode = mode;
	l.end_us = ms > 0 ? clock_boot_us() + ms * 1000 : 0;
	l.under_way = l.done = l.lost = 0;
	l.queue_at = l.queue_n = 0;
	l.samples = 0;
	l.why[0] = '\0';
	memset(l.histogram, 0, sizeof(l.histogram));
}

/* Until all that was begun is over. A session that makes no progress is lost. */
static void run_finish(void)
{
	uint64_t progress_us = clock_boot_us();
	uint32_t done = 0;

	while (l.under_way > 0) {
		turn(100);
		if (l.done + l.lost != done) {
			done = l.done + l.lost;
			progress_us = clock_boot_us();
		} else if (clock_boot_us() - progress_us > CLIENT_TIMEOUT_US &&
			   clock_boot_us() > l.end_us + CLIENT_TIMEOUT_US) {
			snprintf(l.why, sizeof(l.why), "%u sessions make no progress", l.under_way);
			l.lost += l.under_way;
			break;
		}
	}
	l.mode = MODE_REST;
}

static void answer(uint64_t start_us, uint32_t done)
{
	double s = (double)(clock_boot_us() - start_us) / 1e6;

	if (l.lost > 0)
		printf("error %u lost, %u done: %s\n", l.lost, done, l.why);
	else
		printf("ok done=%u seconds=%.3f per_second=%.1f p50_us=%u p99_us=%u\n", done, s,
		       done / s, percentile(0.5), percentile(0.99));
}

static bool target_read(const char *text)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	char address[32], group[16];
	unsigned port, ports;
	int id;

	if (sscanf(text, "%31[0-9.]:%u+%u/%15s", address, &port, &ports, group) != 4 ||
	    ports == 0 || ports > PORTS_MAX || inet_pton(AF_INET, address, &at.sin_addr) != 1)
		return false;
	id = device_group(group);
	for (unsigned i = 0; i < ports; i++) {
		at.sin_port = htons((uint16_t)(port + i));
		l.target[i] = (struct target){.at = at, .group = id};
	}
	l.n_targets = ports;
	return id != 0;
}

static void do_cycle(uint32_t n, uint32_t concurrent, uint32_t from)
{
	uint64_t start_us = clock_boot_us();
	uint32_t at = SESSIONS_MAX - l.flood.clients;

	run_begin(MODE_CYCLE, 0);
	l.next = from;
	l.last = from + n;
	/* From the end, where no sessions that stay are. */
	for (uint32_t i = 0; i < concurrent && l.next < l.last; i++)
		begin(&l.client[--at]);
	run_finish();
	answer(start_us, l.done);
}

static void do_open(uint32_t from, uint32_t to, uint32_t concurrent)
{
	uint64_t start_us = clock_boot_us();

	run_begin(MODE_OPEN, 0);
	l.next = from;
	l.last = to;
	for (uint32_t i = 0; i < concurrent && l.next < l.last; i++)
		begin(&l.client[l.next]);
	run_finish();
	answer(start_us, l.done);
}

static bool all_open(uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		if (l.client[i].state != CLIENT_OPEN)
			return false;
	}
	return true;
}

/* At a rate: whoever waits longest sends next; what could not be sent in time is not made up for. */
static void paced(uint64_t start_us)
{
	double sent = 0;

	while (clock_boot_us() < l.end_us) {
		double due = (double)(clock_boot_us() - start_us) / 1e6 * l.rate;

		if (due - sent > l.rate / 100)
			sent = due - l.rate / 100;
		while (sent < due && l.queue_n > 0) {
			struct client *c = &l.client[l.queue[l.queue_at]];

			l.queue_at = (l.queue_at + 1) % SESSIONS_MAX;
			l.queue_n--;
			l.under_way++;
			client_message(c, l.message);
			sent++;
		}
		turn(0);
	}
}

static void do_messages(uint32_t from, uint32_t to, uint32_t bytes, uint64_t ms, double rate)
{
	uint64_t start_us = clock_boot_us();

	if (!all_open(from, to) || bytes == 0 || bytes > CLIENT_RECORD) {
		puts("error not all of these sessions are open, or no such message");
		return;
	}
	memset(engine.payload, 'E', sizeof(engine.payload));
	run_begin(MODE_MESSAGES, ms);
	l.message = bytes;
	l.rate = rate;
	for (uint32_t i = from; i < to; i++) {
		if (rate > 0) {
			l.queue[l.queue_n++] = i;
			continue;
		}
		l.under_way++;
		client_message(&l.client[i], bytes);
	}
	if (rate > 0)
		paced(start_us);
	run_finish();
	answer(start_us, l.done);
}

static void do_bulk(uint32_t from, uint32_t to, uint64_t ms)
{
	uint64_t start_us, bytes = 0;
	double s;

	if (!all_open(from, to)) {
		puts("error not all of these sessions are open");
		return;
	}
	memset(engine.payload, 'S', sizeof(engine.payload));
	run_begin(MODE_BULK, ms);
	start_us = clock_boot_us();
	for (uint32_t i = from; i < to; i++) {
		l.under_way++;
		l.client[i].bulk = true;
		l.client[i].sent = 0;
		stream_want(&l.client[i].s, STREAM_READ | STREAM_WRITE);
	}
	while (clock_boot_us() < l.end_us)
		turn(1);
	/* What waits in buffers is no work done yet. */
	for (uint32_t i = from; i < to; i++)
		l.client[i].ending = true;
	run_finish();
	s = (double)(clock_boot_us() - start_us) / 1e6;
	for (uint32_t i = from; i < to; i++)
		bytes += l.client[i].sent;
	if (l.lost > 0)
		printf("error %u lost: %s\n", l.lost, l.why);
	else
		printf("ok bytes=%" PRIu64 " seconds=%.3f mb_per_s=%.1f\n", bytes, s,
		       (double)bytes / s / 1e6);
}

static void do_flood(uint32_t concurrent)
{
	client_hello_make(l.target[0].group);
	l.flood = (struct flood){
		.target = l.target[0], .clients = concurrent, .start_us = clock_boot_us()};
	for (uint32_t i = SESSIONS_MAX - concurrent; i < SESSIONS_MAX; i++)
		flood_begin(&l.client[i]);
	puts("ok");
}

static void do_calm(void)
{
	double s = (double)(clock_boot_us() - l.flood.start_us) / 1e6;

	for (uint32_t i = SESSIONS_MAX - l.flood.clients; i < SESSIONS_MAX; i++)
		client_drop(&l.client[i]);
	printf("ok done=%u per_second=%.1f\n", l.flood.done, l.flood.done / s);
	l.flood.clients = 0;
}

/* Of the last one, if there were several. */
static const struct client *ended_of(uint32_t device)
{
	const struct client *c = NULL;

	for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
		const struct client *k = &l.client[i];

		if (k->state == CLIENT_ENDED && k->device == device &&
		    (c == NULL || k->ended_us > c->ended_us))
			c = k;
	}
	return c;
}

static void do_ended(uint32_t from, uint32_t to)
{
	printf("ok");
	for (uint32_t i = from; i < to; i++) {
		const struct client *c = ended_of(i);

		printf(" %" PRIu64 "/%u", c != NULL ? c->ended_us : 0, c != NULL ? c->alert : 0);
	}
	putchar('\n');
}

static void do_drop(void)
{
	for (uint32_t i = 0; i < SESSIONS_MAX; i++)
		client_drop(&l.client[i]);
	puts("ok");
}

static void do_count(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SESSIONS_MAX; i++)
		n += l.client[i].state == CLIENT_OPEN;
	printf("ok open=%u\n", n);
}

/* @return false: end */
static bool command(char **word, unsigned n)
{
	uint32_t a = n > 1 ? strtoul(word[1], NULL, 10) : 0,
		 b = n > 2 ? strtoul(word[2], NULL, 10) : 0,
		 c = n > 3 ? strtoul(word[3], NULL, 10) : 0,
		 d = n > 4 ? strtoul(word[4], NULL, 10) : 0;
	bool range = a < b && b <= SESSIONS_MAX;

	if (n == 1 && strcmp(word[0], "quit") == 0)
		return false;
	if (n == 5 && strcmp(word[0], "cycle") == 0 && b > 0 && c > 0 && b < UINT32_MAX - d &&
	    target_read(word[1]))
		do_cycle(b, c, d);
	else if (n == 5 && strcmp(word[0], "open") == 0 && b < c && c <= SESSIONS_MAX && d > 0 &&
		 target_read(word[1]))
		do_open(b, c, d);
	else if ((n == 5 || n == 6) && strcmp(word[0], "messages") == 0 && range)
		do_messages(a, b, c, d, n == 6 ? atof(word[5]) : 0);
	else if (n == 4 && strcmp(word[0], "bulk") == 0 && range)
		do_bulk(a, b, c);
	else if (n == 3 && strcmp(word[0], "flood") == 0 && b > 0 && b < SESSIONS_MAX &&
		 l.flood.clients == 0 && target_read(word[1]))
		do_flood(b);
	else if (n == 1 && strcmp(word[0], "calm") == 0 && l.flood.clients > 0)
		do_calm();
	else if (n == 3 && strcmp(word[0], "ended") == 0 && range)
		do_ended(a, b);
	else if (n == 1 && strcmp(word[0], "count") == 0)
		do_count();
	else if (n == 1 && strcmp(word[0], "drop") == 0)
		do_drop();
	else
		puts("error no such command, wrong number of words, or out of range");
	return true;
}

static void commands(void)
{
	struct epoll_event ev = {.events = EPOLLIN};
	char line[256], *word[8], *save;

	setvbuf(stdin, NULL, _IONBF, 0); /* the set must see what is there */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (epoll_ctl(socket_set, EPOLL_CTL_ADD, 0, &ev) < 0)
		device_die("standard input must be a pipe");
	puts("ok ready");
	for (;;) {
		unsigned n = 0;

		/* Sessions may end while nobody asks for anything, and when they did is a result. */
		if (!turn(-1))
			continue;
		if (fgets(line, sizeof(line), stdin) == NULL)
			return;
		epoll_ctl(socket_set, EPOLL_CTL_DEL, 0, NULL);
		for (char *w = strtok_r(line, " \n", &save); w != NULL && n < 8;
		     w = strtok_r(NULL, " \n", &save))
			word[n++] = w;
		if (n == 0)
			puts("error empty command");
		else if (!command(word, n))
			return;
		epoll_ctl(socket_set, EPOLL_CTL_ADD, 0, &ev);
	}
}

int main(int argc, char **argv)
{
	struct rlimit most;

	if (argc < 4 || atoi(argv[3]) <= 0) {
		fputs("usage: tls_load CA-CERTIFICATE CA-KEY DEVICES [EAL-OPTIONS... -- SERVER "
		      "SINK "
		      "SINK-PORT DEVICE-MAC UPLINK-MAC]\n",
		      stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* it rests as long as it says */
	getrlimit(RLIMIT_NOFILE, &most);
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
	l.devices = (uint32_t)atoi(argv[3]);
	socket_set = epoll_create1(EPOLL_CLOEXEC);
	engine.device = calloc(l.devices, sizeof(*engine.device));
	if (wolfSSL_Init() != WOLFSSL_SUCCESS || engine.device == NULL)
		device_die("no TLS library, or no memory");
	device_ca_load(&engine.ca, argv[1], argv[2]);
	client_ctx_new();
	if (argc > 4)
		wire_open(argc - 3, argv + 3, l.devices);
	commands();
	return 0;
}
