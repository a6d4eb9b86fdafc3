/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct table {
	char heads[512];
	const char *head[TABLE_COLUMNS_MAX];
	bool right[TABLE_COLUMNS_MAX];
	unsigned columns;
	char **cell;
	size_t n, cap;
};

/* Code points, which is what a terminal shows for the texts that occur here. */
static int width(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void clean(char *text)
{
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
		/* U+0080 to U+009F are controls too: C2 80 to C2 9F. */
		if ((unsigned char)text[0] == 0xc2 && (unsigned char)text[1] >= 0x80 &&
		    (unsigned char)text[1] < 0xa0)
			text[0] = text[1] = '?';
	}
}

void print_clean(FILE *to, const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		return;
	clean(copy);
	fputs(copy, to);
	free(copy);
}

struct table *table_new(const char *heads)
{
	struct table *t = calloc(1, sizeof(*t));
	char *save = NULL;

	if (t == NULL)
		return NULL;
	snprintf(t->heads, sizeof(t->heads), "%s", heads);
	for (char *h = strtok_r(t->heads, "|", &save); h != NULL && t->columns < TABLE_COLUMNS_MAX;
	     h = strtok_r(NULL, "|", &save)) {
		t->right[t->columns] = h[0] == '>';
		t->head[t->columns++] = h + (h[0] == '>');
	}
	return t;
}

void table_free(struct table *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t);
}

void table_cell(struct table *t, const char *text)
{
	char **grown;

	if (t->n == t->cap) {
		size_t cap = t->cap == 0 ? 64 : 2 * t->cap;

		grown = realloc(t->cell, cap * sizeof(*grown));
		if (grown == NULL)
			abort(); /* a tool that only prints: nothing is lost */
		t->cell = grown;
		t->cap = cap;
	}
	t->cell[t->n] = strdup(text == NULL || text[0] == '\0' ? "-" : text);
	if (t->cell[t->n] == NULL)
		abort();
	clean(t->cell[t->n++]);
}

void table_cell_format(struct table *t, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	table_cell(t, text);
}

static void print_row(const struct table *t, const char *const *cells, const int *wide, FILE *to)
{
	for (unsigned c = 0; c < t->columns; c++) {
		int pad = wide[c] - width(cells[c]);
		bool last = c + 1 == t->columns;

		if (t->right[c])
			fprintf(to, "%*s%s%s", pad, "", cells[c], last ? "" : "  ");
		else
			fprintf(to, "%s%*s%s", cells[c], last ? 0 : pad, "", last ? "" : "  ");
	}
	fputc('\n', to);
}

void table_print(const struct table *t, FILE *to)
{
	int wide[TABLE_COLUMNS_MAX];

	for (unsigned c = 0; c < t->columns; c++)
		wide[c] = width(t->head[c]);
	for (size_t i = 0; i < t->n; i++) {
		int w = width(t->cell[i]);

		if (w > wide[i % t->columns])
			wide[i % t->columns] = w;
	}
	print_row(t, t->head, wide, to);
	for (size_t i = 0; i + t->columns <= t->n; i += t->columns)
		print_row(t, (const char *const *)t->cell + i, wide, to);
}
