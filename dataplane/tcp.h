/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tcp: how a TCP connection looks from the middle (RFC 9293 section 3.3.2), as a table. Only who may open, who may
 * answer and when it has ended: no sequence numbers. */
#pragma once

#include <stdint.h>

enum tcp_state {
	TCP_NONE,
	TCP_SYN_SENT, /* by the opener */
	TCP_SYN_RECV, /* answered */
	TCP_ESTAB,
	TCP_FIN_OPENER, /* the opener has closed its direction */
	TCP_FIN_REPLIER,
	TCP_LAST, /* both have closed */
	TCP_RESET,
	TCP_STATES,
	TCP_REOPEN =
		0xfe, /* the old connection is over: admit this SYN as a new flow, in its direction */
	TCP_BAD = 0xff, /* BAD_STATE */
};

enum tcp_event { TCP_EV_SYN, TCP_EV_SYNACK, TCP_EV_ACK, TCP_EV_FIN, TCP_EV_RST, TCP_EVENTS };

enum tcp_event tcp_event_of(uint8_t flags);

/** Next state, TCP_REOPEN or TCP_BAD. from_opener: the packet comes from the flow's opener. */
uint8_t tcp_next(uint8_t state, int from_opener, enum tcp_event ev);

/** enum flow_state for a TCP state. */
uint8_t tcp_flow_state(uint8_t state);
