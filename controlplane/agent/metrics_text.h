/* SPDX-License-Identifier: GPL-3.0-or-later */
/* metrics_text: what the Prometheus endpoint says (text format 0.0.4). One table of families is the source of names,
 * types and help, and of `sallyport-agent --metrics`. */
#pragma once

#include <stdio.h>

struct agent;

void metrics_write(FILE *f, struct agent *a);
/** Every metric with type and meaning, a line each. */
void metrics_reference(FILE *to);
/** A label's value: backslash, quote and line feed are escaped. For tests. */
void metrics_label(FILE *f, const char *text);
