/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Revocation lists: what is refused at load, and what a chain's certificates meet. Lists are of the openssl command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <time.h>

#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/revoked.h"
#include "tls-proxy/tls_ctx.h"

static struct pki pki;
static uint8_t anchor[16];

/* A text file of the folder, ending with a NUL. */
static size_t text(const char *file, char *buf, size_t bytes)
{
	size_t n = pki_read(&pki, file, (unsigned char *)buf, bytes - 1);

	buf[n] = '\0';
	return n;
}

static int list_add(struct revoked *r, const char *file, struct err *err)
{
	static char buf[1 << 20];
	size_t n = text(file, buf, sizeof(buf));

	assert_true(n > 0);
	return revoked_add(r, buf, n, time(NULL), err);
}

static void ca_add(struct revoked *r, const char *name)
{
	struct err err = {""};
	unsigned char der[4096];
	char file[64];
	size_t n;

	assert_int_equal(
		pki_sh(&pki, "openssl x509 -in %s.pem -outform DER -out %s.der", name, name), 0);
	snprintf(file, sizeof(file), "%s.der", name);
	n = pki_read(&pki, file, der, sizeof(der));
	assert_true(n > 0);
	assert_int_equal(revoked_add_ca(r, der, n, &err), 0);
}

/* CA and lists; NULL ends them. @return what sealing said */
static int lists(struct revoked **r, const char *const *files, struct err *err)
{
	int ret = 0;

	assert_int_equal(revoked_new(r, true), 0);
	ca_add(*r, "ca");
	for (; ret == 0 && *files != NULL; files++)
		ret = list_add(*r, *files, err);
	return ret == 0 ? revoked_seal(*r, err) : ret;
}

static void ref_of(struct cert_ref *out, const char *file)
{
	unsigned char der[4096];
	size_t n = pki_read(&pki, file, der, sizeof(der));

	assert_true(n > 0);
	assert_int_equal(cert_ref_read(out, der, n), 0);
}

static enum revoked_verdict ask(const struct revoked *r, const char *file, uint64_t now_s)
{
	struct cert_ref ref;

	ref_of(&ref, file);
	return revoked_chain(r, &ref, 1, now_s, anchor, false, &(uint64_t){UINT64_MAX});
}

/* The serial numbers that the next list names: "NUMBER[,REASON]" each */
static int list_make(const char *out, const char *entries, const char *options)
{
	return pki_sh(&pki,
		      "set -e; rm -f index.txt; for e in %s; do r=${e#*,}; [ \"$r\" = \"$e\" ] && "
		      "r= || r=,$r; "
		      "printf 'R\\t391231000000Z\\t260101000000Z%%s\\t%%s\\tunknown\\t/CN=x\\n' "
		      "\"$r\" ${e%%%%,*} >> "
		      "index.txt; done; touch index.txt; openssl ca -config ca.cnf -gencrl "
		      "-keyfile ca.key -cert "
		      "ca.pem -out %s %s",
		      entries, out, options);
}

static int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
			       pki_sh(&pki, "set -e; openssl req -newkey ec -pkeyopt "
					    "ec_paramgen_curve:P-256 -nodes -keyout d.key "
					    "-out d.csr -subj /CN=d; for s in 4660 13330 255; do "
					    "openssl x509 -req -in d.csr -CA "
					    "ca.pem -CAkey ca.key -days 5 -set_serial $s -out "
					    "$s.pem; openssl x509 -in $s.pem "
					    "-outform DER -out $s.der; done; openssl x509 -req -in "
					    "d.csr -CA other.pem -CAkey "
					    "other.key -days 5 -set_serial 4660 -out alien.pem; "
					    "openssl x509 -in alien.pem "
					    "-outform DER -out alien.der") != 0
		       ? -1
		       : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

/* 4660 = 0x1234, 13330 = 0x3412, 255 = 0xFF: with a zero before it in DER */
static void each_certificate_meets_its_list(void **state)
{
	static const struct {
		const char *name, *entries, *cert;
		enum revoked_verdict want;
	} rows[] = {
		{"nothing listed", "", "4660.der", REVOKED_GOOD},
		{"listed", "1234", "4660.der", REVOKED_LISTED},
		{"others listed", "1233 1235 123400 12", "4660.der", REVOKED_GOOD},
		{"its bytes the other way round", "1234", "13330.der", REVOKED_GOOD},
		{"unsorted", "FF 3412 01 1234 02", "4660.der", REVOKED_LISTED},
		{"a high bit", "FF", "255.der", REVOKED_LISTED},
		{"of another CA", "FF", "alien.der", REVOKED_UNTRUSTED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static const char *const files[] = {"t.crl", NULL};
		struct err err = {""};
		struct revoked *r;
		enum revoked_verdict got;

		assert_int_equal(list_make("t.crl", rows[i].entries, ""), 0);
		if (lists(&r, files, &err) < 0)
			fail_msg("%s: %s", rows[i].name, err.msg);
		got = ask(r, rows[i].cert, time(NULL));
		if (got != rows[i].want)
			fail_msg("%s: %s", rows[i].name, revoked_text(got));
		/* The list itself goes out of date, whatever else it says. */
		if (got == REVOKED_GOOD)
			assert_int_equal(ask(r, rows[i].cert, revoked_next_update_s(r)),
					 REVOKED_OUTDATED);
		revoked_drop(r);
	}
}

static void without_its_list_nobody_is_good(void **state)
{
	struct err err = {""};
	struct revoked *r;

	(void)state;
	assert_int_equal(revoked_new(&r, true), 0);
	ca_add(r, "ca");
	assert_int_equal(revoked_seal(r, &err), 0);
	assert_int_equal(ask(r, "4660.der", time(NULL)), REVOKED_NO_LIST);
	revoked_drop(r);
	/* No lists wanted: the CA decides alone. */
	assert_int_equal(revoked_new(&r, false), 0);
	ca_add(r, "ca");
	assert_int_equal(ask(r, "4660.der", time(NULL)), REVOKED_GOOD);
	assert_int_equal(ask(r, "alien.der", time(NULL)), REVOKED_UNTRUSTED);
	revoked_drop(r);
}

static void each_bad_list_is_refused(void **state)
{
	static const struct {
		const char *name, *command, *why;
	} rows[] = {
		{"good", "cp t.crl bad.crl", NULL},
		{"good, DER", "openssl crl -in t.crl -outform DER -out bad.crl", NULL},
		{"signed by somebody else",
		 "openssl ca -config ca.cnf -gencrl -keyfile other.key -cert other.pem -out "
		 "bad.crl",
		 "no CA of this listener has signed it"},
		{"one byte of a serial changed",
		 "openssl crl -in t.crl -outform DER -out b.der; sed 's/\\x12\\x34/\\x12\\x35/' "
		 "b.der > bad.crl",
		 "no CA of this listener has signed it"},
		{"outdated",
		 "openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -crl_lastupdate "
		 "20200101000000Z "
		 "-crl_nextupdate 20200201000000Z -out bad.crl",
		 "past its next update"},
		{"of tomorrow",
		 "openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -crl_lastupdate "
		 "$(date -u -d '+1 day' +%Y%m%d%H%M%SZ) -crl_nextupdate 20400101000000Z -out "
		 "bad.crl",
		 "not valid yet"},
		{"cut off, PEM", "head -c 200 t.crl > bad.crl", "cut off"},
		{"cut off, DER", "openssl crl -in t.crl -outform DER | head -c 150 > bad.crl",
		 "no revocation list"},
		{"bytes behind it, DER",
		 "{ openssl crl -in t.crl -outform DER; printf x; } > bad.crl", "cut off"},
		{"a certificate", "cp ca.pem bad.crl", "no revocation list"},
		{"an unknown critical extension",
		 "printf '[x]\\n2.5.29.28=critical,DER:3000\\n' > x.cnf; cat ca.cnf x.cnf > c.cnf; "
		 "openssl ca -config "
		 "c.cnf -crlexts x -gencrl -keyfile ca.key -cert ca.pem -out bad.crl",
		 "critical extension"},
	};

	(void)state;
	assert_int_equal(list_make("t.crl", "1234", ""), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = {""};
		struct revoked *r;
		int ret;

		if (pki_sh(&pki, "%s", rows[i].command) != 0)
			fail_msg("%s: the list cannot be made", rows[i].name);
		assert_int_equal(revoked_new(&r, true), 0);
		ca_add(r, "ca");
		ret = list_add(r, "bad.crl", &err);
		if (rows[i].why == NULL ? ret != 0
					: ret != -22 || strstr(err.msg, rows[i].why) == NULL)
			fail_msg("%s: %d, %s", rows[i].name, ret, err.msg);
		assert_int_equal(ask(r, "4660.der", time(NULL)),
				 ret == 0 ? REVOKED_LISTED : REVOKED_NO_LIST);
		revoked_drop(r);
	}
}

/* A delta list: number NUMBER, changes since BASE */
static void delta_make(const char *out, const char *entries, unsigned number, unsigned base)
{
	assert_int_equal(pki_sh(&pki,
				"printf '%02X\\n' > crlnumber; printf "
				"'[x]\\n2.5.29.27=critical,ASN1:INTEGER:%u\\n' "
				"> x.cnf; printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\n"
				"crlnumber=crlnumber\\ndefault_md=sha256\\ndefault_crl_days=1\\n' "
				"| cat - x.cnf > "
				"delta.cnf",
				number, base),
			 0);
	assert_int_equal(list_make(out, entries, "-config delta.cnf -crlexts x"), 0);
}

/* ca.cnf numbers a list only if it has an extensions section of its own. */
static void full_make(const char *out, const char *entries, unsigned number)
{
	assert_int_equal(pki_sh(&pki, "printf '%02X\\n' > crlnumber", number), 0);
	assert_int_equal(list_make(out, entries, ""), 0);
}

static void delta_lists_add_and_remove(void **state)
{
	static const struct {
		const char *name;
		const char *files[4];
		const char *why; /* NULL: sealed */
		enum revoked_verdict a, b; /* 0x1234, 0x3412 */
	} rows[] = {
		{"complete alone", {"full16.crl"}, NULL, REVOKED_LISTED, REVOKED_GOOD},
		{"adds", {"full16.crl", "add17.crl"}, NULL, REVOKED_LISTED, REVOKED_LISTED},
		{"the other way round",
		 {"add17.crl", "full16.crl"},
		 NULL,
		 REVOKED_LISTED,
		 REVOKED_LISTED},
		{"removes", {"full16.crl", "remove18.crl"}, NULL, REVOKED_GOOD, REVOKED_GOOD},
		{"one after the other",
		 {"remove18.crl", "add17.crl", "full16.crl"},
		 NULL,
		 REVOKED_GOOD,
		 REVOKED_LISTED},
		{"older than the complete one",
		 {"full20.crl", "add17.crl"},
		 NULL,
		 REVOKED_GOOD,
		 REVOKED_GOOD},
		{"without a complete one", {"add17.crl"}, "without its complete list", 0, 0},
		{"of a later complete one",
		 {"full16.crl", "late22.crl"},
		 "wants a newer complete list",
		 0,
		 0},
		{"two complete ones",
		 {"full20.crl", "full16.crl"},
		 NULL,
		 REVOKED_GOOD,
		 REVOKED_GOOD},
	};

	(void)state;
	full_make("full16.crl", "1234", 16);
	full_make("full20.crl", "", 20);
	delta_make("add17.crl", "3412", 17, 16);
	delta_make("remove18.crl", "1234,removeFromCRL", 18, 16);
	delta_make("late22.crl", "3412", 22, 21);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = {""};
		struct revoked *r;
		int ret = lists(&r, rows[i].files, &err);

		if (rows[i].why != NULL ? ret != -22 || strstr(err.msg, rows[i].why) == NULL
					: ret != 0)
			fail_msg("%s: %d, %s", rows[i].name, ret, err.msg);
		if (ret == 0) {
			enum revoked_verdict a = ask(r, "4660.der", time(NULL)),
					     b = ask(r, "13330.der", time(NULL));

			if (a != rows[i].a || b != rows[i].b)
				fail_msg("%s: %s; %s", rows[i].name, revoked_text(a),
					 revoked_text(b));
		}
		revoked_drop(r);
	}
}

static void lists_do_not_grow_older(void **state)
{
	static const char *const young[] = {"full20.crl", NULL}, *const old[] = {"full16.crl",
										 NULL};
	struct err err = {""};
	struct revoked *a, *b;

	(void)state;
	full_make("full16.crl", "1234", 16);
	full_make("full20.crl", "", 20);
	assert_int_equal(lists(&a, young, &err), 0);
	assert_int_equal(lists(&b, old, &err), 0);
	assert_int_equal(revoked_newer(a, b, &err), 0);
	assert_int_equal(revoked_newer(a, a, &err), 0);
	assert_int_equal(revoked_newer(b, a, &err), -ESTALE);
	revoked_drop(a);
	revoked_drop(b);
}

/* A device under an intermediate CA, which the root's list names. */
static void every_certificate_of_the_chain_counts(void **state)
{
	static const struct {
		const char *name, *entries;
		bool known; /* the intermediate is a CA of the listener */
		bool sent; /* the device sends it along */
		bool listed; /* the intermediate has a list */
		enum revoked_verdict want;
	} rows[] = {
		{"trusted, good", "", true, false, true, REVOKED_GOOD},
		{"trusted and sent", "", true, true, true, REVOKED_GOOD},
		{"trusted, revoked by the root", "0BAD", true, false, true, REVOKED_LISTED},
		{"trusted and sent, revoked", "0BAD", true, true, true, REVOKED_LISTED},
		{"trusted, no list", "", true, false, false, REVOKED_NO_LIST},
		{"only sent: nobody has its list", "", false, true, false, REVOKED_NO_LIST},
		{"unknown", "", false, false, false, REVOKED_UNTRUSTED},
	};

	(void)state;
	assert_int_equal(
		pki_sh(&pki, "set -e; printf "
			     "'basicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign,cRLSign\\n"
			     "subjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\n' > "
			     "i.ext; openssl req -newkey ec "
			     "-pkeyopt ec_paramgen_curve:P-256 -nodes -keyout mid.key -out mid.csr "
			     "-subj /CN=mid; openssl "
			     "x509 -req -in mid.csr -CA ca.pem -CAkey ca.key -days 5 -set_serial "
			     "0x0BAD -extfile i.ext -out "
			     "mid.pem; openssl x509 -in mid.pem -outform DER -out mid.der; openssl "
			     "x509 -req -in d.csr -CA "
			     "mid.pem -CAkey mid.key -days 5 -set_serial 77 -out leaf.pem; openssl "
			     "x509 -in leaf.pem "
			     "-outform DER -out leaf.der; rm -f index.txt; touch index.txt; "
			     "openssl ca -config ca.cnf "
			     "-gencrl -keyfile mid.key -cert mid.pem -out mid.crl"),
		0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = {""};
		struct cert_ref chain[2];
		enum revoked_verdict got;
		struct revoked *r;

		assert_int_equal(revoked_new(&r, true), 0);
		ca_add(r, "ca");
		if (rows[i].known)
			ca_add(r, "mid");
		assert_int_equal(list_make("t.crl", rows[i].entries, ""), 0);
		assert_int_equal(list_add(r, "t.crl", &err), 0);
		if (rows[i].listed && list_add(r, "mid.crl", &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(revoked_seal(r, &err), 0);
		ref_of(&chain[0], "leaf.der");
		ref_of(&chain[1], "mid.der");
		got = revoked_chain(r, chain, 1 + rows[i].sent, time(NULL), anchor, false,
				    &(uint64_t){UINT64_MAX});
		if (got != rows[i].want)
			fail_msg("%s: %s", rows[i].name, revoked_text(got));
		revoked_drop(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_certificate_meets_its_list),
		cmocka_unit_test(without_its_list_nobody_is_good),
		cmocka_unit_test(each_bad_list_is_refused),
		cmocka_unit_test(delta_lists_add_and_remove),
		cmocka_unit_test(lists_do_not_grow_older),
		cmocka_unit_test(every_certificate_of_the_chain_counts),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
