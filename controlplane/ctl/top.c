/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/top.h"

#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/ctl/ask.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/stats.h"

#define REFRESH_MS 1000
#define KEY_MS 100 /* a signal is noticed within so much */
#define FLOWS_ASKED 256
#define ROWS_PLAIN 50

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

struct reading {
	json_t *stats, *flows;
};

static void reading_free(struct reading *r)
{
	json_decref(r->stats);
	json_decref(r->flows);
	*r = (struct reading){0};
}

static int read_all(const struct args *a, const struct top_view *v, struct reading *r)
{
	json_t *stats = json_pack("{s:s}", "cmd", "stats");
	json_t *flows = json_pack("{s:s,s:i,s:s}", "cmd", "flows", "top", FLOWS_ASKED, "by",
				  v->by_packets ? "packets" : "bytes");
	int ret;

	*r = (struct reading){0};
	ret = ctl_ask_good(a, PEER_AGENT, stats, "top", &r->stats);
	if (ret == CTL_OK)
		ret = ctl_ask_good(a, PEER_AGENT, flows, "top", &r->flows);
	json_decref(stats);
	json_decref(flows);
	if (ret != CTL_OK)
		reading_free(r);
	return ret;
}

/* ---- plain ---- */

static void print_plain(const struct args *a, const struct top_view *v, const struct reading *old,
			const struct reading *new, FILE *to)
{
	json_t *rate = stats_rate(old->stats, new->stats);
	json_t *flows = top_flows(old->flows, new->flows);

	if (a->given & OPT_BIT(OPT_JSON)) {
		json_object_set(rate, "flows", flows);
		json_dumpf(rate, to, JSON_COMPACT);
		fputc('\n', to);
	} else {
		top_print(v, rate, flows, to);
	}
	fflush(to);
	json_decref(rate);
	json_decref(flows);
}

static int run_plain(const struct args *a, const struct top_view *v, unsigned times, FILE *to)
{
	const struct timespec wait = {.tv_sec = REFRESH_MS / 1000};
	struct reading old, new;
	int ret = read_all(a, v, &old);

	for (unsigned i = 0; i < times && ret == CTL_OK && !stopped; i++) {
		nanosleep(&wait, NULL);
		if (stopped)
			break;
		ret = read_all(a, v, &new);
		if (ret != CTL_OK)
			break;
		if (i > 0)
			fputc('\n', to);
		print_plain(a, v, &old, &new, to);
		reading_free(&old);
		old = new;
	}
	reading_free(&old);
	return ret;
}

/* ---- terminal ---- */

static void draw(const struct top_view *v, const json_t *rate, const json_t *flows)
{
	static const char keys[] =
		"q quit  a all  r rules  p pairs  d devices  f flows  x drops  s sort";
	struct top_view fit = *v;
	char *text = NULL, *save = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);
	int y = 0;

	if (f == NULL)
		return;
	fit.rows = LINES > 6 ? (unsigned)LINES - 6 : 1;
	top_print(&fit, rate, flows, f);
	if (fclose(f) != 0)
		return;
	erase();
	/* strtok_r() would swallow empty lines */
	for (char *line = text; line != NULL && y < LINES - 1; line = save, y++) {
		save = strchr(line, '\n');
		if (save != NULL)
			*save++ = '\0';
		mvaddnstr(y, 0, line, COLS);
	}
	attron(A_REVERSE);
	mvaddnstr(LINES - 1, 0, keys, COLS);
	attroff(A_REVERSE);
	refresh();
	free(text);
}

/* @return false: quit */
static bool key_pressed(int key, struct top_view *v)
{
	static const struct {
		char key;
		enum top_page page;
	} pages[] = {{'a', TOP_ALL},	 {'r', TOP_RULES}, {'p', TOP_PAIRS},
		     {'d', TOP_DEVICES}, {'f', TOP_FLOWS}, {'x', TOP_REASONS}};

	if (key == 'q')
		return false;
	if (key == 's')
		v->by_packets = !v->by_packets;
	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		if (pages[i].key == key)
			v->page = pages[i].page;
	}
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Draw at each key, and anew each second. @return exit code */
static int watch(const struct args *a, struct top_view *v, struct reading *old)
{
	json_t *rate = stats_rate(old->stats, old->stats), *flows = json_array();
	uint64_t next = now_ms() + REFRESH_MS;
	int ret = CTL_OK, key = ERR;

	while (!stopped && ret == CTL_OK && key_pressed(key, v)) {
		struct reading new;

		draw(v, rate, flows);
		do {
			key = getch();
		} while (key == ERR && !stopped && now_ms() < next);
		if (now_ms() < next || stopped)
			continue;
		next = now_ms() + REFRESH_MS;
		ret = read_all(a, v, &new);
		if (ret != CTL_OK)
			break;
		json_decref(rate);
		json_decref(flows);
		rate = stats_rate(old->stats, new.stats);
		flows = top_flows(old->flows, new.flows);
		reading_free(old);
		*old = new;
	}
	json_decref(rate);
	json_decref(flows);
	return ret;
}

static int run_terminal(const struct args *a, struct top_view *v)
{
	struct reading old;
	int ret = read_all(a, v, &old); /* what can go wrong goes wrong before the screen changes */
	SCREEN *screen;

	if (ret != CTL_OK)
		return ret;
	setlocale(LC_CTYPE, "");
	screen = newterm(NULL, stdout, stdin);
	if (screen == NULL) {
		reading_free(&old);
		fputs("sallyctl top: unknown terminal (TERM); use --once\n", stderr);
		return CTL_USAGE;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	timeout(KEY_MS);
	ret = watch(a, v, &old);
	endwin();
	delscreen(screen);
	reading_free(&old);
	return ret;
}

static void catch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction sa = {.sa_handler = on_signal};

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
}

int top_run(json_t *req, const struct args *a, const char *const *word, FILE *to)
{
	struct top_view v = {.page = TOP_ALL, .rows = ROWS_PLAIN};
	const char *by = a->value[OPT_BY];
	struct err err = {""};
	json_int_t times = 1;

	(void)word;
	if (by != NULL && strcmp(by, "packets") != 0 && strcmp(by, "bytes") != 0)
		err_set(&err, 0, "--by is packets or bytes");
	v.by_packets = by != NULL && strcmp(by, "packets") == 0;
	if (a->value[OPT_NUMBER] != NULL &&
	    args_number(req, "n", a->value[OPT_NUMBER], 1, 1000000, &err) == 0)
		times = json_integer_value(json_object_get(req, "n"));
	if (err.msg[0] != '\0') {
		fprintf(stderr, "sallyctl top: %s\ntry: sallyctl top --help\n", err.msg);
		return CTL_USAGE;
	}
	catch_signals();
	if (a->value[OPT_NUMBER] != NULL || (a->given & (OPT_BIT(OPT_ONCE) | OPT_BIT(OPT_JSON))) ||
	    !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		return run_plain(a, &v, (unsigned)times, to);
	return run_terminal(a, &v);
}
