/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/certificate.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* A DNS name, or "*." before one: a single label stands for the star (RFC 9525 section 6.3). Lower case in the copy. */
static int certificate_name(void *parent, const char *text, const char **why)
{
	struct gw_certificate *c = parent;
	const char *p = strncmp(text, "*.", 2) == 0 ? text + 2 : text;
	size_t n = strlen(text);

	*why = "must be a DNS name, as mqtt.example or *.lab";
	if (n >= GW_NAME_BYTES || *p == '\0' || c->n_names == GW_NAMES_MAX)
		return -EINVAL;
	for (const char *dot = p - 1; *p != '\0'; p++) {
		if (*p == '.' ? p == dot + 1 || p[1] == '\0'
			      : !isalnum((unsigned char)*p) && *p != '-' && *p != '_')
			return -EINVAL;
		if (*p == '.')
			dot = p;
		if (p - dot > 63)
			return -EINVAL;
	}
	for (size_t i = 0; i <= n; i++)
		c->names[c->n_names][i] = tolower((unsigned char)text[i]);
	c->n_names++;
	return 0;
}

void *certificate_slot(void *parent)
{
	struct gw_listener *l = parent;

	return l->n_certificates < GW_CERTIFICATES_MAX ? &l->certificates[l->n_certificates++]
						       : NULL;
}

int certificate_alpn(void *parent, const char *text, const char **why)
{
	struct gw_listener *l = parent;
	size_t have = strlen(l->alpn), n = strlen(text);

	*why = "must be a protocol's name without comma or blank, as mqtt or http/1.1";
	if (n == 0 || n > 255)
		return -EINVAL;
	for (const char *p = text; *p != '\0'; p++) {
		if (*p <= 0x20 || *p >= 0x7f || *p == ',')
			return -EINVAL;
	}
	*why = "too long with the others";
	if (have + 1 + n >= sizeof(l->alpn))
		return -EINVAL;
	if (have > 0)
		l->alpn[have++] = ',';
	strcpy(l->alpn + have, text);
	return 0;
}

/* clang-format off */
#define C(field) SCHEMA_AT(struct gw_certificate, field)
const struct schema_key certificate_keys[] = {
	{"names", KEY_EACH, .min = 1, .max = GW_NAMES_MAX, .def = NULL, .doc = "what clients ask for (SNI) to get it; *.lab for any x.lab", .each = certificate_name},
	{"certificate", KEY_STRING, C(certificate), .def = NULL, .doc = "PEM file: certificate and chain"},
	{"key", KEY_STRING, C(key), .def = NULL, .doc = "PEM file: its private key"},
	{"ocsp", KEY_STRING, C(ocsp), .def = "", .doc = "DER file: OCSP response for it, stapled for clients that ask"},
	{0}
};

const struct key_choice certificate_sni[] = {{"any", 0}, {"required", 1}, {0}};
/* clang-format on */

static bool name_there(const struct gw_certificate *c, const char *name, unsigned before)
{
	for (unsigned i = 0; i < before; i++) {
		if (strcmp(c->names[i], name) == 0)
			return true;
	}
	return false;
}

void certificate_check(const struct gw_config *c, const struct gw_listener *l, const char *key,
		       struct config_errors *errs)
{
	for (uint32_t i = 0; i < l->n_certificates; i++) {
		const struct gw_certificate *a = &l->certificates[i];

		for (unsigned n = 0; n < a->n_names; n++) {
			bool twice = name_there(a, a->names[n], n);

			for (uint32_t k = 0; k < i && !twice; k++)
				twice = name_there(&l->certificates[k], a->names[n],
						   l->certificates[k].n_names);
			if (twice)
				config_error(errs, c->file, 0, key,
					     "certificates: the name %.80s is there twice",
					     a->names[n]);
		}
	}
	if (l->protocol == GW_DTLS && l->n_certificates > 0)
		config_error(errs, c->file, 0, key,
			     "protocol = \"dtls\" goes with one certificate alone");
	if (l->sni_required && l->n_certificates == 0)
		config_error(
			errs, c->file, 0, key,
			"sni = \"required\" refuses everybody: name a certificate in certificates");
}
