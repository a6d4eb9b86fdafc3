/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pki: a throw-away CA and certificates from the openssl command, in a folder of its own. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pki {
	char dir[64];
};

__attribute__((format(printf, 2, 3))) static inline int pki_sh(const struct pki *p, const char *fmt,
							       ...)
{
	char line[2048], command[2304];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	snprintf(command, sizeof(command), "cd %s && { %s; } >log 2>&1", p->dir, line);
	return system(command);
}

/* ca.pem, other.pem (a CA too), gw.pem, an empty ca.crl */
static inline int pki_make(struct pki *p)
{
	strcpy(p->dir, "/tmp/pki-test-XXXXXX");
	if (mkdtemp(p->dir) == NULL)
		return -1;
	return pki_sh(p,
		      "set -e; for c in ca other; do openssl req -x509 -newkey ec -pkeyopt "
		      "ec_paramgen_curve:P-256 -nodes "
		      "-keyout $c.key -out $c.pem -subj /CN=$c -days 9 -addext "
		      "keyUsage=critical,keyCertSign,cRLSign; done; "
		      "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
		      "gw.key -out gw.csr -subj /CN=gw; "
		      "openssl x509 -req -in gw.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "
		      "9 -out gw.pem; "
		      "touch index.txt; echo 01 > crlnumber; printf "
		      "'[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\n"
		      "crlnumber=crlnumber\\ndefault_md=sha256\\ndefault_crl_days=9\\n' > ca.cnf; "
		      "openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out ca.crl");
}

/* NAME.pem and NAME.key, signed by ca, with these extension lines ("\n" between them) */
static inline int pki_cert(const struct pki *p, const char *name, const char *extensions)
{
	return pki_sh(p,
		      "set -e; n=%s; openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
		      "-nodes -keyout $n.key "
		      "-out $n.csr -subj /CN=$n; printf '%s\\n' > $n.ext; openssl x509 -req -in "
		      "$n.csr -CA ca.pem -CAkey "
		      "ca.key -CAcreateserial -days 5 -extfile $n.ext -out $n.pem; openssl x509 "
		      "-in $n.pem -outform DER -out $n.der",
		      name, extensions);
}

static inline void pki_drop(struct pki *p)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", p->dir);
	if (system(command) != 0)
		perror(p->dir);
}

static inline size_t pki_read(const struct pki *p, const char *file, unsigned char *buf,
			      size_t bytes)
{
	char path[128];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", p->dir, file);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	n = fread(buf, 1, bytes, f);
	fclose(f);
	return n;
}
