/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_TRIES 1000000 /* a writer holds the lock for some 20 ns; a dead one for ever */

const char *standing_name(enum standing s)
{
	static const char *const names[] = {
		[STANDING_UNKNOWN] = "unknown",	      [STANDING_FULL] = "full",
		[STANDING_RESTRICTED] = "restricted", [STANDING_REMEDIATION] = "remediation",
		[STANDING_QUARANTINE] = "quarantine", [STANDING_REVOKED] = "revoked",
	};

	return (unsigned)s < STANDING_COUNT ? names[s] : "invalid";
}

size_t trust_map_bytes(uint32_t slots)
{
	return TRUST_HEADER_BYTES + (size_t)slots * sizeof(struct trust_record) +
	       TRUST_JOURNAL_ENTRIES * sizeof(uint32_t);
}

void trust_layout(struct trust_table *t, void *base, uint32_t slots)
{
	t->hdr = base;
	t->rec = (struct trust_record *)((char *)base + TRUST_HEADER_BYTES);
	t->journal = (_Atomic uint32_t *)(t->rec + slots);
	t->slots = slots;
	t->map_bytes = trust_map_bytes(slots);
}

static int header_check(const struct trust_header *h, size_t file_bytes)
{
	if (memcmp(h->magic, TRUST_MAGIC, sizeof(h->magic)) != 0 || h->version != TRUST_VERSION ||
	    h->record_bytes != sizeof(struct trust_record) ||
	    h->journal_entries != TRUST_JOURNAL_ENTRIES || h->slots < 2 ||
	    trust_map_bytes(h->slots) != file_bytes)
		return -EPROTO;
	return 0;
}

int trust_map(struct trust_table *out, const char *path, struct err *err)
{
	struct trust_table t = {0};
	struct stat st;
	void *base;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0) {
		ret = err_set(err, -errno, "%s: %s", path, strerror(errno));
		close(fd);
		return ret;
	}
	if ((size_t)st.st_size < trust_map_bytes(2)) {
		close(fd);
		return err_set(err, -EPROTO, "%s: not a trust table (%lld bytes)", path,
			       (long long)st.st_size);
	}
	base = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	ret = base == MAP_FAILED ? -errno : 0;
	close(fd);
	if (ret < 0)
		return err_set(err, ret, "%s: %s", path, strerror(-ret));
	ret = header_check(base, st.st_size);
	if (ret < 0) {
		munmap(base, st.st_size);
		return err_set(err, ret, "%s: not a trust table of version %d", path,
			       TRUST_VERSION);
	}
	trust_layout(&t, base, ((const struct trust_header *)base)->slots);
	*out = t;
	return 0;
}

void trust_unmap(struct trust_table *t)
{
	if (t == NULL || t->hdr == NULL)
		return;
	munmap(t->hdr, t->map_bytes);
	*t = (struct trust_table){0};
}

bool trust_read(const struct trust_table *t, uint32_t slot, struct trust_view *out)
{
	const struct trust_record *r;

	if (slot >= t->slots)
		return false;
	r = &t->rec[slot];
	for (unsigned i = 0; i < READ_TRIES; i++) {
		uint32_t before = atomic_load_explicit(&r->seq, memory_order_acquire);
		struct trust_view v;

		if (before & 1)
			continue;
		v.generation = atomic_load_explicit(&r->generation, memory_order_relaxed);
		v.expires_ms = atomic_load_explicit(&r->expires_ms, memory_order_relaxed);
		v.revision = r->revision;
		v.changed_us = r->changed_us;
		v.segment = r->segment;
		v.standing = r->standing;
		v.reason = r->reason;
		memcpy(v.cert_sha256_head, r->cert_sha256_head, sizeof(v.cert_sha256_head));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&r->seq, memory_order_relaxed) != before)
			continue;
		if (r->slot != slot)
			return false;
		*out = v;
		return true;
	}
	return false;
}
