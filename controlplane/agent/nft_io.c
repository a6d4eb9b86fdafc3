/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "controlplane/agent/nft_internal.h"

#define SCRATCH_BYTES (192 * 1024)
#define LIST_BYTES_MAX 60000 /* an attribute's length has 16 bits */

int batch_init(struct nft_batch *b)
{
	memset(b, 0, sizeof(*b));
	b->scratch = malloc(SCRATCH_BYTES);
	return b->scratch == NULL ? -ENOMEM : 0;
}

void batch_fini(struct nft_batch *b)
{
	free(b->data);
	free(b->scratch);
	memset(b, 0, sizeof(*b));
}

static void append(struct nft_batch *b, const struct nlmsghdr *nlh)
{
	size_t bytes = MNL_ALIGN(nlh->nlmsg_len);

	if (b->ret < 0)
		return;
	if (b->len + bytes > b->cap) {
		size_t cap = (b->len + bytes) * 2;
		uint8_t *data = realloc(b->data, cap);

		if (data == NULL) {
			b->ret = -ENOMEM;
			return;
		}
		b->data = data;
		b->cap = cap;
	}
	memset(b->data + b->len, 0, bytes);
	memcpy(b->data + b->len, nlh, nlh->nlmsg_len);
	b->len += bytes;
}

static struct nlmsghdr *put_header(struct nft_batch *b, uint16_t type, uint16_t family,
				   uint16_t flags, uint16_t res_id)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(b->scratch);
	struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = b->seq++;
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = htons(res_id);
	return nlh;
}

void batch_begin(struct nft_batch *b, uint32_t *seq)
{
	b->len = 0;
	b->last = 0;
	b->ret = 0;
	b->seq = *seq;
	append(b, put_header(b, NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES));
	*seq += 1u << 20; /* no two batches share a number soon */
}

struct nlmsghdr *batch_msg(struct nft_batch *b, uint16_t cmd, uint16_t family, uint16_t flags)
{
	b->open = put_header(b, (NFNL_SUBSYS_NFTABLES << 8) | cmd, family, flags, 0);
	return b->open;
}

void batch_push(struct nft_batch *b)
{
	b->last = b->len;
	append(b, b->open);
	b->open = NULL;
}

static int name_attr_cb(const struct nlattr *attr, void *data)
{
	const char **names = data;
	uint16_t type = mnl_attr_get_type(attr);

	/* 1 is the table, 2 the object's name (rule: its chain; chain: its handle, never sent), 3 a chain's name. */
	if (type <= 3 && mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
		names[type] = mnl_attr_get_str(attr);
	return MNL_CB_OK;
}

static const char *cmd_text(uint16_t type)
{
	switch (type & 0xff) {
	case NFT_MSG_NEWTABLE:
		return "add table";
	case NFT_MSG_DELTABLE:
		return "delete table";
	case NFT_MSG_NEWCHAIN:
		return "add chain";
	case NFT_MSG_NEWRULE:
		return "add rule to chain";
	case NFT_MSG_NEWSET:
		return "add set";
	case NFT_MSG_NEWSETELEM:
		return "add elements to set";
	case NFT_MSG_DELSETELEM:
		return "delete elements of set";
	case NFT_MSG_NEWOBJ:
		return "add counter";
	default:
		return "batch";
	}
}

static int refused(const struct nft_batch *b, uint32_t seq, int ret, struct err *err)
{
	const struct nlmsghdr *nlh = (const void *)b->data;
	int left = (int)b->len;

	for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		const char *names[4] = {NULL, NULL, NULL, NULL}, *name;

		if (nlh->nlmsg_seq != seq)
			continue;
		mnl_attr_parse(nlh, sizeof(struct nfgenmsg), name_attr_cb, names);
		name = (nlh->nlmsg_type & 0xff) == NFT_MSG_NEWCHAIN ? names[3] : names[2];
		return err_set(err, ret, "nftables: %s%s%s: %s", cmd_text(nlh->nlmsg_type),
			       name != NULL ? " " : "", name != NULL ? name : "", strerror(-ret));
	}
	return err_set(err, ret, "nftables: %s", strerror(-ret));
}

/* The kernel has worked through the batch when send returns: all answers wait already. */
static int read_verdict(const struct nft_batch *b, struct mnl_socket *sock, uint32_t ack_seq,
			struct err *err)
{
	char buf[NFT_READ_BYTES];
	uint32_t first_seq = ((const struct nlmsghdr *)(const void *)b->data)->nlmsg_seq;
	uint32_t bad_seq = 0;
	bool acked = false;
	int ret = 0;

	for (;;) {
		ssize_t got = recv(mnl_socket_get_fd(sock), buf, sizeof(buf), MSG_DONTWAIT);
		const struct nlmsghdr *nlh = (const void *)buf;
		int left = (int)got;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == ENOBUFS) {
			ret = ret == 0 ? -ENOBUFS : ret; /* more errors than the socket holds */
			continue;
		}
		if (got < 0)
			break;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);

			if (nlh->nlmsg_type != NLMSG_ERROR ||
			    mnl_nlmsg_get_payload_len(nlh) < sizeof(*e) ||
			    nlh->nlmsg_seq - first_seq >= 1u << 20)
				continue;
			if (e->error == 0 && nlh->nlmsg_seq == ack_seq)
				acked = true;
			if (e->error != 0 && bad_seq == 0) {
				ret = e->error;
				bad_seq = nlh->nlmsg_seq;
			}
		}
	}
	if (ret < 0)
		return refused(b, bad_seq, ret, err);
	return acked ? 0 : err_set(err, -EIO, "nftables: no answer from the kernel");
}

int batch_send(struct nft_batch *b, struct mnl_socket *sock, struct err *err)
{
	int fd = mnl_socket_get_fd(sock);
	struct nlmsghdr *last;
	ssize_t sent;
	int room;

	append(b, put_header(b, NFNL_MSG_BATCH_END, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES));
	if (b->ret < 0)
		return err_set(err, b->ret, "nftables: no memory for the batch");
	if (b->last == 0)
		return 0;
	last = (void *)(b->data + b->last);
	last->nlmsg_flags |= NLM_F_ACK;
	/* The whole batch is one datagram, for only so it is one transaction. The kernel doubles the value. */
	room = (int)(b->len + 65536);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	do {
		sent = send(fd, b->data, b->len, 0);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0) {
		int ret = -errno;

		return err_set(err, ret, "nftables: send of %zu bytes: %s", b->len, strerror(-ret));
	}
	return read_verdict(b, sock, last->nlmsg_seq, err);
}

int nft_query(struct mnl_socket *sock, struct nlmsghdr *req, mnl_cb_t cb, void *arg)
{
	char buf[NFT_READ_BYTES];
	static uint32_t seq =
		1u << 31; /* apart from the batches' numbers: a late answer is not ours */
	int ret = 1;

	req->nlmsg_seq = ++seq;
	if (mnl_socket_sendto(sock, req, req->nlmsg_len) < 0)
		return -errno;
	while (ret > 0) {
		ssize_t got = mnl_socket_recvfrom(sock, buf, sizeof(buf));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		ret = mnl_cb_run(buf, (size_t)got, seq, mnl_socket_get_portid(sock), cb, arg);
		if (ret < 0 && errno == EINTR) {
			/* Torn dump (NLM_F_DUMP_INTR): the rest of it still comes and must be read away. */
			while (recv(mnl_socket_get_fd(sock), buf, sizeof(buf), MSG_DONTWAIT) > 0)
				;
			return -EINTR;
		}
		if (ret < 0 && errno != ESRCH && errno != EPROTO)
			return -errno;
		if (ret < 0)
			ret = 1; /* a stale answer */
	}
	return 0;
}

/* ---- elements ---- */

static void list_open(struct nft_elems *e)
{
	uint16_t flags = e->cmd == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0;

	e->nlh = batch_msg(e->b, e->cmd, NFPROTO_INET, flags);
	mnl_attr_put_strz(e->nlh, NFTA_SET_ELEM_LIST_TABLE, NFT_TABLE);
	mnl_attr_put_strz(e->nlh, NFTA_SET_ELEM_LIST_SET, e->set);
	e->list = mnl_attr_nest_start(e->nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
}

void elems_begin(struct nft_elems *e, struct nft_batch *b, uint16_t cmd, const char *set)
{
	*e = (struct nft_elems){.b = b, .cmd = cmd, .set = set};
}

static void put_value(struct nlmsghdr *nlh, uint16_t type, const void *value, uint16_t bytes)
{
	struct nlattr *nest = mnl_attr_nest_start(nlh, type);

	mnl_attr_put(nlh, NFTA_DATA_VALUE, bytes, value);
	mnl_attr_nest_end(nlh, nest);
}

void elems_put(struct nft_elems *e, const struct nft_elem *el)
{
	struct nlattr *one, *data, *verdict;

	if (e->nlh != NULL &&
	    (size_t)((char *)mnl_nlmsg_get_payload_tail(e->nlh) - (char *)e->list) > LIST_BYTES_MAX)
		elems_end(e);
	if (e->nlh == NULL)
		list_open(e);
	one = mnl_attr_nest_start(e->nlh, NFTA_LIST_ELEM);
	if (el->flags != 0)
		mnl_attr_put_u32(e->nlh, NFTA_SET_ELEM_FLAGS, htonl(el->flags));
	if (el->key != NULL)
		put_value(e->nlh, NFTA_SET_ELEM_KEY, el->key, el->key_bytes);
	if (el->key_end != NULL)
		put_value(e->nlh, NFTA_SET_ELEM_KEY_END, el->key_end, el->key_bytes);
	if (el->data != NULL)
		put_value(e->nlh, NFTA_SET_ELEM_DATA, el->data, el->data_bytes);
	if (el->chain != NULL) {
		data = mnl_attr_nest_start(e->nlh, NFTA_SET_ELEM_DATA);
		verdict = mnl_attr_nest_start(e->nlh, NFTA_DATA_VERDICT);
		mnl_attr_put_u32(e->nlh, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
		mnl_attr_put_strz(e->nlh, NFTA_VERDICT_CHAIN, el->chain);
		mnl_attr_nest_end(e->nlh, verdict);
		mnl_attr_nest_end(e->nlh, data);
	}
	if (el->object != NULL)
		mnl_attr_put_strz(e->nlh, NFTA_SET_ELEM_OBJREF, el->object);
	if (el->timeout_ms != 0)
		mnl_attr_put_u64(e->nlh, NFTA_SET_ELEM_TIMEOUT, htobe64(el->timeout_ms));
	mnl_attr_nest_end(e->nlh, one);
}

void elems_end(struct nft_elems *e)
{
	if (e->nlh == NULL)
		return;
	mnl_attr_nest_end(e->nlh, e->list);
	batch_push(e->b);
	e->nlh = NULL;
}

void elems_flush(struct nft_batch *b, const char *set)
{
	struct nlmsghdr *nlh = batch_msg(b, NFT_MSG_DELSETELEM, NFPROTO_INET, 0);

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, NFT_TABLE);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set);
	batch_push(b);
}
