/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The guard (who else touches our table) and the counters. */
#include <arpa/inet.h>
#include <stddef.h>
#include <errno.h>
#include <libnftnl/common.h>
#include <libnftnl/object.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/log.h"
#include "controlplane/agent/nft_internal.h"

/* Own transactions can be tens of thousands of notifications: the kernel drops them before they are queued. A
 * notification carries the portid of the socket that asked for the change (all messages of a packet have one). */
static int filter_own(int fd, uint32_t portid)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(portid), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
}

int watch_open(struct nft *n, struct err *err)
{
	int group = NFNLGRP_NFTABLES, room = 4 << 20, ret, fd;

	n->watch = mnl_socket_open2(NETLINK_NETFILTER, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (n->watch == NULL)
		goto fail;
	fd = mnl_socket_get_fd(n->watch);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (filter_own(fd, mnl_socket_get_portid(n->sock)) < 0 ||
	    mnl_socket_bind(n->watch, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    mnl_socket_setsockopt(n->watch, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		goto fail;
	return 0;
fail:
	ret = -errno;
	return err_set(err, ret, "nftables: notification socket: %s", strerror(-ret));
}

int nft_fd(const struct nft *n)
{
	return mnl_socket_get_fd(n->watch);
}

static const struct {
	uint16_t cmd;
	const char *text;
} events[] = {
	{NFT_MSG_NEWTABLE, "changed table"},
	{NFT_MSG_DELTABLE, "deleted table"},
	{NFT_MSG_NEWCHAIN, "changed chain"},
	{NFT_MSG_DELCHAIN, "deleted chain"},
	{NFT_MSG_NEWRULE, "added rule in chain"},
	{NFT_MSG_DELRULE, "deleted rule in chain"},
	{NFT_MSG_NEWSET, "added set"},
	{NFT_MSG_DELSET, "deleted set"},
	{NFT_MSG_NEWSETELEM, "added elements to set"},
	{NFT_MSG_DELSETELEM, "deleted elements of set"},
	{NFT_MSG_NEWOBJ, "changed object"},
	{NFT_MSG_DELOBJ, "deleted object"},
	{NFT_MSG_NEWFLOWTABLE, "added flowtable"},
	{NFT_MSG_DELFLOWTABLE, "deleted flowtable"},
};

struct attrs {
	const struct nlattr *a[4];
};

static int attrs_cb(const struct nlattr *attr, void *data)
{
	struct attrs *attrs = data;

	if (mnl_attr_get_type(attr) < 4)
		attrs->a[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

/* The end of a transaction: tells who did it. */
static void end_of_transaction(struct nft *n, const struct attrs *attrs, struct nft_tamper *t)
{
	const struct nlattr *pid = attrs->a[NFTA_GEN_PROC_PID],
			    *name = attrs->a[NFTA_GEN_PROC_NAME];

	if (!n->touched)
		return;
	t->happened = true;
	memcpy(t->what, n->what, sizeof(t->what));
	if (pid != NULL && mnl_attr_validate(pid, MNL_TYPE_U32) >= 0)
		t->pid = ntohl(mnl_attr_get_u32(pid));
	if (name != NULL && mnl_attr_validate(name, MNL_TYPE_NUL_STRING) >= 0)
		log_clean(t->process, sizeof(t->process), mnl_attr_get_str(name));
	n->touched = false;
}

static void notification(struct nft *n, const struct nlmsghdr *nlh, struct nft_tamper *t)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	uint16_t cmd = nlh->nlmsg_type & 0xff;
	struct attrs attrs = {{NULL}};
	const struct nlattr *attr;
	const char *name = NULL;
	char clean[32];

	if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
	    nlh->nlmsg_pid == mnl_socket_get_portid(n->sock) ||
	    mnl_nlmsg_get_payload_len(nlh) < sizeof(*nfg))
		return;
	if (mnl_attr_parse(nlh, sizeof(*nfg), attrs_cb, &attrs) < 0)
		return;
	if (cmd == NFT_MSG_NEWGEN) {
		end_of_transaction(n, &attrs, t);
		return;
	}
	/* Attribute 1 is the table in every kind of message, 2 the object's (rule: chain's) name in all but chain's. */
	if (nfg->nfgen_family != NFPROTO_INET || attrs.a[1] == NULL ||
	    mnl_attr_validate(attrs.a[1], MNL_TYPE_NUL_STRING) < 0 ||
	    strcmp(mnl_attr_get_str(attrs.a[1]), NFT_TABLE) != 0)
		return;
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		if (events[i].cmd != cmd || n->touched)
			continue;
		n->touched = true;
		attr = cmd == NFT_MSG_NEWCHAIN || cmd == NFT_MSG_DELCHAIN ? attrs.a[NFTA_CHAIN_NAME]
									  : attrs.a[2];
		if (cmd != NFT_MSG_NEWTABLE && cmd != NFT_MSG_DELTABLE && attr != NULL &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			name = mnl_attr_get_str(attr);
		snprintf(n->what, sizeof(n->what), "%s%s%s", events[i].text,
			 name != NULL ? " " : "",
			 name != NULL ? log_clean(clean, sizeof(clean), name) : "");
	}
}

int nft_dispatch(struct nft *n, struct nft_tamper *t)
{
	char buf[NFT_READ_BYTES];

	memset(t, 0, sizeof(*t));
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(n->watch, buf, sizeof(buf));
		const struct nlmsghdr *nlh = (const void *)buf;
		int left = (int)got;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (got < 0 && (errno == ENOBUFS || errno == ENOSPC)) {
			/* Only others' notifications are queued here: what was lost may be about our table. */
			t->happened = true;
			snprintf(t->what, sizeof(t->what), "notifications were lost");
			n->touched = false;
			continue;
		}
		if (got < 0)
			return -errno;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			notification(n, nlh, t);
	}
}

/* ---- counters ---- */

struct counters {
	struct counter {
		char name[32];
		uint64_t packets, bytes;
	} c[16];
	unsigned n;
};

static int counter_cb(const struct nlmsghdr *nlh, void *arg)
{
	struct counters *all = arg;
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct counter *c = &all->c[all->n];

	if (o == NULL)
		return MNL_CB_ERROR;
	if (nftnl_obj_nlmsg_parse(nlh, o) == 0 && all->n < sizeof(all->c) / sizeof(all->c[0]) &&
	    nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE) == NFT_OBJECT_COUNTER &&
	    nftnl_obj_get_u32(o, NFTNL_OBJ_FAMILY) == NFPROTO_INET &&
	    strcmp(nftnl_obj_get_str(o, NFTNL_OBJ_TABLE), NFT_TABLE) == 0) {
		snprintf(c->name, sizeof(c->name), "%s", nftnl_obj_get_str(o, NFTNL_OBJ_NAME));
		c->packets = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS);
		c->bytes = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES);
		all->n++;
	}
	nftnl_obj_free(o);
	return MNL_CB_OK;
}

int nft_counters(struct nft *n,
		 void (*cb)(void *arg, const char *name, uint64_t packets, uint64_t bytes),
		 void *arg)
{
	char buf[256];
	struct counters all;
	int ret = -EINTR;

	for (int tries = 0; tries < 8 && ret == -EINTR; tries++) {
		struct nlmsghdr *req =
			nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETOBJ, NFPROTO_INET, NLM_F_DUMP, 0);

		mnl_attr_put_strz(req, NFTA_OBJ_TABLE, NFT_TABLE);
		mnl_attr_put_u32(req, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
		all.n = 0;
		ret = nft_query(n->sock, req, counter_cb, &all);
	}
	for (unsigned i = 0; ret == 0 && i < all.n; i++)
		cb(arg, all.c[i].name, all.c[i].packets, all.c[i].bytes);
	return ret;
}
