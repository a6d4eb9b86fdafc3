/* SPDX-License-Identifier: GPL-3.0-or-later */
/* log: one line a happening on standard error, "level process: event key=value ...".
 * Under systemd (JOURNAL_STREAM set) lines carry the <N> priority of sd-daemon(3) and no time;
 * else a UTC time in front. Any thread; never from the packet path. */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/** Name the process and set the least important level that is printed. Call once, before threads. */
void log_init(const char *process, enum log_level level);

/** "error", "warn", "info", "debug" to a level. @return false if the word is none of them */
bool log_level_parse(const char *word, enum log_level *out);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__) /* somebody must act */
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__) /* refused, degraded, restored */
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__) /* state changes */
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/** Copy text that came from outside for a log line: control and non-ASCII bytes become '?'.
 * @return out, always terminated */
const char *log_clean(char *out, unsigned long out_bytes, const char *text);
