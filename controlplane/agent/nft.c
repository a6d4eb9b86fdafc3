/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The object and its transactions. What is in force is remembered here, so that a binding's element can be replaced
 * (the kernel wants the old value) and the whole table restored. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/clock.h"
#include "controlplane/agent/nft_internal.h"

#define ROUNDING_MS 10

static uint32_t hash_of(const struct ip_addr *ip)
{
	uint64_t h = 0x9e3779b97f4a7c15u, w[2];

	memcpy(w, ip->b, sizeof(w));
	h = (h ^ w[0]) * 0xff51afd7ed558ccdu;
	h = ((h ^ h >> 32) ^ w[1]) * 0xc4ceb9fe1a85ec53u;
	/* The address' last bytes are w[1]'s highest: after the product only the bits above them know of them. */
	return (uint32_t)(h >> (64 - NFT_HASH_BITS));
}

static struct nft_bind *bind_find(const struct nft *n, const struct ip_addr *ip)
{
	struct nft_bind *b = n->hash[hash_of(ip)];

	while (b != NULL && !ip_addr_eq(&b->want.ip, ip))
		b = b->next;
	return b;
}

static void bind_remove(struct nft *n, struct nft_bind *b)
{
	struct nft_bind **at = &n->hash[hash_of(&b->want.ip)];

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	n->n_binds--;
	free(b);
}

static void stage(struct nft *n, struct nft_bind *b, int how)
{
	if (b->staged == STAGED_NO) {
		b->next_staged = n->staged;
		n->staged = b;
		n->n_staged++;
	}
	b->staged = how;
}

static void close_transaction(struct nft *n, bool committed)
{
	struct nft_bind *next;

	for (struct nft_bind *b = n->staged; b != NULL; b = next) {
		next = b->next_staged;
		if (committed) {
			b->in_force = b->staged == STAGED_PUT;
			b->cur = b->want;
		}
		b->staged = STAGED_NO;
		if (!b->in_force)
			bind_remove(n, b);
	}
	if (committed && n->form_next != NULL) {
		free(n->form);
		n->form = n->form_next;
		n->form_next = NULL;
	}
	free(n->form_next);
	n->form_next = NULL;
	n->staged = NULL;
	n->n_staged = 0;
	n->open = n->all = false;
}

int nft_begin(struct nft *n)
{
	if (n->open)
		return -EBUSY;
	n->open = true;
	return 0;
}

void nft_abort(struct nft *n)
{
	if (n->open)
		close_transaction(n, false);
}

int nft_put_policy(struct nft *n, const struct policy_form *form)
{
	struct policy_form *copy = malloc(form->bytes);

	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, form, form->bytes);
	free(n->form_next);
	n->form_next = copy;
	return 0;
}

/* A judgement is repeated at every heartbeat. An element that ends earlier than it could is put again when half of the
 * time is over; one that ends later than it may is put at once, but for the rounding between two clocks. */
static bool in_force_already(const struct nft_binding *cur, const struct nft_binding *want)
{
	uint64_t now_ms = clock_boot_ms();

	return cur->segment == want->segment &&
	       memcmp(&cur->mac, &want->mac, sizeof(cur->mac)) == 0 &&
	       strcmp(cur->ifname, want->ifname) == 0 && cur->expires_ms > now_ms &&
	       cur->expires_ms <= (want->expires_ms > CLOCK_NEVER_MS - ROUNDING_MS
					   ? CLOCK_NEVER_MS
					   : want->expires_ms + ROUNDING_MS) &&
	       cur->expires_ms - now_ms >= (want->expires_ms - now_ms) / 2;
}

int nft_put_binding(struct nft *n, const struct nft_binding *b)
{
	struct nft_bind *bind;

	if (b->segment == 0 || b->segment > POLICY_ID_MAX || b->ifname[0] == '\0' ||
	    memchr(b->ifname, '\0', sizeof(b->ifname)) == NULL)
		return -EINVAL;
	if (b->expires_ms <= clock_boot_ms())
		return nft_del_binding(n, &b->ip);
	bind = bind_find(n, &b->ip);
	if (bind == NULL) {
		struct nft_bind **at = &n->hash[hash_of(&b->ip)];

		bind = calloc(1, sizeof(*bind));
		if (bind == NULL)
			return -ENOMEM;
		bind->next = *at;
		*at = bind;
		n->n_binds++;
	}
	if (bind->in_force && bind->staged == STAGED_NO && in_force_already(&bind->cur, b))
		return 0;
	bind->want = *b;
	stage(n, bind, STAGED_PUT);
	return 0;
}

int nft_del_binding(struct nft *n, const struct ip_addr *ip)
{
	struct nft_bind *bind = bind_find(n, ip);

	if (bind != NULL)
		stage(n, bind, STAGED_DEL);
	return 0;
}

int nft_put_all_bindings(struct nft *n, const struct nft_binding *b, uint32_t count)
{
	int ret = 0;

	n->all = true;
	for (size_t i = 0; i < NFT_HASH_SIZE; i++)
		for (struct nft_bind *bind = n->hash[i]; bind != NULL; bind = bind->next)
			stage(n, bind, STAGED_DEL);
	for (uint32_t i = 0; i < count && ret == 0; i++)
		ret = nft_put_binding(n, &b[i]);
	return ret;
}

/* Everything staged as an array, for the element writers walk it several times. */
static struct nft_bind **staged_array(const struct nft *n)
{
	struct nft_bind **a = calloc(n->n_staged + 1, sizeof(struct nft_bind *));
	size_t i = 0;

	for (struct nft_bind *b = n->staged; a != NULL && b != NULL; b = b->next_staged)
		a[i++] = b;
	return a;
}

int nft_commit(struct nft *n, struct err *err)
{
	struct nft_bind **staged;
	int ret = -ENOENT;

	if (!n->open)
		return err_set(err, -EINVAL, "nftables: no transaction is open");
	staged = staged_array(n);
	if (staged == NULL) {
		close_transaction(n, false);
		return err_set(err, -ENOMEM, "nftables: no memory");
	}
	/* ENOENT: an element timed out between the lines of the batch; the second time none of these is left. Or somebody
	 * took elements of the policy away, or put some there: the second time it does not lean on them. */
	for (int i = 0; i < 2 && (ret == -ENOENT || ret == -EEXIST || ret == -ENOTEMPTY); i++) {
		batch_begin(&n->batch, &n->seq);
		if (n->form_next != NULL)
			elems_put_policy(&n->batch, n->form_next, i == 0 ? n->form : NULL);
		if (n->all)
			elems_flush_bindings(&n->batch);
		elems_put_staged(&n->batch, staged, n->n_staged, n->all, clock_boot_ms());
		ret = batch_send(&n->batch, n->sock, err);
	}
	free(staged);
	close_transaction(n, ret == 0);
	return ret;
}

int nft_heartbeat(struct nft *n, uint32_t lease_s, struct err *err)
{
	int ret;

	batch_begin(&n->batch, &n->seq);
	elems_put_lease(&n->batch, lease_s * 1000ULL);
	ret = batch_send(&n->batch, n->sock, err);
	if (ret == 0)
		n->lease_until_ms = lease_s == 0 ? 0 : clock_boot_ms() + lease_s * 1000ULL;
	return ret;
}

int nft_verify(struct nft *n, struct err *err)
{
	int ret = rules_verify(n->sock, err);

	return ret == -ENOENT ? err_set(err, -ESTALE, "nftables: no table inet " NFT_TABLE) : ret;
}

/* A table from nothing, with what this object remembers. */
static int replace_table(struct nft *n, struct err *err)
{
	struct nft_bind **live = calloc(n->n_binds + 1, sizeof(*live)), *copies;
	uint64_t now_ms = clock_boot_ms();
	size_t count = 0;
	int ret = -ENOMEM;

	copies = calloc(n->n_binds + 1, sizeof(*copies));
	if (live == NULL || copies == NULL)
		goto fail;
	for (size_t i = 0; i < NFT_HASH_SIZE; i++)
		for (const struct nft_bind *b = n->hash[i]; b != NULL; b = b->next)
			if (b->in_force && b->cur.expires_ms > now_ms) {
				copies[count] =
					(struct nft_bind){.want = b->cur, .staged = STAGED_PUT};
				live[count] = &copies[count];
				count++;
			}
	batch_begin(&n->batch, &n->seq);
	rules_drop_table(&n->batch);
	rules_put_table(&n->batch);
	elems_put_config(&n->batch, n->cfg);
	elems_put_policy(&n->batch, n->form, NULL);
	elems_put_staged(&n->batch, live, count, true, now_ms);
	elems_put_lease(&n->batch, n->lease_until_ms > now_ms ? n->lease_until_ms - now_ms : 0);
	ret = batch_send(&n->batch, n->sock, err);
fail:
	free(live);
	free(copies);
	return ret == -ENOMEM ? err_set(err, ret, "nftables: no memory") : ret;
}

int nft_restore(struct nft *n, struct err *err)
{
	return replace_table(n, err);
}

int nft_put_interfaces(struct nft *n, struct err *err)
{
	batch_begin(&n->batch, &n->seq);
	elems_put_config(&n->batch, n->cfg);
	return batch_send(&n->batch, n->sock, err);
}

static int install(struct nft *n, enum nft_found *found, struct err *err)
{
	int ret = rules_verify(n->sock, err);

	if (ret != 0 && ret != -ENOENT && ret != -ESTALE)
		return ret;
	if (found != NULL)
		*found = ret == 0	  ? NFT_FOUND_INTACT
			 : ret == -ENOENT ? NFT_FOUND_NONE
					  : NFT_FOUND_FOREIGN;
	return ret != 0 ? replace_table(n, err) : nft_put_interfaces(n, err);
}

int nft_new(struct nft **out, const struct gw_config *cfg, enum nft_found *found, struct err *err)
{
	struct nft *n = calloc(1, sizeof(*n));
	int room = 4 << 20, ret = -ENOMEM;

	if (n == NULL)
		return err_set(err, -ENOMEM, "nftables: no memory");
	n->cfg = cfg;
	n->seq = 1;
	n->hash = calloc(NFT_HASH_SIZE, sizeof(struct nft_bind *));
	if (n->hash == NULL || batch_init(&n->batch) < 0) {
		err_set(err, ret, "nftables: no memory");
		goto fail;
	}
	n->sock = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (n->sock == NULL || mnl_socket_bind(n->sock, 0, MNL_SOCKET_AUTOPID) < 0) {
		ret = -errno;
		err_set(err, ret, "nftables: socket: %s", strerror(-ret));
		goto fail;
	}
	setsockopt(mnl_socket_get_fd(n->sock), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	ret = watch_open(n, err); /* before we look, so that no change falls between */
	if (ret == 0)
		ret = install(n, found, err);
	if (ret < 0)
		goto fail;
	*out = n;
	return 0;
fail:
	nft_free(n);
	return ret;
}

void nft_free(struct nft *n)
{
	if (n == NULL)
		return;
	nft_abort(n);
	for (size_t i = 0; n->hash != NULL && i < NFT_HASH_SIZE; i++)
		while (n->hash[i] != NULL)
			bind_remove(n, n->hash[i]);
	free(n->hash);
	free(n->form);
	batch_fini(&n->batch);
	if (n->watch != NULL)
		mnl_socket_close(n->watch);
	if (n->sock != NULL)
		mnl_socket_close(n->sock);
	free(n);
}
