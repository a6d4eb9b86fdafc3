/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which device certificates are taken: kinds of keys, chains, constraints, usages. The openssl command is the CA and the
 * client: s_client over a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "config/base/clock.h"
#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/session.h"

#define PATIENCE_MS 10000

static struct pki pki;
static struct tls_ctx server;
static int door;
static uint16_t port;

/* NAME.pem of ISSUER, with a key of its own kind and these extension lines */
static int cert(const char *name, const char *issuer, const char *key, const char *ext)
{
	return pki_sh(&pki,
		      "set -e; n=%s; i=%s; openssl genpkey %s -out $n.key; openssl req -new -key "
		      "$n.key -out $n.csr -subj "
		      "/CN=$n; printf '%s\\n' > $n.ext; openssl x509 -req -in $n.csr -CA $i.pem "
		      "-CAkey $i.key "
		      "-CAcreateserial -days 5 -extfile $n.ext -out $n.pem; cat $n.pem > $n.chain; "
		      "if [ $i != ca ]; then "
		      "cat $i.chain >> $n.chain; fi",
		      name, issuer, key, ext);
}

#define P256 "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
#define DEVICE "subjectAltName=URI:spiffe://p/cam/1,DNS:cam.plant\\nextendedKeyUsage=clientAuth"
#define CA "basicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign"

static int group_setup(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	static struct gw_listener l;
	socklen_t n = sizeof(in);
	struct err err = {""};

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0)
		return -1;
	snprintf(l.certificate, sizeof(l.certificate), "%s/gw.pem", pki.dir);
	snprintf(l.key, sizeof(l.key), "%s/gw.key", pki.dir);
	snprintf(l.ca, sizeof(l.ca), "%s/ca.pem", pki.dir);
	door = socket(AF_INET, SOCK_STREAM, 0);
	if (tls_ctx_init(&server, &l, &err) < 0 || bind(door, (struct sockaddr *)&in, n) < 0 ||
	    listen(door, 4) < 0 || getsockname(door, (struct sockaddr *)&in, &n) < 0)
		return -1;
	port = ntohs(in.sin_port);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	close(door);
	tls_ctx_fini(&server);
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static pid_t client_start(const char *name)
{
	char command[512];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	snprintf(command, sizeof(command),
		 "cd %s && exec openssl s_client -connect 127.0.0.1:%u -cert %s.chain -cert_chain "
		 "%s.chain -key %s.key "
		 "-cipher DEFAULT:@SECLEVEL=0 -quiet >client.log 2>&1 < /dev/null",
		 pki.dir, port, name, name, name);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static void flush(struct session *s, int fd)
{
	const uint8_t *data;
	size_t n;

	while ((data = session_output(s, &n)) != NULL) {
		ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);

		if (sent <= 0)
			return;
		session_sent(s, sent);
	}
}

static enum session_state serve(struct session *s, int fd)
{
	uint64_t end_ms = clock_boot_ms() + PATIENCE_MS;
	enum session_state st = SESSION_HANDSHAKE;

	while (st == SESSION_HANDSHAKE && clock_boot_ms() < end_ms) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint8_t buf[2048];
		size_t room = session_room(s);
		ssize_t n;

		if (poll(&p, 1, 100) <= 0)
			continue;
		n = recv(fd, buf, room < sizeof(buf) ? room : sizeof(buf), 0);
		if (n <= 0)
			return st;
		session_feed(s, buf, n);
		st = session_step(s);
		flush(s, fd);
	}
	return st;
}

/* A handshake of NAME with its own chain. @return the session, to be freed */
static struct session *handshake(const char *name, enum session_state *got)
{
	struct session *s;
	pid_t pid = client_start(name);
	int fd;

	if (poll(&(struct pollfd){.fd = door, .events = POLLIN}, 1, PATIENCE_MS) != 1)
		fail_msg("%s: the client does not come", name);
	fd = accept(door, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(session_new(&s, &server), 0);
	*got = serve(s, fd);
	close(fd);
	waitpid(pid, NULL, 0);
	return s;
}

static void each_certificate_is_judged(void **state)
{
	static const struct {
		const char *name, *issuer, *key, *ext;
		const char *why; /* NULL: taken */
	} rows[] = {
		{"p256", "ca", P256, DEVICE, NULL},
		{"p384", "ca", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384", DEVICE, NULL},
		{"ed25519", "ca", "-algorithm ED25519", DEVICE, NULL},
		{"rsa2048", "ca", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", DEVICE, NULL},
		{"rsapss", "ca", "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", DEVICE, NULL},
		{"rsa1024", "ca", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024", DEVICE, ""},
		{"p224", "ca", "-algorithm EC -pkeyopt ec_paramgen_curve:secp224r1", DEVICE, ""},
		{"mid", "ca", P256, CA, "wrong key usage"},
		{"under", "mid", P256, DEVICE, NULL},
		{"short", "ca", P256, CA "\\nbasicConstraints=critical,CA:TRUE,pathlen:0",
		 "wrong key usage"},
		{"deep", "short", P256, CA, ""},
		{"deeper", "deep", P256, DEVICE, "CA path too long"},
		{"fake", "p256", P256, DEVICE, ""},
		{"nosign", "ca", P256, "basicConstraints=critical,CA:TRUE\\nkeyUsage=cRLSign", ""},
		{"bynosign", "nosign", P256, DEVICE, ""},
		{"only", "ca", P256, CA "\\nnameConstraints=critical,permitted;DNS:.office",
		 "wrong key usage"},
		{"outside", "only", P256, DEVICE, "name constraint"},
		{"server", "ca", P256, "extendedKeyUsage=serverAuth", "no clientAuth"},
		{"agree", "ca", P256, DEVICE "\\nkeyUsage=keyAgreement", "no digitalSignature"},
		{"critical", "ca", P256, DEVICE "\\n1.2.3.4=critical,DER:0500", ""},
		{"c1", "ca", P256, CA, "wrong key usage"},
		{"c2", "c1", P256, CA, ""},
		{"c3", "c2", P256, CA, ""},
		{"c4", "c3", P256, CA, ""},
		{"c5", "c4", P256, CA, ""},
		{"long", "c5", P256, DEVICE, "certificate chain too long"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum session_state want = rows[i].why == NULL ? SESSION_OPEN : SESSION_FAILED, got;
		struct session *s;

		if (cert(rows[i].name, rows[i].issuer, rows[i].key, rows[i].ext) != 0)
			fail_msg("%s: openssl makes no such certificate", rows[i].name);
		s = handshake(rows[i].name, &got);
		if (got != want ||
		    (rows[i].why != NULL && strstr(session_reason(s), rows[i].why) == NULL))
			fail_msg("%s: state %d, \"%s\"", rows[i].name, got, session_reason(s));
		session_free(s);
	}
}

/* The library keeps a CA that it has found good, whoever sent it. */
static void what_others_sent_proves_nothing(void **state)
{
	enum session_state got;
	struct session *s;

	(void)state;
	assert_int_equal(cert("above", "ca", P256, CA), 0);
	assert_int_equal(cert("whole", "above", P256, DEVICE), 0);
	assert_int_equal(pki_sh(&pki, "cp whole.key gap.key; cp whole.pem gap.chain"), 0);
	s = handshake("whole", &got);
	assert_int_equal(got, SESSION_OPEN);
	session_free(s);
	s = handshake("gap", &got);
	assert_int_equal(got, SESSION_FAILED);
	assert_string_equal(session_reason(s), "unknown CA");
	session_free(s);
}

static void a_device_is_good_for_no_longer_than_its_cas(void **state)
{
	const uint64_t day_s = 86400, now_s = time(NULL);
	enum session_state got;
	struct session *s;

	(void)state;
	assert_int_equal(cert("brief", "ca", P256, CA), 0);
	assert_int_equal(pki_sh(&pki, "openssl x509 -req -in brief.csr -CA ca.pem -CAkey ca.key "
				      "-CAcreateserial -days 2 -extfile brief.ext -out brief.pem "
				      "&& cp brief.pem brief.chain"),
			 0);
	assert_int_equal(cert("fiveday", "brief", P256, DEVICE), 0);
	s = handshake("fiveday", &got);
	assert_int_equal(got, SESSION_OPEN);
	assert_true(session_identity(s)->not_after_s > now_s + day_s);
	assert_true(session_identity(s)->not_after_s < now_s + 3 * day_s);
	session_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_certificate_is_judged),
		cmocka_unit_test(what_others_sent_proves_nothing),
		cmocka_unit_test(a_device_is_good_for_no_longer_than_its_cas),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
