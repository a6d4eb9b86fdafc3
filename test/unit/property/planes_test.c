/* SPDX-License-Identifier: GPL-3.0-or-later */
/* planes: random policies and packets; the dataplane's verdict, what nftables in a namespace does, and a plain reference
 * evaluator must be one. The reference reads the rules as an engineer would: first match, longest prefix, else denied.
 * SEED and ROUNDS in the environment; a failure prints the policy, the packet and the seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include "controlplane/agent/nft.h"
#include "test/unit/dataplane/world.h"

#define DEVICES 4
#define SEGMENTS 3
#define NETWORKS 3
#define RULES_MAX 10
#define PACKETS 48
#define DEFAULT_ROUNDS 40
#define WAIT_MS 2000

static uint64_t seed, state;

static uint32_t draw(uint32_t below)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % below;
}

/* ---- what is drawn ---- */

static const char *const prefixes[] = {"10.2.0.0/24",	"10.2.0.0/28", "10.2.0.10/32",
				       "10.2.0.128/25", "10.9.0.0/16", "10.9.128.0/17",
				       "fd02::/64",	"fd02::/120",  "fd02::10/128",
				       "0.0.0.0/0",	"::/0"};
#define PREFIXES (sizeof(prefixes) / sizeof(prefixes[0]))

static const char *const services[] = {
	"tcp",	      "udp",	     "icmp",   "ping",	     "any",	"tcp/80",      "tcp/80-100",
	"tcp/81-443", "tcp/1-65535", "udp/53", "udp/53-200", "udp/100", "tcp/443-443", "udp/1-52"};
static const uint16_t ports[] = {1, 52, 53, 54, 79, 80, 81, 100, 101, 200, 201, 443, 444, 65535};

static const char *const outside[] = {"10.2.0.10", "10.2.0.11", "10.2.0.200", "10.2.0.15",
				      "10.2.0.16", "10.9.1.1",	"10.9.200.1", "fd02::10",
				      "fd02::ff",  "fd02::1:0", "fd02::100"};
#define OUTSIDE (sizeof(outside) / sizeof(outside[0]))

static const struct {
	const char *v4, *v6;
	uint8_t mac;
	uint32_t slot;
} devices[DEVICES] = {{"10.1.0.10", "fd01::10", 0x10, 5},
		      {"10.1.0.11", "fd01::11", 0x11, 6},
		      {"10.1.0.12", "fd01::12", 0x12, 7},
		      {"10.1.0.13", "fd01::13", 0x13, 8}};

struct drawn_rule {
	int from, to; /* endpoint: segments, then networks; -1 = any */
	unsigned service[2], n_services;
	bool allow;
};

struct drawn {
	int network_of[PREFIXES]; /* -1: in no network */
	struct drawn_rule rules[RULES_MAX];
	unsigned n_rules;
	unsigned segment[DEVICES];
	bool passes[DEVICES];
	char text[8192];
};

struct drawn_packet {
	int src_dev, dst_dev; /* -1: outside */
	const char *src, *dst;
	uint8_t proto;
	uint16_t dport; /* ICMP: type */
};

static const char *end_name(int end, char *out)
{
	if (end < 0)
		strcpy(out, "any");
	else
		snprintf(out, 16, "%c%d", end < SEGMENTS ? 's' : 'n',
			 end < SEGMENTS ? end : end - SEGMENTS);
	return out;
}

static void policy_text(struct drawn *d)
{
	char *at = d->text, *last = d->text + sizeof(d->text);
	bool any_network = false;
	char a[16], b[16];

	at += snprintf(
		at, last - at,
		"segments = ( { name = \"s0\"; }, { name = \"s1\"; }, { name = \"s2\"; } );\n"
		"networks = (");
	for (int n = 0; n < NETWORKS; n++) {
		bool first = true;

		for (size_t p = 0; p < PREFIXES; p++) {
			if (d->network_of[p] != n)
				continue;
			if (first)
				at += snprintf(at, last - at,
					       "%s { name = \"n%d\"; prefixes = [ \"%s\"",
					       any_network ? "," : "", n, prefixes[p]);
			else
				at += snprintf(at, last - at, ", \"%s\"", prefixes[p]);
			first = false;
		}
		if (!first) {
			at += snprintf(at, last - at, " ]; }");
			any_network = true;
		}
	}
	at += snprintf(at, last - at, " );\nrules = (");
	for (unsigned i = 0; i < d->n_rules; i++) {
		const struct drawn_rule *r = &d->rules[i];

		at += snprintf(at, last - at,
			       "%s\n { from = \"%s\"; to = \"%s\"; service = [ \"%s\"",
			       i > 0 ? "," : "", end_name(r->from, a), end_name(r->to, b),
			       services[r->service[0]]);
		if (r->n_services > 1)
			at += snprintf(at, last - at, ", \"%s\"", services[r->service[1]]);
		at += snprintf(at, last - at, " ]; action = \"%s\"; }",
			       r->allow ? "allow" : "deny");
	}
	snprintf(at, last - at, " );\n");
}

static bool network_used(const struct drawn *d, int n)
{
	for (size_t p = 0; p < PREFIXES; p++) {
		if (d->network_of[p] == n)
			return true;
	}
	return false;
}

/* An endpoint that the text defines; a network without prefixes does not exist. */
static int draw_end(const struct drawn *d)
{
	for (;;) {
		int end = (int)draw(SEGMENTS + NETWORKS + 1) - 1;

		if (end < SEGMENTS || network_used(d, end - SEGMENTS))
			return end;
	}
}

static void draw_policy(struct drawn *d)
{
	memset(d, 0, sizeof(*d));
	for (size_t p = 0; p < PREFIXES; p++)
		d->network_of[p] = (int)draw(NETWORKS + 2) - 2 < 0 ? -1 : (int)draw(NETWORKS);
	d->n_rules = draw(RULES_MAX + 1);
	for (unsigned i = 0; i < d->n_rules; i++) {
		d->rules[i] = (struct drawn_rule){
			.from = draw_end(d),
			.to = draw_end(d),
			.service = {draw(sizeof(services) / sizeof(services[0])),
				    draw(sizeof(services) / sizeof(services[0]))},
			.n_services = 1 + draw(2),
			.allow = draw(3) != 0};
	}
	for (unsigned i = 0; i < DEVICES; i++) {
		d->segment[i] = draw(SEGMENTS);
		d->passes[i] = draw(8) != 0;
	}
	policy_text(d);
}

static void draw_packet(struct drawn_packet *p)
{
	static const uint8_t protos[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};
	bool v4;

	p->src_dev = (int)draw(DEVICES + 1) - 1;
	do {
		p->dst_dev = p->src_dev < 0 ? (int)draw(DEVICES) : (int)draw(DEVICES * 2) - DEVICES;
	} while (p->dst_dev == p->src_dev);
	if (p->dst_dev < 0)
		p->dst_dev = -1;
	do {
		p->src = p->src_dev < 0 ? outside[draw(OUTSIDE)]
			 : draw(2)	? devices[p->src_dev].v4
					: devices[p->src_dev].v6;
		p->dst = p->dst_dev < 0 ? outside[draw(OUTSIDE)]
			 : draw(2)	? devices[p->dst_dev].v4
					: devices[p->dst_dev].v6;
	} while ((strchr(p->src, ':') == NULL) != (strchr(p->dst, ':') == NULL));
	v4 = strchr(p->src, ':') == NULL;
	p->proto = protos[draw(3)];
	p->dport = ports[draw(sizeof(ports) / sizeof(ports[0]))];
	if (p->proto == IPPROTO_ICMP) {
		p->proto = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
		p->dport = v4 ? 8 : 128; /* only an echo request opens a flow */
	}
}

/* ---- the reference ---- */

/* Which prefix of the table holds the address with the most bits; by text and bit by bit, without our own code. */
static int reference_network(const struct drawn *d, const char *addr)
{
	int best = -1, best_len = -1, family = strchr(addr, ':') != NULL ? AF_INET6 : AF_INET;
	uint8_t a[16], q[16];

	inet_pton(family, addr, a);
	for (size_t i = 0; i < PREFIXES; i++) {
		char host[64];
		int len, same = 1;

		if (d->network_of[i] < 0 ||
		    (strchr(prefixes[i], ':') != NULL) != (family == AF_INET6))
			continue;
		sscanf(prefixes[i], "%63[^/]/%d", host, &len);
		inet_pton(family, host, q);
		for (int bit = 0; bit < len; bit++)
			same &= ((a[bit / 8] ^ q[bit / 8]) >> (7 - bit % 8) & 1) == 0;
		if (same && len > best_len) {
			best = d->network_of[i];
			best_len = len;
		}
	}
	return best;
}

static bool reference_service(const char *service, const struct drawn_packet *p)
{
	bool tcp = p->proto == IPPROTO_TCP, udp = p->proto == IPPROTO_UDP;
	char name[8];
	int lo, hi, n = sscanf(service, "%7[a-z]/%d-%d", name, &lo, &hi);

	if (strcmp(service, "any") == 0)
		return true;
	if (strcmp(service, "icmp") == 0 || strcmp(service, "ping") == 0)
		return !tcp && !udp;
	if ((strcmp(name, "tcp") == 0 && !tcp) || (strcmp(name, "udp") == 0 && !udp))
		return false;
	return n == 1 || (n == 2 ? p->dport == lo : p->dport >= lo && p->dport <= hi);
}

static int reference_end(const struct drawn *d, int dev, const char *addr)
{
	int n;

	if (dev >= 0)
		return d->passes[dev] ? (int)d->segment[dev] : -1;
	n = reference_network(d, addr);
	return n < 0 ? -1 : SEGMENTS + n;
}

static bool reference(const struct drawn *d, const struct drawn_packet *p)
{
	int from = reference_end(d, p->src_dev, p->src), to = reference_end(d, p->dst_dev, p->dst);

	if (from < 0 || to < 0)
		return false;
	for (unsigned i = 0; i < d->n_rules; i++) {
		const struct drawn_rule *r = &d->rules[i];

		if ((r->from >= 0 && r->from != from) || (r->to >= 0 && r->to != to))
			continue;
		for (unsigned k = 0; k < r->n_services; k++) {
			if (reference_service(services[r->service[k]], p))
				return r->allow;
		}
	}
	return false;
}

/* ---- the planes ---- */

static struct world world;
static struct gw_config cfg;
static struct nft *nft;
static int sock[2]; /* packet sockets on the far ends of the device and the uplink interface */

static void count_one(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	uint64_t *count = arg;

	(void)bytes;
	count[0] += strcmp(name, "forwarded") == 0 ? packets : 0;
	count[1] += packets;
}

static int far_end(const char *ifname)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_ifindex = (int)if_nametoindex(ifname)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* protocol 0: it only sends */

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	return fd;
}

static bool kernel_verdict(const struct drawn_packet *p, const uint8_t *frame, size_t bytes,
			   const char *what)
{
	uint64_t before[2] = {0}, after[2] = {0};
	struct timespec nap = {.tv_nsec = 100000};

	assert_int_equal(nft_counters(nft, count_one, before), 0);
	assert_int_equal(send(sock[p->src_dev < 0], frame, bytes, 0), (ssize_t)bytes);
	for (int i = 0; i < WAIT_MS * 10; i++) {
		after[0] = after[1] = 0;
		assert_int_equal(nft_counters(nft, count_one, after), 0);
		if (after[1] > before[1])
			return after[0] > before[0];
		nanosleep(&nap, NULL);
	}
	fail_msg("the kernel path counted nothing for %s", what);
	return false;
}

static void planes_set(const struct drawn *d, uint64_t epoch)
{
	struct err err = {""};

	if (world_policy_set(&world, d->text, epoch) < 0)
		fail_msg("the dataplane does not take:\n%s", d->text);
	assert_int_equal(nft_begin(nft), 0);
	assert_int_equal(nft_put_policy(nft, world.form), 0);
	for (unsigned i = 0; i < DEVICES; i++) {
		char name[16];
		uint16_t id =
			policy_endpoint_by_name(world.form, end_name((int)d->segment[i], name))->id;

		world_trust(&world, devices[i].slot, id,
			    d->passes[i] ? STANDING_FULL : STANDING_REVOKED,
			    d->passes[i] ? CLOCK_NEVER_MS : 0);
		for (int v6 = 0; v6 < 2; v6++) {
			struct nft_binding b = {.mac = {{2, 0, 0, 0, 0, devices[i].mac}},
						.segment = id,
						.expires_ms = CLOCK_NEVER_MS};

			strcpy(b.ifname, "pdev");
			ip_addr_parse(&b.ip, v6 ? devices[i].v6 : devices[i].v4);
			assert_int_equal(d->passes[i] ? nft_put_binding(nft, &b)
						      : nft_del_binding(nft, &b.ip),
					 0);
		}
	}
	if (nft_commit(nft, &err) < 0)
		fail_msg("nftables: %s\n%s", err.msg, d->text);
}

/* All elements but those that run out by themselves, in one order. Caller frees. */
static char *elements(void)
{
	FILE *from = popen(
		"nft -j list table inet sallyport | jq -cS '.nftables[] | .map // .set | "
		"select(. != null and .name != \"alive\") | {name, elem: ((.elem // []) | sort)}'",
		"r");
	char *text = NULL;
	size_t room = 0;

	assert_non_null(from);
	assert_true(getdelim(&text, &room, '\0', from) > 1000);
	assert_int_equal(pclose(from), 0);
	return text;
}

/* A policy comes as the difference to the one before; the table must be as if it had come alone. */
static void difference_makes_the_whole(const struct drawn *d)
{
	char *by_difference = elements(), *whole;
	struct err err = {""};

	if (nft_restore(nft, &err) < 0)
		fail_msg("nftables: %s", err.msg);
	whole = elements();
	if (strcmp(by_difference, whole) != 0)
		fail_msg("seed %llu: by difference\n%s\nas a whole\n%s\n%s",
			 (unsigned long long)seed, by_difference, whole, d->text);
	free(by_difference);
	free(whole);
}

static void one_packet(const struct drawn *d, uint16_t unique)
{
	struct drawn_packet p;
	struct frame_spec f = {0};
	uint8_t frame[1][FRAME_MAX];
	struct verdict v;
	bool want, fast, kernel, icmp;
	char what[256];
	size_t bytes;

	draw_packet(&p);
	icmp = p.proto != IPPROTO_TCP && p.proto != IPPROTO_UDP;
	f.src = p.src;
	f.dst = p.dst;
	f.smac = p.src_dev >= 0 ? devices[p.src_dev].mac : 0x20;
	f.dmac = p.src_dev >= 0 ? 1 : 2;
	f.proto = p.proto;
	f.sport = icmp ? (uint16_t)(p.dport << 8) : unique;
	f.dport = icmp ? unique : p.dport;
	f.tcp_flags = 0x02; /* SYN */
	bytes = frame_make(frame[0], &f);
	snprintf(what, sizeof(what), "%s > %s proto %u port %u (seed %llu)", p.src, p.dst, p.proto,
		 p.dport, (unsigned long long)seed);
	want = reference(d, &p);
	kernel = kernel_verdict(&p, frame[0], bytes, what);
	world_burst(&world, p.src_dev < 0, frame, &bytes, 1, &v);
	assert_int_not_equal(v.reason, DROP_FLOW_TABLE_FULL);
	fast = v.edge != EDGE_DROP;
	if (fast != want || kernel != want)
		fail_msg("%s: reference %s, dataplane %s (%s), kernel %s; devices in s%u%s s%u%s "
			 "s%u%s s%u%s\n%s",
			 what, want ? "allows" : "denies", fast ? "allows" : "denies",
			 drop_reason_name(v.reason), kernel ? "allows" : "denies", d->segment[0],
			 d->passes[0] ? "" : "(revoked)", d->segment[1],
			 d->passes[1] ? "" : "(revoked)", d->segment[2],
			 d->passes[2] ? "" : "(revoked)", d->segment[3],
			 d->passes[3] ? "" : "(revoked)", d->text);
}

static void three_evaluators_agree(void **unused)
{
	const char *rounds_text = getenv("ROUNDS");
	unsigned rounds = rounds_text != NULL ? (unsigned)atoi(rounds_text) : DEFAULT_ROUNDS,
		 allowed = 0, n = 0;
	static struct drawn d;

	(void)unused;
	for (unsigned round = 0; round < rounds; round++) {
		draw_policy(&d);
		planes_set(&d, 2 + round);
		if (round % 4 == 3)
			difference_makes_the_whole(&d);
		for (unsigned i = 0; i < PACKETS; i++) {
			uint64_t before = world.w->stats.admissions;

			one_packet(&d, (uint16_t)(10000 + n++ % 50000));
			allowed += world.w->stats.admissions > before;
		}
	}
	/* A test in which nothing passes, or everything, would say little. */
	if (rounds >= DEFAULT_ROUNDS && (allowed < n / 50 || allowed > n * 49 / 50))
		fail_msg("%u of %u packets were allowed: the draw is lopsided", allowed, n);
	print_message("%u policies, %u packets, %u allowed, seed %llu\n", rounds, n, allowed,
		      (unsigned long long)seed);
}

/* ---- set up ---- */

static int sh(const char *command)
{
	return system(command);
}

static void config_make(void)
{
	static const struct {
		const char *name;
		uint8_t side;
	} rows[] = {{"pdev", PORT_DEVICE}, {"pup", PORT_UPLINK}};

	for (size_t i = 0; i < 2; i++) {
		struct gw_port *p = &cfg.ports[cfg.n_ports++];

		strcpy(p->name, rows[i].name);
		strcpy(p->kernel, rows[i].name);
		strcpy(p->tap, rows[i].name);
		p->side = rows[i].side;
		p->untagged = true;
		p->n_vlans = 1;
	}
}

static int planes_up(void **unused)
{
	const char *seed_text = getenv("SEED");
	struct msg_dp_config dp;
	struct err err = {""};

	(void)unused;
	seed = state = seed_text != NULL ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
	if (world_eal() < 0)
		return -1;
	world_config(&dp);
	dp.flows_max = 65536;
	dp.refused_ms = 0;
	if (world_new(&world, &dp) < 0)
		return -1;
	for (unsigned i = 0; i < DEVICES; i++) {
		if (world_bind(&world, devices[i].v4, devices[i].mac, 0, 0, devices[i].slot) < 0 ||
		    world_bind(&world, devices[i].v6, devices[i].mac, 0, 0, devices[i].slot) < 0)
			return -1;
	}
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	if (sh("set -e; sysctl() { echo \"$2\" >/proc/sys/net/$1; }\n"
	       "ip link add pdev address 02:00:00:00:00:01 type veth peer name pdev0\n"
	       "ip link add pup address 02:00:00:00:00:02 type veth peer name pup0\n"
	       "for i in pdev0 pup0; do sysctl ipv6/conf/$i/disable_ipv6 1; done\n"
	       "for i in lo pdev pdev0 pup pup0; do ip link set $i up; done\n"
	       "ip addr add 10.1.0.1/24 dev pdev; ip -6 addr add fd01::1/64 dev pdev nodad\n"
	       "ip addr add 10.2.0.1/24 dev pup; ip -6 addr add fd02::1/64 dev pup nodad\n"
	       "ip route add 10.9.0.0/16 via 10.2.0.254\n"
	       "sysctl ipv4/ip_forward 1; sysctl ipv6/conf/all/forwarding 1\n"
	       "for i in all pdev pup; do sysctl ipv4/conf/$i/rp_filter 0; sysctl "
	       "ipv4/conf/$i/send_redirects 0; done\n") != 0)
		return -1;
	config_make();
	if (nft_new(&nft, &cfg, NULL, &err) < 0 || nft_heartbeat(nft, 3600, &err) < 0) {
		print_error("%s\n", err.msg);
		return -1;
	}
	/* The frames have no transport checksums; that is not what is compared. Known once conntrack is in use. */
	if (sh("echo 0 >/proc/sys/net/netfilter/nf_conntrack_checksum") != 0)
		return -1;
	sock[0] = far_end("pdev0");
	sock[1] = far_end("pup0");
	return 0;
}

static int planes_down(void **unused)
{
	(void)unused;
	nft_free(nft);
	close(sock[0]);
	close(sock[1]);
	world_free(&world);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(three_evaluators_agree)};

	return cmocka_run_group_tests(tests, planes_up, planes_down);
}
