/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Frames as they come from a wire, and what ICMP errors quote. The copy ends where its allocation ends. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/lane.h"
#include "dataplane/parse.h"
#include "test/unit/dataplane/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void quote(const uint8_t *data, size_t size, bool v4)
{
	struct flow_key id;
	struct ip_addr src;

	if (parse_quote(data, size, v4, &id, &src) && !ip_addr_eq(&src, &id.src) &&
	    !ip_addr_eq(&src, &id.dst))
		abort();
}

/* The same frame between addresses that may talk. */
static void good_ends(uint8_t *frame, const struct lane_pkt *l)
{
	static const uint8_t v4[8] = {10, 1, 0, 10, 10, 2, 0, 10};
	static const uint8_t v6[32] = {0xfd, 1, [15] = 1, 0xfd, 2, [31] = 1};
	uint8_t *l3 = frame + l->l3_off;

	if (!l->v4) {
		memcpy(l3 + 8, v6, sizeof(v6));
		return;
	}
	memcpy(l3 + 12, v4, sizeof(v4));
	frame_put16(l3 + 10, 0);
	frame_put16(l3 + 10, frame_sum(l3, 20));
}

/* What the fast lane takes for a usual packet, the parser does too, but for its addresses, which no flow has. */
static void lane(const struct port *port, uint8_t *frame, size_t bytes)
{
	struct pkt parsed = {.in_port = 3}, *p = &parsed;
	struct lane_pkt l;
	enum drop_reason why;

	if (!lane_parse(port, frame, bytes, &l))
		return;
	why = parse_frame(port, frame, bytes, bytes, p);
	if (why == DROP_MALFORMED || (p->flags & PKT_ON_LINK)) {
		good_ends(frame, &l);
		if (!lane_parse(port, frame, bytes, &l))
			abort();
		why = parse_frame(port, frame, bytes, bytes, p);
	}
	if (why != DROP_NONE || p->kind != PKT_FLOW || memcmp(&p->id, l.key, sizeof(l.key)) != 0)
		abort();
	if ((p->flags & (PKT_UNUSUAL | PKT_FRAGMENT)) || p->l3_off != l.l3_off ||
	    p->ip_bytes != l.ip_bytes || p->vlan != l.vlan ||
	    l.reversed != ((p->flags & PKT_REVERSED) != 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct port port = {.mac = {{2, 0, 0, 0, 0, 1}},
					 .vlans = {1 | 1ull << 30},
					 .n_qinq = 1,
					 .qinq = {{100, 20, 5000}}};
	size_t more = size > 0 ? data[0] : 0; /* bytes of the frame that lie in later segments */
	uint8_t *frame;
	struct pkt p = {.in_port = 3};

	if (size > 4096 || size == 0)
		return -1;
	data++;
	size--;
	frame = malloc(size != 0 ? size : 1);
	if (frame == NULL)
		return -1;
	memcpy(frame, data, size);
	if (parse_frame(&port, frame, size, size + more, &p) == DROP_NONE) {
		if (p.in_port != 3 || p.l3_off < 14 || p.l4_off < p.l3_off ||
		    p.l3_off + p.ip_bytes > size + more)
			abort();
		if (p.kind == PKT_FLOW && p.l4_off + 8u > size)
			abort();
	}
	quote(frame, size, true);
	quote(frame, size, false);
	lane(&port, frame, size);
	free(frame);
	return 0;
}
