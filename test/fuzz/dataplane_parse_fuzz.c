/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Frames as they come from a wire, and what ICMP errors quote. The copy ends where its allocation ends. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void quote(const uint8_t *data, size_t size, bool v4)
{
	struct flow_key id;
	struct ip_addr src;

	if (parse_quote(data, size, v4, &id, &src) && !ip_addr_eq(&src, &id.src) &&
	    !ip_addr_eq(&src, &id.dst))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct port port = {.mac = {{2, 0, 0, 0, 0, 1}}, .vlans = {1 | 1ull << 30}};
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
	free(frame);
	return 0;
}
