/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A policy text comes from the network, in a decision: whatever it is, an error or a form that passes its check. */
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct config_errors errs;
	struct segments *s = NULL;
	struct policy_form *f = NULL;
	struct err err = {""};
	char *text = malloc(bytes + 1);

	memcpy(text, data, bytes);
	text[bytes] = '\0';
	memset(&errs, 0, sizeof(errs));
	if (segments_parse(&s, text, "fuzz", &errs) == 0) {
		if (errs.n != 0)
			abort(); /* good, and yet with errors */
		segments_match(s, IDENTITY_URI, "spiffe://plant-7/camera/1");
		if (policy_compile(&f, s, 1, NULL, &err) == 0 &&
		    policy_form_check(f, f->bytes, &err) < 0)
			abort();
	} else if (s != NULL || errs.n == 0) {
		abort(); /* refused without a word */
	}
	free(f);
	segments_free(s);
	free(text);
	return 0;
}
