/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A ticket that somebody brings, with the name of a real one if the first byte says so: none but the real one opens. */
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/tickets.h"

#define TEXT_BYTES 240

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct tickets *tickets;
static struct ticket *real;
static uint8_t name[TICKET_NAME_BYTES], iv[TICKET_IV_BYTES], mac[TICKET_MAC_BYTES],
	sealed[TEXT_BYTES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct peer peer;

	(void)argc;
	(void)argv;
	real = ticket_new(&peer, "a.example", &tickets, UINT64_MAX);
	if (real == NULL || tickets_new(&tickets, 4, 60) < 0 ||
	    tickets_seal(tickets, real, name, iv, mac, sealed, sizeof(sealed)) < 0)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t in[TICKET_NAME_BYTES + TICKET_IV_BYTES + TICKET_MAC_BYTES + TEXT_BYTES] = {0};
	uint8_t *its_iv = in + TICKET_NAME_BYTES, *its_mac = its_iv + TICKET_IV_BYTES;
	uint8_t *text = its_mac + TICKET_MAC_BYTES, how = bytes > 0 ? data[0] : 0;
	size_t n = bytes > 1 ? bytes - 1 : 0;
	struct ticket *k;
	bool same;

	if (n > 0)
		memcpy(in, data + 1, n < sizeof(in) ? n : sizeof(in));
	if (how & 1)
		memcpy(in, name, sizeof(name));
	if (how & 2)
		memcpy(its_iv, iv, sizeof(iv));
	if (how & 4)
		memcpy(its_mac, mac, sizeof(mac));
	if (how & 8)
		memcpy(text, sealed, sizeof(sealed));
	same = memcmp(in, name, sizeof(name)) == 0 && memcmp(its_iv, iv, sizeof(iv)) == 0 &&
	       memcmp(its_mac, mac, sizeof(mac)) == 0 && memcmp(text, sealed, sizeof(sealed)) == 0;
	n = n < TEXT_BYTES && (how & 8) == 0 ? n : TEXT_BYTES;
	k = tickets_open(tickets, in, its_iv, its_mac, text, n, &tickets, "a.example", 1);
	if ((k != NULL) != (same && n == TEXT_BYTES))
		abort();
	ticket_drop(k);
	return 0;
}
