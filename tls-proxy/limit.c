/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/limit.h"

#include <stddef.h>
#include <string.h>

#define ONE 1000 /* a token, in thousandths */

/* Of an IPv6 source its /64: nobody has only one address there. */
static uint64_t key_of(const struct limit *m, const struct ip_addr *from)
{
	uint64_t high, low, k;

	memcpy(&high, from->b, sizeof(high));
	memcpy(&low, from->b + 8, sizeof(low));
	k = m->secret ^ high ^ (ip_addr_is_v4(from) ? low * 0x9e3779b97f4a7c15ull : 0);
	for (int i = 0; i < 2; i++) {
		k ^= k >> 32;
		k *= 0xd6e8feb86659fd93ull;
	}
	k ^= k >> 32;
	return k != 0 ? k : 1;
}

static struct limit_source *find(struct limit *m, uint64_t key)
{
	struct limit_source *bucket = m->sources[key % LIMIT_BUCKETS];

	for (unsigned i = 0; i < LIMIT_WAYS; i++) {
		if (bucket[i].key == key)
			return &bucket[i];
	}
	return NULL;
}

/* A place for a new source: a free one, or that of who has been away for longest. NULL: all are busy. */
static struct limit_source *place(struct limit *m, uint64_t key)
{
	struct limit_source *bucket = m->sources[key % LIMIT_BUCKETS], *best = NULL;

	for (unsigned i = 0; i < LIMIT_WAYS; i++) {
		if (bucket[i].open == 0 && (best == NULL || bucket[i].at_ms < best->at_ms))
			best = &bucket[i];
	}
	return best;
}

/* A second's worth at the most. */
static void refill(uint32_t *tokens, uint64_t *at_ms, uint32_t rate, uint64_t now_ms)
{
	uint64_t most = (uint64_t)rate * ONE, more = (now_ms - *at_ms) * rate;

	*tokens = more >= most - *tokens || *tokens > most ? most : *tokens + more;
	*at_ms = now_ms;
}

enum limit_verdict limit_take(struct limit *m, const struct gw_listener *cfg,
			      const struct ip_addr *from, uint64_t now_ms)
{
	uint64_t key = key_of(m, from);
	struct limit_source *s = find(m, key);

	if (s == NULL && (s = place(m, key)) != NULL)
		*s = (struct limit_source){
			.key = key, .at_ms = now_ms, .tokens = cfg->handshakes_each_s * ONE};
	if (s != NULL) {
		if (cfg->handshakes_each > 0 && s->open >= cfg->handshakes_each)
			return LIMIT_SOURCE_OPEN;
		refill(&s->tokens, &s->at_ms, cfg->handshakes_each_s, now_ms);
		if (cfg->handshakes_each_s > 0 && s->tokens < ONE)
			return LIMIT_SOURCE_RATE;
	}
	if (m->at_ms == 0)
		m->tokens = cfg->handshakes_s * ONE;
	refill(&m->tokens, &m->at_ms, cfg->handshakes_s, now_ms);
	if (cfg->handshakes_s > 0 && m->tokens < ONE)
		return LIMIT_RATE;
	if (cfg->handshakes_s > 0)
		m->tokens -= ONE;
	if (s != NULL) {
		s->tokens -= cfg->handshakes_each_s > 0 ? ONE : 0;
		s->open++;
	}
	return LIMIT_TAKEN;
}

void limit_give(struct limit *m, const struct ip_addr *from)
{
	struct limit_source *s = find(m, key_of(m, from));

	/* One that found no place may find its source there by now. */
	if (s != NULL && s->open > 0)
		s->open--;
}
