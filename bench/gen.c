/* SPDX-License-Identifier: GPL-3.0-or-later */
/* gen: the rig's generator: sends flows through something with two ports, counts and checks what comes back.
 *   gen [EAL OPTIONS] -- NAME=KIND:DEVARGS+DEVARGS ...
 * Each NAME is something to measure: DEVARGS of the port towards its device side and of that towards its uplink. KIND
 * says what a frame must look like when it comes out of the other port: route (other MACs, TTL one lower), swap (MACs
 * exchanged), wire (unchanged), hop (TTL one lower, any MACs). Commands come on standard input, one a line; each is answered by one line, "ok ..." or
 * "error ...":
 *   macs NAME MAC MAC                   of the gateway's device port and uplink port: frames are sent to them
 *   flows N DEVICES v4|v6 64|imix SPORT the flows of the following commands, in an order that follows no table
 *   knock NAME FROM TO ADDR PORT        a frame to a listener from each device
 *   open NAME                           the first packet of each flow, once, as fast as they are taken
 *   prime NAME [MPPS]                   first packets, again and again until each has come through; then the replies
 *   rate NAME MS [MPPS [STRANGERS]]     both directions for so long; MPPS 0 or absent: as fast as they are taken.
 *                                       STRANGERS Mpps of frames from a thousand sources that nobody knows go along
 *   stamped NAME MS                     rate, and note when each device's last packet came through
 *   last FROM TO                        the notes: boot clock in us for each device, 0 = none
 *   quit
 * One thread, one core; no frame is sent while no command runs. */
#include "bench/gen.h"

/* ---- commands ---- */

static void report_bad(void)
{
	printf("error %" PRIu64 " of %" PRIu64 " checked packets are wrong: %s\n", g.c.bad,
	       g.c.checked, g.why);
}

static void do_rate(const struct target *t, unsigned long ms, double mpps, double strangers)
{
	uint64_t cycles, received[2], before, all, sent;

	counts_reset(t);
	/* The pipe is filled before the time starts, and not emptied before it ends. */
	run(t, rte_get_tsc_hz() / 100, mpps, strangers, 2, false);
	before = g.c.received[0] + g.c.received[1];
	g.c.received[0] = g.c.received[1] = g.c.sent[0] = g.c.sent[1] = g.c.strangers = 0;
	g.c.full = g.c.polls = 0;
	cycles = run(t, rte_get_tsc_hz() / 1000 * ms, mpps, strangers, 2, false);
	memcpy(received, g.c.received, sizeof(received));
	all = received[0] + received[1];
	sent = g.c.sent[0] + g.c.sent[1];
	drain(t);
	if (g.c.bad > 0) {
		report_bad();
		return;
	}
	printf("ok mpps=%.4f up=%.4f down=%.4f sent_mpps=%.4f strangers_mpps=%.4f full_pct=%.1f "
	       "checked=%" PRIu64 " other=%" PRIu64 " received=%" PRIu64 "\n",
	       mpps_of(all, cycles), mpps_of(received[0], cycles), mpps_of(received[1], cycles),
	       mpps_of(sent, cycles), mpps_of(g.c.strangers, cycles),
	       g.c.polls > 0 ? 100.0 * (double)g.c.full / (double)g.c.polls : 0, g.c.checked,
	       g.c.strange, before + g.c.received[0] + g.c.received[1]);
}

static void do_open(const struct target *t)
{
	uint64_t start, end;

	counts_reset(t);
	g.at[0] = 0;
	start = rte_rdtsc();
	run(t, 60 * rte_get_tsc_hz(), 0, 0, 1, true);
	end = drain(t);
	if (g.c.bad > 0)
		report_bad();
	else
		printf("ok mpps=%.4f sent=%" PRIu64 " received=%" PRIu64 "\n",
		       mpps_of(g.c.received[0], end - start), g.c.sent[0], g.c.received[0]);
}

/* A reply that comes before its request was admitted would be refused, and the refusal cached. */
static void do_prime(const struct target *t, double mpps)
{
	uint32_t missing = 2 * g.plan.flows;

	g.seen = calloc(g.plan.flows, 1);
	if (g.seen == NULL) {
		puts("error no memory");
		return;
	}
	g.seen_n = 0;
	for (int stuck = 0; stuck < PRIME_STUCK && missing > 0; stuck++) {
		int directions = g.seen_n >= g.plan.flows ? 2 : 1;

		counts_reset(t);
		g.at[0] = g.at[1] = 0;
		run(t, 60 * rte_get_tsc_hz(), mpps, 0, directions, true);
		drain(t);
		if (2 * g.plan.flows - g.seen_n < missing)
			stuck = 0;
		missing = 2 * g.plan.flows - g.seen_n;
	}
	free(g.seen);
	g.seen = NULL;
	if (g.c.bad > 0)
		report_bad();
	else if (missing > 0)
		printf("error %u of %u packets never came through\n", missing, 2 * g.plan.flows);
	else
		puts("ok");
}

static void do_knock(const struct target *t, uint32_t from, uint32_t to, const struct ip_addr *ip,
		     uint16_t port)
{
	struct frames_plan plan = {.v4 = ip_addr_is_v4(ip)};
	struct pace pace = pace_of(0.05, 1); /* a kernel behind the gateway gets them */

	memcpy(plan.gateway, t->mac, sizeof(plan.gateway));
	for (uint32_t d = from; d < to;) {
		struct rte_mbuf *m;
		uint16_t bytes;

		receive(t, 0);
		receive(t, 1);
		if (!pace_due(&pace, rte_rdtsc()))
			continue;
		m = rte_pktmbuf_alloc(g.pool);
		if (m == NULL)
			continue;
		bytes = frame_knock(rte_pktmbuf_mtod(m, uint8_t *), &plan, d,
				    plan.v4 ? ip->b + 12 : ip->b, port);
		m->data_len = bytes;
		m->pkt_len = bytes;
		if (rte_eth_tx_burst(t->port[0], 0, &m, 1) == 1)
			d++;
		else
			rte_pktmbuf_free(m);
	}
	puts("ok");
}

static void do_last(uint32_t from, uint32_t to)
{
	printf("ok");
	for (uint32_t d = from; d < to; d++)
		printf(" %" PRIu64, g.last_us != NULL && d < g.plan.devices ? g.last_us[d] : 0);
	putchar('\n');
}

static void do_flows(char **word)
{
	unsigned long flows = strtoul(word[1], NULL, 10), devices = strtoul(word[2], NULL, 10),
		      sport = strtoul(word[5], NULL, 10);
	struct frames_plan plan = {.flows = flows,
				   .devices = devices,
				   .sport = sport,
				   .v4 = strcmp(word[3], "v4") == 0,
				   .imix = strcmp(word[4], "imix") == 0};
	const char *why;

	if (devices == 0 || flows < devices || flows > FLOWS_MAX || devices > DEVICES_MAX ||
	    sport + flows / devices > UINT16_MAX) {
		puts("error flows out of range");
		return;
	}
	why = flows_new(&plan);
	printf(why == NULL ? "ok\n" : "error %s\n", why);
}

static void do_stamped(const struct target *t, unsigned long ms)
{
	free(g.last_us);
	g.last_us = calloc(DEVICES_MAX, sizeof(*g.last_us));
	if (g.last_us == NULL) {
		puts("error no memory");
		return;
	}
	do_rate(t, ms, 0, 0);
}

static void do_macs(struct target *t, const char *device, const char *uplink)
{
	struct mac_addr mac[2];

	if (mac_addr_parse(&mac[0], device) < 0 || mac_addr_parse(&mac[1], uplink) < 0) {
		puts("error not two MAC addresses");
		return;
	}
	memcpy(t->mac[0], mac[0].b, 6);
	memcpy(t->mac[1], mac[1].b, 6);
	puts("ok");
}

/* @return false: end */
static bool command(char **word, unsigned n)
{
	struct target *t = n > 1 ? target_of(word[1]) : NULL;
	unsigned long ms = n > 2 ? strtoul(word[2], NULL, 10) : 0;
	struct ip_addr ip;

	if (n == 1 && strcmp(word[0], "quit") == 0)
		return false;
	if (n == 6 && strcmp(word[0], "flows") == 0) {
		do_flows(word);
	} else if (n == 3 && strcmp(word[0], "last") == 0) {
		do_last(strtoul(word[1], NULL, 10), strtoul(word[2], NULL, 10));
	} else if (n == 4 && t != NULL && strcmp(word[0], "macs") == 0) {
		do_macs(t, word[2], word[3]);
	} else if (n == 6 && t != NULL && strcmp(word[0], "knock") == 0 &&
		   ip_addr_parse(&ip, word[4]) == 0) {
		do_knock(t, ms, strtoul(word[3], NULL, 10), &ip, strtoul(word[5], NULL, 10));
	} else if (t == NULL || g.plan.flows == 0) {
		puts("error no such command or target, wrong number of words, or no flows yet");
	} else {
		aim(t);
		if (strcmp(word[0], "open") == 0 && n == 2)
			do_open(t);
		else if (strcmp(word[0], "prime") == 0 && n <= 3)
			do_prime(t, n == 3 ? atof(word[2]) : PRIME_MPPS);
		else if (strcmp(word[0], "stamped") == 0 && n == 3)
			do_stamped(t, ms);
		else if (strcmp(word[0], "rate") == 0 && n >= 3 && n <= 5)
			do_rate(t, ms, n > 3 ? atof(word[3]) : 0, n > 4 ? atof(word[4]) : 0);
		else
			puts("error no such command, or wrong number of words");
	}
	return true;
}

static void commands(void)
{
	char line[512], *word[8], *save;
	bool on = true;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ok ready");
	while (on && fgets(line, sizeof(line), stdin) != NULL) {
		unsigned n = 0;

		for (char *w = strtok_r(line, " \n", &save); w != NULL && n < 8;
		     w = strtok_r(NULL, " \n", &save))
			word[n++] = w;
		if (n == 0)
			puts("error empty command");
		else
			on = command(word, n);
	}
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		die("no EAL: 2 MB huge pages are needed");
	g.pool = rte_pktmbuf_pool_create("gen", MBUFS, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					 SOCKET_ID_ANY);
	if (g.pool == NULL)
		die("no packet buffers");
	for (int i = used + 1; i < argc; i++)
		target_add(argv[i]);
	if (g.n_targets == 0)
		die("usage: gen [EAL OPTIONS] -- NAME=KIND:DEVARGS+DEVARGS ...");
	commands();
	for (unsigned i = 0; i < g.n_targets; i++) {
		for (int side = 0; side < 2; side++) {
			rte_eth_dev_stop(g.target[i].port[side]);
			rte_eth_dev_close(g.target[i].port[side]);
		}
	}
	flows_free();
	rte_eal_cleanup();
	return 0;
}
