/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A worker that sleeps wakes for packets, commands and the end, and holds up no grace period. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/resource.h>

#include "dataplane/idle.h"
#include "test/unit/dataplane/world.h"

#define PATIENCE_US 5000000 /* a sleep without an end shows as a failure, not as a hanging test */
#define LONG_US                                                                                    \
	50000 /* longer than any nap and than a sleep with flows to age, shorter than one without */
#define ROUNDS_MAX 1000000 /* each false alarm is followed by a moment of polling */

struct sleeper {
	struct world x;
	struct worker *w; /* x.w */
	int fd[4][2]; /* pipes: port 0, its shadow, port 1, its shadow */
	pthread_t thread;
	_Atomic bool registered, quit;
	_Atomic uint64_t rounds;
};

/* What worker_run() does when no port brings anything. */
static void idle_round(struct worker *w)
{
	worker_pin(w, clock_boot_us());
	rte_rcu_qsbr_quiescent(w->st->qsbr, w->index);
	idle_after(w, false);
}

static void *sleeper_run(void *arg)
{
	struct sleeper *s = arg;

	rte_rcu_qsbr_thread_register(s->w->st->qsbr, s->w->index);
	rte_rcu_qsbr_thread_online(s->w->st->qsbr, s->w->index);
	atomic_store(&s->registered, true);
	while (!atomic_load(&s->quit)) {
		atomic_fetch_add(&s->rounds, 1);
		idle_round(s->w);
	}
	rte_rcu_qsbr_thread_offline(s->w->st->qsbr, s->w->index);
	rte_rcu_qsbr_thread_unregister(s->w->st->qsbr, s->w->index);
	return NULL;
}

static bool becomes(const _Atomic bool *flag)
{
	uint64_t until = clock_boot_us() + PATIENCE_US;

	while (!atomic_load(flag)) {
		if (clock_boot_us() > until)
			return false;
		sched_yield();
	}
	return true;
}

static bool rounds_beyond(struct sleeper *s, uint64_t n)
{
	uint64_t until = clock_boot_us() + PATIENCE_US;

	while (atomic_load(&s->rounds) <= n) {
		if (clock_boot_us() > until)
			return false;
		sched_yield();
	}
	return true;
}

/* A world whose ports have descriptors that a test can make readable. */
static void sleeper_new(struct sleeper *s)
{
	*s = (struct sleeper){0};
	assert_int_equal(world_new(&s->x, NULL), 0);
	s->w = s->x.w;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pipe(s->fd[i]), 0);
	for (int i = 0; i < 2; i++) {
		s->x.st->ports[i].rx_fd[0] = s->fd[2 * i][0];
		s->x.st->ports[i].tap_fd = s->fd[2 * i + 1][0];
	}
}

static void sleeper_start(struct sleeper *s)
{
	assert_int_equal(pthread_create(&s->thread, NULL, sleeper_run, s), 0);
	assert_true(becomes(&s->registered));
}

static void sleeper_close(struct sleeper *s)
{
	for (int i = 0; i < 4; i++) {
		close(s->fd[i][0]);
		close(s->fd[i][1]);
	}
	world_free(&s->x);
}

static void sleeper_end(struct sleeper *s)
{
	atomic_store(&s->quit, true);
	idle_wake(s->w);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	sleeper_close(s);
}

/* @param cause  0..3: a descriptor, 4: another thread @return how long it took until the next round */
static uint64_t woken_us(unsigned cause)
{
	uint64_t before, start, us;
	struct sleeper s;
	char byte = 0;

	sleeper_new(&s);
	sleeper_start(&s);
	assert_true(becomes(&s.w->idle.asleep));
	before = atomic_load(&s.rounds);
	start = clock_boot_us();
	if (cause < 4)
		assert_int_equal(write(s.fd[cause][1], &byte, 1), 1);
	else
		idle_wake(s.w);
	assert_true(rounds_beyond(&s, before));
	us = clock_boot_us() - start;
	sleeper_end(&s);
	return us;
}

/* What does not wake a worker is found after the long sleep, every time; a core that others have delays one try or the
 * other. */
static void each_cause_wakes(void **state)
{
	static const char *const rows[] = {"port 0", "its shadow", "port 1", "its shadow",
					   "another thread"};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t us = UINT64_MAX;

		for (unsigned tries = 0; tries < 10 && us > LONG_US; tries++)
			us = woken_us(i);
		if (us > LONG_US)
			fail_msg("%s: woke after %lu us", rows[i], (unsigned long)us);
	}
}

static void sleep_holds_up_no_grace_period(void **state)
{
	struct sleeper s;
	unsigned quick = 0;

	(void)state;
	sleeper_new(&s);
	sleeper_start(&s);
	for (int i = 0; i < 20; i++) {
		uint64_t start;

		assert_true(becomes(&s.w->idle.asleep));
		start = clock_boot_us();
		state_grace(s.x.st);
		quick += clock_boot_us() - start < LONG_US;
	}
	assert_true(quick > 10); /* others may have had our core in some */
	sleeper_end(&s);
}

static void a_port_without_descriptor_is_asked_by_time(void **state)
{
	struct sleeper s;
	uint64_t before, start;

	(void)state;
	sleeper_new(&s);
	s.x.st->ports[1].rx_fd[0] = -1;
	sleeper_start(&s);
	assert_true(rounds_beyond(&s, 400)); /* past the growing naps */
	before = atomic_load(&s.rounds);
	start = clock_boot_us();
	assert_true(rounds_beyond(&s, before + 20));
	assert_true(clock_boot_us() - start < 20 * LONG_US); /* not by the long sleep */
	sleeper_end(&s);
}

/* How often this thread has given its core away because it waited: no other load changes that. */
static long waits(void)
{
	struct rusage u;

	assert_int_equal(getrusage(RUSAGE_THREAD, &u), 0);
	return u.ru_nvcsw;
}

/* A readable descriptor of a port that gives no packet must not become a loop that never sleeps: of its rounds, every other
 * one waits, as without the descriptor. */
static void a_false_alarm_does_not_spin(void **state)
{
	struct sleeper s;
	char byte = 0;
	long before;

	(void)state;
	sleeper_new(&s);
	assert_int_equal(rte_rcu_qsbr_thread_register(s.w->st->qsbr, s.w->index), 0);
	rte_rcu_qsbr_thread_online(s.w->st->qsbr, s.w->index);
	assert_int_equal(write(s.fd[0][1], &byte, 1), 1);
	for (unsigned i = 0; i < ROUNDS_MAX && s.w->idle.naps < 100; i++)
		idle_round(s.w);
	assert_true(s.w->idle.naps >= 100);
	before = waits();
	for (unsigned i = 0; i < 1000; i++)
		idle_round(s.w);
	assert_true(waits() - before >= 400);
	rte_rcu_qsbr_thread_offline(s.w->st->qsbr, s.w->index);
	rte_rcu_qsbr_thread_unregister(s.w->st->qsbr, s.w->index);
	sleeper_close(&s);
}

/* Flows that are due to be looked at keep a worker awake, but it goes on sleeping where it was. */
static void ageing_is_not_work(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_int_equal(rte_rcu_qsbr_thread_register(x.st->qsbr, x.w->index), 0);
	x.st->ports[0].rx_fd[0] = -1;
	worker_pin(x.w, clock_boot_us());
	idle_after(x.w, false);
	assert_int_equal(
		x.w->idle.naps,
		0); /* one more round, for what came before the ports were asked to wake us */
	idle_after(x.w, false);
	assert_int_equal(x.w->idle.naps, 1);
	x.w->age_due = 1;
	idle_after(x.w, false);
	assert_int_equal(x.w->idle.naps, 1); /* awake */
	x.w->age_due = 0;
	idle_after(x.w, false);
	idle_after(x.w, false);
	assert_int_equal(x.w->idle.naps, 2);
	world_free(&x);
}

static int setup(void **state)
{
	(void)state;
	return world_eal();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_cause_wakes),
		cmocka_unit_test(sleep_holds_up_no_grace_period),
		cmocka_unit_test(a_port_without_descriptor_is_asked_by_time),
		cmocka_unit_test(a_false_alarm_does_not_spin),
		cmocka_unit_test(ageing_is_not_work),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
