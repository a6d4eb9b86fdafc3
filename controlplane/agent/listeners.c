/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/listeners.h"

#include <errno.h>
#include <string.h>

#include "config/listeners.h"

static const struct gw_listener *place_in(const struct gw_config *cfg, const struct gw_listener *l)
{
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (cfg->listeners[i].left == GW_LISTENER_STAYS &&
		    gw_listener_same_place(&cfg->listeners[i], l))
			return &cfg->listeners[i];
	}
	return NULL;
}

static bool door_in(const struct gw_config *cfg, const struct gw_listener *l)
{
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (gw_listener_same_door(&cfg->listeners[i], l))
			return true;
	}
	return false;
}

static bool same_upstreams(const struct gw_listener *a, const struct gw_listener *b)
{
	return gw_listener_upstreams_hash(a) == gw_listener_upstreams_hash(b);
}

static struct gw_listener *append(struct listeners *out, const struct gw_listener *l)
{
	if (out->n == MSG_LISTENERS_MAX)
		return NULL;
	out->list[out->n] = *l;
	return &out->list[out->n++];
}

/* Among what the next file has, the place with these upstreams. */
static int find(const struct listeners *out, const struct gw_listener *l)
{
	for (uint32_t i = 0; i < out->n; i++) {
		if (gw_listener_same_place(&out->list[i], l) && same_upstreams(&out->list[i], l))
			return (int)i;
	}
	return -ENOENT;
}

/* A listener that ran and is not in the next file as it was. @return 0 or -ENOSPC */
static int leave(struct listeners *out, uint32_t i, const struct gw_config *now,
		 const struct gw_config *next, uint32_t sessions, uint64_t now_ms)
{
	const struct gw_listener *l = &now->listeners[i];
	bool stays = place_in(next, l) != NULL;
	struct gw_listener *kept;

	/* A place whose address and port another transport has now cannot be reached. */
	if ((stays && sessions == 0) || (!stays && door_in(next, l)))
		return 0;
	kept = append(out, l);
	if (kept == NULL)
		return -ENOSPC;
	out->was[i] = (uint8_t)(out->n - 1);
	if (stays) {
		kept->left = GW_LISTENER_BEFORE;
	} else if (kept->left != GW_LISTENER_CLOSING) {
		kept->left = GW_LISTENER_CLOSING;
		kept->until_ms = now_ms + now->drain_s * 1000ull + LISTENERS_LINGER_MS;
	}
	return 0;
}

static void count(struct listeners *out, const struct gw_config *now, const struct gw_config *next)
{
	for (uint32_t i = 0; i < next->n_listeners; i++) {
		const struct gw_listener *l = place_in(now, &next->listeners[i]);

		out->added += l == NULL;
		out->changed += l != NULL && !gw_listener_same_keys(l, &next->listeners[i]);
	}
	for (uint32_t i = 0; i < now->n_listeners; i++)
		out->removed += now->listeners[i].left == GW_LISTENER_STAYS &&
				place_in(next, &now->listeners[i]) == NULL;
}

int listeners_merge(struct listeners *out, const struct gw_config *now,
		    const struct gw_config *next, const uint32_t *sessions, uint64_t now_ms,
		    struct err *err)
{
	memset(out, 0, sizeof(*out));
	memset(out->was, LISTENERS_NONE, sizeof(out->was));
	for (uint32_t i = 0; i < next->n_listeners; i++)
		append(out, &next->listeners[i]);
	for (uint32_t i = 0; i < now->n_listeners; i++) {
		int at = find(out, &now->listeners[i]);

		if (at >= 0)
			out->was[i] = (uint8_t)at;
		else if (leave(out, i, now, next, sessions[i], now_ms) < 0)
			return err_set(
				err, -ENOSPC,
				"%s: listeners: with those that were changed or removed and "
				"still have sessions there are more than %u: wait for these, or "
				"restart the TLS workers",
				next->file, MSG_LISTENERS_MAX);
	}
	count(out, now, next);
	return 0;
}

static bool needed(const struct gw_listener *l, uint32_t sessions, uint64_t now_ms)
{
	switch (l->left) {
	case GW_LISTENER_BEFORE:
		return sessions > 0;
	case GW_LISTENER_CLOSING:
		return now_ms < l->until_ms;
	default:
		return true;
	}
}

bool listeners_expire(struct listeners *out, const struct gw_config *now, const uint32_t *sessions,
		      uint64_t now_ms)
{
	memset(out, 0, sizeof(*out));
	memset(out->was, LISTENERS_NONE, sizeof(out->was));
	for (uint32_t i = 0; i < now->n_listeners; i++) {
		if (!needed(&now->listeners[i], sessions[i], now_ms))
			continue;
		append(out, &now->listeners[i]);
		out->was[i] = (uint8_t)(out->n - 1);
	}
	return out->n < now->n_listeners;
}

void listeners_take(struct gw_config *cfg, const struct listeners *l)
{
	memset(cfg->listeners, 0, sizeof(cfg->listeners));
	memcpy(cfg->listeners, l->list, l->n * sizeof(l->list[0]));
	cfg->n_listeners = l->n;
}
