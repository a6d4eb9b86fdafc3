/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/identity.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/sha256.h>

static int name_copy(char *out, size_t out_bytes, const char *in, int n, struct err *err)
{
	if (n <= 0 || (size_t)n >= out_bytes)
		return err_set(err, -EPROTO, "a name in the certificate is empty or too long");
	for (int i = 0; i < n; i++) {
		if (in[i] <= 0x20 || in[i] >= 0x7f)
			return err_set(err, -EPROTO,
				       "a name in the certificate is not printable ASCII");
	}
	memcpy(out, in, n);
	out[n] = '\0';
	return 0;
}

static int names_read(struct identity *out, const DecodedCert *cert, struct err *err)
{
	const DNS_entry *uri = NULL, *dns = NULL;
	int ret;

	for (const DNS_entry *e = cert->altNames; e != NULL; e = e->next) {
		if (e->type == ASN_URI_TYPE) {
			if (uri != NULL)
				return err_set(err, -EPROTO,
					       "the certificate has more than one URI name");
			uri = e;
		} else if (e->type == ASN_DNS_TYPE) {
			dns = e; /* the library lists them backwards: the certificate's first is the last */
		}
	}
	if (cert->subjectCN != NULL && cert->subjectCNLen > 0) {
		ret = name_copy(out->common_name, sizeof(out->common_name), cert->subjectCN,
				cert->subjectCNLen, err);
		/* A CN with blanks is common, and only refused if it would be the identity. */
		if (ret < 0) {
			out->common_name[0] = '\0';
			if (uri == NULL && dns == NULL)
				return ret;
		}
	}
	if (uri != NULL) {
		out->kind = IDENTITY_URI;
		return name_copy(out->name, sizeof(out->name), uri->name, uri->len, err);
	}
	if (dns != NULL) {
		out->kind = IDENTITY_DNS;
		return name_copy(out->name, sizeof(out->name), dns->name, dns->len, err);
	}
	if (out->common_name[0] == '\0')
		return err_set(err, -EPROTO, "the certificate names nobody");
	out->kind = IDENTITY_CN;
	strcpy(out->name, out->common_name);
	return 0;
}

int identity_date(uint64_t *out_s, const uint8_t *date, int bytes)
{
	const byte *raw;
	byte format;
	int n;
	struct tm tm;

	if (date == NULL || wc_GetDateInfo(date, bytes, &raw, &format, &n) != 0 ||
	    wc_GetDateAsCalendarTime(raw, n, format, &tm) != 0)
		return -EINVAL;
	tm.tm_isdst = 0;
	*out_s = timegm(&tm);
	return 0;
}

static int usage_check(const DecodedCert *cert, struct err *err)
{
	if (cert->isCA)
		return err_set(err, -EACCES, "wrong key usage: a CA certificate is not a device's");
	if (cert->extKeyUsageSet && (cert->extKeyUsage & KEYUSE_DIGITAL_SIG) == 0)
		return err_set(err, -EACCES, "wrong key usage: no digitalSignature");
	if (cert->extExtKeyUsageSet &&
	    (cert->extExtKeyUsage & (EXTKEYUSE_CLIENT_AUTH | EXTKEYUSE_ANY)) == 0)
		return err_set(err, -EACCES, "wrong key usage: no clientAuth");
	return 0;
}

/* The DER name with its SEQUENCE header, which stands right before the content that the parser points at. */
static void issuer_hash(uint8_t out[32], const DecodedCert *cert)
{
	int head = cert->issuerRawLen < 0x80 ? 2 : cert->issuerRawLen < 0x100 ? 3 : 4;

	wc_Sha256Hash(cert->issuerRaw - head, cert->issuerRawLen + head, out);
}

int identity_from_der(struct identity *out, const uint8_t *der, size_t bytes, struct err *err)
{
	struct identity id = {0};
	DecodedCert cert;
	int ret;

	if (bytes == 0 || bytes > 65536)
		return err_set(err, -EINVAL, "no certificate");
	wc_InitDecodedCert(&cert, der, bytes, NULL);
	if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) != 0) {
		ret = err_set(err, -EINVAL, "the certificate cannot be read");
		goto out;
	}
	ret = usage_check(&cert, err);
	if (ret == 0)
		ret = names_read(&id, &cert, err);
	if (ret < 0)
		goto out;
	if (cert.serialSz <= 0 || cert.serialSz > (int)sizeof(id.serial) ||
	    cert.issuerRaw == NULL ||
	    identity_date(&id.not_before_s, cert.beforeDate, cert.beforeDateLen) < 0 ||
	    identity_date(&id.not_after_s, cert.afterDate, cert.afterDateLen) < 0) {
		ret = err_set(err, -EINVAL,
			      "the certificate's serial number, issuer or dates cannot be read");
		goto out;
	}
	memcpy(id.serial, cert.serial, cert.serialSz);
	id.serial_bytes = cert.serialSz;
	id.has_issuer_key = cert.extAuthKeyIdSet;
	if (id.has_issuer_key)
		memcpy(id.issuer_key, cert.extAuthKeyId, sizeof(id.issuer_key));
	issuer_hash(id.issuer_sha256, &cert);
	wc_Sha256Hash(der, bytes, id.cert_sha256);
	*out = id;
out:
	wc_FreeDecodedCert(&cert);
	return ret;
}
