/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Looking into a flow table from another thread than its worker: an answer is whole and was true at some moment of the
 * question, whatever the worker did meanwhile; and nobody is woken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "dataplane/query.h"
#include "dataplane/tcp.h"
#include "dataplane/worker.h"
#include "test/unit/dataplane/world.h"

#define ACK 16
#define DEV 0
#define FLOWS_MAX 256 /* 64 buckets */
#define CROWDED 4 /* buckets, that all keys share: moves are frequent */
#define HOT 0 /* the key whose flow is diverted anew all the time */
#define STEADY 12 /* keys whose flows are always there; */
#define KEYS 48 /* the others come and go. Together more than the crowded buckets hold */
#define FLUTTERS 8
#define LOOKS 1000000
#define MOVES 100000
#define PATIENCE_US 60000000

/* What is surely so of a key. 3n: it is not diverted; 3n + 2: it is, with the origin of this number; else: a change. */
#define PHASES 3
enum { AWAY, CHANGING, THERE };

struct stage { /* the other thread plays the worker */
	struct flow_table *t;
	struct flow_key key[KEYS];
	uint64_t hash[KEYS];
	_Atomic uint32_t phase[KEYS];
	_Atomic uint32_t moves, refused;
	_Atomic bool stop;
	uint32_t random;
};

static const uint64_t seed[FLOW_SEEDS] = {
	0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 3, 5, 7};

static uint32_t next_random(struct stage *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 17;
	s->random ^= s->random << 5;
	return s->random;
}

/* Each byte says whose origin it is, and which one. */
static struct flow_origin origin_of(uint32_t key, uint32_t phase)
{
	struct flow_origin o = {.vlan = (uint16_t)(phase * 31 + key),
				.port = (uint8_t)(phase ^ key)};

	o.mac.b[0] = (uint8_t)key;
	for (unsigned i = 1; i < 5; i++)
		o.mac.b[i] = (uint8_t)(phase >> 8 * (i - 1));
	o.mac.b[5] = (uint8_t)(o.mac.b[1] * 7 + key);
	return o;
}

static bool is_origin(const struct flow_origin *o, uint32_t key, uint32_t phase)
{
	struct flow_origin want = origin_of(key, phase);

	return memcmp(&o->mac, &want.mac, sizeof(want.mac)) == 0 && o->vlan == want.vlan &&
	       o->port == want.port;
}

static uint32_t phase_in(const struct flow_origin *o)
{
	return o->mac.b[1] | o->mac.b[2] << 8 | o->mac.b[3] << 16 | (uint32_t)o->mac.b[4] << 24;
}

static bool is_crowded(const struct flow_table *t, uint64_t hash)
{
	uint32_t first = (uint32_t)hash & t->mask;

	return first < CROWDED && flow_bucket_other(t, first, flow_tag(hash)) < CROWDED;
}

static void choose_keys(struct stage *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; n < KEYS; i++) {
		struct flow_key k = {
			.proto = 6, .sport = (uint16_t)i, .dport = (uint16_t)(i >> 16)};
		uint64_t hash = flow_hash(seed, &k);

		if (!is_crowded(s->t, hash))
			continue;
		s->key[n] = k;
		s->hash[n++] = hash;
	}
}

/* ---- the worker's side -------------------------------------------------------------------------- */

static void divert(struct stage *s, struct flow *f, uint32_t key, uint32_t phase)
{
	struct flow_origin o = origin_of(key, phase);

	flow_divert(s->t, f, &o);
}

static struct flow *add(struct stage *s, uint32_t key)
{
	uint32_t before = atomic_load(&s->t->changes);
	struct flow *f = flow_insert(s->t, &s->key[key], s->hash[key]);

	if (f == NULL)
		atomic_fetch_add(&s->refused, 1);
	if (atomic_load(&s->t->changes) != before)
		atomic_fetch_add(&s->moves, 1);
	return f;
}

/* As a packet does to a flow that is diverted already. */
static void pass(struct flow *f, uint32_t random)
{
	f->tcp = random & 1 ? TCP_ESTAB : TCP_SYN_SENT;
	f->tls_worker = (uint8_t)(random >> 8);
	f->end[0].hint = random & FLOW_HINT_MAX;
	f->counted = random >> 7 & 1;
	flow_passed(f, random, 100);
}

/* It goes away, or becomes one that is refused, whose fields lie where the origin's were. */
static void end(struct stage *s, uint32_t key, uint32_t phase, struct flow *f, bool refuse)
{
	atomic_store(&s->phase[key], phase + CHANGING - THERE + PHASES);
	if (refuse) {
		flow_set_state(s->t, f, FLOW_REFUSED);
		__atomic_store_n(&f->rule, 0x5a5a, __ATOMIC_RELAXED);
	} else {
		flow_remove(s->t, f);
	}
	atomic_store(&s->phase[key], phase + AWAY - THERE + 2 * PHASES);
}

static void begin(struct stage *s, uint32_t key, uint32_t phase, struct flow *f)
{
	if (f == NULL)
		f = add(s, key);
	if (f == NULL)
		return;
	atomic_store(&s->phase[key], phase + CHANGING);
	divert(s, f, key, phase + THERE);
	atomic_store(&s->phase[key], phase + THERE);
}

/* The same flow has one origin after the other, with hardly a moment between. */
static void flutter(struct stage *s)
{
	struct flow *f = flow_find(s->t, &s->key[HOT], s->hash[HOT]);

	for (unsigned i = 0; i < FLUTTERS; i++) {
		uint32_t phase = atomic_load(&s->phase[HOT]);

		end(s, HOT, phase, f, true);
		for (uint32_t pause = next_random(s) % 8; pause > 0; pause--)
			rte_pause();
		begin(s, HOT, phase + 2 * PHASES - THERE, f);
	}
}

static void come_or_go(struct stage *s)
{
	uint32_t random = next_random(s), key = STEADY + random % (KEYS - STEADY);
	struct flow *f = flow_find(s->t, &s->key[key], s->hash[key]);
	uint32_t phase = atomic_load(&s->phase[key]);

	if (phase % PHASES == THERE)
		end(s, key, phase, f, random & 1 << 20);
	else if (f != NULL && random & 1 << 21)
		flow_remove(s->t, f); /* one that is not diverted */
	else if (f == NULL && random & 1 << 22)
		(void)add(s, key);
	else
		begin(s, key, phase, f);
}

static void packet(struct stage *s)
{
	uint32_t random = next_random(s), key = random % STEADY;

	pass(flow_find(s->t, &s->key[key], s->hash[key]), random);
}

static void *play(void *arg)
{
	struct stage *s = arg;

	while (!atomic_load(&s->stop)) {
		come_or_go(s);
		packet(s);
		if (next_random(s) % FLUTTERS == 0)
			flutter(s);
	}
	return NULL;
}

/* ---- the asker's side --------------------------------------------------------------------------- */

struct tries {
	uint32_t there, away, unsure;
};

/* @return NULL, or what is wrong with the answer */
static const char *look(struct stage *s, uint32_t key, struct tries *n)
{
	uint32_t before = atomic_load(&s->phase[key]), after;
	struct flow_origin o;
	int ret = flow_peek(s->t, &s->key[key], s->hash[key], &o);

	after = atomic_load(&s->phase[key]);
	if (ret == -EAGAIN)
		return NULL;
	if (ret == 1 && !is_origin(&o, key, phase_in(&o)))
		return "parts of several origins";
	if (before != after || before % PHASES == CHANGING) {
		n->unsure++;
		return NULL;
	}
	n->there += ret == 1;
	n->away += ret == 0;
	if (ret == 0)
		return before % PHASES == AWAY ? NULL : "missed what was there all the time";
	if (before % PHASES == AWAY)
		return "found what was not there";
	return phase_in(&o) == before ? NULL : "an origin of before";
}

static const char *look_at_all(struct stage *s)
{
	uint64_t until = clock_boot_us() + PATIENCE_US;
	const char *wrong = NULL;
	struct tries n = {0};

	while (wrong == NULL && (n.there < LOOKS || n.unsure < LOOKS || n.away < LOOKS ||
				 atomic_load(&s->moves) < MOVES || atomic_load(&s->refused) == 0)) {
		for (uint32_t key = 0; wrong == NULL && key < KEYS; key++) {
			wrong = look(s, HOT, &n);
			if (wrong == NULL)
				wrong = look(s, key, &n);
		}
		if (clock_boot_us() > until)
			return "out of patience";
	}
	return wrong;
}

static void answers_are_whole_and_true(void **state)
{
	struct stage s = {.random = 1};
	const char *wrong;
	pthread_t worker;

	(void)state;
	assert_int_equal(flow_table_new(&s.t, FLOWS_MAX, seed, SOCKET_ID_ANY), 0);
	choose_keys(&s);
	for (uint32_t key = 0; key < STEADY; key++)
		begin(&s, key, 0, NULL);
	assert_int_equal(pthread_create(&worker, NULL, play, &s), 0);
	wrong = look_at_all(&s);
	atomic_store(&s.stop, true);
	assert_int_equal(pthread_join(worker, NULL), 0);
	assert_string_equal(wrong != NULL ? wrong : "", "");
	flow_table_free(s.t);
}

static void whoever_is_stopped_amid_a_change_is_not_waited_for(void **state)
{
	struct flow_origin o = {.port = 77};
	struct stage s = {0};

	(void)state;
	assert_int_equal(flow_table_new(&s.t, FLOWS_MAX, seed, SOCKET_ID_ANY), 0);
	choose_keys(&s);
	begin(&s, 0, 0, NULL);
	assert_int_equal(flow_peek(s.t, &s.key[1], s.hash[1], &o), 0);
	assert_int_equal(o.port, 77);
	atomic_fetch_add(&s.t->changes, 1);
	assert_int_equal(flow_peek(s.t, &s.key[0], s.hash[0], &o), -EAGAIN);
	assert_int_equal(o.port, 77);
	atomic_fetch_add(&s.t->changes, 1);
	assert_int_equal(flow_peek(s.t, &s.key[0], s.hash[0], &o), 1);
	assert_true(is_origin(&o, 0, THERE));
	flow_table_free(s.t);
}

/* ---- the agent's question ----------------------------------------------------------------------- */

static struct msg_flow_origin ask(struct world *x, uint16_t sport)
{
	struct msg_flow_origin m = {.key = {.sport = sport, .dport = 8883, .proto = 6}};

	ip_addr_parse(&m.key.src, "10.1.0.77");
	ip_addr_parse(&m.key.dst, "10.1.0.1");
	memset(m.key.reserved, 0xff, sizeof(m.key.reserved)); /* bytes from outside */
	query_origin(x->st, &m);
	return m;
}

static void open_connection(struct world *x)
{
	struct frame_spec s = {"10.1.0.77", "10.1.0.1", .smac = 0x77,  .dmac = 1,
			       .proto = 6,  .sport = 9, .dport = 8883, .tcp_flags = ACK};

	assert_int_equal(world_one(x, DEV, &s).edge, EDGE_KERNEL);
}

/* No worker runs: who asked one would wait for ever. */
static void a_question_wakes_nobody(void **state)
{
	struct msg_flow_origin m;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	open_connection(&x);
	m = ask(&x, 9);
	assert_int_equal(m.found, 1);
	assert_int_equal(m.port, DEV);
	assert_int_equal(m.vlan, 0);
	assert_int_equal(m.mac.b[5], 0x77);
	assert_int_equal(ask(&x, 10).found, 0);
	world_free(&x);
}

static void a_worker_is_asked_when_looking_does_not_do(void **state)
{
	struct msg_flow_origin m;
	pthread_t worker;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	open_connection(&x);
	atomic_fetch_add(&x.w->flows->changes, 1);
	assert_int_equal(
		pthread_create(&worker, NULL, (void *(*)(void *))(void (*)(void))worker_run, x.w),
		0);
	m = ask(&x, 9);
	assert_int_equal(m.found, 1);
	assert_int_equal(m.mac.b[5], 0x77);
	assert_int_equal(ask(&x, 10).found, 0);
	atomic_store(&x.st->stop, true);
	idle_wake(x.w);
	assert_int_equal(pthread_join(worker, NULL), 0);
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_whole_and_true),
		cmocka_unit_test(whoever_is_stopped_amid_a_change_is_not_waited_for),
		cmocka_unit_test(a_question_wakes_nobody),
		cmocka_unit_test(a_worker_is_asked_when_looking_does_not_do),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
