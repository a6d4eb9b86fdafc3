/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "controlplane/agent/trust_writer.h"

#define SLOTS 16
#define FULL(...)                                                                                  \
	(&(struct trust_state){.standing = STANDING_FULL,                                          \
			       .segment = 3,                                                       \
			       .expires_ms = 1000,                                                 \
			       .identity_hash = 7,                                                 \
			       __VA_ARGS__})

struct fixture {
	char path[64];
	struct trust_table w, r;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	bool kept;

	strcpy(f->path, "/tmp/trust-test-XXXXXX");
	close(mkstemp(f->path));
	if (trust_writer_open(&f->w, f->path, SLOTS, &kept, NULL) < 0 || kept ||
	    trust_map(&f->r, f->path, NULL) < 0)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	trust_unmap(&f->w);
	trust_unmap(&f->r);
	unlink(f->path);
	free(f);
	return 0;
}

static void only_a_change_of_meaning_moves_the_generation(void **state)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
	struct fixture *f = *state;
	const struct {
		const char *name;
		const struct trust_state *s;
		bool bump, changes;
	} rows[] = {
		{"first", FULL(), false, true},
		{"the same", FULL(), false, false},
		{"longer expiry", FULL(.expires_ms = 2000), false, false},
		{"other revision", FULL(.revision = 5, .expires_ms = 2000), false, false},
		{"other segment", FULL(.segment = 4), false, true},
		{"other standing", FULL(.segment = 4, .standing = STANDING_REMEDIATION), false,
		 true},
		{"other device",
		 FULL(.segment = 4, .standing = STANDING_REMEDIATION, .identity_hash = 8), false,
		 true},
		{"on request",
		 FULL(.segment = 4, .standing = STANDING_REMEDIATION, .identity_hash = 8), true,
		 true},
		{"passing ends",
		 FULL(.segment = 4, .standing = STANDING_REMEDIATION, .identity_hash = 8,
		      .expires_ms = 0),
		 false, true},
	};
#pragma GCC diagnostic pop

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t before = atomic_load(&f->r.rec[5].generation);
		uint64_t head = atomic_load(&f->r.hdr->journal_head);
		bool changed = trust_writer_put(&f->w, 5, rows[i].s, rows[i].bump, 1);

		if (changed != rows[i].changes ||
		    (atomic_load(&f->r.rec[5].generation) != before) != changed ||
		    atomic_load(&f->r.hdr->journal_head) - head != changed)
			fail_msg("%s", rows[i].name);
	}
}

static void a_shorter_expiry_is_told_without_another_generation(void **state)
{
	struct fixture *f = *state;
	struct trust_state longer = *FULL(), shorter = *FULL();
	uint32_t generation;
	uint64_t head;

	longer.expires_ms = 2000;
	shorter.expires_ms = 1500;
	trust_writer_put(&f->w, 5, &longer, false, 1);
	generation = atomic_load(&f->r.rec[5].generation);
	head = atomic_load(&f->r.hdr->journal_head);
	assert_false(trust_writer_put(&f->w, 5, &shorter, false, 2));
	assert_int_equal(atomic_load(&f->r.rec[5].generation), generation);
	assert_int_equal(atomic_load(&f->r.hdr->journal_head), head + 1);
	assert_int_equal(f->r.journal[head % TRUST_JOURNAL_ENTRIES], 5);
}

static void what_was_admitted_dies_with_generation_or_expiry(void **state)
{
	struct fixture *f = *state;
	const struct trust_record *rec = &f->r.rec[1];
	uint32_t generation;
	struct trust_view v;

	assert_false(trust_current(&f->r.rec[2], 0, 0)); /* never written */
	trust_writer_put(&f->w, 1, FULL(), false, 1);
	generation = atomic_load(&rec->generation);
	assert_true(trust_current(rec, generation, 999));
	assert_false(trust_current(rec, generation, 1000));
	assert_false(trust_current(rec, generation + 1, 999));
	/* a standing that passes nothing has no expiry, whatever was asked for */
	trust_writer_put(&f->w, 1,
			 &(struct trust_state){.standing = STANDING_REVOKED,
					       .expires_ms = 5000,
					       .identity_hash = 7},
			 false, 2);
	assert_false(trust_current(rec, generation, 1));
	assert_false(trust_current(rec, atomic_load(&rec->generation), 1));
	assert_true(trust_read(&f->r, 1, &v));
	assert_int_equal(v.standing, STANDING_REVOKED);
	assert_int_equal(v.changed_us, 2);
	assert_false(trust_read(&f->r, SLOTS, &v));
}

static void networks_are_always_current(void **state)
{
	struct fixture *f = *state;

	assert_true(trust_current(&f->r.rec[TRUST_SLOT_NONE], 1, UINT64_MAX - 1));
}

static void a_restart_keeps_the_table_and_mends_a_torn_record(void **state)
{
	struct fixture *f = *state;
	uint64_t instance = f->w.hdr->instance;
	struct trust_table again = {0};
	struct trust_view v;
	bool kept;

	trust_writer_put(&f->w, 1, FULL(), false, 1);
	trust_writer_put(&f->w, 2, FULL(), false, 1);
	/* the writer died inside record 2: readers must not wait for ever, nor believe it */
	atomic_fetch_add(&f->w.rec[2].seq, 1);
	assert_false(trust_read(&f->r, 2, &v));
	assert_int_equal(trust_writer_open(&again, f->path, SLOTS, &kept, NULL), 0);
	assert_true(kept);
	assert_int_equal(again.hdr->instance, instance);
	assert_true(trust_read(&f->r, 1, &v));
	assert_int_equal(v.standing, STANDING_FULL);
	assert_true(trust_read(&f->r, 2, &v));
	assert_int_equal(v.expires_ms, 0);
	trust_unmap(&again);
	/* another size is another table: readers of the old file keep what they have mapped */
	assert_int_equal(trust_writer_open(&again, f->path, SLOTS * 2, &kept, NULL), 0);
	assert_false(kept);
	assert_int_not_equal(again.hdr->instance, instance);
	assert_true(trust_read(&f->r, 1, &v));
	trust_unmap(&again);
}

static void what_is_no_table_is_not_mapped(void **state)
{
	struct fixture *f = *state;
	static const size_t offsets[] = {
		offsetof(struct trust_header, magic), offsetof(struct trust_header, version),
		offsetof(struct trust_header, record_bytes), offsetof(struct trust_header, slots),
		offsetof(struct trust_header, journal_entries)};
	struct trust_table t;

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		uint8_t *at = (uint8_t *)f->w.hdr + offsets[i];

		*at ^= 0x10;
		assert_int_equal(trust_map(&t, f->path, NULL), -71);
		*at ^= 0x10;
	}
	assert_int_equal(truncate(f->path, trust_map_bytes(SLOTS) - 1), 0);
	assert_int_equal(trust_map(&t, f->path, NULL), -71);
	assert_int_equal(trust_map(&t, "/nonexistent", NULL), -2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_a_change_of_meaning_moves_the_generation,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_shorter_expiry_is_told_without_another_generation,
						setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_admitted_dies_with_generation_or_expiry,
						setup, teardown),
		cmocka_unit_test_setup_teardown(networks_are_always_current, setup, teardown),
		cmocka_unit_test_setup_teardown(a_restart_keeps_the_table_and_mends_a_torn_record,
						setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_table_is_not_mapped, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
