/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/base/msg.h"
#include "dataplane/tcp.h"

#define O 1 /* from the opener */
#define R 0

struct step {
	int from;
	enum tcp_event ev;
	uint8_t next;
};

static void lives_follow_the_table(void **state)
{
	static const struct {
		const char *name;
		struct step step[8];
	} rows[] = {
		{"open, talk, close by the opener",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV},
		  {O, TCP_EV_ACK, TCP_ESTAB},
		  {R, TCP_EV_ACK, TCP_ESTAB},
		  {O, TCP_EV_FIN, TCP_FIN_OPENER},
		  {R, TCP_EV_ACK, TCP_FIN_OPENER},
		  {R, TCP_EV_FIN, TCP_LAST},
		  {O, TCP_EV_ACK, TCP_LAST}}},
		{"close by the replier",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV},
		  {O, TCP_EV_ACK, TCP_ESTAB},
		  {R, TCP_EV_FIN, TCP_FIN_REPLIER},
		  {O, TCP_EV_FIN, TCP_LAST},
		  {O, TCP_EV_SYN, TCP_REOPEN}}},
		{"SYN lost and sent again",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV}}},
		{"refused by the host",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_RST, TCP_RESET},
		  {O, TCP_EV_SYN, TCP_REOPEN}}},
		{"the replier cannot open on it",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT}, {R, TCP_EV_SYN, TCP_BAD}}},
		{"nor when it is open",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV},
		  {O, TCP_EV_ACK, TCP_ESTAB},
		  {R, TCP_EV_SYN, TCP_BAD}}},
		{"nor half closed",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT},
		  {R, TCP_EV_SYNACK, TCP_SYN_RECV},
		  {O, TCP_EV_FIN, TCP_FIN_OPENER},
		  {R, TCP_EV_SYN, TCP_BAD}}},
		{"an opener does not answer itself",
		 {{O, TCP_EV_SYN, TCP_SYN_SENT}, {O, TCP_EV_SYNACK, TCP_BAD}}},
		{"nothing but a SYN opens", {{O, TCP_EV_ACK, TCP_BAD}}},
		{"nor a reset", {{O, TCP_EV_RST, TCP_BAD}}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t s = TCP_NONE;

		for (int k = 0; k < 8 && rows[i].step[k].next != TCP_NONE; k++) {
			const struct step *t = &rows[i].step[k];
			uint8_t got = tcp_next(s, t->from, t->ev);

			if (got != t->next)
				fail_msg("%s: step %d gives %u, not %u", rows[i].name, k + 1, got,
					 t->next);
			s = got;
		}
	}
}

static void every_cell_is_sane(void **state)
{
	(void)state;
	for (unsigned s = 0; s < TCP_STATES; s++) {
		for (unsigned from = 0; from < 2; from++) {
			for (unsigned e = 0; e < TCP_EVENTS; e++) {
				uint8_t n = tcp_next(s, from, e);

				assert_true((n > TCP_NONE && n < TCP_STATES) || n == TCP_BAD ||
					    n == TCP_REOPEN);
				if (n == TCP_REOPEN)
					assert_int_equal(e, TCP_EV_SYN);
				if (s != TCP_NONE && e == TCP_EV_RST)
					assert_int_equal(n, TCP_RESET);
			}
		}
	}
	assert_int_equal(tcp_next(200, 1, TCP_EV_ACK), TCP_BAD);
	assert_int_equal(tcp_flow_state(TCP_ESTAB), FLOW_ESTABLISHED);
	assert_int_equal(tcp_flow_state(200), FLOW_NEW);
}

static void flags_name_events(void **state)
{
	(void)state;
	assert_int_equal(tcp_event_of(0x02), TCP_EV_SYN);
	assert_int_equal(tcp_event_of(0x12), TCP_EV_SYNACK);
	assert_int_equal(tcp_event_of(0x10), TCP_EV_ACK);
	assert_int_equal(tcp_event_of(0x11), TCP_EV_FIN);
	assert_int_equal(tcp_event_of(0x14), TCP_EV_RST);
	assert_int_equal(tcp_event_of(0x04), TCP_EV_RST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lives_follow_the_table),
		cmocka_unit_test(every_cell_is_sane),
		cmocka_unit_test(flags_name_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
