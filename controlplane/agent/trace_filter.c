/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "controlplane/agent/api_trace.h"

static int read_prefix(struct ip_prefix *out, const json_t *v, const char *key, struct err *err)
{
	const char *text = json_string_value(v);
	int ret = text != NULL ? ip_prefix_parse(out, text) : -EINVAL;

	if (ret == -ERANGE)
		return err_set(err, -EINVAL, "%s %s: has bits set behind the prefix length", key,
			       text);
	return ret < 0 ? err_set(err, -EINVAL,
				 "%s: must be an address or a prefix, as 10.7.0.11 or 10.7.0.0/24",
				 key)
		       : 0;
}

static int read_number(uint64_t *out, const json_t *v, const char *key, uint64_t max,
		       struct err *err)
{
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return err_set(err, -EINVAL, "%s: must be a number of 0 to %llu", key,
			       (unsigned long long)max);
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

static int read_proto(uint8_t *out, const json_t *v, struct err *err)
{
	static const struct {
		const char *name;
		uint8_t proto;
	} known[] = {{"tcp", POLICY_PROTO_TCP},
		     {"udp", POLICY_PROTO_UDP},
		     {"icmp", POLICY_PROTO_ICMP},
		     {"icmp6", POLICY_PROTO_ICMP6}};
	const char *name = json_string_value(v);
	uint64_t n;

	for (unsigned i = 0; name != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(known[i].name, name) == 0) {
			*out = known[i].proto;
			return 0;
		}
	}
	if (name != NULL || read_number(&n, v, "proto", 255, NULL) < 0)
		return err_set(err, -EINVAL,
			       "proto: must be tcp, udp, icmp, icmp6 or a number of 0 to 255");
	*out = (uint8_t)n;
	return 0;
}

static int read_reason(uint8_t *out, const json_t *v, struct err *err)
{
	const char *name = json_string_value(v);

	for (unsigned i = 1; name != NULL && i < DROP_REASON_COUNT; i++) {
		if (strcmp(drop_reason_name(i), name) == 0) {
			*out = (uint8_t)i;
			return 0;
		}
	}
	return err_set(
		err, -EINVAL,
		"reason: no such reason; `sallyctl stats reasons` lists those that occurred");
}

static int read_name(struct msg_trace_filter *f, const char *key, const json_t *v,
		     const struct trace_names *names, struct err *err)
{
	const char *name = json_string_value(v);

	if (name == NULL)
		return err_set(err, -EINVAL, "%s: must be a name", key);
	if (strcmp(key, "port") == 0) {
		f->fields |= TRACE_PORT;
		return names->port(names->arg, name, &f->in_port)
			       ? 0
			       : err_set(err, -EINVAL, "port: no port \"%.32s\" in gateway.cfg",
					 name);
	}
	f->fields |= TRACE_DEVICE;
	return names->device(names->arg, name, &f->slot)
		       ? 0
		       : err_set(err, -EINVAL, "device: no device \"%.255s\"", name);
}

static int read_member(struct msg_trace_filter *f, const char *key, const json_t *v,
		       const struct trace_names *names, struct err *err)
{
	static const struct {
		const char *key;
		uint32_t field;
	} keys[] = {{"src", TRACE_SRC},	    {"dst", TRACE_DST},	     {"host", TRACE_HOST},
		    {"proto", TRACE_PROTO}, {"sport", TRACE_SPORT},  {"dport", TRACE_DPORT},
		    {"port", TRACE_PORT},   {"vlan", TRACE_VLAN},    {"device", TRACE_DEVICE},
		    {"drop", TRACE_DROP},   {"reason", TRACE_REASON}};
	uint32_t field = 0;
	uint64_t n = 0;
	int ret;

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i].key, key) == 0)
			field = keys[i].field;
	}
	switch (field) {
	case TRACE_SRC:
		ret = read_prefix(&f->src, v, key, err);
		break;
	case TRACE_DST:
		ret = read_prefix(&f->dst, v, key, err);
		break;
	case TRACE_HOST:
		ret = read_prefix(&f->host, v, key, err);
		break;
	case TRACE_PROTO:
		ret = read_proto(&f->proto, v, err);
		break;
	case TRACE_SPORT:
		ret = read_number(&n, v, key, 65535, err);
		f->sport = (uint16_t)n;
		break;
	case TRACE_DPORT:
		ret = read_number(&n, v, key, 65535, err);
		f->dport = (uint16_t)n;
		break;
	case TRACE_VLAN:
		ret = read_number(&n, v, key, 65535, err);
		f->vlan = (uint16_t)n;
		break;
	case TRACE_PORT:
	case TRACE_DEVICE:
		ret = read_name(f, key, v, names, err);
		break;
	case TRACE_REASON:
		ret = read_reason(&f->reason, v, err);
		break;
	case TRACE_DROP:
		if (json_is_false(v))
			return 0;
		ret = json_is_true(v) ? 0 : err_set(err, -EINVAL, "drop: must be true or false");
		break;
	default:
		return err_set(err, -EINVAL,
			       "\"%.32s\" is no part of a filter: there are src, dst, host, proto, "
			       "sport, dport, port, vlan, device, drop and reason",
			       key);
	}
	f->fields |= field;
	return ret;
}

int trace_filter_read(struct msg_trace_filter *out, const json_t *filter,
		      const struct trace_names *names, struct err *err)
{
	struct msg_trace_filter f;
	const char *key;
	json_t *v;

	memset(&f, 0, sizeof(f));
	if (filter != NULL && !json_is_object(filter))
		return err_set(err, -EINVAL, "filter: must be an object");
	json_object_foreach((json_t *)filter, key, v) {
		int ret = read_member(&f, key, v, names, err);

		if (ret < 0)
			return ret;
	}
	*out = f;
	return 0;
}
