/* SPDX-License-Identifier: GPL-3.0-or-later */
/* table: aligned columns for people. Text from outside is cleaned: no control byte reaches the terminal. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 16

struct table;

/** @param heads  column heads, parted by '|'; a head that begins with '>' is a column of numbers, set to the right.
 *  @return NULL: out of memory. Caller owns, table_free() */
struct table *table_new(const char *heads);
void table_free(struct table *t); /* NULL is a no-op */
/** The next cell, row by row. Copied; NULL and "" print as "-". */
void table_cell(struct table *t, const char *text);
void table_cell_format(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *t, FILE *to); /* an empty table prints its heads */

/** Print text from outside: control bytes become '?'. */
void print_clean(FILE *to, const char *text);
