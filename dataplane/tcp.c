/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/tcp.h"

#include "config/base/msg.h"
#include "dataplane/parse.h"

#define BAD TCP_BAD
#define AGAIN TCP_REOPEN
#define SS TCP_SYN_SENT
#define SR TCP_SYN_RECV
#define ES TCP_ESTAB
#define FO TCP_FIN_OPENER
#define FR TCP_FIN_REPLIER
#define LA TCP_LAST
#define RS TCP_RESET

/* A SYN of the replier never rides on the opener's flow: it would open a direction that was not admitted. */
static const uint8_t next[TCP_STATES][2][TCP_EVENTS] = {
	/*                   replier {SYN, SYNACK, ACK, FIN, RST}, opener {...} */
	[TCP_NONE] = {{BAD, BAD, BAD, BAD, BAD}, {SS, BAD, BAD, BAD, BAD}},
	[TCP_SYN_SENT] = {{BAD, SR, SS, SS, RS}, {SS, BAD, SS, FO, RS}},
	[TCP_SYN_RECV] = {{BAD, SR, SR, FR, RS}, {SS, BAD, ES, FO, RS}},
	[TCP_ESTAB] = {{BAD, ES, ES, FR, RS}, {ES, BAD, ES, FO, RS}},
	[TCP_FIN_OPENER] = {{BAD, FO, FO, LA, RS}, {AGAIN, BAD, FO, FO, RS}},
	[TCP_FIN_REPLIER] = {{BAD, FR, FR, FR, RS}, {AGAIN, BAD, FR, LA, RS}},
	[TCP_LAST] = {{AGAIN, LA, LA, LA, RS}, {AGAIN, BAD, LA, LA, RS}},
	[TCP_RESET] = {{AGAIN, RS, RS, RS, RS}, {AGAIN, BAD, RS, RS, RS}},
};

static const uint8_t flow_states[TCP_STATES] = {
	[TCP_NONE] = FLOW_NEW,		 [TCP_SYN_SENT] = FLOW_OPENING,
	[TCP_SYN_RECV] = FLOW_OPENING,	 [TCP_ESTAB] = FLOW_ESTABLISHED,
	[TCP_FIN_OPENER] = FLOW_CLOSING, [TCP_FIN_REPLIER] = FLOW_CLOSING,
	[TCP_LAST] = FLOW_CLOSING,	 [TCP_RESET] = FLOW_CLOSING,
};

enum tcp_event tcp_event_of(uint8_t flags)
{
	if (flags & PARSE_TCP_RST)
		return TCP_EV_RST;
	if (flags & PARSE_TCP_SYN)
		return (flags & PARSE_TCP_ACK) ? TCP_EV_SYNACK : TCP_EV_SYN;
	return (flags & PARSE_TCP_FIN) ? TCP_EV_FIN : TCP_EV_ACK;
}

uint8_t tcp_next(uint8_t state, int from_opener, enum tcp_event ev)
{
	return state < TCP_STATES && ev < TCP_EVENTS ? next[state][from_opener != 0][ev] : TCP_BAD;
}

uint8_t tcp_flow_state(uint8_t state)
{
	return state < TCP_STATES ? flow_states[state] : FLOW_NEW;
}
