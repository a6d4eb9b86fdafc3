/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1536

static const char *log_process = "sallyport";
static enum log_level log_least = LOG_LEVEL_INFO;
static bool log_journal;

static const struct {
	const char *word;
	int priority; /* sd-daemon(3) */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", 3},
	[LOG_LEVEL_WARN] = {"warn", 4},
	[LOG_LEVEL_INFO] = {"info", 6},
	[LOG_LEVEL_DEBUG] = {"debug", 7},
};

void log_init(const char *process, enum log_level level)
{
	log_process = process;
	log_least = level;
	log_journal = getenv("JOURNAL_STREAM") != NULL;
}

bool log_level_parse(const char *word, enum log_level *out)
{
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcmp(word, levels[i].word) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

static int log_prefix(char *line, size_t bytes, enum log_level level)
{
	struct timespec now;
	struct tm tm;
	char when[32];

	if (log_journal)
		return snprintf(line, bytes, "<%d>%s: ", levels[level].priority, log_process);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(line, bytes, "%s.%03ldZ %s %s: ", when, now.tv_nsec / 1000000,
			levels[level].word, log_process);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;
	int n, m;

	if (level > log_least)
		return;
	n = log_prefix(line, sizeof(line), level);
	va_start(ap, fmt);
	m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (m < 0)
		return;
	n += m;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* One write a line, so that processes that share a terminal do not mix theirs. Nobody can be told of a failure. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

const char *log_clean(char *out, unsigned long out_bytes, const char *text)
{
	unsigned long i = 0;

	for (; i + 1 < out_bytes && text[i] != '\0'; i++)
		out[i] = (text[i] >= 0x20 && text[i] < 0x7f) ? text[i] : '?';
	if (out_bytes > 0)
		out[i] = '\0';
	return out;
}
