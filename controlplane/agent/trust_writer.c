/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/trust_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_writable(struct trust_table *out, int fd, uint32_t slots)
{
	void *base = mmap(NULL, trust_map_bytes(slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	trust_layout(out, base, slots);
	return 0;
}

/* Is the file at path a table of our size? Then map it. A writer that died inside a record left its seq odd. */
static int take_over(struct trust_table *out, const char *path, uint32_t slots)
{
	struct trust_table t;
	int fd, ret;

	ret = trust_map(&t, path, NULL);
	if (ret < 0)
		return ret;
	ret = t.slots == slots ? 0 : -EPROTO;
	trust_unmap(&t);
	if (ret < 0)
		return ret;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	ret = map_writable(out, fd, slots);
	close(fd);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < slots; i++) {
		struct trust_record *r = &out->rec[i];
		uint32_t seq = atomic_load_explicit(&r->seq, memory_order_relaxed);

		if ((seq & 1) == 0)
			continue;
		atomic_store_explicit(&r->expires_ms, 0, memory_order_release);
		r->slot = i;
		r->standing = STANDING_UNKNOWN;
		atomic_store_explicit(&r->seq, seq + 1, memory_order_release);
	}
	return 0;
}

/* Made beside, then renamed: a reader never maps half a table. */
static int create(struct trust_table *out, const char *path, uint32_t slots, struct err *err)
{
	struct trust_table t = {0};
	char tmp[512];
	int fd, ret;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	unlink(tmp);
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", tmp, strerror(errno));
	/* fallocate, so that a full /run shows now and not as SIGBUS later */
	ret = -posix_fallocate(fd, 0, trust_map_bytes(slots));
	if (ret == 0 && fchmod(fd, 0644) < 0)
		ret = -errno;
	if (ret == 0)
		ret = map_writable(&t, fd, slots);
	close(fd);
	if (ret < 0)
		goto fail;
	memcpy(t.hdr->magic, TRUST_MAGIC, sizeof(t.hdr->magic));
	t.hdr->version = TRUST_VERSION;
	t.hdr->record_bytes = sizeof(struct trust_record);
	t.hdr->slots = slots;
	t.hdr->journal_entries = TRUST_JOURNAL_ENTRIES;
	if (getrandom(&t.hdr->instance, sizeof(t.hdr->instance), 0) != sizeof(t.hdr->instance)) {
		ret = -EIO;
		goto fail;
	}
	for (uint32_t i = 0; i < slots; i++)
		t.rec[i].slot = i;
	atomic_store(&t.rec[TRUST_SLOT_NONE].generation, 1);
	atomic_store(&t.rec[TRUST_SLOT_NONE].expires_ms, UINT64_MAX);
	if (rename(tmp, path) < 0) {
		ret = -errno;
		goto fail;
	}
	*out = t;
	return 0;
fail:
	trust_unmap(&t);
	unlink(tmp);
	return err_set(err, ret, "%s: %s", path, strerror(-ret));
}

int trust_writer_open(struct trust_table *out, const char *path, uint32_t slots, bool *kept,
		      struct err *err)
{
	*kept = take_over(out, path, slots) == 0;
	return *kept ? 0 : create(out, path, slots, err);
}

static void journal_add(struct trust_table *t, uint32_t slot)
{
	uint64_t head = atomic_load_explicit(&t->hdr->journal_head, memory_order_relaxed);

	atomic_store_explicit(&t->journal[head % TRUST_JOURNAL_ENTRIES], slot,
			      memory_order_relaxed);
	atomic_store_explicit(&t->hdr->journal_head, head + 1, memory_order_release);
}

bool trust_writer_put(struct trust_table *t, uint32_t slot, const struct trust_state *s, bool bump,
		      uint64_t now_us)
{
	struct trust_record *r = &t->rec[slot];
	uint64_t expires = standing_passes(s->standing) ? s->expires_ms : 0;
	uint64_t was = atomic_load_explicit(&r->expires_ms, memory_order_relaxed);
	uint32_t generation = atomic_load_explicit(&r->generation, memory_order_relaxed);
	uint32_t seq = atomic_load_explicit(&r->seq, memory_order_relaxed);
	bool change = bump || generation == 0 || r->segment != s->segment ||
		      r->standing != s->standing || r->identity_hash != s->identity_hash ||
		      (expires == 0) != (was == 0);

	atomic_store_explicit(&r->seq, seq + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	if (change) {
		generation = generation == UINT32_MAX ? 1 : generation + 1;
		atomic_store_explicit(&r->generation, generation, memory_order_release);
		r->changed_us = now_us;
	}
	atomic_store_explicit(&r->expires_ms, expires, memory_order_release);
	r->revision = s->revision;
	r->identity_hash = s->identity_hash;
	r->segment = s->segment;
	r->standing = s->standing;
	r->reason = s->reason;
	memcpy(r->cert_sha256_head, s->cert_sha256_head, sizeof(r->cert_sha256_head));
	atomic_store_explicit(&r->seq, seq + 2, memory_order_release);
	/* Who sleeps until the longer expiry must be told of a shorter one. */
	if (change || expires < was)
		journal_add(t, slot);
	return change;
}

void trust_writer_epoch(struct trust_table *t, uint64_t epoch)
{
	atomic_store_explicit(&t->hdr->policy_epoch, epoch, memory_order_release);
}

void trust_writer_alive(struct trust_table *t, uint64_t now_ms)
{
	atomic_store_explicit(&t->hdr->agent_alive_ms, now_ms, memory_order_release);
}
